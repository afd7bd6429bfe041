//! Rooms that nobody of ours is in any more: relics that answer nothing, that nothing revives, and
//! that a join replaces. Spec-map LV8, pains C4 (the three cases of conduwuit's issue 411).

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId, server_name};
use exeunt_core::{CheckedPdu, Object};
use exeunt_room::{Intent, Preset, RoomError, inbound::MissingEvents};
use exeunt_sim::{
    Mesh, Server,
    events::{member_draft, message_draft},
    status,
};
use exeunt_store::records::RoomRecord;
use exeunt_store::tables;
use serde_json::json;

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
}

/// A public room of ann on `a` in which bob of `b` is, with cat of `c`.
async fn stage_in(version: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let [a, b, c] = ["a.example", "b.example", "c.example"].map(|name| mesh.server(name));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, version).await;
    for (server, user) in [(b, &bob), (c, &cat)] {
        server.join(user, &room, a).await.unwrap();
        mesh.settle().await;
    }
    Stage { mesh, room, ann, bob }
}

/// The same, and bob has left.
async fn detached_in(version: &str) -> Stage {
    let stage = stage_in(version).await;
    stage.b().leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    stage.mesh.net.take_requests();
    stage
}

impl Stage {
    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    fn c(&self) -> &Server {
        self.mesh.server("c.example")
    }

    async fn set(&self, kind: &str, content: serde_json::Value) {
        self.a().set(&self.ann, &self.room, kind, content).await;
        self.mesh.settle().await;
    }

    /// Bob joins, with whom the server knows, and over the network.
    async fn rejoins(&self) -> Result<(), RoomError> {
        self.mesh.net.take_requests();
        let joined = self.b().rooms.join(&self.bob, &self.room, &[], Object::new()).await;
        let requests = self.mesh.net.take_requests();
        let b = &self.b().name;
        assert!(requests.iter().any(|(from, _, what)| from == b && *what == "make_join"));
        self.mesh.settle().await;
        joined
    }

    /// The room is on `b` what it is on `a`, and works both ways.
    async fn assert_whole(&self) {
        assert_eq!(self.b().state(&self.room), self.a().state(&self.room));
        let head = |server: &Server| server.graph(&self.room, |g| g.room.extremities.clone());
        assert_eq!(head(self.b()), head(self.a()));
        self.b().say(&self.bob, &self.room, "here I am").await;
        self.mesh.settle().await;
        self.a().say(&self.ann, &self.room, "welcome").await;
        self.mesh.settle().await;
        assert!(self.b().messages(&self.room).ends_with(&["here I am".into(), "welcome".into()]));
        assert!(self.a().messages(&self.room).ends_with(&["here I am".into(), "welcome".into()]));
    }

    fn head_at_b(&self) -> RoomRecord {
        self.b().store.reader().get::<tables::Rooms>(&self.room).unwrap().unwrap()
    }
}

fn check<T: std::fmt::Debug>(result: Result<T, RoomError>, expected: u16, errcode: &str) {
    let (got, code) = status(result.expect_err("a refusal"));
    assert_eq!((got, code.as_str()), (expected, errcode));
}

const VERSIONS: [&str; 4] = ["1", "6", "10", "12"];

/// The first case: the others have changed the room since, and what is left of it says otherwise.
#[tokio::test]
async fn a_rejoin_goes_by_what_the_room_is_now() {
    for version in VERSIONS {
        let stage = detached_in(version).await;
        stage.set("m.room.join_rules", json!({ "join_rule": "invite" })).await;
        let refused = stage.rejoins().await;
        assert!(matches!(refused, Err(RoomError::EntryRefused { .. })), "in {version}");
        assert_eq!(stage.b().membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
        assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));

        stage.set("m.room.join_rules", json!({ "join_rule": "public" })).await;
        stage.set("m.room.topic", json!({ "topic": "new" })).await;
        stage.a().say(&stage.ann, &stage.room, "meanwhile").await;
        stage.mesh.settle().await;
        stage.rejoins().await.unwrap();
        stage.assert_whole().await;
    }
}

