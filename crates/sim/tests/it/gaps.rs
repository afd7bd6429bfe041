//! Gaps in the graph, and peers that make the most of them. Spec-map 4.12; pains.md, security.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use exeunt_core::ruma::{EventId, OwnedRoomId, OwnedUserId};
use exeunt_core::{CheckedPdu, Draft, Pdu, Signer};
use exeunt_room::{Call, Preset, RemoteError};
use exeunt_sim::{
    Fault, Mesh, Scripted, Server,
    events::{member_draft, message_draft, object, wire},
};
use exeunt_store::records::Verdict;
use serde_json::{Value, json};

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    bob: OwnedUserId,
    cat: OwnedUserId,
}

/// A room of ann on `a`, with bob of `b` and cat of `c`.
async fn stage() -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, "12").await;
    b.join(&bob, &room, a).await.unwrap();
    mesh.settle().await;
    c.join(&cat, &room, a).await.unwrap();
    mesh.settle().await;
    mesh.net.take_requests();
    Stage { mesh, room, bob, cat }
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

    /// Messages of bob, each after the one before, the first on the head of `a`.
    fn chain(&self, texts: &[&str]) -> Vec<CheckedPdu> {
        let mut chain: Vec<CheckedPdu> = Vec::new();
        for text in texts {
            let mut draft = message_draft(self.a(), &self.room, &self.bob, text);
            if let Some(last) = chain.last() {
                draft.prev_events = vec![last.event_id().to_owned().into()];
                draft.depth = last.depth() + 1;
            }
            chain.push(self.b().sign(draft));
        }
        chain
    }

    async fn send(&self, txn: &str, events: &[&Pdu]) -> Vec<Value> {
        let answer = self.a().receive(self.b(), txn, events).await;
        self.mesh.settle().await;
        events.iter().map(|event| answer[event.event_id().as_str()].clone()).collect()
    }

    /// How often each endpoint was asked since the last call, as "server endpoint".
    fn asked(&self, endpoint: &str) -> usize {
        self.requests().iter().filter(|(_, e)| *e == endpoint).count()
    }

    fn requests(&self) -> Vec<(String, &'static str)> {
        let requests = self.mesh.net.take_requests().into_iter();
        let of_a = requests.filter(|(from, _, _)| *from == self.a().name);
        of_a.map(|(_, to, endpoint)| (to.to_string(), endpoint)).collect()
    }
}

/// More than one answer holds: asked for in rounds, from the one that sent the last event.
#[tokio::test]
async fn a_long_gap_is_filled_in_rounds() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    let texts: Vec<_> = (0..130).map(|index| index.to_string()).collect();
    for text in &texts {
        b.say(&stage.bob, &stage.room, text).await;
    }
    b.forget_outbox(a).await;
    b.say(&stage.bob, &stage.room, "last").await;
    stage.mesh.settle().await;
    let mut expected = texts;
    expected.push("last".into());
    assert_eq!(a.messages(&stage.room), expected);
    let requests = stage.requests();
    let gap =
        |(to, endpoint): &&(String, &str)| to == "b.example" && *endpoint == "get_missing_events";
    assert_eq!(requests.iter().filter(gap).count(), 3, "{requests:?}");
    assert!(requests.iter().all(|(_, endpoint)| !endpoint.starts_with("state")));
}

/// When the sender does not help, another server in the room does.
#[tokio::test]
async fn another_server_fills_the_gap() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    b.say(&stage.bob, &stage.room, "lost").await;
    b.forget_outbox(a).await;
    stage.mesh.settle().await;
    b.say(&stage.bob, &stage.room, "last").await;
    stage.mesh.net.script(&b.name, |_| Scripted::refused(500, "M_UNKNOWN"));
    stage.mesh.settle().await;
    assert_eq!(a.messages(&stage.room), ["lost", "last"]);
}

