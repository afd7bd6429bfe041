//! What the simulation found (docs/simulation.md), without its seeds.

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_room::{
    Intent, Preset,
    inbound::{LEAVE_ARRIVES_WITHIN_MS, Transaction},
};
use exeunt_sim::{
    Fault, Mesh, Server,
    events::{member_draft, message_draft, object},
    status,
};
use exeunt_store::tables;
use serde_json::json;

pub(super) struct Stage {
    pub mesh: Mesh,
    pub room: OwnedRoomId,
    pub ann: OwnedUserId,
    pub bob: OwnedUserId,
}

/// Ann (a) has a public room; nobody of b and c is in it yet.
pub(super) async fn stage(version: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = a.room(&ann, Preset::Public, version).await;
    Stage { mesh, room, ann, bob }
}

impl Stage {
    pub fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    pub fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    pub fn c(&self) -> &Server {
        self.mesh.server("c.example")
    }
}

/// Seed 17: a resolution took the user's join out of the state and left nothing in its place; the
/// user stayed in the room for their clients, and could say nothing there.
#[tokio::test]
async fn whose_join_a_resolution_takes_out_is_out() {
    let stage = stage("11").await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    let cat = c.user("cat");
    c.join(&cat, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    stage.mesh.net.cut(&a.name, &c.name);
    stage.mesh.net.cut(&c.name, &a.name);
    let closed = json!({ "join_rule": "invite" });
    a.set(&stage.ann, &stage.room, "m.room.join_rules", closed).await;
    b.join(&stage.bob, &stage.room, c).await.unwrap();
    stage.mesh.net.restore(&a.name, &c.name);
    stage.mesh.net.restore(&c.name, &a.name);
    a.say(&stage.ann, &stage.room, "closed").await;
    stage.mesh.settle().await;
    c.say(&cat, &stage.room, "on both sides").await;
    stage.mesh.settle().await;

    assert_eq!(c.in_state(&stage.bob, &stage.room), None);
    let there = b.in_state(&stage.bob, &stage.room).unwrap_or("leave".into());
    assert_eq!(b.membership(&stage.bob, &stage.room), Some(there));
}

/// Seed 12: once the create event was redacted, it named no room version any more, and nobody could
/// join the room ever after.
#[tokio::test]
async fn a_create_event_cannot_be_redacted() {
    for version in ["1", "6", "10", "11", "12"] {
        let stage = stage(version).await;
        let create = stage.a().graph(&stage.room, |graph| graph.room.create_event.clone());
        let content = object(json!({ "redacts": create }));
        let intent = Intent::message(stage.ann.clone(), "m.room.redaction", content);
        let intent = Intent { redacts: Some(create), ..intent };

        let refused = stage.a().rooms.append(&stage.room, intent).await.unwrap_err();

        assert_eq!(status(refused).0, 403, "version {version}");
        stage.b().join(&stage.bob, &stage.room, stage.a()).await.unwrap();
    }
}

/// Seed 25: an event that came while the server of its user was down could not be checked, and was
/// dropped for good. Whoever passes it on has its keys.
#[tokio::test(start_paused = true)]
async fn an_event_of_a_server_that_is_down_is_checked_with_keys_of_who_passes_it_on() {
    let stage = stage("11").await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    b.join(&stage.bob, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    let cat = c.user("cat");
    stage.mesh.net.cut(&b.name, &c.name);
    stage.mesh.net.cut(&c.name, &b.name);
    c.join(&cat, &stage.room, a).await.unwrap();

    stage.mesh.settle().await;

    assert_eq!(b.in_state(&cat, &stage.room).as_deref(), Some("join"));
}

/// The same where nobody has the keys: the event waits until they can be had.
#[tokio::test(start_paused = true)]
async fn an_event_waits_for_the_keys_of_its_server() {
    let stage = stage("11").await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    b.join(&stage.bob, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    let cat = c.user("cat");
    c.join(&cat, &stage.room, a).await.unwrap();
    stage.mesh.net.cut(&b.name, &c.name);
    let refused = Fault::refused(500, "M_UNKNOWN");
    stage.mesh.net.fail_next(&a.name, "notary", refused);
    stage.mesh.settle().await;
    assert_eq!(b.in_state(&cat, &stage.room), None);
    let waiting = || b.store.reader().scan::<tables::InboundQueue>(()).keys().unwrap().len();
    assert_eq!(waiting(), 1);

    stage.mesh.net.restore(&b.name, &c.name);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    stage.mesh.clock.advance(600_000);
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;

    assert_eq!(waiting(), 0);
    assert_eq!(b.in_state(&cat, &stage.room).as_deref(), Some("join"));
}

/// Seeds 2, 5, 11, 13: the answer to a join was lost, so that the room had an event signed by a
/// server whose journal did not know of it.
#[tokio::test]
async fn what_is_signed_is_journaled_before_it_leaves() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    stage.mesh.net.fail_next(&a.name, "send_join", Fault::AnswerLost);
    b.join(&stage.bob, &stage.room, a).await.unwrap_err();
    let join = a.graph(&stage.room, |graph| {
        graph.current("m.room.member", stage.bob.as_str()).unwrap().unwrap()
    });
    assert_eq!(join.membership(), Some("join"));
    assert_eq!(b.signed_as(&join), ["join"]);
}

/// Seeds 254 and 297: an invite went into the graph with another user's join; when that user had
/// left, the rejection was noted here only, and the room showed the invite for ever.
#[tokio::test]
async fn an_invite_outlives_the_stay_of_another_user_and_is_rejected_everywhere() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    let bea = b.user("bea");
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    b.join(&bea, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    b.leave(&bea, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("invite"));

    b.leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;

    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
    assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
}

/// Seeds 181 and 284: the inviter's server never had the answer to its invite, and knew nothing of
/// it; once another user of the invited server was in the room, the invite could not be rejected.
#[tokio::test]
async fn an_invite_that_nobody_else_knows_of_can_be_rejected() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    let bea = b.user("bea");
    stage.mesh.net.fail_next(&b.name, "invite", Fault::AnswerLost);
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap_err();
    b.join(&bea, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;

    b.leave(&stage.bob, &stage.room).await.unwrap();

    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
    assert!(!b.is_pending(&stage.bob, &stage.room));
}

/// Seeds 1000 and 1958: an invite was taken back while another user of its server was joining; the
/// withdrawal waited for the join, in memory, and was lost with a crash.
#[tokio::test]
async fn a_withdrawal_does_not_wait_for_a_join() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    let bea = b.user("bea");
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    let kick = a.rooms.kick(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    a.forget_outbox(b).await;
    let pdus = vec![a.event(&kick).unwrap().pdu.object().clone().into()];
    let (rooms, store, from) = (b.rooms.clone(), b.store.clone(), a.name.clone());
    let key = (stage.bob.clone(), stage.room.clone());
    let meanwhile = Fault::meanwhile(move || {
        let (rooms, store, from, key) = (rooms.clone(), store.clone(), from.clone(), key.clone());
        let transaction = Transaction { pdus: pdus.clone(), edus: Vec::new() };
        Box::pin(async move {
            rooms.receive_transaction(&from, "kick", transaction).await.unwrap();
            let row = store.reader().get::<tables::Memberships>(&key).unwrap().unwrap();
            assert_eq!(row.membership, "leave", "before the transaction is answered");
        })
    });
    stage.mesh.net.fail_next(&a.name, "make_join", meanwhile);

    b.join(&bea, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;

    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
    assert_eq!(b.membership(&bea, &stage.room).as_deref(), Some("join"));
}

/// Seed 397: the invited user was banned while their server signed the invite. The room did not take
/// it, and the server was not told.
#[tokio::test(start_paused = true)]
async fn an_invite_that_the_room_refuses_once_it_is_signed_goes_away() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    let (rooms, ann, bob) = (a.rooms.clone(), stage.ann.clone(), stage.bob.clone());
    let room = stage.room.clone();
    let meanwhile = Fault::meanwhile(move || {
        let (rooms, ann, bob, room) = (rooms.clone(), ann.clone(), bob.clone(), room.clone());
        Box::pin(async move {
            rooms.ban(&ann, &bob, &room, None).await.unwrap();
        })
    });
    stage.mesh.net.fail_next(&b.name, "invite", meanwhile);
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap_err();
    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("invite"));

    stage.mesh.settle().await;
    b.rooms.probes_idle().await;

    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("ban"));
    assert!(!b.is_pending(&stage.bob, &stage.room));
}

