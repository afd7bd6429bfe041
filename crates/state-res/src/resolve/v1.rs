//! The first algorithm.
//!
//! Specification: rooms/v1, "State resolution". Where it is vague this does as Synapse does:
//!
//! - a key with one event, absent from some of the states, is not in conflict;
//! - the passes over join rules, members and the rest judge each key by what the passes before
//!   left, not by other keys of the same pass;
//! - of the rest, the event with the smallest depth wins if none is allowed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use exeunt_core::StateMap;
use ring::digest;
use ruma::OwnedEventId;

use super::base::Base;
use super::events::{EventNo, Events, KeyNo};
use super::judge::{judge, needed};
use super::{Conflict, ResolveError};
use crate::trace::Phase;
use crate::{AuthIndex, Trace};

const PASSES: [Phase; 4] =
    [Phase::PowerLevels, Phase::JoinRules, Phase::Members, Phase::OtherState];

pub(super) fn resolve<T: Trace>(
    conflict: &Conflict<'_>,
    index: &dyn AuthIndex,
    trace: &mut T,
) -> Result<StateMap<OwnedEventId>, ResolveError> {
    let events = &mut Events::new(index);
    let (base, candidates) = Base::new(conflict, events)?;
    let mut rows: BTreeMap<KeyNo, BTreeSet<EventNo>> = BTreeMap::new();
    for candidate in candidates {
        let Some(key) = events.key(candidate.event)? else { continue };
        rows.entry(key).or_default().insert(candidate.event);
    }
    let mut state = State { base, resolved: BTreeMap::new() };
    let mut passes: BTreeMap<Phase, Vec<(KeyNo, Vec<EventNo>)>> = BTreeMap::new();
    for (key, row) in rows {
        if row.len() == 1 {
            state.resolved.extend(row.into_iter().map(|event| (key, event)));
            continue;
        }
        let ordered = latest_first(row, events)?;
        passes.entry(pass_of(key, events)).or_default().push((key, ordered));
    }
    for pass in PASSES {
        let mut winners = Vec::new();
        for (key, row) in passes.remove(&pass).into_iter().flatten() {
            let winner = match pass {
                Phase::OtherState => state.first_allowed(&row, events, trace)?,
                _ => state.last_of_chain(key, &row, pass, events, trace)?,
            };
            winners.push((key, winner));
        }
        state.resolved.extend(winners);
    }
    let named = |(key, event)| (events.keys().key(key).clone(), events.id(event).to_owned());
    Ok(state.resolved.into_iter().map(named).collect())
}

fn pass_of(key: KeyNo, events: &mut Events<'_>) -> Phase {
    let key = events.keys().key(key);
    match key.kind.as_str() {
        "m.room.power_levels" if key.key.is_empty() => Phase::PowerLevels,
        "m.room.join_rules" => Phase::JoinRules,
        "m.room.member" => Phase::Members,
        _ => Phase::OtherState,
    }
}

/// By descending depth, then ascending SHA-1 of the event id.
fn latest_first(
    row: BTreeSet<EventNo>,
    events: &mut Events<'_>,
) -> Result<Vec<EventNo>, ResolveError> {
    let mut keyed = Vec::with_capacity(row.len());
    for event in row {
        let depth = events.pdu(event)?.depth();
        let id = events.id(event).as_bytes();
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, id).as_ref().to_vec();
        keyed.push((Reverse(depth), hash, event));
    }
    keyed.sort_unstable();
    Ok(keyed.into_iter().map(|(.., event)| event).collect())
}

/// The state as far as it is resolved: *R* of the specification.
struct State<'a> {
    base: Base<'a>,
    resolved: BTreeMap<KeyNo, EventNo>,
}

impl State<'_> {
    /// Power levels, join rules, members: from the earliest on, as long as each event is allowed
    /// after the one before.
    fn last_of_chain<T: Trace>(
        &mut self,
        key: KeyNo,
        latest_first: &[EventNo],
        pass: Phase,
        events: &mut Events<'_>,
        trace: &mut T,
    ) -> Result<EventNo, ResolveError> {
        let mut earliest_first = latest_first.iter().rev().copied();
        let mut winner = earliest_first.next().expect("a row has events");
        for event in earliest_first {
            if !self.allows(event, Some((key, winner)), pass, events, trace)? {
                break;
            }
            winner = event;
        }
        Ok(winner)
    }

    /// The rest: the latest event that is allowed.
    fn first_allowed<T: Trace>(
        &mut self,
        latest_first: &[EventNo],
        events: &mut Events<'_>,
        trace: &mut T,
    ) -> Result<EventNo, ResolveError> {
        for &event in latest_first {
            if self.allows(event, None, Phase::OtherState, events, trace)? {
                return Ok(event);
            }
        }
        Ok(*latest_first.last().expect("a row has events"))
    }

    fn allows<T: Trace>(
        &mut self,
        event: EventNo,
        before: Option<(KeyNo, EventNo)>,
        pass: Phase,
        events: &mut Events<'_>,
        trace: &mut T,
    ) -> Result<bool, ResolveError> {
        let mut known = Vec::new();
        for key in needed(event, events)? {
            let at_key = match (before, self.resolved.get(&key)) {
                (Some((same, before)), _) if same == key => Some(before),
                (_, Some(resolved)) => Some(*resolved),
                _ => self.base.get(key, events)?,
            };
            known.extend(at_key.map(|event| (key, event)));
        }
        let verdict = judge(event, &known, events)?;
        trace.check(pass, events.id(event), verdict.as_ref().copied());
        Ok(verdict.is_ok())
    }
}
