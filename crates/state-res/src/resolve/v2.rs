//! The second algorithm, in both its versions: 2.0 (room versions 2 to 11) and 2.1 (12, MSC4297).
//!
//! Specification: rooms/v2 and v12, "Algorithm".

use std::collections::BTreeSet;

use exeunt_core::{StateKey, StateMap};
use ruma::OwnedEventId;
use ruma::room_version_rules::StateResolutionV2Rules;

use super::conflicts::{self, Conflicts};
use super::events::Events;
use super::{ResolveError, auth_chain, iterative, mainline, power_order};
use crate::EventSource;

pub(super) fn resolve(
    rules: StateResolutionV2Rules,
    sets: &[StateMap<OwnedEventId>],
    source: &dyn EventSource,
) -> Result<StateMap<OwnedEventId>, ResolveError> {
    let conflicts = conflicts::split(sets);
    if conflicts.conflicted.is_empty() {
        return Ok(conflicts.unconflicted);
    }
    let events = &mut Events::new(source);
    let full = full_conflicted_set(rules, sets, &conflicts, events)?;

    let power_events = power_order::sorted_power_events(&full, events)?;
    let start = match rules.begin_iterative_auth_checks_with_empty_state_map {
        true => StateMap::new(),
        false => conflicts.unconflicted.clone(),
    };
    let partial = iterative::apply(start, &power_events, events)?;

    let power_events: BTreeSet<OwnedEventId> = power_events.into_iter().collect();
    let rest = full.into_iter().filter(|id| !power_events.contains(id)).collect();
    let power_levels = partial.get(&StateKey::single("m.room.power_levels"));
    let rest = mainline::sort(rest, power_levels, events)?;
    let mut resolved = iterative::apply(partial, &rest, events)?;

    resolved.extend(conflicts.unconflicted);
    Ok(resolved)
}

/// The conflicted events, the auth difference and, in version 2.1, the conflicted state subgraph.
fn full_conflicted_set(
    rules: StateResolutionV2Rules,
    sets: &[StateMap<OwnedEventId>],
    conflicts: &Conflicts,
    events: &mut Events<'_>,
) -> Result<BTreeSet<OwnedEventId>, ResolveError> {
    let mut full = auth_chain::difference(sets, events)?;
    full.extend(conflicts.conflicted.iter().cloned());
    if rules.consider_conflicted_state_subgraph {
        full.extend(auth_chain::subgraph(&conflicts.conflicted, events)?);
    }
    Ok(full)
}