/// TestOutboundFederationIgnoresMissingEventWithBadJSONForRoomVersion6: a bad event is dropped
/// alone, and the event that hangs on it is not placed.
#[tokio::test]
async fn a_bad_event_in_an_answer_is_dropped_alone() {
    let stage = stage().await;
    let chain = stage.chain(&["1", "2", "3"]);
    let mut bad = chain[0].object().clone();
    bad["content"]["number"] = json!(1.1);
    let answer = json!({ "events": [Value::Object(bad), null, 5, wire(&chain[1])] });
    stage.mesh.net.script(&stage.b().name, move |call| match call {
        Call::MissingEvents { .. } => Scripted::Answer(Ok(answer.clone())),
        _ => Scripted::refused(404, "M_NOT_FOUND"),
    });
    let sibling = stage.b().sign(message_draft(stage.a(), &stage.room, &stage.bob, "sibling"));
    let answers = stage.send("1", &[&chain[2], &sibling]).await;
    assert_eq!(answers, [json!({}), json!({})]);
    assert_eq!(stage.a().messages(&stage.room), ["sibling"]);
    assert!(stage.a().event(&chain[2].event_id().to_owned()).is_none());
    // The next one, which hangs on it too, makes us ask again.
    stage.requests();
    let next = message_draft(stage.a(), &stage.room, &stage.bob, "next");
    let next = Draft { prev_events: vec![chain[2].event_id().to_owned().into()], ..next };
    stage.send("2", &[&stage.b().sign(next)]).await;
    assert!(stage.asked("get_missing_events") > 0);
    assert_eq!(stage.a().messages(&stage.room), ["sibling"]);
}

/// A pushed event does not come in upon its sender's word about the state.
#[tokio::test]
async fn a_pushed_event_needs_what_is_before_it() {
    let stage = stage().await;
    let chain = stage.chain(&["lost", "pushed"]);
    stage.mesh.net.script(&stage.b().name, |call| match call {
        Call::MissingEvents { .. } => Scripted::Answer(Ok(json!({ "events": [] }))),
        _ => Scripted::Honest,
    });
    stage.send("1", &[&chain[1]]).await;
    assert!(stage.a().messages(&stage.room).is_empty());
    assert!(stage.requests().iter().all(|(_, endpoint)| !endpoint.starts_with("state")));
}

/// What remains of a gap is bridged by the state behind it, wherever that can be had.
#[tokio::test]
async fn a_gap_that_stays_is_bridged_by_state() {
    for refusal in [403, 404] {
        let stage = stage().await;
        let (a, b) = (stage.a(), stage.b());
        b.say(&stage.bob, &stage.room, "lost").await;
        stage.mesh.isolate("a.example");
        stage.mesh.settle().await;
        b.forget_outbox(a).await;
        b.say(&stage.bob, &stage.room, "edge").await;
        b.say(&stage.bob, &stage.room, "last").await;
        stage.mesh.settle().await;
        stage.mesh.heal("a.example");
        stage.mesh.net.fail_next(&stage.c().name, "backfill", Fault::refused(404, "M_NOT_FOUND"));
        let last = b.outbox(a).pop().unwrap();
        b.forget_outbox(a).await;
        let last = b.event(&last).unwrap().pdu;
        let edge = b.event(&last.prev_events()[0]).unwrap().pdu;
        let answer = json!({ "events": [edge.object()] });
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        stage.mesh.net.script(&b.name, move |call| match call {
            Call::MissingEvents { .. } if count.fetch_add(1, Ordering::SeqCst) == 0 => {
                Scripted::Answer(Ok(answer.clone()))
            }
            Call::StateIds { .. } => Scripted::refused(refusal, "M_UNKNOWN"),
            Call::MissingEvents { .. } => Scripted::Answer(Ok(json!({ "events": [] }))),
            _ => Scripted::Honest,
        });
        let sibling = stage.c().sign(message_draft(a, &stage.room, &stage.cat, "sibling"));
        let answers = stage.send("1", &[&last, &sibling]).await;
        assert_eq!(answers, [json!({}), json!({})]);
        let mut messages = a.messages(&stage.room);
        messages.sort();
        assert_eq!(messages, ["edge", "last", "sibling"]);
        let requests = stage.requests();
        assert!(requests.contains(&("c.example".into(), "state_ids")), "{requests:?}");
    }
}

/// Every answer leads to another gap: bounded.
#[tokio::test]
async fn a_gap_without_end_is_given_up() {
    let stage = stage().await;
    let key = Arc::new(Signer::new(stage.b().name.clone(), "ed25519:sim", &[2; 32]).unwrap());
    let template = message_draft(stage.a(), &stage.room, &stage.bob, "?");
    let fresh = {
        let (key, template) = (key.clone(), template.clone());
        move |index: usize, prev: &str| {
            let prev_events = vec![EventId::parse(prev).unwrap().into()];
            let content = object(json!({ "body": index.to_string() }));
            Draft { prev_events, content, ..template.clone() }.sign(&key).unwrap()
        }
    };
    // The events are made from old to new, as hashes demand; old ones are given last.
    let mut endless = vec![fresh(0, "$nothing")];
    for index in 1..400 {
        endless.push(fresh(index, endless[index - 1].event_id().as_str()));
    }
    let pushed = endless.pop().unwrap();
    let answers = std::sync::Mutex::new(endless);
    stage.mesh.net.script(&stage.b().name, move |call| match call {
        Call::MissingEvents { .. } => {
            let mut answers = answers.lock().unwrap();
            let next: Vec<_> = (0..10).map(|_| wire(&answers.pop().unwrap())).collect();
            Scripted::Answer(Ok(json!({ "events": next })))
        }
        _ => Scripted::refused(404, "M_NOT_FOUND"),
    });
    stage.send("1", &[&pushed]).await;
    let requests = stage.requests();
    assert!(requests.len() <= 100, "{} requests", requests.len());
    let missing = requests.iter().filter(|(_, e)| *e == "get_missing_events").count();
    assert!((10..=20).contains(&missing), "{missing}");
    assert!(stage.a().messages(&stage.room).is_empty());
}

