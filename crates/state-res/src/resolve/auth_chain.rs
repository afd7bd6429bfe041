//! Walks over auth chains: the auth difference and the conflicted state subgraph.
//!
//! Specification: rooms/v2, "Auth difference"; rooms/v12, "Conflicted state subgraph". All walks
//! are loops over a stack of their own, and [`Events`] bounds what they read.

use std::collections::{BTreeMap, BTreeSet};

use exeunt_core::StateMap;
use ruma::{EventId, OwnedEventId};

use super::{ResolveError, events::Events};

type Ids = BTreeSet<OwnedEventId>;

/// The events in the full auth chain of some state but not of every state.
///
/// A state's events count as part of its chain, as in Synapse. By the letter of the specification
/// they do not; then an event that all states agree on could be in the difference, merely because
/// only some states have events that cite it.
pub(super) fn difference(
    sets: &[StateMap<OwnedEventId>],
    events: &mut Events<'_>,
) -> Result<Ids, ResolveError> {
    let mut counts: BTreeMap<OwnedEventId, usize> = BTreeMap::new();
    for set in sets {
        for id in chain(set.values(), events)? {
            *counts.entry(id).or_default() += 1;
        }
    }
    Ok(counts.into_iter().filter(|(_, count)| *count < sets.len()).map(|(id, _)| id).collect())
}

/// The events and everything that they rest on.
fn chain<'a>(
    from: impl Iterator<Item = &'a OwnedEventId>,
    events: &mut Events<'_>,
) -> Result<Ids, ResolveError> {
    let mut seen = Ids::new();
    let mut stack: Vec<OwnedEventId> = from.cloned().collect();
    while let Some(id) = stack.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let pdu = events.get(&id)?;
        stack.extend(pdu.auth_events().iter().filter(|id| !seen.contains(*id)).cloned());
    }
    Ok(seen)
}

/// The events on paths of auth events from one conflicted event to another, ends included.
pub(super) fn subgraph(conflicted: &Ids, events: &mut Events<'_>) -> Result<Ids, ResolveError> {
    // Every event below a conflicted one, each after all that it rests on.
    let mut order = Vec::new();
    let mut seen = Ids::new();
    let mut stack: Vec<Step> = conflicted.iter().cloned().map(Step::Enter).collect();
    while let Some(step) = stack.pop() {
        match step {
            Step::Leave(id) => order.push(id),
            Step::Enter(id) => {
                if !seen.insert(id.clone()) {
                    continue;
                }
                let pdu = events.get(&id)?;
                stack.push(Step::Leave(id));
                stack.extend(pdu.auth_events().iter().cloned().map(Step::Enter));
            }
        }
    }
    let mut on_path = conflicted.clone();
    for id in order {
        let rests_on = |id: &OwnedEventId| on_path.contains::<EventId>(id);
        if events.get(&id)?.auth_events().iter().any(rests_on) {
            on_path.insert(id);
        }
    }
    Ok(on_path)
}

enum Step {
    Enter(OwnedEventId),
    Leave(OwnedEventId),
}
