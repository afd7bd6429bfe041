//! The state across a gap, as another server tells it: taken whole, and not taken at its word.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use exeunt_core::{CheckedPdu, Draft, Pdu};
use exeunt_room::{Call, Preset};
use exeunt_sim::{
    Fault, Mesh, Scripted, Server,
    events::{member_draft, message_draft, state_draft, wire},
};
use exeunt_store::{Batch, records::Verdict, tables, verify};
use serde_json::{Value, json, value::RawValue};

/// More than is asked for one by one.
const STATE_EVENTS: usize = 130;
/// The one of them that loses its signature on the way.
const UNSIGNED: &str = "org.example.99";

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
}

/// A room of bob on `b` with ann of `a`, who has missed all but the last two messages: much state,
/// and a gap that nobody fills.
async fn stage() -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = b.room(&bob, Preset::Public, "12").await;
    a.join(&ann, &room, b).await.unwrap();
    mesh.settle().await;
    for index in 0..STATE_EVENTS {
        b.set(&bob, &room, &format!("org.example.{index}"), json!({ "index": index })).await;
    }
    for text in ["lost", "edge", "last"] {
        b.say(&bob, &room, text).await;
    }
    b.forget_outbox(a).await;
    let edge = b.event(&b.timeline(&room)[b.timeline(&room).len() - 2]).unwrap().pdu;
    let answer = json!({ "events": [edge.object()] });
    let asked = Arc::new(AtomicUsize::new(0));
    mesh.net.script(&b.name, move |call| match call {
        Call::MissingEvents { .. } if asked.fetch_add(1, Ordering::SeqCst) == 0 => {
            Scripted::Answer(Ok(answer.clone()))
        }
        Call::MissingEvents { .. } => Scripted::Answer(Ok(json!({ "events": [] }))),
        Call::Backfill { .. } => Scripted::refused(404, "M_NOT_FOUND"),
        _ => Scripted::Honest,
    });
    mesh.net.take_requests();
    Stage { mesh, room }
}

impl Stage {
    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    /// `a` gets the last message.
    async fn send_last(&self) {
        let b = self.mesh.server("b.example");
        let last = b.event(b.timeline(&self.room).last().unwrap()).unwrap().pdu;
        self.a().receive(b, "last", &[&last]).await;
        self.a().rooms.inbound_idle().await;
    }

    fn laid_aside(&self) -> usize {
        self.a().store.reader().scan::<tables::Arrivals>(()).keys().unwrap().len()
    }
}

/// It is taken event by event, and what is no event, or nobody's, is dropped alone (CVE-2022-39200).
#[tokio::test]
async fn a_large_state_is_taken_as_it_comes() {
    let stage = stage().await;
    let event = stage.room.as_str()[1..].to_owned();
    let event = exeunt_core::ruma::EventId::parse(format!("${event}")).unwrap();
    let call = Call::State { room: &stage.room, event: &event };
    assert_eq!(call.listing().lists, ["pdus", "auth_chain"]);
    let tampered = Fault::tampered(|answer| {
        let pdus = answer["pdus"].as_array_mut().unwrap();
        pdus.insert(0, json!("no event"));
        let mut other = pdus[1].clone();
        other["room_id"] = json!("!other:b.example");
        pdus.push(other);
        let last = pdus.iter_mut().find(|event| event["type"] == UNSIGNED).unwrap();
        last["signatures"] = json!({});
    });
    stage.mesh.net.fail_next(&stage.mesh.server("b.example").name, "state", tampered);
    stage.send_last().await;
    let asked = stage.mesh.net.take_requests();
    assert_eq!(asked.iter().filter(|(_, _, endpoint)| *endpoint == "state").count(), 1);
    assert_eq!(stage.a().messages(&stage.room), ["edge", "last"]);
    let state = stage.a().state(&stage.room);
    let told = state.iter().filter(|(kind, ..)| kind.starts_with("org.example."));
    assert_eq!(told.count(), STATE_EVENTS - 1);
    assert!(state.iter().all(|(kind, ..)| kind != UNSIGNED));
    assert_eq!(stage.laid_aside(), 0);
    assert!(verify(&stage.a().store).unwrap().is_clean());
}

/// An answer that breaks off helps nobody, and leaves nothing behind.
#[tokio::test]
async fn an_answer_that_is_no_state_leaves_nothing_behind() {
    let stage = stage().await;
    let tampered = Fault::tampered(|answer| answer["auth_chain"] = json!({}));
    stage.mesh.net.fail_next(&stage.mesh.server("b.example").name, "state", tampered);
    // What a join has laid aside is none of its business.
    let mut batch = Batch::default();
    let row = RawValue::from_string("{}".into()).unwrap();
    batch.put::<tables::Arrivals>(&(stage.room.clone(), 7), &row);
    stage.a().store.commit(batch).await.unwrap();
    stage.send_last().await;
    assert_eq!(stage.laid_aside(), 1);
    assert!(verify(&stage.a().store).unwrap().is_clean());
}

