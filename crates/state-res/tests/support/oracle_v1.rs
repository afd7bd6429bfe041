//! State resolution of room version 1 by the letter, over whole states.
//!
//! Specification: rooms/v1, "State resolution".

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use exeunt_core::{Pdu, StateKey, StateMap};
use exeunt_state_res::check_auth;
use ring::digest;
use ruma::OwnedEventId;

type State = StateMap<Pdu>;

pub fn resolve(
    sets: &[StateMap<OwnedEventId>],
    events: &BTreeMap<OwnedEventId, (Pdu, bool)>,
) -> StateMap<OwnedEventId> {
    let mut candidates: StateMap<BTreeSet<&OwnedEventId>> = StateMap::new();
    for (key, id) in sets.iter().flatten() {
        candidates.entry(key.clone()).or_default().insert(id);
    }
    let mut r = State::new();
    let mut lists: StateMap<Vec<Pdu>> = StateMap::new();
    for (key, ids) in candidates {
        let mut list: Vec<Pdu> = ids.into_iter().map(|id| events[id].0.clone()).collect();
        if list.len() == 1 {
            r.insert(key, list.remove(0));
            continue;
        }
        list.sort_by_key(|pdu| (pdu.depth(), Reverse(sha1(pdu))));
        lists.insert(key, list);
    }
    let passes: [fn(&StateKey) -> bool; 4] = [
        |key| *key == StateKey::single("m.room.power_levels"),
        |key| key.kind == "m.room.join_rules",
        |key| key.kind == "m.room.member",
        |_| true,
    ];
    for (number, pass) in passes.into_iter().enumerate() {
        let (now, later) = lists.into_iter().partition(|(key, _)| pass(key));
        lists = later;
        let now: StateMap<Vec<Pdu>> = now;
        let winners: State = now
            .into_iter()
            .map(|(key, list)| {
                let winner = if number < 3 { chain(&r, &key, list) } else { best(&r, list) };
                (key, winner)
            })
            .collect();
        r.extend(winners);
    }
    r.into_iter().map(|(key, pdu)| (key, pdu.event_id().to_owned())).collect()
}

fn chain(r: &State, key: &StateKey, list: Vec<Pdu>) -> Pdu {
    let mut r = r.clone();
    for pdu in list {
        if r.contains_key(key) && !allowed(&pdu, &r) {
            break;
        }
        r.insert(key.clone(), pdu);
    }
    r[key].clone()
}

fn best(r: &State, list: Vec<Pdu>) -> Pdu {
    list.iter().rev().find(|pdu| allowed(pdu, r)).unwrap_or(&list[0]).clone()
}

fn allowed(pdu: &Pdu, r: &State) -> bool {
    let create = &r[&StateKey::single("m.room.create")];
    check_auth(pdu, create, r).is_ok()
}

fn sha1(pdu: &Pdu) -> Vec<u8> {
    let id = pdu.event_id().as_bytes();
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, id).as_ref().to_vec()
}
