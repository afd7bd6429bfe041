//! An index kept as a server keeps it, event by event, and resolution by the conflict alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use exeunt_core::{Pdu, RoomVersion, StateKey, StateMap};
use exeunt_state_res::{
    Agreed, AuthIndex, Conflict, EventSource, LookupError, Recorder, ResolveError, resolve_conflict,
};
use ruma::{EventId, OwnedEventId};

use super::Rng;

/// The events of a room, and whether a test calls them rejected.
#[derive(Default)]
pub struct Index {
    pub events: BTreeMap<OwnedEventId, (Pdu, bool)>,
    generations: BTreeMap<OwnedEventId, u64>,
    cited_by: BTreeMap<OwnedEventId, Vec<OwnedEventId>>,
}

impl Index {
    pub fn of(events: impl IntoIterator<Item = Pdu>) -> Self {
        let mut index = Self::default();
        for pdu in events {
            index.insert(pdu);
        }
        index
    }

    /// Adds an event, after all that it cites.
    pub fn insert(&mut self, pdu: Pdu) {
        let id = pdu.event_id().to_owned();
        let below = pdu.auth_events().iter().map(|id| self.generations[id] + 1);
        self.generations.insert(id.clone(), below.max().unwrap_or(0));
        if pdu.state_key().is_some() {
            for cited in pdu.auth_events() {
                self.cited_by.entry(cited.clone()).or_default().push(id.clone());
            }
        }
        self.events.insert(id, (pdu, false));
    }
}

impl EventSource for Index {
    fn event(&self, id: &EventId) -> Result<Option<Pdu>, LookupError> {
        Ok(self.events.get(id).map(|(pdu, _)| pdu.clone()))
    }

    fn rejected(&self, id: &EventId) -> Result<bool, LookupError> {
        Ok(self.events.get(id).is_some_and(|(_, rejected)| *rejected))
    }
}

impl AuthIndex for Index {
    fn generation(&self, id: &EventId) -> Result<Option<u64>, LookupError> {
        Ok(self.generations.get(id).copied())
    }

    fn cited_by(
        &self,
        id: &EventId,
        visit: &mut dyn FnMut(&EventId) -> ControlFlow<()>,
    ) -> Result<(), LookupError> {
        for upper in self.cited_by.get(id).into_iter().flatten() {
            if visit(upper).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// What states agree on; asked for another key it fails the test.
pub struct OnlyAgreed {
    pub state: StateMap<OwnedEventId>,
    pub conflicted: BTreeSet<StateKey>,
}

impl Agreed for OnlyAgreed {
    fn get(&self, key: &StateKey) -> Result<Option<OwnedEventId>, LookupError> {
        assert!(!self.conflicted.contains(key), "{key:?} is not agreed on");
        Ok(self.state.get(key).cloned())
    }
}

/// The rows of the keys at which states differ, and the rest.
pub type Rows = Vec<(StateKey, Vec<Option<OwnedEventId>>)>;

pub fn conflict_of(sets: &[StateMap<OwnedEventId>]) -> (Rows, OnlyAgreed) {
    let all: BTreeSet<&StateKey> = sets.iter().flat_map(StateMap::keys).collect();
    let mut keys = Rows::new();
    let mut state = StateMap::new();
    for key in all {
        let row: Vec<Option<OwnedEventId>> = sets.iter().map(|set| set.get(key).cloned()).collect();
        match &row[0] {
            Some(id) if row.iter().all(|other| *other == row[0]) => {
                state.insert(key.clone(), id.clone());
            }
            _ => keys.push((key.clone(), row)),
        }
    }
    let conflicted = keys.iter().map(|(key, _)| key.clone()).collect();
    (keys, OnlyAgreed { state, conflicted })
}

/// Resolves by the conflict, its keys in any order; the whole resolved state.
pub fn resolve_by_conflict(
    version: RoomVersion,
    sets: &[StateMap<OwnedEventId>],
    index: &dyn AuthIndex,
    rng: &mut Rng,
) -> Result<StateMap<OwnedEventId>, ResolveError> {
    let (mut keys, agreed) = conflict_of(sets);
    rng.shuffle(&mut keys);
    let mut recorder = Recorder::new();
    let conflict = Conflict { keys, agreed: &agreed };
    let resolved = resolve_conflict(version, &conflict, index, &mut recorder)?;
    assert_eq!(recorder.resolved.len(), resolved.len());
    let mut state = agreed.state;
    for (key, id) in resolved {
        assert!(state.insert(key, id).is_none(), "only what is not agreed on is answered");
    }
    Ok(state)
}