/// A room of ann on `a`, with bob of `b` and cat of `c`. `c` has had `a` place an event of its own,
/// the only head by what it says, upon a state that it told, without bob.
struct Lie {
    mesh: Mesh,
    room: OwnedRoomId,
    bob: OwnedUserId,
    cat: OwnedUserId,
    /// A message of one of `b` who is banned by now, to follow something.
    banned: Draft,
    /// The true state, as others tell it.
    truth: Value,
    last: CheckedPdu,
}

async fn lie() -> Lie {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, "12").await;
    let eve = b.user("eve");
    for (server, user) in [(b, &bob), (c, &cat), (b, &eve)] {
        server.join(user, &room, a).await.unwrap();
        mesh.settle().await;
    }
    let banned = message_draft(a, &room, &eve, "banned");
    a.rooms.ban(&ann, &eve, &room, None).await.unwrap();
    mesh.settle().await;
    let lost = c.sign(message_draft(a, &room, &cat, "lost"));
    let edge = c.sign(after(&lost, message_draft(a, &room, &cat, "edge")));
    let last = c.sign(after(&edge, message_draft(a, &room, &cat, "last")));
    let told = |without: &str| {
        let state = a.state(&room).into_iter().filter(|(_, key, _)| key != without);
        let ids: Vec<_> = state.map(|(.., id)| id).collect();
        json!({ "pdu_ids": ids, "auth_chain_ids": [] })
    };
    let (truth, lie) = (told("nobody"), told(bob.as_str()));
    let stage = Lie { room, bob, cat, banned, truth, last, mesh };
    stage.script(stage.b(), &[], None);
    stage.script(stage.c(), &[&edge], Some(lie));
    stage.send(stage.c(), &[&stage.last]).await;
    assert_eq!(stage.messages(), ["edge", "last"]);
    stage
}

fn after(event: &CheckedPdu, draft: Draft) -> Draft {
    let prev_events = vec![event.event_id().to_owned().into()];
    Draft { prev_events, depth: event.depth() + 1, ..draft }
}

impl Lie {
    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    fn c(&self) -> &Server {
        self.mesh.server("c.example")
    }

    /// What a server has: events that were missed, and a state.
    fn script(&self, server: &Server, missed: &[&Pdu], state: Option<Value>) {
        let missed = json!({ "events": missed.iter().map(|e| wire(e)).collect::<Vec<_>>() });
        self.mesh.net.script(&server.name, move |call| match (call, &state) {
            (Call::MissingEvents { .. }, _) => Scripted::Answer(Ok(missed.clone())),
            (Call::StateIds { .. }, Some(state)) => Scripted::Answer(Ok(state.clone())),
            _ => Scripted::refused(404, "M_NOT_FOUND"),
        });
    }

    async fn send(&self, from: &Server, events: &[&Pdu]) {
        let txn = events.iter().map(|event| event.event_id().as_str()).collect::<String>();
        self.a().receive(from, &txn, events).await;
        self.a().rooms.inbound_idle().await;
    }

    /// A message of bob, whom the lie leaves out.
    fn of_bob(&self, follows: &CheckedPdu, text: &str) -> CheckedPdu {
        self.b().sign(after(follows, message_draft(self.a(), &self.room, &self.bob, text)))
    }

    fn messages(&self) -> Vec<String> {
        self.a().messages(&self.room)
    }

    fn verdict(&self, event: &CheckedPdu) -> Option<Verdict> {
        let id: OwnedEventId = event.event_id().to_owned();
        self.a().event(&id).map(|known| known.record.verdict.clone())
    }
}

/// The server of whoever is refused upon another's word about the state is asked for its own, and
/// what comes after needs nobody's help.
#[tokio::test]
async fn a_lie_about_the_state_silences_nobody() {
    let stage = lie().await;
    let honest = stage.of_bob(&stage.last, "honest");
    stage.script(stage.b(), &[], Some(stage.truth.clone()));
    stage.send(stage.b(), &[&honest]).await;
    assert_eq!(stage.verdict(&honest), Some(Verdict::Accepted));
    stage.script(stage.b(), &[], None);
    let next = stage.of_bob(&honest, "next");
    stage.send(stage.b(), &[&next]).await;
    assert_eq!(stage.messages(), ["edge", "last", "honest", "next"]);
}

/// A leave upon a state in which the user never was.
#[tokio::test]
async fn a_lie_about_the_state_keeps_nobody_in() {
    let stage = lie().await;
    let leave = member_draft(stage.a(), &stage.room, &stage.bob, &stage.bob, "leave");
    // Later than the join, with which it has to be resolved.
    let leave = Draft { origin_server_ts: leave.origin_server_ts * 2, ..leave };
    let leave = stage.b().sign(after(&stage.last, leave));
    stage.script(stage.b(), &[], Some(stage.truth.clone()));
    stage.send(stage.b(), &[&leave]).await;
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
}

/// While nobody tells better, a no upon that state is no verdict: the event comes in with what
/// follows it.
#[tokio::test]
async fn a_no_upon_told_state_is_no_verdict() {
    let stage = lie().await;
    let honest = stage.of_bob(&stage.last, "honest");
    stage.send(stage.b(), &[&honest]).await;
    assert_eq!(stage.verdict(&honest), None);
    stage.script(stage.b(), &[&honest], Some(stage.truth.clone()));
    let next = stage.of_bob(&honest, "next");
    stage.send(stage.b(), &[&next]).await;
    assert_eq!(stage.messages(), ["edge", "last", "honest", "next"]);
}