/// The second case: an invite to the relic is an invite to the room.
#[tokio::test]
async fn an_invite_after_the_last_one_left_is_not_lost() {
    for version in VERSIONS {
        let stage = detached_in(version).await;
        stage.set("m.room.join_rules", json!({ "join_rule": "invite" })).await;
        for _ in 0..2 {
            stage.a().invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
            assert!(stage.b().is_pending(&stage.bob, &stage.room), "in {version}");
            assert_eq!(stage.b().membership(&stage.bob, &stage.room).as_deref(), Some("invite"));
            stage.rejoins().await.unwrap();
            stage.assert_whole().await;
            stage.b().leave(&stage.bob, &stage.room).await.unwrap();
            stage.mesh.settle().await;
        }
        // One that is rejected, too.
        stage.a().invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
        stage.b().leave(&stage.bob, &stage.room).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
        assert!(!stage.b().is_pending(&stage.bob, &stage.room));
    }
}

/// The third case: nobody tells us that a ban is lifted.
#[tokio::test]
async fn who_is_unbanned_can_come_back() {
    for version in VERSIONS {
        for banned_when_inside in [true, false] {
            let stage = match banned_when_inside {
                true => stage_in(version).await,
                false => detached_in(version).await,
            };
            let (a, b) = (stage.a(), stage.b());
            a.rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
            stage.mesh.settle().await;
            assert!(stage.rejoins().await.is_err());
            let told = if banned_when_inside { "ban" } else { "leave" };
            assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some(told));
            a.rooms.unban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
            stage.mesh.settle().await;
            stage.rejoins().await.unwrap();
            stage.assert_whole().await;

            a.rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
            stage.mesh.settle().await;
            assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("ban"));
            a.rooms.unban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
            stage.mesh.settle().await;
            a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
            assert!(b.is_pending(&stage.bob, &stage.room), "TestUnbanViaInvite");
            stage.rejoins().await.unwrap();
            stage.assert_whole().await;
        }
    }
}

/// Neither what others say there, nor a replay of what was ours, wakes the room.
#[tokio::test]
async fn a_stray_event_revives_nothing() {
    for version in VERSIONS {
        let stage = stage_in(version).await;
        let (a, b) = (stage.a(), stage.b());
        let join = b.graph(&stage.room, |graph| {
            graph.current("m.room.member", stage.bob.as_str()).unwrap().unwrap()
        });
        // Bob's own, from before he left, that nobody has seen.
        let late = b.sign(member_draft(b, &stage.room, &stage.bob, &stage.bob, "join"));
        b.leave(&stage.bob, &stage.room).await.unwrap();
        stage.mesh.settle().await;
        let (before, shown) = (stage.head_at_b(), b.timeline(&stage.room));
        let message = a.sign(message_draft(a, &stage.room, &stage.ann, "stray"));
        let kick = a.sign(member_draft(a, &stage.room, &stage.ann, &stage.bob, "leave"));
        let ban = a.sign(member_draft(a, &stage.room, &stage.ann, &stage.bob, "ban"));
        let invite = a.sign(member_draft(a, &stage.room, &stage.ann, &stage.bob, "invite"));
        let join = CheckedPdu::trusted(join);
        for (txn, event) in [&message, &kick, &ban, &invite, &join, &late].into_iter().enumerate() {
            for from in [a, stage.c()] {
                b.receive(from, &format!("{}{txn}", from.name), &[event]).await;
            }
        }
        b.rooms.inbound_idle().await;
        let after = stage.head_at_b();
        assert_eq!((after.extremities, after.state), (before.extremities, before.state));
        assert_eq!(b.timeline(&stage.room), shown);
        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
        assert!(!b.is_pending(&stage.bob, &stage.room));
        assert!(b.rooms.joined_rooms(&stage.bob).await.unwrap().is_empty());
    }
}

