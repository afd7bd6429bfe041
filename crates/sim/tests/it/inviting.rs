//! Invites across servers: rows IN, RS and the round trips of SL11.

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId, RoomId};
use exeunt_core::{CheckedPdu, Draft, Object, RoomVersion, canonical::MAX_INT};
use exeunt_room::{
    MAX_INVITE_STATE_EVENTS, Preset, RoomError,
    inbound::{InboundInvite, Transaction},
    leave::RACE_WINDOW_MS,
};
use exeunt_sim::{
    Fault, Mesh, Server,
    events::{member_draft, object, state_draft},
    status,
};
use exeunt_store::tables;
use serde_json::{Value, json};

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
}

async fn stage_in(version: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let a = mesh.server("a.example");
    let (ann, bob) = (a.user("ann"), mesh.server("b.example").user("bob"));
    let room = a.room(&ann, Preset::Private, version).await;
    Stage { mesh, room, ann, bob }
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

    /// Ann's invite of bob, that bob's server has not seen.
    fn draft(&self) -> Draft {
        member_draft(self.a(), &self.room, &self.ann, &self.bob, "invite")
    }

    /// Hands an invite to bob's server, with the create event.
    async fn hand(&self, event: &CheckedPdu) -> Result<CheckedPdu, RoomError> {
        self.hand_as("12", event.object().clone(), event, json!([self.create()])).await
    }

    async fn hand_as(
        &self,
        version: &str,
        body: Object,
        event: &CheckedPdu,
        state: Value,
    ) -> Result<CheckedPdu, RoomError> {
        let entry = self.b().rooms.admit(&self.a().name, &self.room).await?;
        let invite =
            InboundInvite { room_version: version.into(), event: body, invite_room_state: state };
        self.b().rooms.receive_invite(&entry, event.event_id(), invite).await
    }

    fn create(&self) -> Value {
        let create = self.a().graph(&self.room, |graph| graph.create().unwrap());
        create.object().clone().into()
    }

    /// A transaction of `from` to bob's server.
    async fn send(&self, from: &Server, txn: &str, events: &[&CheckedPdu]) -> Object {
        let pdus = events.iter().map(|event| Value::Object(event.object().clone())).collect();
        let transaction = Transaction { pdus, edus: Vec::new() };
        self.b().rooms.receive_transaction(&from.name, txn, transaction).await.unwrap()
    }

    fn pending(&self) -> bool {
        self.b().is_pending(&self.bob, &self.room)
    }

    fn bobs(&self) -> Option<String> {
        self.b().membership(&self.bob, &self.room)
    }
}

fn check(result: Result<CheckedPdu, RoomError>, expected: u16, errcode: &str) {
    let (got, code) = status(result.expect_err("a refusal"));
    assert_eq!((got, code.as_str()), (expected, errcode));
}

/// SL11, RJ1: each rejection reaches the inviter, each new invite the invited.
#[tokio::test]
async fn invite_and_reject_five_times_in_every_version() {
    for version in RoomVersion::all() {
        let stage = stage_in(version.as_str()).await;
        for round in 0..5 {
            stage.a().invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
            assert_eq!(stage.bobs().as_deref(), Some("invite"), "round {round} in {version}");
            assert!(stage.pending());
            stage.b().leave(&stage.bob, &stage.room).await.unwrap();
            assert_eq!(stage.bobs().as_deref(), Some("leave"));
            assert!(!stage.pending());
            let there = stage.a().in_state(&stage.bob, &stage.room);
            assert_eq!(there.as_deref(), Some("leave"), "round {round} in {version}");
        }
        let requests: Vec<_> = stage.mesh.net.take_requests().into_iter().map(|r| r.2).collect();
        let count = |endpoint| requests.iter().filter(|r| **r == endpoint).count();
        assert_eq!((count("make_leave"), count("send_leave"), count("invite")), (5, 5, 5));
    }
}

