//! Random rooms come to a server in any order, one by one, in batches, or from their end, whose
//! gaps it has to fill: its verdicts and states are those of one that had every event in its turn.
//!
//! `EXEUNT_ARRIVALS` says how many rooms (24), `EXEUNT_ARRIVALS_FROM` their first seed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    env,
    sync::{Arc, Mutex},
};

use exeunt_core::{
    Pdu, RoomVersion,
    ruma::{EventId, OwnedEventId, OwnedRoomId},
};
use exeunt_graphs::{Received, Room, State, version_of};
use exeunt_room::{
    Call, Preset,
    inbound::{MAX_PDUS, Transaction},
};
use exeunt_sim::{
    Mesh, Rng, Scripted, Server,
    events::{signed_by, wire},
};
use exeunt_store::tables;
use serde_json::{Value, json};

const GUEST: &str = "@guest:here";
/// The servers of those who make the rooms. The first speaks for all of them.
const MAKERS: [&str; 4] = ["one", "two", "three", "four"];

/// How the events of a room come.
#[derive(Debug, Clone, Copy)]
enum Arrival {
    /// Each after those that it names, so many in a transaction.
    InOrder(usize),
    /// The last ones first: what they rest on has to be asked for.
    FromTheEnd,
    /// All, in no order.
    Shuffled,
}

const ARRIVALS: [Arrival; 4] =
    [Arrival::InOrder(1), Arrival::InOrder(7), Arrival::FromTheEnd, Arrival::Shuffled];

/// What the servers of the room have to give.
#[derive(Default)]
struct Peer {
    version: String,
    join: Option<Pdu>,
    /// The state before the join.
    state: Vec<OwnedEventId>,
    events: BTreeMap<OwnedEventId, (Received, Value)>,
}

impl Peer {
    fn answer(&self, call: &Call<'_>) -> Value {
        match call {
            Call::Make(_) => {
                let template = self.join.as_ref().map(|join| join.object());
                json!({ "room_version": self.version, "event": template })
            }
            Call::Send(request) => json!({
                "origin": MAKERS[0],
                "event": request.event.object(),
                "state": self.wire(&self.state),
                "auth_chain": self.wire(&self.auth_chain(&self.state)),
            }),
            Call::MissingEvents { earliest, latest, limit, .. } => {
                let latest = latest.iter().flat_map(|id| self.pdu(id).prev_events());
                json!({ "events": self.wire(&self.back_from(latest, earliest, *limit)) })
            }
            Call::Backfill { from, limit, .. } => {
                json!({ "pdus": self.wire(&self.back_from(from.iter(), &[], *limit)) })
            }
            Call::Event { event } => json!({ "pdus": self.wire(&[(*event).to_owned()]) }),
            Call::EventAuth { event, .. } => {
                let chain = self.auth_chain(self.pdu(event).auth_events());
                json!({ "auth_chain": self.wire(&chain) })
            }
            Call::StateIds { event, .. } => {
                let state = self.state_before(event);
                json!({ "auth_chain_ids": self.auth_chain(&state), "pdu_ids": state })
            }
            Call::State { event, .. } => {
                let state = self.state_before(event);
                let chain = self.auth_chain(&state);
                json!({ "auth_chain": self.wire(&chain), "pdus": self.wire(&state) })
            }
            other => panic!("nobody asks for {other:?}"),
        }
    }

    fn pdu(&self, id: &EventId) -> &Pdu {
        &self.events[id].0.pdu
    }

    fn wire(&self, ids: &[OwnedEventId]) -> Vec<Value> {
        ids.iter().map(|id| self.events[id].1.clone()).collect()
    }

    fn state_before(&self, id: &EventId) -> Vec<OwnedEventId> {
        self.events[id].0.before.values().cloned().collect()
    }

    fn auth_chain(&self, ids: &[OwnedEventId]) -> Vec<OwnedEventId> {
        let mut chain = BTreeSet::new();
        let mut open: Vec<_> = ids.iter().flat_map(|id| self.pdu(id).auth_events()).collect();
        while let Some(id) = open.pop() {
            if chain.insert(id.clone()) {
                open.extend(self.pdu(id).auth_events());
            }
        }
        chain.into_iter().collect()
    }

