//! Transactions: limits, replays, siblings, ACLs. Spec-map 4.10 and 4.11.

use exeunt_core::ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use exeunt_core::{CheckedPdu, Draft, Object};
use exeunt_room::{
    Intent, Preset, RoomError,
    inbound::{MAX_EDUS, MAX_PDUS, MAX_TRANSACTIONS_PER_ORIGIN, Transaction},
};
use exeunt_sim::{
    Mesh, Server,
    events::{member_draft, object},
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

async fn stage() -> Stage {
    stage_in("12").await
}

async fn stage_in(version: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = a.room(&ann, Preset::Public, version).await;
    b.join(&bob, &room, a).await.unwrap();
    mesh.settle().await;
    Stage { mesh, room, ann, bob }
}

impl Stage {
    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    /// A message of bob on the head of `a`, that nobody has seen.
    fn message(&self, text: &str) -> CheckedPdu {
        self.b().sign(self.message_draft(&self.room, text))
    }

    fn message_draft(&self, room: &RoomId, text: &str) -> Draft {
        let draft = member_draft(self.a(), room, &self.bob, &self.bob, "leave");
        let kind = "m.room.message".into();
        let content = object(json!({ "body": text }));
        Draft { kind, state_key: None, content, ..draft }
    }

    async fn send(&self, from: &Server, txn: &str, pdus: Vec<Value>) -> Result<Object, RoomError> {
        let transaction = Transaction { pdus, edus: Vec::new() };
        self.a().rooms.receive_transaction(&from.name, txn, transaction).await
    }
}

fn wire(event: &CheckedPdu) -> Value {
    Value::Object(event.object().clone())
}

#[tokio::test]
async fn a_replay_gets_the_same_answer_and_does_nothing() {
    let stage = stage().await;
    let (first, second) = (stage.message("1"), stage.message("2"));
    let answer = stage.send(stage.b(), "t", vec![wire(&first)]).await.unwrap();
    assert_eq!(answer[first.event_id().as_str()], json!({}));
    // Another body under the same id is the same transaction; of another server it is not.
    let again = stage.send(stage.b(), "t", vec![wire(&second)]).await.unwrap();
    assert_eq!(again, answer);
    assert_eq!(stage.a().messages(&stage.room), ["1"]);
    let c = stage.mesh.server("c.example");
    let other = stage.send(c, "t", vec![wire(&second)]).await.unwrap();
    assert_eq!(other[second.event_id().as_str()], json!({}));
    // The same event in another transaction is one event.
    stage.send(stage.b(), "u", vec![wire(&first), wire(&first)]).await.unwrap();
    assert_eq!(stage.a().messages(&stage.room), ["1", "2"]);
}

#[tokio::test]
async fn remembered_answers_are_bounded() {
    let stage = stage().await;
    let event = wire(&stage.message("1"));
    for index in 0..MAX_TRANSACTIONS_PER_ORIGIN + 5 {
        stage.send(stage.b(), &index.to_string(), vec![event.clone()]).await.unwrap();
    }
    let of = stage.b().name.clone();
    let kept = stage.a().store.reader().scan::<tables::Transactions>(of).keys().unwrap();
    assert_eq!(kept.len(), MAX_TRANSACTIONS_PER_ORIGIN);
    let newest = (MAX_TRANSACTIONS_PER_ORIGIN + 4).to_string();
    assert!(kept.iter().any(|(_, txn)| *txn == newest));
    assert!(!kept.iter().any(|(_, txn)| txn == "0"));
}

#[tokio::test]
async fn transactions_have_limits() {
    let stage = stage().await;
    let check = |result: Result<Object, RoomError>| {
        assert_eq!(status(result.unwrap_err()), (400, "M_INVALID_PARAM".to_owned()));
    };
    check(stage.send(stage.b(), "1", vec![json!({}); MAX_PDUS + 1]).await);
    let edus = vec![json!({}); MAX_EDUS + 1];
    let many = Transaction { pdus: Vec::new(), edus };
    check(stage.a().rooms.receive_transaction(&stage.b().name, "2", many).await);
    check(stage.send(stage.b(), &"x".repeat(1000), Vec::new()).await);
    stage.send(stage.b(), "3", vec![json!({}); MAX_PDUS]).await.unwrap();
}

/// CVE-2025-30355.
#[tokio::test]
async fn a_bad_event_does_not_fail_its_siblings() {
    let stage = stage().await;
    let good = stage.message("good");
    let mut unsigned = stage.message("unsigned").object().clone();
    unsigned["signatures"] = json!({});
    let mut float = stage.message("float").object().clone();
    float["content"]["number"] = json!(0.5);
    let mut huge = stage.message("huge").object().clone();
    huge["content"]["body"] = "x".repeat(70_000).into();
    let mut deep = stage.message("deep").object().clone();
    deep["depth"] = json!(1_u64 << 53);
    let elsewhere = json!({ "room_id": "!elsewhere:b.example", "type": "m.room.message" });
    let orphan = {
        let draft = member_draft(stage.a(), &stage.room, &stage.bob, &stage.bob, "join");
        stage.b().sign(Draft { prev_events: Vec::new(), ..draft })
    };
    let bad = [unsigned, float, huge, deep, orphan.object().clone()];
    let mut pdus =
        vec![json!(null), json!("x"), json!([]), json!({}), json!({ "room_id": 5 }), elsewhere];
    pdus.extend(bad.iter().cloned().map(Value::Object));
    pdus.push(wire(&good));
    let answer = stage.send(stage.b(), "1", pdus).await.unwrap();
    assert_eq!(answer[good.event_id().as_str()], json!({}));
    assert_eq!(answer.values().filter(|outcome| outcome["error"].is_string()).count(), bad.len());
    assert_eq!(stage.a().messages(&stage.room), ["good"]);
}

/// TestACLs: the direct way is closed for the denied server, and each event says so.
#[tokio::test]
async fn events_from_a_denied_server_are_errors() {
    let stage = stage().await;
    let message = stage.message("denied");
    let acl = json!({ "allow": ["*"], "deny": ["b.example"] });
    stage.a().set(&stage.ann, &stage.room, "m.room.server_acl", acl).await;
    let open = stage.a().room(&stage.ann, Preset::Public, "12").await;
    stage.b().join(&stage.bob, &open, stage.a()).await.unwrap();
    let draft = member_draft(stage.a(), &open, &stage.bob, &stage.bob, "leave");
    let kind = "m.room.message".into();
    let content = object(json!({ "body": "fine" }));
    let fine = stage.b().sign(Draft { kind, state_key: None, content, ..draft });
    let pdus = vec![wire(&message), wire(&fine)];
    let answer = stage.send(stage.b(), "1", pdus).await.unwrap();
    assert!(answer[message.event_id().as_str()]["error"].is_string());
    assert_eq!(answer[fine.event_id().as_str()], json!({}));
    assert!(stage.a().messages(&stage.room).is_empty());
    assert_eq!(stage.a().messages(&open), ["fine"]);
    // An ACL is no auth rule: through a third server the event comes in.
    let c = stage.mesh.server("c.example");
    let answer = stage.send(c, "1", vec![wire(&message)]).await.unwrap();
    assert_eq!(answer[message.event_id().as_str()], json!({}));
}

/// A kick of ours that is told to a server outside is about an invite there, and nothing else.
#[tokio::test]
async fn events_of_rooms_that_we_are_not_in_are_not_taken() {
    let stage = stage().await;
    let c = stage.mesh.server("c.example");
    let message = wire(&stage.message("nobody asked"));
    let transaction = Transaction { pdus: vec![message], edus: vec![json!({ "edu_type": "x" })] };
    let answer = c.rooms.receive_transaction(&stage.b().name, "1", transaction).await.unwrap();
    assert!(answer.is_empty());
    assert!(c.store.reader().scan::<tables::Events>(()).keys().unwrap().is_empty());
}

/// The events of one room are taken in their order, across many.
#[tokio::test]
async fn events_of_a_room_are_taken_in_order() {
    let stage = stage().await;
    stage.mesh.isolate("b.example");
    for index in 0..MAX_PDUS {
        stage.b().say(&stage.bob, &stage.room, &index.to_string()).await;
    }
    stage.mesh.heal("b.example");
    stage.mesh.net.take_requests();
    stage.mesh.settle().await;
    let expected: Vec<_> = (0..MAX_PDUS).map(|index| index.to_string()).collect();
    assert_eq!(stage.a().messages(&stage.room), expected);
    let requests = stage.mesh.net.take_requests();
    assert!(requests.iter().all(|(_, _, endpoint)| *endpoint == "send"), "{requests:?}");
}

/// Room versions 1 and 2, where nothing binds an id to what the event says: the first event under
/// an id keeps it, in its room and in every other.
#[tokio::test]
async fn an_event_id_is_taken_once() {
    let stage = stage_in("2").await;
    let (a, b) = (stage.a(), stage.b());
    let first = stage.message("first");
    let id = first.event_id();
    let other = a.room(&stage.ann, Preset::Public, "2").await;
    b.join(&stage.bob, &other, a).await.unwrap();
    let same = b.sign_under(stage.message_draft(&stage.room, "second"), id);
    let elsewhere = b.sign_under(stage.message_draft(&other, "third"), id);
    let leave = member_draft(a, &stage.room, &stage.bob, &stage.bob, "leave");
    let leave = b.sign_under(leave, id);
    let pdus = [&first, &same, &elsewhere].map(wire);
    for (txn, pdu) in ["1", "2", "3"].into_iter().zip(pdus) {
        let answer = stage.send(b, txn, vec![pdu]).await.unwrap();
        assert_eq!(answer[id.as_str()]["error"].is_string(), txn == "3");
    }
    let entry = a.rooms.admit(&b.name, &stage.room).await.unwrap();
    let error = a.rooms.send_leave(&entry, id, leave.object().clone()).await.unwrap_err();
    assert_eq!(status(error), (400, "M_INVALID_PARAM".into()));
    assert_eq!(a.messages(&stage.room), ["first"]);
    assert!(a.messages(&other).is_empty());
    assert_eq!(a.event(&id.to_owned()).unwrap().pdu.object(), first.object());
    assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("join"));
    // An id of a server that did not sign is nobody's.
    let foreign: &EventId = "$x:a.example".try_into().unwrap();
    let foreign = b.sign_under(stage.message_draft(&stage.room, "foreign"), foreign);
    let answer = stage.send(b, "4", vec![wire(&foreign)]).await.unwrap();
    assert!(answer["$x:a.example"]["error"].is_string());
    stage.mesh.settle().await;
    assert_eq!(a.messages(&stage.room), ["first"]);
}