/// A server that knows only the older endpoint is invited by it in version 2, and in no other.
#[tokio::test]
async fn an_invite_falls_back_to_the_older_endpoint() {
    for (version, requests) in [("2", 2), ("3", 1)] {
        let stage = stage_in(version).await;
        let unrecognized = Fault::refused(404, "M_UNRECOGNIZED");
        stage.mesh.net.fail_next(&stage.b().name, "invite", unrecognized);
        let invited = stage.a().invite(&stage.ann, &stage.bob, &stage.room).await;
        assert_eq!(
            stage.mesh.net.take_requests().iter().filter(|r| r.2 == "invite").count(),
            requests
        );
        assert_eq!((invited.is_ok(), stage.pending()), (requests == 2, requests == 2));
        if requests == 2 {
            let key = (stage.bob.clone(), stage.room.clone());
            let pending = stage.b().store.reader().get::<tables::Pending>(&key).unwrap().unwrap();
            assert!(pending.stripped_state.iter().any(|event| event["type"] == "m.room.create"));
            stage.b().leave(&stage.bob, &stage.room).await.unwrap();
            stage.mesh.settle().await;
            assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
        }
    }
}

/// RJ4: the answer to send_leave is lost; the leave is there once, and the departure ends.
#[tokio::test]
async fn a_lost_answer_does_not_double_a_rejection() {
    let stage = stage().await;
    stage.a().invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    stage.mesh.net.fail_next(&stage.a().name, "send_leave", Fault::AnswerLost);
    stage.b().leave(&stage.bob, &stage.room).await.unwrap();
    assert_eq!(stage.bobs().as_deref(), Some("leave"));
    stage.mesh.settle().await;
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
    // While the invite is fresh, the room's word that bob is gone counts for nothing.
    stage.mesh.clock.advance(RACE_WINDOW_MS);
    stage.mesh.settle().await;
    let departures = stage.b().store.reader().scan::<tables::Departures>(()).keys().unwrap();
    assert!(departures.is_empty(), "the room says that bob is gone");
}

/// A hostile server sets the depth as high as it goes; the rejection has none above that.
#[tokio::test]
async fn an_invite_of_the_largest_depth_can_be_rejected() {
    let stage = stage().await;
    let invite = stage.a().sign(Draft { depth: MAX_INT as u64, ..stage.draft() });
    stage.hand(&invite).await.unwrap();
    stage.b().leave(&stage.bob, &stage.room).await.unwrap();
    assert_eq!(stage.bobs().as_deref(), Some("leave"));
    assert!(!stage.pending());
}

/// RJ7: the rejection reaches an inviter that was away.
#[tokio::test]
async fn a_rejection_arrives_when_the_inviter_is_back() {
    let stage = stage().await;
    stage.a().invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    stage.mesh.isolate("a.example");
    stage.b().leave(&stage.bob, &stage.room).await.unwrap();
    assert_eq!(stage.bobs().as_deref(), Some("leave"));
    stage.mesh.settle().await;
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("invite"));
    stage.mesh.heal("a.example");
    stage.mesh.settle().await;
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
}

#[tokio::test]
async fn in1_the_invite_comes_back_signed_and_otherwise_as_it_was() {
    let stage = stage().await;
    let invite = stage.a().sign(stage.draft());
    let signed = stage.hand(&invite).await.unwrap();
    let mut expected = invite.object().clone();
    expected["signatures"]["b.example"] = signed.object()["signatures"]["b.example"].clone();
    assert_eq!(*signed.object(), expected);
    assert!(stage.b().rooms.keys().is_signed_by(&signed, &stage.b().name).await.unwrap());
    assert_eq!(stage.b().signed_as(&invite), ["invite"]);
    assert_eq!(stage.bobs().as_deref(), Some("invite"));
    let key = (stage.room.clone(), stage.bob.clone());
    let listed = stage.b().store.reader().get::<tables::LocalMembers>(&key).unwrap();
    assert_eq!(listed.as_deref(), Some("invite"));
}

#[tokio::test]
async fn an_invited_user_is_woken() {
    let stage = stage().await;
    let mut woken = stage.b().rooms.subscribe(&stage.bob);
    woken.mark_unchanged();
    stage.hand(&stage.a().sign(stage.draft())).await.unwrap();
    assert!(woken.has_changed().unwrap());
}