/// Auth events that name further ones, wide and deep: each is asked for once, and not for ever
/// (pains.md, CY 26.9.1; CVE-2024-31208).
#[tokio::test]
async fn auth_events_without_end_are_given_up() {
    let stage = stage().await;
    let rename = |name: &str, auth: Vec<&CheckedPdu>| {
        let mut draft = member_draft(stage.a(), &stage.room, &stage.bob, &stage.bob, "join");
        draft.content = object(json!({ "membership": "join", "displayname": name }));
        draft.auth_events.extend(auth.iter().map(|event| event.event_id().to_owned().into()));
        stage.b().sign(draft)
    };
    let mut layer = vec![rename("root", Vec::new())];
    let mut all = std::collections::BTreeMap::new();
    for depth in 0..40 {
        let next = |index: usize| rename(&format!("{depth}.{index}"), layer.iter().collect());
        let next: Vec<_> = (0..5).map(next).collect();
        all.extend(layer.drain(..).map(|event| (event.event_id().to_owned(), wire(&event))));
        layer = next;
    }
    all.extend(layer.iter().map(|event| (event.event_id().to_owned(), wire(event))));
    let top = rename("top", layer.iter().collect());
    stage.mesh.net.script(&stage.b().name, move |call| match call {
        Call::Event { event } => match all.get(*event) {
            Some(event) => Scripted::Answer(Ok(json!({ "pdus": [event] }))),
            None => Scripted::refused(404, "M_NOT_FOUND"),
        },
        _ => Scripted::refused(404, "M_NOT_FOUND"),
    });
    stage.send("1", &[&top]).await;
    let requests = stage.requests();
    assert!(requests.len() <= 120, "{} requests", requests.len());
    assert!(stage.a().event(&top.event_id().to_owned()).is_none());
}

/// Events that nobody has are not asked for again at once, but they are later.
#[tokio::test]
async fn what_nobody_has_is_not_asked_for_again_at_once() {
    let stage = stage().await;
    let chain = stage.chain(&["lost", "1"]);
    let other = Draft {
        prev_events: vec![chain[0].event_id().to_owned().into()],
        ..message_draft(stage.a(), &stage.room, &stage.bob, "2")
    };
    let other = stage.b().sign(other);
    stage.send("1", &[&chain[1]]).await;
    assert!(stage.asked("get_missing_events") > 0);
    stage.send("2", &[&chain[1], &other]).await;
    assert_eq!(stage.asked("get_missing_events"), 0);
    stage.mesh.clock.advance(120_000);
    stage.send("3", &[&other]).await;
    assert!(stage.asked("get_missing_events") > 0);
    // It turns up by itself, and all is well.
    stage.send("4", &[&chain[0], &chain[1]]).await;
    assert_eq!(stage.a().messages(&stage.room), ["lost", "1"]);
}

/// A partition says nothing about what there is.
#[tokio::test]
async fn silence_is_not_absence() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    b.say(&stage.bob, &stage.room, "lost").await;
    b.forget_outbox(a).await;
    b.say(&stage.bob, &stage.room, "last").await;
    let last = b.event(&b.outbox(a)[0]).unwrap().pdu;
    b.forget_outbox(a).await;
    for server in ["b.example", "c.example"] {
        stage.mesh.net.cut(&a.name, &stage.mesh.server(server).name);
    }
    stage.send("1", &[&last]).await;
    assert!(a.messages(&stage.room).is_empty());
    stage.mesh.heal("a.example");
    stage.send("2", &[&last]).await;
    assert_eq!(a.messages(&stage.room), ["lost", "last"]);
}

