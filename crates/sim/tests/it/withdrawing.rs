//! Withdrawals that prove nothing when they come: rows RS3, RS6 and RS7.

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_core::{CheckedPdu, Draft, Object};
use exeunt_room::{
    Call, Preset,
    inbound::{
        InboundInvite, MAX_DOUBTS_PER_SERVER, MAX_WITHDRAWALS_PER_INVITE, WITHDRAWAL_LIFE_MS,
    },
    reports::{Invite, invites},
    standing::Standing,
};
use exeunt_sim::{Fault, Mesh, Scripted, Server, events::member_draft};
use exeunt_store::{records::WithdrawalRecord, tables};
use serde_json::{Value, json};

/// Ann's room on `a` with cat of `c`, who may kick; bob of `b` is outside.
struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    cat: OwnedUserId,
}

async fn stage_in(version: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, c) = (mesh.server("a.example"), mesh.server("c.example"));
    let (ann, cat) = (a.user("ann"), c.user("cat"));
    let bob = mesh.server("b.example").user("bob");
    let room = a.room(&ann, Preset::Public, version).await;
    c.join(&cat, &room, a).await.unwrap();
    let mut users = json!({ cat.as_str(): 60 });
    if version != "12" {
        users[ann.as_str()] = 100.into();
    }
    a.set(&ann, &room, "m.room.power_levels", json!({ "users": users, "kick": 50 })).await;
    mesh.settle().await;
    mesh.net.take_requests();
    Stage { mesh, room, ann, bob, cat }
}

async fn stage() -> Stage {
    stage_in("12").await
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

    fn bobs(&self) -> Option<String> {
        self.b().membership(&self.bob, &self.room)
    }

    /// Hands ann's invite to bob's server.
    async fn hand(&self, invite: &CheckedPdu) {
        let entry = self.b().rooms.admit(&self.a().name, &self.room).await.unwrap();
        let create = self.a().graph(&self.room, |graph| graph.create().unwrap());
        let body = InboundInvite {
            room_version: invite.version().as_str().into(),
            event: invite.object().clone(),
            invite_room_state: json!([create.object()]),
        };
        let signed = self.b().rooms.receive_invite(&entry, invite.event_id(), body).await;
        assert_eq!(signed.unwrap().event_id(), invite.event_id());
    }

    fn marks(&self, from: &Server) -> Vec<WithdrawalRecord> {
        let reader = self.b().store.reader();
        let rows = reader.scan::<tables::Withdrawals>(from.name.clone()).collect();
        rows.unwrap().into_iter().map(|(_, record)| record).collect()
    }

    /// An invite that nobody has placed, and its withdrawal.
    fn invite_and_withdrawal(&self, membership: &str) -> (CheckedPdu, CheckedPdu) {
        let a = self.a();
        let invite = a.sign(member_draft(a, &self.room, &self.ann, &self.bob, "invite"));
        let mut draft = member_draft(a, &self.room, &self.ann, &self.bob, membership);
        draft.auth_events.push((&*invite).into());
        (invite, a.sign(draft))
    }

    /// What the admin is told of invites.
    fn reported(&self) -> Vec<Invite> {
        invites(&self.b().store.reader(), None, self.mesh.clock.now()).unwrap()
    }

    /// Lets the questions be asked that are asked over hours.
    async fn wait(&self) {
        self.b().rooms.probes_idle().await;
    }
}

