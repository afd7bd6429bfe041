//! Many heads: what a long partition, or a peer that forks at will, leaves. Decision 0010.

use std::collections::BTreeSet;

use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use exeunt_core::{CheckedPdu, Draft, Pdu};
use exeunt_room::Preset;
use exeunt_sim::{
    Mesh, Server,
    events::{message_draft, state_draft},
};
use exeunt_store::tables;
use serde_json::{Value, json};

const INTERVAL_MS: u64 = 60_000;

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
}

/// A room of ann on `a` and bob of `b`, in which everyone may set state. Dummy events need 100.
async fn stage(anns_level: i64) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = a.room(&ann, Preset::Public, "11").await;
    b.join(&bob, &room, a).await.unwrap();
    let levels = json!({
        "users": { ann.as_str(): anns_level }, "state_default": 0,
        "events": { "org.matrix.dummy_event": 100 },
    });
    a.set(&ann, &room, "m.room.power_levels", levels).await;
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

    fn heads(&self) -> Vec<OwnedEventId> {
        self.a().graph(&self.room, |graph| graph.room.extremities.clone())
    }

    /// Those beside the room's row, too.
    fn all_heads(&self) -> BTreeSet<OwnedEventId> {
        let older = self.a().store.reader().scan::<tables::OlderHeads>(self.room.clone()).keys();
        older.unwrap().into_iter().map(|(_, _, id)| id).chain(self.heads()).collect()
    }

    /// Whether those of the row are the deepest of all, in order.
    fn has_deepest(&self) -> bool {
        let all = self.all_heads().into_iter();
        let depth = |id: &OwnedEventId| self.a().event(id).unwrap().pdu.depth();
        let mut all: Vec<_> = all.map(|id| (depth(&id), id)).collect();
        all.sort();
        let row = self.heads();
        all[all.len() - row.len()..].iter().map(|(_, id)| id).eq(&row)
    }

    /// State events of bob, each a fork at the head that the room has now.
    fn forks(&self, count: usize) -> Vec<CheckedPdu> {
        let fork = |index: usize| {
            let kind = format!("org.example.{index}");
            let draft = state_draft(self.a(), &self.room, &self.bob, &kind, json!({}));
            self.b().sign(draft)
        };
        (0..count).map(fork).collect()
    }

    async fn send(&self, events: &[CheckedPdu]) {
        for (index, events) in events.chunks(50).enumerate() {
            let events: Vec<&Pdu> = events.iter().map(|event| &**event).collect();
            let txn = format!("{index} {}", events[0].event_id());
            self.a().receive(self.b(), &txn, &events).await;
        }
    }

    /// Whether current state is what the states of all heads resolve to, however many there are.
    fn is_exact(&self) -> bool {
        let heads = self.heads();
        self.a().graph(&self.room, |graph| {
            let heads = heads.iter();
            let states = heads.map(|id| graph.state_after(id).unwrap().unwrap()).collect();
            graph.resolve(states).unwrap() == graph.room.state
        })
    }

    /// Levels as at the start, but for who may set state.
    fn levels(&self, state_default: i64) -> Value {
        json!({
            "users": { self.ann.as_str(): 50 }, "state_default": state_default,
            "events": { "org.matrix.dummy_event": 100 },
        })
    }

    fn has_state(&self, server: &Server, events: &[CheckedPdu]) -> bool {
        let state = server.state(&self.room);
        events.iter().all(|event| state.iter().any(|(.., id)| id == event.event_id()))
    }
}

#[tokio::test]
async fn many_heads_are_collapsed_by_a_local_user() {
    let stage = stage(100).await;
    let shown = stage.a().timeline(&stage.room).len();
    let forks = stage.forks(15);
    stage.send(&forks).await;
    // The eleventh fork is one too many; the rest come within the interval.
    assert_eq!(stage.heads().len(), 1 + 1 + 4);
    assert!(stage.has_state(stage.a(), &forks));
    assert_eq!(stage.a().timeline(&stage.room).len(), shown + 15);
    stage.a().say(&stage.ann, &stage.room, "together").await;
    stage.mesh.settle().await;
    assert!(stage.has_state(stage.b(), &forks));
    assert_eq!(stage.b().messages(&stage.room), ["together"]);
    assert_eq!(stage.b().state(&stage.room), stage.a().state(&stage.room));
}