/// Floats and integers of any size are events before room version 6, and go from server to server.
#[tokio::test]
async fn lax_numbers_are_relayed_as_they_are() {
    let stage = stage_in("2").await;
    let c = stage.mesh.server("c.example");
    let cat = c.user("cat");
    c.join(&cat, &stage.room, stage.a()).await.unwrap();
    stage.mesh.settle().await;
    let mut draft = stage.message_draft(&stage.room, "numbers");
    let numbers = json!([1.0, -0.0, 1e20, 0.1, 1e-7, (1_u64 << 53) + 1, u64::MAX, i64::MIN]);
    draft.content.insert("numbers".into(), numbers);
    let event = stage.b().sign(draft);
    stage.send(stage.b(), "1", vec![wire(&event)]).await.unwrap();
    // To the third server as a gap that it fills.
    stage.a().say(&stage.ann, &stage.room, "after").await;
    stage.mesh.settle().await;
    assert_eq!(c.messages(&stage.room), ["numbers", "after"]);
    let there = c.event(&event.event_id().to_owned()).unwrap();
    assert_eq!(there.pdu.canonical_json(), event.canonical_json());
}

/// In versions 1 and 2 the rules say who may redact, from version 3 on the receiver. Everywhere a
/// server lets its users redact their own events only.
#[tokio::test]
async fn redactions_are_for_the_entitled() {
    for version in ["2", "3", "12"] {
        let stage = stage_in(version).await;
        let (a, b) = (stage.a(), stage.b());
        let bea = b.user("bea");
        b.join(&bea, &stage.room, a).await.unwrap();
        let anns = a.say(&stage.ann, &stage.room, "ann's").await;
        stage.mesh.settle().await;
        let bobs = b.say(&stage.bob, &stage.room, "bob's").await;
        stage.mesh.settle().await;
        let redact = |target: &OwnedEventId| Draft {
            kind: "m.room.redaction".into(),
            redacts: Some(target.clone()),
            ..stage.message_draft(&stage.room, "")
        };
        let forged = b.sign(redact(&anns));
        stage.send(b, "1", vec![wire(&forged)]).await.unwrap();
        let verdict = a.event(&forged.event_id().to_owned()).unwrap().record.verdict.clone();
        assert_eq!(verdict.is_rejected(), version == "2", "{version}");
        assert!(!a.event(&anns).unwrap().pdu.content().is_empty(), "{version}");

        let intent = |user: &UserId, target: &OwnedEventId| Intent {
            redacts: Some(target.clone()),
            ..Intent::message(user.to_owned(), "m.room.redaction", Object::new())
        };
        for user in [&bea, &stage.bob] {
            let refused = b.rooms.append(&stage.room, intent(user, &anns)).await.unwrap_err();
            assert_eq!(status(refused).0, 403);
        }
        assert!(b.rooms.append(&stage.room, intent(&bea, &bobs)).await.is_err());
        b.rooms.append(&stage.room, intent(&stage.bob, &bobs)).await.unwrap();
        stage.mesh.settle().await;
        assert!(a.event(&bobs).unwrap().pdu.content().is_empty(), "{version}");
        a.rooms.append(&stage.room, intent(&stage.ann, &anns)).await.unwrap();
        stage.mesh.settle().await;
        assert!(b.event(&anns).unwrap().pdu.content().is_empty(), "{version}");
    }
}
