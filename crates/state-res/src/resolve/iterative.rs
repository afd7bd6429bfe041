//! Iterative auth checks.
//!
//! Specification: rooms/v2, "Iterative auth checks" and "Rejected events".

use std::collections::BTreeMap;

use super::ResolveError;
use super::base::Base;
use super::events::{EventNo, Events, KeyNo};
use super::judge::{judge, needed};
use crate::Trace;
use crate::trace::Phase;

/// The state as far as it is resolved, over the agreed state or over nothing (rooms/v12).
#[derive(Default)]
pub(super) struct Partial {
    pub(super) over_agreed: bool,
    pub(super) state: BTreeMap<KeyNo, EventNo>,
}

impl Partial {
    pub(super) fn get(
        &self,
        key: KeyNo,
        base: &mut Base<'_>,
        events: &mut Events<'_>,
    ) -> Result<Option<EventNo>, ResolveError> {
        match self.state.get(&key) {
            Some(event) => Ok(Some(*event)),
            None if self.over_agreed => base.get(key, events),
            None => Ok(None),
        }
    }

    /// Applies those of the events, in order, that the authorisation rules allow.
    pub(super) fn apply<T: Trace>(
        &mut self,
        order: &[EventNo],
        phase: Phase,
        base: &mut Base<'_>,
        events: &mut Events<'_>,
        trace: &mut T,
    ) -> Result<(), ResolveError> {
        for &event in order {
            let Some(key) = events.key(event)? else { continue };
            let known = self.auth_state(event, base, events)?;
            let verdict = judge(event, &known, events)?;
            trace.check(phase, events.id(event), verdict.as_ref().copied());
            if verdict.is_ok() {
                self.state.insert(key, event);
            }
        }
        Ok(())
    }

    /// The state that the event is judged by: what the state has of the keys that matter, else the
    /// event's own auth events; rejected events in neither.
    fn auth_state(
        &self,
        event: EventNo,
        base: &mut Base<'_>,
        events: &mut Events<'_>,
    ) -> Result<Vec<(KeyNo, EventNo)>, ResolveError> {
        let mut known = Vec::new();
        let mut own: Option<Vec<(KeyNo, EventNo)>> = None;
        for key in needed(event, events)? {
            if let Some(event) = self.get(key, base, events)?
                && !events.is_rejected(event)?
            {
                known.push((key, event));
                continue;
            }
            if own.is_none() {
                own = Some(own_state(event, events)?);
            }
            // Should two have the same key, the last counts.
            let own = own.iter().flatten().rfind(|(own, _)| *own == key);
            known.extend(own);
        }
        Ok(known)
    }
}

/// The event's auth events that were not rejected, by key.
fn own_state(
    event: EventNo,
    events: &mut Events<'_>,
) -> Result<Vec<(KeyNo, EventNo)>, ResolveError> {
    let mut own = Vec::new();
    for &cited in events.auth(event)?.iter() {
        if let Some(key) = events.key(cited)?
            && !events.is_rejected(cited)?
        {
            own.push((key, cited));
        }
    }
    Ok(own)
}