/// One dummy event each minute, whatever comes: others collapse the room too.
#[tokio::test]
async fn a_room_is_not_collapsed_all_the_time() {
    let stage = stage(100).await;
    let forks = stage.forks(40);
    stage.send(&forks[..30]).await;
    assert_eq!(stage.a().outbox(stage.b()).len(), 1);
    assert!(stage.heads().len() > 10);
    stage.mesh.clock.advance(INTERVAL_MS);
    stage.send(&forks[30..31]).await;
    assert!(stage.heads().len() <= 10, "{}", stage.heads().len());
    assert!(stage.has_state(stage.a(), &forks[..31]));
}

/// Nobody here may send one: the room goes on with many heads, and all state counts.
#[tokio::test]
async fn many_heads_without_anyone_to_collapse_them() {
    let stage = stage(50).await;
    let forks = stage.forks(60);
    stage.send(&forks).await;
    assert_eq!(stage.heads().len(), 60);
    assert!(stage.has_state(stage.a(), &forks));
    // What we say follows the ten newest of them.
    let said = stage.a().say(&stage.ann, &stage.room, "hello").await;
    let said = stage.a().event(&said).unwrap().pdu;
    let mut newest: Vec<_> = forks.iter().map(|e| (e.depth(), e.event_id().to_owned())).collect();
    newest.sort();
    let newest: Vec<_> = newest.into_iter().rev().take(10).map(|(_, id)| id).collect();
    assert_eq!(said.prev_events(), newest);
    assert_eq!(stage.heads().len(), 51);
    assert!(stage.has_state(stage.a(), &forks));
}

/// An event that follows many heads at once is within the format's limit of 20.
#[tokio::test]
async fn prev_events_have_a_limit() {
    let stage = stage(50).await;
    let forks = stage.forks(21);
    stage.send(&forks).await;
    let all: Vec<_> = forks.iter().map(|event| event.event_id().to_owned()).collect();
    for (count, taken) in [(21, false), (20, true)] {
        let draft = message_draft(stage.a(), &stage.room, &stage.bob, "merge");
        let merge = stage.b().sign(Draft {
            prev_events: all[..count].iter().cloned().map(Into::into).collect(),
            ..draft
        });
        let answer = stage.a().receive(stage.b(), &count.to_string(), &[&merge]).await;
        let outcome = &answer[merge.event_id().as_str()];
        assert_eq!(*outcome == json!({}), taken, "{count}: {outcome}");
    }
    assert_eq!(stage.heads().len(), 2);
}

/// A flood that the room's row does not hold: the deepest heads stay in it, the others come back as
/// those are followed, and nothing is lost.
#[tokio::test]
async fn more_heads_than_the_rooms_row_holds() {
    let stage = stage(50).await;
    let fork = |index: u64| {
        let kind = format!("org.example.{index}");
        let draft = state_draft(stage.a(), &stage.room, &stage.bob, &kind, json!({}));
        stage.b().sign(Draft { depth: draft.depth + index * 37 % 50, ..draft })
    };
    let forks: Vec<_> = (0..250).map(fork).collect();
    let shallow = |index: u64| {
        let draft = message_draft(stage.a(), &stage.room, &stage.bob, "shallow");
        stage.b().sign(Draft { depth: 1 + index, ..draft })
    };
    let shallow: Vec<_> = (0..13).map(shallow).collect();
    stage.send(&forks).await;
    assert!(stage.has_state(stage.a(), &forks));
    let all: BTreeSet<_> = forks.iter().map(|event| event.event_id().to_owned()).collect();
    assert!(stage.all_heads() == all);
    assert_eq!(stage.heads().len(), 100);
    assert!(stage.has_deepest());
    // Bob follows them, twenty at a time, in no order of ours.
    let mut heads = all.clone();
    for (index, some) in all.iter().collect::<Vec<_>>().chunks(20).enumerate() {
        let draft = message_draft(stage.a(), &stage.room, &stage.bob, &index.to_string());
        let prev_events = some.iter().map(|id| (*id).clone().into()).collect();
        let merge = stage.b().sign(Draft { prev_events, ..draft });
        stage.send(std::slice::from_ref(&merge)).await;
        heads.retain(|id| !some.contains(&id));
        heads.insert(merge.event_id().to_owned());
        assert!(stage.all_heads() == heads);
        assert!(stage.heads().len() >= heads.len().min(50));
        assert!(stage.has_deepest());
        // One that is less deep than all.
        stage.send(&shallow[index..=index]).await;
        heads.insert(shallow[index].event_id().to_owned());
        assert!(stage.all_heads() == heads);
        assert!(stage.has_deepest());
    }
    assert!(stage.has_state(stage.a(), &forks));
    assert_eq!(stage.heads().len(), heads.len());
}

