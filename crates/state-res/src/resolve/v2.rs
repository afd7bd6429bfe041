//! The second algorithm, in both its versions: 2.0 (room versions 2 to 11) and 2.1 (12, MSC4297).
//!
//! Specification: rooms/v2 and v12, "Algorithm".

use exeunt_core::{StateKey, StateMap};
use ruma::OwnedEventId;
use ruma::room_version_rules::StateResolutionV2Rules;

use super::base::{Base, Candidate};
use super::difference::difference;
use super::events::{EventNo, Events};
use super::iterative::Partial;
use super::mainline::{self, Mainline};
use super::subgraph::{Marks, subgraph};
use super::{Conflict, ResolveError, power_order};
use crate::trace::Phase;
use crate::{AuthIndex, Trace};

pub(super) fn resolve<T: Trace>(
    rules: StateResolutionV2Rules,
    conflict: &Conflict<'_>,
    index: &dyn AuthIndex,
    trace: &mut T,
) -> Result<StateMap<OwnedEventId>, ResolveError> {
    let events = &mut Events::new(index);
    let (mut base, candidates) = Base::new(conflict, events)?;
    let states = conflict.keys.iter().map(|(_, row)| row.len()).max().unwrap_or_default();
    let full = full_conflicted_set(rules, &candidates, states, &mut base, events)?;
    trace.full_conflicted_set(full.iter().map(|event| events.id(*event)));

    let power_events = power_order::sorted_power_events(&full, events)?;
    trace.power_order(power_events.iter().map(|event| events.id(*event)));
    let over_agreed = !rules.begin_iterative_auth_checks_with_empty_state_map;
    let mut partial = Partial { over_agreed, ..Partial::default() };
    partial.apply(&power_events, Phase::PowerEvents, &mut base, events, trace)?;

    let picked = Marks::of(&power_events);
    let rest = full.into_iter().filter(|event| !picked.has(*event)).collect();
    let power_levels = events.keys().number(StateKey::single("m.room.power_levels"));
    let power_levels = partial.get(power_levels, &mut base, events)?;
    let mut mainline = Mainline::new(power_levels);
    let rest = mainline::sort(rest, &mut mainline, events)?;
    trace.mainline(mainline.line().iter().map(|event| events.id(*event)));
    trace.rest_order(rest.iter().map(|event| events.id(*event)));
    partial.apply(&rest, Phase::Rest, &mut base, events, trace)?;

    let mut resolved = StateMap::new();
    for (key, event) in partial.state {
        // What is agreed on stays, whatever else the auth difference had for its key.
        if base.get(key, events)?.is_none() {
            resolved.insert(events.keys().key(key).clone(), events.id(event).to_owned());
        }
    }
    Ok(resolved)
}

/// The conflicted events, the auth difference and, in version 2.1, the conflicted state subgraph.
fn full_conflicted_set(
    rules: StateResolutionV2Rules,
    candidates: &[Candidate],
    states: usize,
    base: &mut Base<'_>,
    events: &mut Events<'_>,
) -> Result<Vec<EventNo>, ResolveError> {
    let mut full = Vec::new();
    let mut seen = Marks::default();
    full.extend(candidates.iter().map(|c| c.event).filter(|event| seen.set(*event)));
    let between = match rules.consider_conflicted_state_subgraph {
        true => subgraph(&full, events)?,
        false => Vec::new(),
    };
    let difference = difference(candidates, states, base, events)?;
    full.extend(between.into_iter().chain(difference).filter(|event| seen.set(*event)));
    Ok(full)
}
