//! A hostile server drives arbitrary events into a room through the real ingest path, and answers
//! what it is asked as it likes. Whatever it does, the room stays a room: the store verifies, only
//! accepted events change the state, those with the power keep it, and another room is untouched.

#![no_main]

mod hostile;
mod program;

use std::collections::BTreeSet;

use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use exeunt_core::{Object, RoomVersion, Signer, hash};
use exeunt_room::{
    Preset,
    inbound::Transaction,
    views::{Filter, SyncRequest},
};
use exeunt_sim::{Fault, Mesh, Server};
use exeunt_store::{tables, verify};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use hostile::Maker;
use program::{Program, Way};

fuzz_target!(|program: Program| {
    // A new one each time: nothing of one input lives on in the next.
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    runtime.block_on(run(program));
});

async fn run(program: Program) {
    let stage = Stage::new(program.version).await;
    let (a, b) = (stage.a(), stage.b());
    let mut maker = stage.maker();
    let untouched = stage.view(&stage.other);
    let powers = stage.powers();
    let (mut waiting, mut kept_back) = (Vec::new(), Vec::new());
    for (number, step) in program.steps.iter().enumerate() {
        let event = maker.make(step, b);
        maker.ids.extend(hash::event_id(stage.version, &event));
        match step.way {
            Way::KeepBack => {
                kept_back.push(event);
                continue;
            }
            Way::WaitTwice => waiting.extend([event.clone(), event]),
            Way::Send | Way::Wait => waiting.push(event),
        }
        if step.way != Way::Send && number + 1 != program.steps.len() {
            continue;
        }
        stage.offer(&kept_back, step.value);
        let (accepted, before) = (stage.accepted(), stage.view(&stage.room));
        let pdus = std::mem::take(&mut waiting).into_iter().map(Value::Object).collect();
        let transaction = Transaction { pdus, edus: Vec::new() };
        let txn = format!("fuzz {number}");
        let answer = b.rooms.receive_transaction(&a.name, &txn, transaction).await;
        answer.expect("one bad event never fails a transaction");
        if stage.accepted() == accepted {
            assert_eq!(stage.view(&stage.room), before, "nothing was accepted");
        }
        stage.check_head();
        assert_eq!(stage.view(&stage.other), untouched, "the other room");
        assert_eq!(stage.powers(), powers, "those in power");
    }
    let report = verify(&b.store).expect("the store reads");
    assert!(report.is_clean(), "{:?}", report.findings);
    stage.still_lives().await;
}

struct Stage {
    mesh: Mesh,
    version: RoomVersion,
    room: OwnedRoomId,
    other: OwnedRoomId,
    bob: OwnedUserId,
}

/// What must not change unless an event is accepted: extremities, current state, timeline.
#[derive(Debug, PartialEq)]
struct View {
    extremities: Vec<OwnedEventId>,
    state: Vec<(String, String, OwnedEventId)>,
    timeline: Vec<OwnedEventId>,
}

impl Stage {
    /// Bob (b) has a room in which ann (a) moderates and amy (a) is, and one of his own.
    async fn new(version: u8) -> Self {
        let mesh = Mesh::new(&["a.example", "b.example"]);
        let versions: Vec<_> = RoomVersion::usable().collect();
        let version = versions[usize::from(version) % versions.len()];
        let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
        let (ann, amy, bob) = (a.user("ann"), a.user("amy"), b.user("bob"));
        let mut users = json!({ ann.as_str(): 50 });
        if !version.room_id_is_create_hash() {
            users[bob.as_str()] = 100.into();
        }
        let events = json!({ "m.room.power_levels": 100, "m.room.join_rules": 100 });
        let levels = json!({ "users": users, "events": events, "state_default": 50 });
        let state = vec![("m.room.power_levels", levels)];
        let room = b.room_with(&bob, Preset::Public, version.as_str(), state).await;
        let other = b.room(&bob, Preset::Private, version.as_str()).await;
        for user in [&ann, &amy] {
            a.join(user, &room, b).await.expect("the room is public");
        }
        mesh.settle().await;
        Self { mesh, version, room, other, bob }
    }

    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    fn maker(&self) -> Maker<'_> {
        let (a, b) = (self.a(), self.b());
        let unknown = OwnedEventId::try_from("$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        let mut ids = vec![unknown.expect("an event id")];
        ids.extend(b.timeline(&self.other));
        ids.extend(b.timeline(&self.room));
        let elsewhere = OwnedUserId::try_from("@cat:c.example").expect("a user id");
        let users = ["ann", "amy", "eve"].map(|name| a.user(name));
        let stranger = Signer::new(a.name.clone(), a.signer.key_id(), &[9; 32]);
        Maker {
            version: self.version,
            room: self.room.clone(),
            other: self.other.clone(),
            users: users.into_iter().chain([self.bob.clone(), elsewhere]).collect(),
            signer: &a.signer,
            stranger: stranger.expect("a seed"),
            ids,
        }
    }

