//! The conflicted state subgraph.
//!
//! Specification: rooms/v12, "Conflicted state subgraph" (MSC4297).

use super::ResolveError;
use super::events::{EventNo, Events};

/// The events on paths of auth events from one conflicted event to another, ends included.
///
/// Walks down from the conflicted events, no deeper than the lowest of them, and back up from them
/// along what was walked.
pub(super) fn subgraph(
    conflicted: &[EventNo],
    events: &mut Events<'_>,
) -> Result<Vec<EventNo>, ResolveError> {
    let mut floor = u64::MAX;
    for &event in conflicted {
        floor = floor.min(events.generation(event)?);
    }
    let mut citing: Vec<Vec<EventNo>> = Vec::new();
    let mut below = Marks::default();
    let mut stack = conflicted.to_vec();
    while let Some(event) = stack.pop() {
        if !below.set(event) {
            continue;
        }
        for &cited in events.auth(event)?.iter() {
            if events.generation(cited)? < floor {
                continue;
            }
            if citing.len() <= cited as usize {
                citing.resize(events.len(), Vec::new());
            }
            citing[cited as usize].push(event);
            stack.push(cited);
        }
    }
    let mut between = Marks::default();
    let mut found = Vec::new();
    let mut stack = conflicted.to_vec();
    while let Some(event) = stack.pop() {
        if between.set(event) {
            found.push(event);
            stack.extend(citing.get(event as usize).into_iter().flatten());
        }
    }
    Ok(found)
}

/// A set of events.
#[derive(Default)]
pub(super) struct Marks(Vec<bool>);

impl Marks {
    pub(super) fn of(events: &[EventNo]) -> Self {
        let mut marks = Self::default();
        for &event in events {
            marks.set(event);
        }
        marks
    }

    /// Adds the event; whether it was not there.
    pub(super) fn set(&mut self, event: EventNo) -> bool {
        let at = event as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, false);
        }
        !std::mem::replace(&mut self.0[at], true)
    }

    pub(super) fn has(&self, event: EventNo) -> bool {
        self.0.get(event as usize).copied().unwrap_or(false)
    }
}
