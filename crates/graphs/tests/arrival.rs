//! The order in which events arrive, and how many at once, changes nothing in the end.

use std::collections::{BTreeMap, BTreeSet};

use exeunt_core::Pdu;
use exeunt_core::ruma::OwnedEventId;
use exeunt_graphs::{Received, Rng, Room, Server, version_of};
use exeunt_state_res::RoomVersion;

const ROOMS: u64 = 24;
const LARGEST_BATCH: usize = 7;

fn rooms() -> impl Iterator<Item = Room> {
    let usable = |seed: &u64| RoomVersion::parse(version_of(*seed)).is_ok();
    let version = |seed| RoomVersion::parse(version_of(seed)).expect("usable");
    (0..).filter(usable).take(ROOMS as usize).map(move |seed| Room::generate(version(seed), seed))
}

fn new_server(room: &Room) -> Server {
    Server::new(room.pdus().next().expect("a create event").clone())
}

/// The events after the create event, each after those that it names.
fn any_topological_order(room: &Room, rng: &mut Rng) -> Vec<Pdu> {
    let mut waiting: Vec<&Pdu> = room.pdus().skip(1).collect();
    let mut here: BTreeSet<OwnedEventId> = BTreeSet::from([room.order[0].clone()]);
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let is_ready = |pdu: &Pdu| {
            pdu.prev_events().iter().chain(pdu.auth_events()).all(|id| here.contains(id))
        };
        let ready: Vec<usize> = (0..waiting.len()).filter(|at| is_ready(waiting[*at])).collect();
        let next = waiting.swap_remove(rng.pick(&ready));
        here.insert(next.event_id().to_owned());
        order.push(next.clone());
    }
    order
}

fn verdicts(room: &Room, server: &Server) -> BTreeMap<OwnedEventId, Received> {
    let get = |id: &OwnedEventId| Some((id.clone(), server.get(id)?.clone()));
    room.order.iter().filter_map(get).collect()
}

#[test]
fn any_order_of_arrival_gives_the_same_verdicts_and_state() {
    for room in rooms() {
        let rng = &mut Rng::new(room.seed + 1);
        let expected = room.server.current_state().expect("resolves");
        let at_once = verdicts(&room, &room.server);
        let mut orders = BTreeSet::new();
        for _ in 0..2 {
            let mut server = new_server(&room);
            let order = any_topological_order(&room, rng);
            let mut left = order.as_slice();
            while !left.is_empty() {
                let (batch, rest) = left.split_at(left.len().min(1 + rng.below(LARGEST_BATCH)));
                for pdu in batch {
                    server.receive(pdu.clone()).expect("its predecessors are here");
                }
                // A server asks for the current state between batches.
                server.current_state().expect("resolves");
                left = rest;
            }
            assert_eq!(server.current_state(), Ok(expected.clone()), "seed {}", room.seed);
            assert_eq!(verdicts(&room, &server), at_once, "seed {}", room.seed);
            orders.insert(order.iter().map(|pdu| pdu.event_id().to_owned()).collect::<Vec<_>>());
        }
        assert_eq!(orders.len(), 2, "seed {}: the orders differ", room.seed);
    }
}

#[test]
fn one_by_one_the_state_is_the_same_as_at_once() {
    for room in rooms().take(6) {
        let mut server = new_server(&room);
        let mut last = server.current_state().expect("resolves");
        for pdu in room.pdus().skip(1) {
            server.receive(pdu.clone()).expect("its predecessors are here");
            last = server.current_state().expect("resolves");
        }
        assert_eq!(Ok(last), room.server.current_state(), "seed {}", room.seed);
    }
}

#[test]
fn a_seed_is_all_of_a_room() {
    let report = || rooms().take(10).map(|room| exeunt_graphs::report::room(&room));
    assert!(report().eq(report()));
}

/// The rooms are worth comparing: they fork, states differ, and some events are refused.
#[test]
fn rooms_have_conflicts_and_rejected_events() {
    let (mut conflicts, mut rejected, mut events) = (0, 0, 0);
    for room in rooms() {
        conflicts += room.resolutions.len();
        events += room.order.len();
        let received = room.order.iter().filter_map(|id| room.server.get(id));
        rejected += received.filter(|event| !event.verdict.is_accepted()).count();
    }
    assert!(events > ROOMS as usize * 30, "{events} events");
    assert!(conflicts > ROOMS as usize * 15, "{conflicts} resolutions");
    assert!(rejected > ROOMS as usize, "{rejected} rejected events");
}
