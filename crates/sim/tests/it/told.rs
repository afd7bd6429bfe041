//! The whole state across a gap, as another server tells it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use exeunt_core::ruma::OwnedRoomId;
use exeunt_room::{Call, Preset};
use exeunt_sim::{Fault, Mesh, Scripted, Server};
use exeunt_store::{Batch, tables, verify};
use serde_json::{json, value::RawValue};

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