/// Seeds 949 and 1855: a server in the room signed the invite, to be shown once the room tells of it.
/// By then the last of its users had left.
#[tokio::test]
async fn an_invite_that_comes_when_its_server_has_left_is_shown() {
    for version in ["1", "11", "12"] {
        let stage = stage(version).await;
        let (a, b) = (stage.a(), stage.b());
        let bea = b.user("bea");
        // An earlier one, which was rejected from outside.
        a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
        b.leave(&stage.bob, &stage.room).await.unwrap();
        b.join(&bea, &stage.room, a).await.unwrap();
        stage.mesh.settle().await;
        a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
        b.leave(&bea, &stage.room).await.unwrap();

        stage.mesh.settle().await;

        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("invite"));
        b.leave(&stage.bob, &stage.room).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
    }
}

/// The same event does not come back once it was rejected, and one that we did not sign does not
/// come at all.
#[tokio::test]
async fn what_is_no_late_invite_is_not_shown() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    let bea = b.user("bea");
    b.join(&bea, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    let invite = a.graph(&stage.room, |graph| {
        graph.current("m.room.member", stage.bob.as_str()).unwrap().unwrap()
    });
    b.leave(&bea, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    b.leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    let ben = b.user("ben");
    let unsigned = a.sign(member_draft(a, &stage.room, &stage.ann, &ben, "invite"));

    b.receive(a, "late", &[&invite, &unsigned]).await;

    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
    assert_eq!(b.membership(&ben, &stage.room), None);
}

/// Seed 1137: the same where the inviter's server knew that the other one had left before it placed
/// the invite, and so did not send it there.
#[tokio::test]
async fn an_invite_is_sent_to_a_server_that_leaves_as_it_signs() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    let bea = b.user("bea");
    b.join(&bea, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    let (theirs, ours, from) = (b.rooms.clone(), a.rooms.clone(), b.name.clone());
    let (store, room) = (b.store.clone(), stage.room.clone());
    let meanwhile = Fault::meanwhile(move || {
        let (theirs, ours, from) = (theirs.clone(), ours.clone(), from.clone());
        let (store, room, bea) = (store.clone(), room.clone(), bea.clone());
        Box::pin(async move {
            theirs.leave(&bea, &room, None).await.unwrap();
            let key = (bea, room);
            let row = store.reader().get::<tables::Memberships>(&key).unwrap().unwrap();
            let leave = store.reader().get::<tables::Events>(&row.event_id).unwrap().unwrap();
            let pdus = vec![serde_json::from_str(leave.json.get()).unwrap()];
            let leave = Transaction { pdus, edus: Vec::new() };
            ours.receive_transaction(&from, "leave", leave).await.unwrap();
        })
    });
    stage.mesh.net.fail_next(&b.name, "invite", meanwhile);

    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;

    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("invite"));
    assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("invite"));
}