/// LV8, ML6: the relic answers no server, and lets no user of ours do anything.
#[tokio::test]
async fn a_relic_answers_nothing() {
    let stage = detached_in("12").await;
    let (a, b) = (stage.a(), stage.b());
    let entry = b.rooms.admit(&a.name, &stage.room).await.unwrap();
    let (abe, versions) = (a.user("abe"), ["12".to_owned()]);
    check(b.rooms.make_join(&entry, &abe, &versions).await, 404, "M_NOT_FOUND");
    check(b.rooms.make_leave(&entry, &stage.ann).await, 404, "M_NOT_FOUND");
    let join = a.sign(member_draft(a, &stage.room, &abe, &abe, "join"));
    let sent = b.rooms.send_join(&entry, join.event_id(), join.object().clone(), false).await;
    check(sent, 404, "M_NOT_FOUND");
    let leave = a.sign(member_draft(a, &stage.room, &stage.ann, &stage.ann, "leave"));
    let sent = b.rooms.send_leave(&entry, leave.event_id(), leave.object().clone()).await;
    check(sent, 404, "M_NOT_FOUND");
    let head = stage.head_at_b().extremities[0].clone();
    let missing = MissingEvents {
        latest: vec![head.clone()],
        earliest: Vec::new(),
        limit: None,
        min_depth: 0,
    };
    // But for what is before our last events, to those who were there (decision 0017).
    assert!(b.rooms.missing_events_for_server(&entry, missing.clone()).await.is_ok());
    let stranger = server_name!("d.example");
    let stranger = b.rooms.admit(stranger, &stage.room).await.unwrap();
    check(b.rooms.missing_events_for_server(&stranger, missing).await, 403, "M_FORBIDDEN");
    assert!(b.rooms.backfill_for_server(&entry, &[head], 10).await.is_err());

    let message = Intent::message(stage.bob.clone(), "m.room.message", Object::new());
    check(b.rooms.append(&stage.room, message).await, 403, "M_FORBIDDEN");
    check(b.invite(&stage.bob, &b.user("ben"), &stage.room).await, 403, "M_FORBIDDEN");
    check(b.invite(&stage.bob, &abe, &stage.room).await, 403, "M_FORBIDDEN");
    check(b.rooms.kick(&stage.bob, &stage.ann, &stage.room, None).await, 403, "M_FORBIDDEN");
    assert!(b.outbox(a).is_empty() && b.outbox(stage.c()).is_empty());
}

/// One whom a user of ours invited, who has left since: the invite is known to the others.
#[tokio::test]
async fn an_invite_by_the_last_one_of_ours_still_leads_in() {
    for version in VERSIONS {
        let stage = stage_in(version).await;
        let (a, b) = (stage.a(), stage.b());
        let [ben, bea] = ["ben", "bea"].map(|name| b.user(name));
        stage.set("m.room.power_levels", json!({
            "invite": 0,
            "users": if version == "12" { json!({}) } else { json!({ stage.ann.as_str(): 100 }) },
        })).await;
        for user in [&ben, &bea] {
            b.invite(&stage.bob, user, &stage.room).await.unwrap();
        }
        b.leave(&stage.bob, &stage.room).await.unwrap();
        stage.mesh.settle().await;
        stage.set("m.room.join_rules", json!({ "join_rule": "invite" })).await;
        b.rooms.join(&ben, &stage.room, &[], Object::new()).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(a.in_state(&ben, &stage.room).as_deref(), Some("join"), "in {version}");
        assert_eq!(a.state(&stage.room), b.state(&stage.room));
        // And who does not want to, with somebody of ours inside again.
        b.leave(&bea, &stage.room).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(a.in_state(&bea, &stage.room).as_deref(), Some("leave"));
    }
}