/// An event behind rejected ones follows all that those follow: more heads than come back at once.
#[tokio::test]
async fn more_heads_are_followed_than_come_back() {
    let stage = stage(50).await;
    let levels = json!({ "users": { stage.bob.as_str(): 100 } });
    let power = "m.room.power_levels";
    let seizure = state_draft(stage.a(), &stage.room, &stage.bob, power, levels);
    let merge = message_draft(stage.a(), &stage.room, &stage.bob, "merge");
    let forks = stage.forks(250);
    stage.send(&forks).await;
    let mut all: Vec<_> = stage.all_heads().into_iter().collect();
    all.sort_by(|a, b| b.cmp(a));
    let seize = |heads: &[OwnedEventId]| {
        let prev_events = heads.iter().cloned().map(Into::into).collect();
        stage.b().sign(Draft { prev_events, ..seizure.clone() })
    };
    let seizures: Vec<_> = all[..160].chunks(20).map(seize).collect();
    stage.send(&seizures).await;
    let prev_events = seizures.iter().map(|event| event.event_id().to_owned().into()).collect();
    let merge = stage.b().sign(Draft { prev_events, ..merge });
    stage.send(std::slice::from_ref(&merge)).await;
    let rest: BTreeSet<_> = all.drain(160..).chain([merge.event_id().to_owned()]).collect();
    assert!(stage.all_heads() == rest);
    assert!(stage.heads().len() >= 50);
    assert!(stage.has_state(stage.a(), &forks));
}

/// Beyond the heads that are resolved together each is resolved alone, and what comes out is the
/// same, in whatever order they come.
#[tokio::test]
async fn many_heads_that_disagree() {
    let stage = stage(50).await;
    let fork = |index: u64| {
        let kind = format!("org.example.{}", index % 7);
        let draft = state_draft(stage.a(), &stage.room, &stage.bob, &kind, json!({}));
        let origin_server_ts = draft.origin_server_ts + index * 37 % 60;
        stage.b().sign(Draft { origin_server_ts, ..draft })
    };
    let forks: Vec<_> = (0..60).map(fork).collect();
    stage.send(&forks).await;
    assert_eq!(stage.heads().len(), 60);
    assert!(stage.is_exact());
}

/// A change of power beside many heads takes from all of them what it forbids.
#[tokio::test]
async fn a_power_event_beside_many_heads() {
    let stage = stage(50).await;
    let levels = stage.levels(50);
    let draft = state_draft(stage.a(), &stage.room, &stage.ann, "m.room.power_levels", levels);
    let levels = stage.a().sign(draft);
    let forks = stage.forks(40);
    stage.send(&forks).await;
    stage.send(&[levels]).await;
    assert_eq!(stage.heads().len(), 41);
    assert!(forks.iter().all(|fork| !stage.has_state(stage.a(), std::slice::from_ref(fork))));
    assert!(stage.is_exact());
}

/// What was soft-failed counts with the event that follows it, also beside many heads.
#[tokio::test]
async fn many_heads_and_one_upon_a_soft_failed_event() {
    let stage = stage(50).await;
    let forks = stage.forks(60);
    let draft = state_draft(stage.a(), &stage.room, &stage.bob, "org.example.late", json!({}));
    let late = [stage.b().sign(draft)];
    let draft = message_draft(stage.a(), &stage.room, &stage.bob, "upon it");
    let prev_events = vec![late[0].event_id().to_owned().into()];
    let follower = [stage.b().sign(Draft { prev_events, depth: draft.depth + 1, ..draft })];
    stage.send(&forks).await;
    stage.a().set(&stage.ann, &stage.room, "m.room.power_levels", stage.levels(50)).await;
    stage.send(&late).await;
    stage.a().set(&stage.ann, &stage.room, "m.room.power_levels", stage.levels(0)).await;
    assert!(!stage.has_state(stage.a(), &late));
    stage.send(&follower).await;
    assert!(stage.heads().len() > 20);
    assert!(stage.has_state(stage.a(), &late));
}