/// RS6, RS7: the withdrawal overtakes its invite, which then never shows.
#[tokio::test]
async fn rs6_an_invite_that_was_withdrawn_before_it_came_does_not_show() {
    for version in ["1", "10", "12"] {
        for membership in ["leave", "ban"] {
            let mut stage = stage_in(version).await;
            let (invite, withdrawal) = stage.invite_and_withdrawal(membership);
            stage.b().receive(stage.a(), "1", &[&withdrawal]).await;
            stage.b().rooms.sweep_withdrawals().await.unwrap();
            assert_eq!((stage.bobs(), stage.marks(stage.a()).len()), (None, 1));
            stage.mesh.restart("b.example");
            for _ in 0..2 {
                stage.hand(&invite).await;
                assert_eq!(stage.bobs(), None, "{membership} in version {version}");
                assert!(!stage.b().is_pending(&stage.bob, &stage.room));
            }
            // Another invite is another matter.
            let draft = member_draft(stage.a(), &stage.room, &stage.ann, &stage.bob, "invite");
            let again = stage.a().sign(Draft { origin_server_ts: 5, ..draft });
            stage.hand(&again).await;
            assert_eq!(stage.bobs().as_deref(), Some("invite"));
        }
    }
}

/// What somebody else says in advance of an invite does not stop it, nor what is forged or old.
#[tokio::test]
async fn rs6_only_the_inviter_withdraws_in_advance() {
    let stage = stage().await;
    let (a, c) = (stage.a(), stage.c());
    let (invite, withdrawal) = stage.invite_and_withdrawal("leave");
    // Somebody else's, somebody else's by the inviter's server, unsigned, of another invite.
    let by = |server: &Server, sender: &OwnedUserId| {
        let mut draft = member_draft(a, &stage.room, sender, &stage.bob, "leave");
        draft.auth_events.push((&*invite).into());
        server.sign(draft)
    };
    let other = a.sign(member_draft(a, &stage.room, &stage.ann, &stage.bob, "leave"));
    let mut unsigned = withdrawal.object().clone();
    unsigned["signatures"] = json!({});
    let unsigned = exeunt_core::Pdu::from_object(invite.version(), unsigned).unwrap();
    stage.b().receive(c, "1", &[&by(c, &stage.cat), &withdrawal]).await;
    stage.b().receive(a, "2", &[&by(a, &a.user("amy")), &other, &unsigned]).await;
    stage.hand(&invite).await;
    assert_eq!(stage.bobs().as_deref(), Some("invite"));

    let stage = self::stage().await;
    let (invite, withdrawal) = stage.invite_and_withdrawal("leave");
    stage.b().receive(stage.a(), "1", &[&withdrawal]).await;
    stage.mesh.clock.advance(WITHDRAWAL_LIFE_MS);
    stage.hand(&invite).await;
    assert_eq!(stage.bobs().as_deref(), Some("invite"));
}

/// What a server can have us keep is bounded, and its own.
#[tokio::test]
async fn rs6_what_is_kept_is_bounded() {
    let stage = stage().await;
    let (a, c) = (stage.a(), stage.c());
    let (invite, withdrawal) = stage.invite_and_withdrawal("leave");
    stage.b().receive(a, "0", &[&withdrawal]).await;
    for txn in 0..5 {
        let of_many = |i| {
            let target = stage.b().user(&format!("user{txn}-{i}"));
            c.sign(member_draft(a, &stage.room, &stage.cat, &target, "leave"))
        };
        let events: Vec<_> = (0..30).map(of_many).collect();
        let events: Vec<_> = events.iter().map(|event| event.pdu()).collect();
        stage.b().receive(c, &txn.to_string(), &events).await;
    }
    assert_eq!(stage.marks(c).len(), MAX_DOUBTS_PER_SERVER);
    let of_one = |at| {
        let draft = member_draft(a, &stage.room, &stage.cat, &stage.bob, "leave");
        c.sign(Draft { origin_server_ts: at, ..draft })
    };
    let events: Vec<_> = (0..10).map(of_one).collect();
    let events: Vec<_> = events.iter().map(|event| event.pdu()).collect();
    stage.b().receive(c, "more", &events).await;
    let most = stage.marks(c).iter().map(|mark| mark.events.len()).max();
    assert_eq!(most, Some(MAX_WITHDRAWALS_PER_INVITE));
    let draft = member_draft(a, &stage.room, &stage.cat, &stage.b().user("large"), "leave");
    let mut content: Object = draft.content.clone();
    content.insert("reason".into(), "x".repeat(20_000).into());
    let large = c.sign(Draft { content, ..draft });
    stage.b().receive(c, "large", &[&large]).await;
    let kept = |mark: &WithdrawalRecord| mark.events.iter().any(|e| e.event == *large.object());
    assert!(!stage.marks(c).iter().any(kept));
    // None of which takes the inviter's word away.
    stage.hand(&invite).await;
    assert_eq!(stage.bobs(), None);
}