/// Prev events of another room lead nowhere, and nobody is asked.
#[tokio::test]
async fn an_event_upon_another_room_is_not_placed() {
    let stage = stage().await;
    let a = stage.a();
    let ann = a.user("ann");
    let other = a.room(&ann, Preset::Public, "12").await;
    let foreign = a.say(&ann, &other, "elsewhere").await;
    let here = a.graph(&stage.room, |graph| graph.room.extremities.clone());
    for prev_events in [vec![foreign.clone()], vec![here[0].clone(), foreign.clone()]] {
        let draft = message_draft(a, &stage.room, &stage.bob, "bridge");
        let prev_events = prev_events.into_iter().map(Into::into).collect();
        let bridge = stage.b().sign(Draft { prev_events, ..draft });
        stage.send(bridge.event_id().as_str(), &[&bridge]).await;
        assert!(a.event(&bridge.event_id().to_owned()).is_none());
    }
    assert!(a.messages(&stage.room).is_empty());
    assert_eq!(a.messages(&other), ["elsewhere"]);
    let requests = stage.requests();
    assert!(requests.iter().all(|(_, e)| !["get_missing_events", "event"].contains(e)));
}

/// A large transaction of events that the rules refuse.
#[tokio::test]
async fn fifty_rejected_events() {
    let stage = stage().await;
    let (state, mut events) = (stage.a().state(&stage.room), Vec::new());
    for index in 0..exeunt_room::inbound::MAX_PDUS {
        let stranger = stage.b().user(&format!("stranger{index}"));
        let draft = member_draft(stage.a(), &stage.room, &stage.bob, &stage.bob, "leave");
        let content = object(json!({ "body": "no" }));
        let (kind, state_key) = ("m.room.message".into(), None);
        let draft = Draft { sender: stranger, kind, state_key, content, ..draft };
        events.push(stage.b().sign(draft));
    }
    let refs: Vec<&Pdu> = events.iter().map(|event| &**event).collect();
    stage.send("1", &refs).await;
    for event in &events {
        let known = stage.a().event(&event.event_id().to_owned()).unwrap();
        assert!(matches!(known.record.verdict, Verdict::Rejected(_)));
    }
    assert_eq!(stage.a().state(&stage.room), state);
    assert!(stage.requests().is_empty());
    let unreachable = RemoteError::Unreachable(String::new());
    stage.mesh.net.script(&stage.b().name, move |_| Scripted::Answer(Err(unreachable.clone())));
    let good = stage.b().sign(message_draft(stage.a(), &stage.room, &stage.bob, "good"));
    stage.send("2", &[&good]).await;
    assert_eq!(stage.a().messages(&stage.room), ["good"]);
}

/// Many events at the far end of a gap, side by side.
#[tokio::test]
async fn a_gap_with_a_wide_end_is_bridged() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    let mut edges = Vec::new();
    for index in 0..12 {
        let lost = b.sign(message_draft(a, &stage.room, &stage.bob, &format!("lost {index}")));
        let draft = message_draft(a, &stage.room, &stage.bob, &index.to_string());
        let prev_events = vec![lost.event_id().to_owned().into()];
        edges.push(b.sign(Draft { prev_events, ..draft }));
    }
    let prev_events = edges.iter().map(|event| event.event_id().to_owned().into()).collect();
    let last = message_draft(a, &stage.room, &stage.bob, "last");
    let last = b.sign(Draft { prev_events, ..last });
    let state: Vec<_> = a.state(&stage.room).into_iter().map(|(_, _, id)| id).collect();
    let state = json!({ "pdu_ids": state, "auth_chain_ids": [] });
    let events: Vec<_> = edges.iter().map(|event| wire(event)).collect();
    stage.mesh.net.script(&b.name, move |call| match call {
        Call::MissingEvents { .. } => Scripted::Answer(Ok(json!({ "events": events }))),
        Call::StateIds { .. } => Scripted::Answer(Ok(state.clone())),
        _ => Scripted::refused(404, "M_NOT_FOUND"),
    });
    stage.send("1", &[&last]).await;
    assert_eq!(a.messages(&stage.room).len(), 13);
}