/// Ann names the room while nothing passes between a and b; cat joins and says something. Bob's
/// server hears of the name in the state that cat's server tells.
async fn told_of_a_name_by_another() -> Stage {
    let stage = stage("11").await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    b.join(&stage.bob, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    stage.mesh.net.cut(&a.name, &b.name);
    stage.mesh.net.cut(&b.name, &a.name);
    a.set(&stage.ann, &stage.room, "m.room.name", json!({ "name": "told" })).await;
    c.join(&c.user("cat"), &stage.room, a).await.unwrap();
    stage
}

impl Stage {
    /// The room's name as b has it, after a message of cat's.
    async fn name_after(&self, text: &str) -> Option<String> {
        let c = self.c();
        c.say(&c.user("cat"), &self.room, text).await;
        self.mesh.settle().await;
        let name = |event: exeunt_core::Pdu| event.content_str("name").map(str::to_owned);
        self.b().graph(&self.room, |graph| graph.current("m.room.name", "").unwrap().and_then(name))
    }
}

/// Seeds 803, 860, 1313 and 1325: what nobody gave as history counted as absent when it was
/// asked for by itself, and the room's state lacked it for good.
#[tokio::test]
async fn what_is_no_history_of_a_server_is_had_from_it_for_a_state() {
    let stage = told_of_a_name_by_another().await;

    let name = stage.name_after("hello").await;

    assert_eq!(stage.b().messages(&stage.room), ["hello"]);
    assert_eq!(name.as_deref(), Some("told"));
}

/// The same where the event was not given in time: such a state is not used.
#[tokio::test]
async fn a_state_whose_events_were_not_given_is_not_used() {
    let stage = told_of_a_name_by_another().await;
    stage.mesh.net.fail_next(&stage.c().name, "event", exeunt_sim::Fault::AnswerLost);
    stage.name_after("hello").await;
    assert!(stage.b().messages(&stage.room).is_empty());

    let name = stage.name_after("again").await;

    assert_eq!(stage.b().messages(&stage.room), ["hello", "again"]);
    assert_eq!(name.as_deref(), Some("told"));
}

/// Seed 953: who was in the room when the user left had left it, too, before they had the leave, and
/// a server that they had let in meanwhile took the user for joined for ever.
#[tokio::test]
async fn a_leave_comes_to_a_server_that_was_let_in_meanwhile() {
    for (version, is_purged) in
        [("2", false), ("11", false), ("12", false), ("2", true), ("12", true)]
    {
        let stage = stage(version).await;
        let (a, b, c) = (stage.a(), stage.b(), stage.c());
        let cat = c.user("cat");
        b.join(&stage.bob, &stage.room, a).await.unwrap();
        stage.mesh.settle().await;
        stage.mesh.net.cut(&b.name, &a.name);
        b.leave(&stage.bob, &stage.room).await.unwrap();
        c.join(&cat, &stage.room, a).await.unwrap();
        a.leave(&stage.ann, &stage.room).await.unwrap();
        stage.mesh.net.restore(&b.name, &a.name);
        stage.mesh.settle().await;
        assert_eq!(c.in_state(&stage.bob, &stage.room).as_deref(), Some("join"));

        stage.mesh.clock.advance(LEAVE_ARRIVES_WITHIN_MS);
        if is_purged {
            b.rooms.forget(&stage.bob, &stage.room).await.unwrap();
            b.rooms.purge_forgotten(&stage.room).await.unwrap();
            let rooms = b.store.reader().scan::<tables::Rooms>(()).keys().unwrap();
            assert!(!rooms.contains(&stage.room));
        }
        // One who knows nothing of the room is told nothing.
        let mut foreign = message_draft(c, &stage.room, &cat, "there");
        foreign.auth_events.clear();
        b.receive(c, "foreign", &[&c.sign(foreign)]).await;
        assert_eq!(b.store.reader().scan::<tables::Departures>(()).keys().unwrap(), []);
        c.say(&cat, &stage.room, "alone").await;
        stage.mesh.settle().await;

        assert_eq!(c.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"), "{version}");
    }
}