/// RS3: a moderator on another server than the inviter's kicks; the inviter's server, asked,
/// confirms that the invite is gone.
#[tokio::test(start_paused = true)]
async fn rs3_the_inviters_server_is_asked() {
    for ban in [false, true] {
        let stage = stage().await;
        stage.a().invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(stage.bobs().as_deref(), Some("invite"));
        let rooms = &stage.c().rooms;
        match ban {
            true => rooms.ban(&stage.cat, &stage.bob, &stage.room, None).await.unwrap(),
            false => rooms.kick(&stage.cat, &stage.bob, &stage.room, None).await.unwrap(),
        };
        stage.mesh.settle().await;
        stage.wait().await;
        assert_eq!(stage.bobs().as_deref(), Some(if ban { "ban" } else { "leave" }));
        assert_eq!(stage.b().row(&stage.bob, &stage.room).unwrap().sender, stage.cat);
        let word = "the word of a server of the room, asked twice";
        assert_eq!(stage.b().last_decision(&stage.bob, &stage.room), ("probe".into(), word));
        assert!(!stage.b().is_pending(&stage.bob, &stage.room));
        assert!(stage.marks(stage.c()).is_empty());
        assert!(stage.mesh.net.take_requests().iter().all(|r| r.2 != "send_leave"));
    }
}

/// A doubt ends with the invite that it is about, and another invite is not in doubt for it. Without
/// either it ends with time.
#[tokio::test(start_paused = true)]
async fn a_doubt_ends_with_its_invite() {
    for answered in ["probed", "swept", "replaced", "expired"] {
        let mut stage = stage().await;
        let invite = async |stage: &Stage| {
            stage.a().invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
            stage.mesh.settle().await;
        };
        invite(&stage).await;
        // Nobody answers the question.
        stage.mesh.net.cut(&stage.b().name, &stage.a().name);
        let kick = member_draft(stage.a(), &stage.room, &stage.cat, &stage.bob, "leave");
        let kick = stage.c().sign(kick);
        stage.b().receive(stage.c(), "1", &[&kick]).await;
        assert!(stage.reported()[0].doubted_since.is_some());
        if answered == "expired" {
            stage.mesh.clock.advance(WITHDRAWAL_LIFE_MS);
            assert_eq!(stage.reported()[0].doubted_since, None);
            assert_eq!(stage.marks(stage.c()).len(), 1);
            stage.b().rooms.sweep_withdrawals().await.unwrap();
            assert!(stage.marks(stage.c()).is_empty());
            assert!(stage.b().is_pending(&stage.bob, &stage.room));
            continue;
        }
        if answered != "probed" {
            // Nobody asks any more.
            stage.mesh.restart("b.example");
        }
        stage.b().rooms.sweep_withdrawals().await.unwrap();
        assert_eq!(stage.marks(stage.c()).len(), 1, "nothing was answered");
        stage.b().leave(&stage.bob, &stage.room).await.unwrap();
        stage.mesh.net.restore(&stage.b().name, &stage.a().name);
        stage.mesh.settle().await;
        if answered == "replaced" {
            invite(&stage).await;
            assert_eq!(stage.bobs().as_deref(), Some("invite"));
            assert_eq!(stage.reported()[0].doubted_since, None);
        }
        match answered {
            "probed" => stage.wait().await,
            _ => stage.b().rooms.sweep_withdrawals().await.unwrap(),
        }
        assert!(stage.marks(stage.c()).is_empty(), "{answered}");
    }
}