/// CVE-2025-68667: nothing but an invite of a user of ours by a user of the sender gets a
/// signature of ours.
#[tokio::test]
async fn in2_nothing_else_is_signed() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    let bad = [
        a.sign(Draft { kind: "m.room.server_acl".into(), ..stage.draft() }),
        a.sign(Draft { kind: "m.room.power_levels".into(), ..stage.draft() }),
        a.sign(Draft { state_key: None, ..stage.draft() }),
        a.sign(Draft { state_key: Some(stage.ann.to_string()), ..stage.draft() }),
        a.sign(Draft { state_key: Some("@x:c.example".into()), ..stage.draft() }),
        a.sign(Draft { room_id: RoomId::parse("!other:a.example").ok(), ..stage.draft() }),
    ];
    for event in &bad {
        check(stage.hand(event).await, 400, "M_INVALID_PARAM");
    }
    for membership in ["leave", "join", "ban", "knock"] {
        let event = a.sign(member_draft(a, &stage.room, &stage.ann, &stage.bob, membership));
        check(stage.hand(&event).await, 400, "M_INVALID_PARAM");
    }
    // An event of our own user, or of a third server's, handed in by a.
    let ours = b.sign(Draft { sender: b.user("mallory"), ..stage.draft() });
    check(stage.hand(&ours).await, 400, "M_INVALID_PARAM");
    let c = stage.mesh.server("c.example");
    let theirs = c.sign(Draft { sender: c.user("cat"), ..stage.draft() });
    check(stage.hand(&theirs).await, 400, "M_INVALID_PARAM");
    let rows = b.store.reader().scan::<tables::SigningJournal>(()).collect().unwrap();
    assert!(rows.is_empty(), "nothing was signed");
    assert_eq!(stage.bobs(), None);
}

/// IN3. A third-party invite needs no signature of its sender by the rules of events; to be signed
/// by us it does.
/// CVE-2019-18835.
#[tokio::test]
async fn in3_the_inviters_signature_must_hold() {
    let stage = stage().await;
    let third_party = json!({ "membership": "invite", "third_party_invite": { "signed": {} } });
    let plain = stage.a().sign(stage.draft());
    let third = stage.a().sign(Draft { content: object(third_party), ..stage.draft() });
    for event in [plain, third] {
        for signatures in [
            json!({}),
            json!({ "a.example": { "ed25519:sim": "A".repeat(86) } }),
            json!({ "c.example": event.object()["signatures"]["a.example"] }),
        ] {
            let mut body = event.object().clone();
            body["signatures"] = signatures;
            check(stage.hand_as("12", body, &event, json!([])).await, 403, "M_FORBIDDEN");
        }
    }
    assert_eq!(stage.bobs(), None);
}