/// It is not upon the state alone that events are refused: what their own auth events say is final.
#[tokio::test]
async fn a_no_by_auth_events_is_a_verdict_upon_any_state() {
    let stage = lie().await;
    let mut draft = after(&stage.last, message_draft(stage.a(), &stage.room, &stage.bob, "twice"));
    draft.auth_events.push(draft.auth_events[0].clone());
    let twice = stage.b().sign(draft);
    stage.script(stage.b(), &[], Some(stage.truth.clone()));
    stage.send(stage.b(), &[&twice]).await;
    assert!(matches!(stage.verdict(&twice), Some(Verdict::Rejected(_))));
}

/// What the true state refuses too does not come in, and holds up nobody who follows it.
#[tokio::test]
async fn what_is_refused_by_every_state_holds_up_nobody() {
    let stage = lie().await;
    let refused = stage.b().sign(after(&stage.last, stage.banned.clone()));
    stage.script(stage.b(), &[], Some(stage.truth.clone()));
    stage.send(stage.b(), &[&refused]).await;
    assert_eq!(stage.verdict(&refused), None);
    let child = stage.of_bob(&refused, "child");
    let next = message_draft(stage.a(), &stage.room, &stage.cat, "next");
    let next = stage.c().sign(after(&child, next));
    stage.script(stage.c(), &[&child], Some(stage.truth.clone()));
    stage.send(stage.c(), &[&next]).await;
    assert_eq!(stage.messages(), ["edge", "last", "child", "next"]);
    assert!(verify(&stage.a().store).unwrap().is_clean());
}

/// What is told as part of a state is judged by its auth events alone. Where it is refused once it
/// has its place, it is state no longer, nor comes back with what is said next.
#[tokio::test]
async fn what_turns_out_to_be_rejected_is_no_state() {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    let (ann, eve, cat) = (a.user("ann"), b.user("eve"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, "12").await;
    for (server, user) in [(b, &eve), (c, &cat)] {
        server.join(user, &room, a).await.unwrap();
        mesh.settle().await;
    }
    a.set(&ann, &room, "m.room.power_levels", json!({ "state_default": 0 })).await;
    a.set(&ann, &room, "m.room.topic", json!({ "topic": "of ann" })).await;
    let topic = |of: &OwnedUserId, words| {
        let draft = state_draft(a, &room, of, "m.room.topic", json!({ "topic": words }));
        // Later than all that ann does.
        Draft { origin_server_ts: draft.origin_server_ts * 2, ..draft }
    };
    let of_eve = topic(&eve, "of eve");
    a.rooms.ban(&ann, &eve, &room, None).await.unwrap();
    let ban = a.graph(&room, |graph| graph.room.extremities[0].clone());
    let ban = a.event(&ban).unwrap().pdu;
    let prev_events = vec![ban.event_id().to_owned().into()];
    let of_eve = b.sign(Draft { prev_events, depth: ban.depth() + 1, ..of_eve });
    a.rooms.unban(&ann, &eve, &room, None).await.unwrap();
    mesh.settle().await;
    b.join(&eve, &room, a).await.unwrap();
    mesh.settle().await;
    let lost = c.sign(message_draft(a, &room, &cat, "lost"));
    let edge = c.sign(after(&lost, message_draft(a, &room, &cat, "edge")));
    let last = c.sign(after(&edge, message_draft(a, &room, &cat, "last")));
    let ids = a.state(&room).into_iter().map(|(kind, _, id)| match &*kind {
        "m.room.topic" => of_eve.event_id().to_owned(),
        _ => id,
    });
    let state = json!({ "pdu_ids": Vec::from_iter(ids), "auth_chain_ids": [] });
    let (missed, told) = (json!({ "events": [wire(&edge)] }), json!({ "pdus": [wire(&of_eve)] }));
    mesh.net.script(&c.name, move |call| match call {
        Call::MissingEvents { .. } => Scripted::Answer(Ok(missed.clone())),
        Call::StateIds { .. } => Scripted::Answer(Ok(state.clone())),
        Call::Event { .. } => Scripted::Answer(Ok(told.clone())),
        _ => Scripted::refused(404, "M_NOT_FOUND"),
    });
    a.receive(c, "last", &[&last]).await;
    a.rooms.inbound_idle().await;
    let now = || {
        let topic = a.graph(&room, |graph| graph.current("m.room.topic", "")).unwrap().unwrap();
        topic.content()["topic"].clone()
    };
    assert_eq!(now(), "of eve");
    a.receive(b, "refused", &[&of_eve]).await;
    let known = a.event(&of_eve.event_id().to_owned()).unwrap();
    assert!(matches!(known.record.verdict, Verdict::Rejected(_)));
    assert_eq!(now(), "of ann");
    a.say(&ann, &room, "on").await;
    assert_eq!(now(), "of ann");
    assert!(verify(&a.store).unwrap().is_clean());
}