/// RS3: a false word does not end an invite that stands, and has few requests made.
#[tokio::test(start_paused = true)]
async fn rs3_an_invite_that_stands_stays() {
    let stage = stage().await;
    let c = stage.c();
    stage.a().invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    stage.mesh.net.take_requests();
    let kick = |at| {
        let draft = member_draft(stage.a(), &stage.room, &stage.cat, &stage.bob, "leave");
        c.sign(Draft { origin_server_ts: at, ..draft })
    };
    for txn in 0..10 {
        let answer = stage.b().receive(c, &txn.to_string(), &[&kick(txn)]).await;
        let reported = stage.reported();
        assert!(reported[0].doubted_since.is_some());
        assert!(answer.values().all(|outcome: &Value| outcome["error"].is_string()));
    }
    assert_eq!(stage.marks(c).len(), 1, "marked until it is known");
    stage.wait().await;
    assert_eq!(stage.bobs().as_deref(), Some("invite"));
    assert!(stage.b().is_pending(&stage.bob, &stage.room));
    assert!(stage.marks(c).is_empty());
    assert_eq!(stage.reported()[0].doubted_since, None);
    let asked = stage.mesh.net.take_requests().into_iter().filter(|r| r.2 == "make_leave").count();
    assert_eq!(asked, 5);
}

/// RS3: a fresh invite that the inviter's server has not placed yet is not given up for it.
#[tokio::test(start_paused = true)]
async fn rs3_one_refusal_is_not_enough() {
    let stage = stage().await;
    stage.a().invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    stage.mesh.net.fail_next(&stage.a().name, "make_leave", Fault::refused(403, "M_FORBIDDEN"));
    let kick = member_draft(stage.a(), &stage.room, &stage.cat, &stage.bob, "leave");
    stage.b().receive(stage.c(), "1", &[&stage.c().sign(kick)]).await;
    stage.wait().await;
    assert_eq!(stage.bobs().as_deref(), Some("invite"));
}

/// RS3: without a clear answer the mark stays, and the question is taken up after a restart. A
/// proxy's 404 is no answer.
#[tokio::test(start_paused = true)]
async fn rs3_until_there_is_an_answer_the_invite_is_in_doubt() {
    let mut stage = stage().await;
    stage.a().invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    stage.mesh.net.cut(&stage.b().name, &stage.a().name);
    stage.c().rooms.kick(&stage.cat, &stage.bob, &stage.room, None).await.unwrap();
    stage.mesh.settle().await;
    stage.wait().await;
    assert_eq!((stage.bobs().as_deref(), stage.marks(stage.c()).len()), (Some("invite"), 1));
    stage.mesh.net.restore(&stage.b().name, &stage.a().name);
    for _ in 0..5 {
        stage.mesh.net.fail_next(&stage.a().name, "make_leave", Fault::refused(404, ""));
    }
    stage.mesh.restart("b.example");
    stage.mesh.net.take_requests();
    stage.b().rooms.resume_probes().await.unwrap();
    stage.wait().await;
    assert_eq!((stage.bobs().as_deref(), stage.marks(stage.c()).len()), (Some("leave"), 0));
    let asked = stage.mesh.net.take_requests();
    let asked = asked.iter().filter(|(.., endpoint)| *endpoint == "make_leave").count();
    assert_eq!(asked, 5 + 2, "no 404 of the proxy counted");
}