/// An event of an answer that names more events before it than one may is not placed: the state
/// there would have to be resolved from all of them.
#[tokio::test]
async fn an_event_of_a_gap_names_no_more_than_a_pushed_one_may() {
    for (forks, placed) in [(20, true), (21, false)] {
        let stage = stage().await;
        let (a, b) = (stage.a(), stage.b());
        let message = |text: &str| message_draft(a, &stage.room, &stage.bob, text);
        let forks: Vec<_> = (0..forks).map(|n| b.sign(message(&n.to_string()))).collect();
        let wide = forks.iter().map(|event| event.event_id().to_owned().into()).collect();
        let wide = b.sign(Draft { prev_events: wide, ..message("wide") });
        let prev_events = vec![wide.event_id().to_owned().into()];
        let last = b.sign(Draft { prev_events, ..message("last") });
        for (txn, fork) in forks.iter().enumerate() {
            stage.send(&txn.to_string(), &[fork]).await;
        }
        let events = json!({ "events": [wire(&wide)] });
        stage.mesh.net.script(&b.name, move |call| match call {
            Call::MissingEvents { .. } => Scripted::Answer(Ok(events.clone())),
            _ => Scripted::refused(404, "M_NOT_FOUND"),
        });
        stage.send("last", &[&last]).await;
        assert_eq!(a.messages(&stage.room).contains(&"wide".to_owned()), placed);
        assert_eq!(a.messages(&stage.room).contains(&"last".to_owned()), placed);
    }
}

/// A server that is overloaded has not said that it lacks something.
#[tokio::test]
async fn an_overload_is_not_absence() {
    for status in [429, 502] {
        let stage = stage().await;
        let chain = stage.chain(&["lost", "last"]);
        stage.mesh.net.cut(&stage.a().name, &stage.c().name);
        stage.mesh.net.script(&stage.b().name, move |_| Scripted::refused(status, "M_UNKNOWN"));
        stage.send("1", &[&chain[1]]).await;
        assert!(stage.a().messages(&stage.room).is_empty());
        let answer = json!({ "events": [wire(&chain[0])] });
        stage.mesh.net.script(&stage.b().name, move |_| Scripted::Answer(Ok(answer.clone())));
        stage.send("2", &[&chain[1]]).await;
        assert_eq!(stage.a().messages(&stage.room), ["lost", "last"]);
    }
}

/// A server that names lost events without end spends its own budget, not that of the others.
#[tokio::test]
async fn a_hostile_server_leaves_others_their_requests() {
    let stage = stage().await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    stage.mesh.net.script(&b.name, |_| Scripted::refused(404, "M_NOT_FOUND"));
    for txn in 0..7 {
        let gap = |index: usize| {
            let draft = message_draft(a, &stage.room, &stage.bob, "gap");
            let lost = EventId::parse(format!("$lost{txn}x{index}")).unwrap();
            b.sign(Draft { prev_events: vec![lost.into()], ..draft })
        };
        let gaps: Vec<_> = (0..50).map(gap).collect();
        let gaps: Vec<&Pdu> = gaps.iter().map(|event| &**event).collect();
        stage.send(&txn.to_string(), &gaps).await;
    }
    c.say(&stage.cat, &stage.room, "lost").await;
    c.forget_outbox(a).await;
    c.say(&stage.cat, &stage.room, "last").await;
    stage.mesh.settle().await;
    assert_eq!(a.messages(&stage.room), ["lost", "last"]);
}

/// A state that is made up to have a third server's event refused leaves no verdict.
#[tokio::test]
async fn a_state_that_is_told_refuses_nothing_for_good() {
    let stage = stage().await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    let lost = stage.chain(&["lost"]).remove(0);
    let upon = |event: &CheckedPdu, draft: Draft| {
        let prev_events = vec![event.event_id().to_owned().into()];
        Draft { prev_events, depth: event.depth() + 1, ..draft }
    };
    let edge = message_draft(a, &stage.room, &stage.cat, "edge");
    let edge = c.sign(upon(&lost, edge));
    let last = message_draft(a, &stage.room, &stage.bob, "last");
    let last = b.sign(upon(&edge, last));
    let state = a.state(&stage.room).into_iter();
    let state: Vec<_> =
        state.filter(|(_, key, _)| *key != stage.cat.as_str()).map(|(_, _, id)| id).collect();
    let state = json!({ "pdu_ids": state, "auth_chain_ids": [] });
    let events = json!({ "events": [wire(&edge)] });
    stage.mesh.net.cut(&a.name, &c.name);
    stage.mesh.net.script(&b.name, move |call| match call {
        Call::MissingEvents { .. } => Scripted::Answer(Ok(events.clone())),
        Call::StateIds { .. } => Scripted::Answer(Ok(state.clone())),
        _ => Scripted::refused(404, "M_NOT_FOUND"),
    });
    stage.send("1", &[&last]).await;
    assert!(stage.requests().contains(&("b.example".into(), "state_ids")));
    assert!(a.event(&edge.event_id().to_owned()).is_none());
    stage.send("2", &[&lost, &edge, &last]).await;
    assert_eq!(a.messages(&stage.room), ["lost", "edge", "last"]);
}