    /// Events from these back to the earliest, old ones first; no more than the limit.
    fn back_from<'a>(
        &'a self,
        from: impl Iterator<Item = &'a OwnedEventId>,
        earliest: &[OwnedEventId],
        limit: usize,
    ) -> Vec<OwnedEventId> {
        let mut open: VecDeque<_> = from.collect();
        let mut found = Vec::new();
        while let Some(id) = open.pop_front() {
            if found.len() < limit && !earliest.contains(id) && !found.contains(id) {
                found.push(id.clone());
                open.extend(self.pdu(id).prev_events());
            }
        }
        found.reverse();
        found
    }
}

/// A room of others with a guest, who is here.
struct Stage {
    mesh: Mesh,
    peer: Arc<Mutex<Peer>>,
    room: Room,
    room_id: OwnedRoomId,
    /// The events after the guest's join, in their order.
    coming: Vec<OwnedEventId>,
}

impl Stage {
    /// `None` where the guest cannot come in, or a redaction changes the rules (decision 0039).
    async fn new(seed: u64) -> Option<Self> {
        let version = RoomVersion::parse(version_of(seed)).expect("a room version");
        let mut room = Room::begin(version, seed);
        let join = room.join(GUEST)?;
        let mesh = Mesh::new(&["here", MAKERS[0], MAKERS[1], MAKERS[2], MAKERS[3]]);
        let room_id = join.room_id().to_owned();
        let peer = Peer {
            version: version.as_str().to_owned(),
            state: room.server.current_state().expect("it resolves").into_values().collect(),
            events: known(&mesh, &room),
            join: Some(join),
        };
        let peer = Arc::new(Mutex::new(peer));
        for name in MAKERS {
            let peer = peer.clone();
            mesh.net.script(&mesh.server(name).name, move |call| {
                Scripted::Answer(Ok(peer.lock().unwrap().answer(call)))
            });
        }
        let (here, one) = (mesh.server("here"), mesh.server(MAKERS[0]));
        let guest = here.user("guest");
        here.join(&guest, &room_id, one).await.expect("the guest comes in");
        let join = here.graph(&room_id, |graph| graph.current("m.room.member", GUEST));
        room.admit(join.expect("the state reads").expect("the guest is in"));
        let before = room.order.len();
        room.grow();
        if redacts_rules(&room) {
            return None;
        }
        let coming = room.order[before..].to_vec();
        peer.lock().unwrap().events = known(&mesh, &room);
        Some(Self { mesh, peer, room, room_id, coming })
    }

    fn here(&self) -> &Server {
        self.mesh.server("here")
    }

    async fn come(&self, arrival: Arrival) {
        let rng = Rng::new(self.room.seed + 1);
        let mut events = self.coming.clone();
        let batch = match arrival {
            Arrival::InOrder(batch) => batch,
            Arrival::FromTheEnd => {
                events.reverse();
                1
            }
            Arrival::Shuffled => {
                events.sort_by_cached_key(|_| rng.next());
                MAX_PDUS
            }
        };
        for (number, events) in events.chunks(batch).enumerate() {
            let pdus = self.peer.lock().unwrap().wire(events);
            let transaction = Transaction { pdus, edus: Vec::new() };
            let (rooms, one) = (&self.here().rooms, &self.mesh.server(MAKERS[0]).name);
            let taken = rooms.receive_transaction(one, &format!("{number}"), transaction).await;
            taken.expect("the transaction is taken");
            rooms.inbound_idle().await;
        }
    }

    /// What is here of an event: whether it is rejected, and the states before and after it.
    fn judged(&self, id: &EventId) -> Option<(bool, State, State)> {
        self.here().graph(&self.room_id, |graph| {
            let states = graph.states(id).expect("the store reads")?;
            let load = |root| graph.state_ids(root).expect("the state reads");
            let known = graph.event_here(id).expect("it is there");
            Some((known.record.verdict.is_rejected(), load(states.before), load(states.after)))
        })
    }

