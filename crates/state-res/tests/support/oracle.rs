//! ruma-state-res behind our types.

use std::borrow::Borrow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use exeunt_core::{Pdu, RoomVersion, StateKey, StateMap};
use ruma::events::StateEventType;
use ruma::{EventId, OwnedEventId};
use ruma_state_res::utils::event_id_set::EventIdSet;

use super::oracle_event::Event;

/// Whether ruma allows the event by this state, and why not.
pub fn check(pdu: &Pdu, state: &StateMap<Pdu>) -> Result<(), String> {
    let rules = &pdu.version().rules().authorization;
    ruma_state_res::check_state_dependent_auth_rules(
        rules,
        Event::new(pdu, false),
        |kind: &StateEventType, key: &str| {
            state.get(&StateKey::new(kind.to_string(), key)).map(|pdu| Event::new(pdu, false))
        },
    )
}

/// Whether ruma allows the event by its auth events.
pub fn check_auth_events(
    pdu: &Pdu,
    fetch: impl Fn(&EventId) -> Option<(Pdu, bool)>,
) -> Result<(), String> {
    let rules = &pdu.version().rules().authorization;
    ruma_state_res::check_state_independent_auth_rules(rules, Event::new(pdu, false), |id| {
        fetch(id).map(|(pdu, rejected)| Event::new(&pdu, rejected))
    })
}

/// ruma's resolution. Auth chains include the events of the states themselves, as in Synapse.
pub fn resolve(
    version: RoomVersion,
    sets: &[StateMap<OwnedEventId>],
    events: &BTreeMap<OwnedEventId, (Pdu, bool)>,
) -> StateMap<OwnedEventId> {
    let rules = version.rules();
    let prepared: RefCell<BTreeMap<OwnedEventId, Arc<Event>>> = RefCell::default();
    let fetch = |id: &EventId| {
        if let Some(event) = prepared.borrow().get(id) {
            return Some(event.clone());
        }
        let event = events.get(id).map(|(pdu, rejected)| Arc::new(Event::new(pdu, *rejected)))?;
        prepared.borrow_mut().insert(id.to_owned(), event.clone());
        Some(event)
    };
    let maps: Vec<ruma_state_res::StateMap<OwnedEventId>> = sets
        .iter()
        .map(|set| {
            set.iter()
                .map(|(k, id)| ((k.kind.as_str().into(), k.key.clone()), id.clone()))
                .collect()
        })
        .collect();
    let chains = sets
        .iter()
        .map(|set| chain(set.values(), events).into_iter().collect::<EventIdSet<OwnedEventId>>())
        .collect();
    let resolved = ruma_state_res::resolve(
        &rules.authorization,
        rules.state_res.v2_rules().expect("not version 1"),
        maps.iter(),
        chains,
        fetch,
        |conflicted| {
            let ends: BTreeSet<OwnedEventId> = conflicted.values().flatten().cloned().collect();
            Some(subgraph(&ends, events).into_iter().collect())
        },
    )
    .expect("ruma resolves");
    resolved
        .into_iter()
        .map(|((kind, key), id)| (StateKey::new(kind.to_string(), key), id))
        .collect()
}

fn chain<'a>(
    from: impl IntoIterator<Item = &'a OwnedEventId>,
    events: &BTreeMap<OwnedEventId, (Pdu, bool)>,
) -> BTreeSet<OwnedEventId> {
    let mut seen = BTreeSet::new();
    let mut stack: Vec<OwnedEventId> = from.into_iter().cloned().collect();
    while let Some(id) = stack.pop() {
        if seen.insert(id.clone()) {
            stack.extend(events[&id].0.auth_events().iter().cloned());
        }
    }
    seen
}

/// The conflicted state subgraph by its definition: what lies between two of the ends.
fn subgraph(
    ends: &BTreeSet<OwnedEventId>,
    events: &BTreeMap<OwnedEventId, (Pdu, bool)>,
) -> BTreeSet<OwnedEventId> {
    chain(ends, events)
        .into_iter()
        .filter(|id| {
            let below = chain([id], events);
            below.iter().any(|lower| ends.contains::<EventId>(lower.borrow()))
        })
        .collect()
}