/// Signing what redaction would make of the event is not what was asked for.
#[tokio::test]
async fn an_invite_with_a_wrong_hash_is_refused() {
    let stage = stage().await;
    let invite = stage.a().sign(stage.draft());
    let mut body = invite.object().clone();
    body["content"]["reason"] = "added later".into();
    check(stage.hand_as("12", body, &invite, json!([])).await, 400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn in4_in8_versions_and_json() {
    let stage = stage().await;
    let invite = stage.a().sign(stage.draft());
    for version in ["13", "org.example"] {
        let result = stage.hand_as(version, invite.object().clone(), &invite, json!([])).await;
        check(result, 400, "M_INCOMPATIBLE_ROOM_VERSION");
    }
    // An event of another format than the version has.
    let other = stage.hand_as("2", invite.object().clone(), &invite, json!([])).await;
    check(other, 400, "M_BAD_JSON");
    let mut body = invite.object().clone();
    body["content"]["number"] = json!(0.5);
    check(stage.hand_as("12", body, &invite, json!([])).await, 400, "M_BAD_JSON");
}

/// CVE-2024-52815, CVE-2023-32323: the invite holds, whatever comes with it, and can be rejected.
#[tokio::test]
async fn hostile_invite_state_does_no_harm() {
    let many: Vec<_> = (0..500)
        .map(
            |i| json!({ "type": "x", "state_key": i.to_string(), "sender": "@e:e", "content": {} }),
        )
        .collect();
    for state in [json!(null), json!({ "a": 1 }), json!([null, 1, [], "x", {}]), many.into()] {
        let stage = stage_in("11").await;
        let invite = stage.a().sign(stage.draft());
        stage.hand_as("11", invite.object().clone(), &invite, state).await.unwrap();
        let key = (stage.bob.clone(), stage.room.clone());
        let pending = stage.b().store.reader().get::<tables::Pending>(&key).unwrap().unwrap();
        assert!(pending.stripped_state.len() <= MAX_INVITE_STATE_EVENTS);
        stage.b().leave(&stage.bob, &stage.room).await.unwrap();
        assert_eq!(stage.bobs().as_deref(), Some("leave"));
    }
}

/// MSC4311: what a room of version 12 is called by must be shown with it. What is sent beside may
/// be stripped.
#[tokio::test]
async fn an_invite_to_a_room_that_is_not_shown_to_be_it_is_refused() {
    let stage = stage().await;
    let other = stage.a().room(&stage.ann, Preset::Private, "12").await;
    let other = stage.a().graph(&other, |graph| graph.create().unwrap());
    let invite = stage.a().sign(stage.draft());
    let hand = |state| stage.hand_as("12", invite.object().clone(), &invite, state);
    let name = json!({ "type": "m.room.name", "state_key": "", "sender": stage.ann,
        "content": { "name": "The room" } });
    check(hand(json!([name])).await, 400, "M_MISSING_PARAM");
    check(hand(json!([name, other.object()])).await, 400, "M_INVALID_PARAM");
    assert_eq!(stage.bobs(), None);
    assert!(stage.b().signed_as(&invite).is_empty());
    hand(json!([name, stage.create()])).await.unwrap();
    let key = (stage.bob.clone(), stage.room.clone());
    let pending = stage.b().store.reader().get::<tables::Pending>(&key).unwrap().unwrap();
    assert_eq!(pending.stripped_state.len(), 2);
}

/// IN7, IN9: where we reside in the room the invite is signed, and arrives once, by transaction.
#[tokio::test]
async fn in9_a_resident_server_only_signs() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    let bea = b.user("bea");
    a.invite(&stage.ann, &bea, &stage.room).await.unwrap();
    b.join(&bea, &stage.room, a).await.unwrap();
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    assert_eq!(stage.bobs(), None, "not before the event is in the graph");
    assert!(!stage.pending());
    stage.mesh.settle().await;
    assert_eq!(stage.bobs().as_deref(), Some("invite"));
    assert!(!stage.pending());
    // RJ13: rejected in our own graph.
    stage.mesh.net.take_requests();
    b.leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    assert!(stage.mesh.net.take_requests().iter().all(|r| r.2 == "send"));
    assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
}

#[tokio::test]
async fn in7_the_acl_of_a_room_that_we_are_in_counts() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    let bea = b.user("bea");
    a.invite(&stage.ann, &bea, &stage.room).await.unwrap();
    b.join(&bea, &stage.room, a).await.unwrap();
    let acl = json!({ "allow": ["b.example", "c.example"] });
    let acl = a.sign(state_draft(a, &stage.room, &stage.ann, "m.room.server_acl", acl));
    b.receive(a, "acl", &[&acl]).await;
    check(stage.hand(&a.sign(stage.draft())).await, 403, "M_FORBIDDEN");
}

/// IN11, and RS2 tied to the newer invite.
#[tokio::test]
async fn in11_a_newer_invite_replaces_the_older() {
    let stage = stage().await;
    let first = stage.a().sign(stage.draft());
    let second = stage.a().sign(Draft { origin_server_ts: 5, ..stage.draft() });
    stage.hand(&first).await.unwrap();
    stage.hand(&second).await.unwrap();
    let row = stage.b().row(&stage.bob, &stage.room).unwrap();
    assert_eq!(row.event_id, *second.event_id());
    // Handing in the first again, as after a lost answer, changes nothing.
    stage.hand(&first).await.unwrap();
    let row = stage.b().row(&stage.bob, &stage.room).unwrap();
    assert_eq!(row.event_id, *second.event_id());
}

/// A replayed old invite does not come back after the user has rejected it (spec-map 4.11).
#[tokio::test]
async fn a_replayed_invite_does_not_come_back() {
    let stage = stage().await;
    let invite = stage.a().sign(stage.draft());
    stage.hand(&invite).await.unwrap();
    stage.b().leave(&stage.bob, &stage.room).await.unwrap();
    stage.hand(&invite).await.unwrap();
    assert_eq!(stage.bobs().as_deref(), Some("leave"));
    assert!(!stage.pending());
}

