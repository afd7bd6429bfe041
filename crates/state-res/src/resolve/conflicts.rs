//! What the states agree on and what they do not.
//!
//! Specification: rooms/v2, "Unconflicted state map and conflicted state set".

use std::collections::{BTreeMap, BTreeSet};

use exeunt_core::{StateKey, StateMap};
use ruma::OwnedEventId;

pub(super) struct Conflicts {
    /// Keys with the same event in every state.
    pub(super) unconflicted: StateMap<OwnedEventId>,
    /// The events of all other keys.
    pub(super) conflicted: BTreeSet<OwnedEventId>,
}

pub(super) fn split(sets: &[StateMap<OwnedEventId>]) -> Conflicts {
    let mut counts: BTreeMap<&StateKey, BTreeMap<&OwnedEventId, usize>> = BTreeMap::new();
    for (key, id) in sets.iter().flatten() {
        *counts.entry(key).or_default().entry(id).or_default() += 1;
    }
    let mut out = Conflicts { unconflicted: StateMap::new(), conflicted: BTreeSet::new() };
    for (key, ids) in counts {
        for (id, count) in ids {
            if count == sets.len() {
                out.unconflicted.insert(key.clone(), id.clone());
            } else {
                out.conflicted.insert(id.clone());
            }
        }
    }
    out
}