    /// Answers to the next questions: made of what was kept back. The state that is claimed leaves
    /// out what `lacking` says.
    fn offer(&self, kept_back: &[Object], lacking: u8) {
        if kept_back.is_empty() {
            return;
        }
        let state = self.b().state(&self.room);
        let left_out = usize::from(lacking) % (state.len() + 1);
        let ids = state.iter().map(|(_, _, id)| id.clone()).enumerate();
        let ids = ids.filter(|(index, _)| *index != left_out).map(|(_, id)| id);
        let made = kept_back.iter().filter_map(|event| hash::event_id(self.version, event));
        let ids: Vec<_> = ids.chain(made).collect();
        let forge = |endpoint, answer: Value| {
            self.mesh.net.fail_next(&self.a().name, endpoint, Fault::Forged(answer));
        };
        forge("get_missing_events", json!({ "events": kept_back }));
        forge("event_auth", json!({ "auth_chain": kept_back }));
        forge("state_ids", json!({ "pdu_ids": ids, "auth_chain_ids": [] }));
        for event in kept_back {
            forge("event", json!({ "pdus": [event] }));
        }
    }

    /// Events that have a place in the graph and were accepted.
    fn accepted(&self) -> BTreeSet<OwnedEventId> {
        let rows = self.b().store.reader().scan::<tables::Events>(()).collect();
        let rows = rows.expect("the events read").into_iter();
        rows.filter(|(_, row)| row.states.is_some() && row.verdict.is_accepted())
            .map(|(id, _)| id)
            .collect()
    }

    fn view(&self, room: &RoomId) -> View {
        let b = self.b();
        View {
            extremities: b.graph(room, |graph| graph.room.extremities.clone()),
            state: b.state(room),
            timeline: b.timeline(room),
        }
    }

    /// The state that only bob may change.
    fn powers(&self) -> Vec<(String, String, OwnedEventId)> {
        let only_bob = ["m.room.create", "m.room.power_levels", "m.room.join_rules"];
        let mut state = self.b().state(&self.room);
        state
            .retain(|(kind, key, _)| only_bob.contains(&kind.as_str()) || key == self.bob.as_str());
        state.retain(|(kind, ..)| kind != "org.example.odd");
        state
    }

    /// Extremities are accepted events of the room with a place in it.
    fn check_head(&self) {
        let accepted = self.accepted();
        let extremities = self.b().graph(&self.room, |graph| graph.room.extremities.clone());
        assert!(!extremities.is_empty());
        for id in extremities {
            assert!(accepted.contains(&id), "{id} is an extremity");
        }
    }

    /// Bob reads the room and speaks in it.
    async fn still_lives(&self) {
        let b = self.b();
        let request = SyncRequest {
            viewer: b.rooms.viewer(&self.bob, None),
            since: None,
            filter: Filter::default(),
            full_state: false,
            use_state_after: false,
        };
        let view = b.rooms.sync(request).await.expect("bob syncs");
        assert!(view.join.contains_key(&self.room));
        let said = b.say(&self.bob, &self.room, "still here").await;
        assert!(b.timeline(&self.room).contains(&said));
        assert!(b.graph(&self.room, |graph| graph.room.extremities.contains(&said)));
    }
}