/// A knock that somebody of another server than the one knocked at turns down.
#[tokio::test(start_paused = true)]
async fn a_knock_turned_down_by_a_third_server_is_asked_about() {
    let stage = stage().await;
    let rule = json!({ "join_rule": "knock" });
    stage.a().set(&stage.ann, &stage.room, "m.room.join_rules", rule).await;
    let via = [stage.a().name.clone()];
    stage.b().rooms.knock(&stage.bob, &stage.room, &via, Object::new()).await.unwrap();
    stage.mesh.settle().await;
    stage.c().rooms.kick(&stage.cat, &stage.bob, &stage.room, None).await.unwrap();
    stage.mesh.settle().await;
    stage.wait().await;
    assert_eq!(stage.bobs().as_deref(), Some("leave"));
    assert_eq!(stage.b().row(&stage.bob, &stage.room).unwrap().sender, stage.cat);
}

/// C4: banned, unbanned while none of ours is in the room, invited, and in again.
#[tokio::test]
async fn an_unban_takes_effect_by_the_next_invite() {
    for version in ["10", "12"] {
        let stage = stage_in(version).await;
        let (a, b) = (stage.a(), stage.b());
        b.join(&stage.bob, &stage.room, a).await.unwrap();
        stage.mesh.settle().await;
        a.rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(stage.bobs().as_deref(), Some("ban"));
        a.rooms.unban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
        stage.mesh.settle().await;
        a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
        assert_eq!(stage.bobs().as_deref(), Some("invite"));
        b.join(&stage.bob, &stage.room, a).await.unwrap();
        stage.mesh.settle().await;
        for server in [a, b] {
            assert_eq!(server.in_state(&stage.bob, &stage.room).as_deref(), Some("join"));
        }
    }
}

/// `exeunt invites check`: each state that an invite can be in, as the inviter's server has it.
#[tokio::test]
async fn invites_are_asked_about() {
    let stage = stage_in("11").await;
    let (a, b) = (stage.a(), stage.b());
    let ann = &stage.ann;
    let mut rooms = Vec::new();
    for _ in 0..4 {
        let room = a.room(ann, Preset::Private, "11").await;
        a.invite(ann, &stage.bob, &room).await.unwrap();
        rooms.push(room);
    }
    a.rooms.kick(ann, &stage.bob, &rooms[1], None).await.unwrap();
    a.leave(ann, &rooms[2]).await.unwrap();
    let deaf = rooms[3].clone();
    stage.mesh.net.script(&a.name, move |call| match call {
        Call::Make(request) if request.room_id == deaf => Scripted::refused(502, ""),
        _ => Scripted::Honest,
    });
    let before = b.store.reader().position().unwrap();

    let checked = b.rooms.check_invites(None).await.unwrap();

    let found = |room: &OwnedRoomId| {
        let row = checked.iter().find(|row| row.invite.room_id == *room).unwrap();
        (row.standing, row.unclear.len())
    };
    let expected = [
        (Standing::Live, 0),
        (Standing::Withdrawn, 0),
        (Standing::RoomGone, 0),
        (Standing::Unknown, 1),
    ];
    assert_eq!(rooms.iter().map(found).collect::<Vec<_>>(), expected);
    assert_eq!(b.store.reader().position().unwrap(), before, "nothing is changed");
    let last = checked.last().map(|row| (row.invite.user_id.clone(), row.invite.room_id.clone()));
    assert!(b.rooms.check_invites(last).await.unwrap().is_empty());
}

/// Seed 5314: a kick that came when its invite had been turned down casts no doubt on the next one.
#[tokio::test]
async fn a_late_kick_says_nothing_of_the_next_invite() {
    let stage = stage_in("11").await;
    let (a, b) = (stage.a(), stage.b());
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    let kick = a.sign(member_draft(a, &stage.room, &stage.ann, &stage.bob, "leave"));
    b.leave(&stage.bob, &stage.room).await.unwrap();
    b.receive(a, "late", &[&kick]).await;

    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();

    let now = stage.mesh.clock.now();
    let [invite] = &invites(&b.store.reader(), None, now).unwrap()[..] else {
        panic!("one invite")
    };
    assert_eq!(invite.doubted_since, None);
}