    fn check(&mut self, arrival: Arrival) {
        let what = format!("seed {}, {arrival:?}", self.room.seed);
        for id in &self.coming {
            let made = self.room.server.get(id).expect("an event of the room");
            let expected = (!made.verdict.is_accepted(), made.before.clone(), made.after.clone());
            let judged = self.judged(id).unwrap_or_else(|| panic!("{what}: {id} is not placed"));
            assert!(judged == expected, "{what}: {id} is {judged:?}, and should be {expected:?}");
        }
        let (heads, current) = self.here().graph(&self.room_id, |graph| {
            let current = graph.state_ids(graph.room.state).expect("the state reads");
            (graph.room.extremities.clone(), current)
        });
        // Where there are many heads, the server makes events of its own.
        let all = self.here().store.reader().scan::<tables::Events>(()).keys();
        let all = all.expect("the events read").into_iter();
        let own = all.filter(|id| !self.room.server.contains(id));
        let mut own: Vec<_> = own.filter_map(|id| Some(self.here().event(&id)?.pdu)).collect();
        own.sort_by_key(|pdu| pdu.depth());
        for pdu in own {
            self.room.server.receive(pdu).expect("it follows events of the room");
        }
        let sets = self.room.server.sets(&heads).expect("the heads are events of the room");
        let expected = self.room.server.resolve(&sets).expect("it resolves");
        assert_eq!(current, expected, "{what}: the current state");
    }
}

fn known(mesh: &Mesh, room: &Room) -> BTreeMap<OwnedEventId, (Received, Value)> {
    let signers = MAKERS.map(|name| mesh.server(name).signer.clone());
    let know = |id: &OwnedEventId| {
        let event = room.server.get(id)?.clone();
        let signed = signed_by(&event.pdu, signers.iter().map(|signer| &**signer));
        Some((id.clone(), (event, signed)))
    };
    room.order.iter().filter_map(know).collect()
}

/// Whether a redaction takes something out of a state event.
fn redacts_rules(room: &Room) -> bool {
    room.pdus().filter_map(|pdu| pdu.redacts()).any(|id| {
        let target = room.server.get(&id).map(|event| &event.pdu);
        target.is_some_and(|pdu| pdu.key().is_some() && pdu.redacted().content() != pdu.content())
    })
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test]
async fn any_arrival_gives_the_same_verdicts_and_states() {
    let (mut left, mut seed) = (number("EXEUNT_ARRIVALS", 24), number("EXEUNT_ARRIVALS_FROM", 0));
    while left > 0 {
        let mut has_guest = false;
        for arrival in ARRIVALS {
            let Some(mut stage) = Stage::new(seed).await else { break };
            has_guest = true;
            stage.come(arrival).await;
            stage.check(arrival);
        }
        left -= u64::from(has_guest);
        seed += 1;
    }
}

/// A server may answer about a gap with all of its history. What is older than our stay is no news:
/// placed as such, it may take us out of the room, whose rules have changed since we came.
#[tokio::test]
async fn what_an_answer_has_from_before_our_join_is_not_placed() {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = a.room(&ann, Preset::Public, "10").await;
    let before = a.timeline(&room);
    b.join(&bob, &room, a).await.unwrap();
    mesh.settle().await;
    a.set(&ann, &room, "m.room.join_rules", json!({ "join_rule": "invite" })).await;
    mesh.settle().await;
    a.say(&ann, &room, "lost").await;
    a.forget_outbox(b).await;
    let history = a.timeline(&room).into_iter().filter_map(|id| a.event(&id));
    let history: Vec<_> = history.map(|event| wire(&event.pdu)).collect();
    let answer = json!({ "events": history });
    mesh.net.script(&a.name, move |call| match call {
        Call::MissingEvents { .. } => Scripted::Answer(Ok(answer.clone())),
        _ => Scripted::Honest,
    });
    let last = a.say(&ann, &room, "last").await;
    mesh.settle().await;
    assert_eq!(b.messages(&room), ["lost", "last"]);
    assert_eq!(b.graph(&room, |graph| graph.room.extremities.clone()), [last]);
    let placed = |id: &&OwnedEventId| b.graph(&room, |graph| graph.states(id).unwrap().is_some());
    assert_eq!(before.iter().filter(placed).count(), 0);
}