/// RS1, RS2, RS7: the inviter kicks or bans; the invited user's server hears of it.
#[tokio::test]
async fn rs1_rs2_rs7_a_withdrawn_invite_goes_away() {
    for ban in [false, true] {
        let stage = stage().await;
        let (a, b) = (stage.a(), stage.b());
        a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
        let mut woken = b.rooms.subscribe(&stage.bob);
        woken.mark_unchanged();
        match ban {
            true => a.rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap(),
            false => a.rooms.kick(&stage.ann, &stage.bob, &stage.room, None).await.unwrap(),
        };
        stage.mesh.settle().await;
        let row = b.row(&stage.bob, &stage.room).unwrap();
        assert_eq!(row.membership, if ban { "ban" } else { "leave" });
        assert_eq!(row.sender, stage.ann);
        assert!(row.local_event.is_some(), "clients are shown the event");
        assert_eq!(b.last_decision(&stage.bob, &stage.room).0, "withdrawal");
        assert!(!stage.pending());
        assert!(woken.has_changed().unwrap());
        // And it can come again.
        if !ban {
            a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
            assert_eq!(stage.bobs().as_deref(), Some("invite"));
        }
    }
}

/// RS3, RS4: from here nobody's power is known, so only the inviter is believed.
#[tokio::test]
async fn rs3_rs4_other_leaves_do_not_end_an_invite() {
    let stage = stage().await;
    let (a, c) = (stage.a(), stage.mesh.server("c.example"));
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    let kick =
        |by: &OwnedUserId, target: &OwnedUserId| member_draft(a, &stage.room, by, target, "leave");
    let amy = a.user("amy");
    let by_other = a.sign(kick(&amy, &stage.bob));
    let mut without_invite = kick(&stage.ann, &stage.bob);
    without_invite.auth_events.pop();
    let without_invite = a.sign(without_invite);
    let by_third = c.sign(kick(&c.user("cat"), &stage.bob));
    let events = [&by_other, &without_invite, &by_third];
    let answer = stage.send(a, "1", &events).await;
    for event in events {
        assert!(answer[event.event_id().as_str()]["error"].is_string());
    }
    // Unsigned, and about somebody who was never invited.
    let mut forged = a.sign(kick(&stage.ann, &stage.bob)).object().clone();
    forged["signatures"] = json!({});
    let nobody = a.sign(kick(&stage.ann, &stage.b().user("nobody")));
    let pdus = vec![Value::Object(forged), Value::Object(nobody.object().clone())];
    let transaction = Transaction { pdus, edus: Vec::new() };
    let answer = stage.b().rooms.receive_transaction(&a.name, "2", transaction).await.unwrap();
    assert!(answer.values().all(|outcome| outcome["error"].is_string()));
    assert_eq!(stage.b().row(&stage.b().user("nobody"), &stage.room), None);
    assert_eq!(stage.bobs().as_deref(), Some("invite"));
    assert!(stage.pending());
}

/// RS5: with another user of ours in the room the rules decide.
#[tokio::test]
async fn rs5_in_a_room_that_we_are_in_power_decides() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    let (bea, amy) = (b.user("bea"), a.user("amy"));
    for user in [&bea, &amy] {
        a.invite(&stage.ann, user, &stage.room).await.unwrap();
    }
    b.join(&bea, &stage.room, a).await.unwrap();
    a.rooms.join(&amy, &stage.room, &[], Object::new()).await.unwrap();
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    let levels = json!({ "users": { amy.as_str(): 60 }, "kick": 50 });
    a.set(&stage.ann, &stage.room, "m.room.power_levels", levels).await;
    a.rooms.kick(&amy, &stage.bob, &stage.room, None).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!(stage.bobs().as_deref(), Some("leave"));
    assert_eq!(b.row(&stage.bob, &stage.room).unwrap().sender, amy);
}

/// RS8: a kick of someone who is not invited there is no business of a server outside.
#[tokio::test]
async fn rs8_an_unban_is_not_told_to_a_server_outside() {
    let stage = stage().await;
    let a = stage.a();
    a.rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    a.rooms.unban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    assert!(a.outbox(stage.b()).is_empty());
}

/// The invite was turned down while the inviter was away, who takes it back meanwhile: nothing is
/// left to tell.
#[tokio::test]
async fn a_withdrawal_ends_a_departure_under_way() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    stage.mesh.net.cut(&b.name, &a.name);
    b.leave(&stage.bob, &stage.room).await.unwrap();
    a.rooms.kick(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    stage.mesh.settle().await;
    let departures = b.store.reader().scan::<tables::Departures>(()).keys().unwrap();
    assert!(departures.is_empty());
    assert_eq!(stage.bobs().as_deref(), Some("leave"));
}
