//! What a resolution did, step by step.
//!
//! [`resolve_conflict`](crate::resolve_conflict) takes the path it always takes and tells a
//! [`Trace`] on the way. `()` listens to nothing and costs nothing; [`Recorder`] keeps it all.

use exeunt_core::{StateKey, StateMap};
use ruma::{EventId, OwnedEventId};
use serde::Serialize;

use crate::AuthError;

/// Where in a resolution an event is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Step 2 of the algorithm since room version 2.
    PowerEvents,
    /// Step 4 of the algorithm since room version 2.
    Rest,
    /// The passes of room version 1.
    PowerLevels,
    JoinRules,
    Members,
    OtherState,
}

/// Is told the steps of a resolution in their order. Room version 1 has conflict, checks and
/// result only.
pub trait Trace {
    /// The keys at which the states differ, with each state's event.
    fn conflict(&mut self, keys: &[(StateKey, Vec<Option<OwnedEventId>>)]) {
        let _ = keys;
    }

    /// The full conflicted set, in no order.
    fn full_conflicted_set<'a>(&mut self, events: impl Iterator<Item = &'a EventId>) {
        let _ = events;
    }

    /// The power events in reverse topological power ordering.
    fn power_order<'a>(&mut self, events: impl Iterator<Item = &'a EventId>) {
        let _ = events;
    }

    /// The mainline, from the power levels of the partially resolved state backwards, as far as the
    /// remaining events rest on it.
    fn mainline<'a>(&mut self, events: impl Iterator<Item = &'a EventId>) {
        let _ = events;
    }

    /// The remaining events in mainline ordering.
    fn rest_order<'a>(&mut self, events: impl Iterator<Item = &'a EventId>) {
        let _ = events;
    }

    /// An event was checked against the state so far; it is applied if it is allowed.
    fn check(&mut self, phase: Phase, event: &EventId, verdict: Result<(), &AuthError>) {
        let _ = (phase, event, verdict);
    }

    /// The answer.
    fn resolved(&mut self, state: &StateMap<OwnedEventId>) {
        let _ = state;
    }
}

impl Trace for () {}

/// Keeps every step, for people to read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Recorder {
    pub conflict: Vec<ConflictedKey>,
    /// By event id.
    pub full_conflicted_set: Vec<OwnedEventId>,
    pub power_order: Vec<OwnedEventId>,
    pub mainline: Vec<OwnedEventId>,
    pub rest_order: Vec<OwnedEventId>,
    pub checks: Vec<Check>,
    pub resolved: Vec<ResolvedKey>,
}

/// A key at which the states differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConflictedKey {
    pub kind: String,
    pub state_key: String,
    /// The event of each state.
    pub candidates: Vec<Option<OwnedEventId>>,
}

/// The verdict on one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub phase: Phase,
    pub event_id: OwnedEventId,
    /// The rule that the event breaks; none if it was applied.
    pub refused: Option<String>,
}

/// A key with its resolved event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResolvedKey {
    pub kind: String,
    pub state_key: String,
    pub event_id: OwnedEventId,
}

impl Recorder {
    pub fn new() -> Self {
        Self::default()
    }
}

impl Trace for Recorder {
    fn conflict(&mut self, keys: &[(StateKey, Vec<Option<OwnedEventId>>)]) {
        let rows = keys.iter().map(|(key, candidates)| ConflictedKey {
            kind: key.kind.clone(),
            state_key: key.key.clone(),
            candidates: candidates.clone(),
        });
        self.conflict = rows.collect();
    }

    fn full_conflicted_set<'a>(&mut self, events: impl Iterator<Item = &'a EventId>) {
        self.full_conflicted_set = events.map(ToOwned::to_owned).collect();
        self.full_conflicted_set.sort_unstable();
    }

    fn power_order<'a>(&mut self, events: impl Iterator<Item = &'a EventId>) {
        self.power_order = events.map(ToOwned::to_owned).collect();
    }

    fn mainline<'a>(&mut self, events: impl Iterator<Item = &'a EventId>) {
        self.mainline = events.map(ToOwned::to_owned).collect();
    }

    fn rest_order<'a>(&mut self, events: impl Iterator<Item = &'a EventId>) {
        self.rest_order = events.map(ToOwned::to_owned).collect();
    }

    fn check(&mut self, phase: Phase, event: &EventId, verdict: Result<(), &AuthError>) {
        let refused = verdict.err().map(ToString::to_string);
        self.checks.push(Check { phase, event_id: event.to_owned(), refused });
    }

    fn resolved(&mut self, state: &StateMap<OwnedEventId>) {
        let entries = state.iter().map(|(key, id)| ResolvedKey {
            kind: key.kind.clone(),
            state_key: key.key.clone(),
            event_id: id.clone(),
        });
        self.resolved = entries.collect();
    }
}
