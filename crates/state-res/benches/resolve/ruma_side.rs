//! ruma-state-res on the same fork.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use exeunt_core::{StateKey, StateMap};
use ruma::{EventId, OwnedEventId};
use ruma_state_res::utils::event_id_set::EventIdSet;

use crate::fork::Fork;

#[path = "../../tests/support/oracle_event.rs"]
mod oracle_event;
use oracle_event::Event;

type Maps = Vec<ruma_state_res::StateMap<OwnedEventId>>;
type Chains = Vec<EventIdSet<OwnedEventId>>;

pub struct RumaSide<'a> {
    fork: &'a Fork,
    events: HashMap<OwnedEventId, Arc<Event>>,
}

impl<'a> RumaSide<'a> {
    pub fn new(fork: &'a Fork) -> Self {
        let prepared = |entry: &crate::fork::Entry| Arc::new(Event::new(&entry.pdu, false));
        let events = fork.room.0.iter().map(|(id, entry)| (id.clone(), prepared(entry))).collect();
        Self { fork, events }
    }

    /// The arguments: state maps and auth chains.
    pub fn input(&self) -> (Maps, Chains) {
        let branches = &self.fork.branches;
        let maps = branches.iter().map(|branch| {
            let entries = branch.entries();
            entries.map(|(k, id)| ((k.kind.as_str().into(), k.key.clone()), id.clone())).collect()
        });
        let chains = branches.iter().map(|branch| self.chain(branch.entries().map(|(_, id)| id)));
        (maps.collect(), chains.collect())
    }

    /// The full auth chain, the given events included.
    fn chain<'b>(&'b self, of: impl Iterator<Item = &'b OwnedEventId>) -> EventIdSet<OwnedEventId> {
        let mut chain = EventIdSet::new();
        let mut stack: Vec<&OwnedEventId> = of.collect();
        while let Some(id) = stack.pop() {
            if chain.insert(id.clone()) {
                stack.extend(self.fork.room.0[id].pdu.auth_events());
            }
        }
        chain
    }

    /// The conflicted state subgraph: what lies between two of these. Each event of their chain is
    /// looked at once, after all that it cites.
    fn subgraph(&self, ends: &HashSet<&OwnedEventId>) -> EventIdSet<OwnedEventId> {
        let room = &self.fork.room.0;
        let mut chain: Vec<_> = self.chain(ends.iter().copied()).into_iter().collect();
        chain.sort_unstable_by_key(|id| room[id].generation);
        let mut between = EventIdSet::new();
        for id in chain {
            let mut cited = room[&id].pdu.auth_events().iter();
            if ends.contains(&id) || cited.any(|cited| between.contains(cited)) {
                between.insert(id);
            }
        }
        between
    }

    pub fn resolve(&self, (maps, chains): (Maps, Chains)) -> StateMap<OwnedEventId> {
        let rules = self.fork.version.rules();
        let resolved = ruma_state_res::resolve(
            &rules.authorization,
            rules.state_res.v2_rules().expect("the second algorithm"),
            maps.iter(),
            chains,
            |id: &EventId| self.events.get(id).cloned(),
            |conflicted| Some(self.subgraph(&conflicted.values().flatten().collect())),
        );
        let resolved = resolved.expect("ruma resolves").into_iter();
        resolved.map(|((kind, key), id)| (StateKey::new(kind.to_string(), key), id)).collect()
    }
}
