//! What the states agree on, and what rests below it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use ruma::{EventId, OwnedEventId};

use super::events::{EventNo, Events, KeyNo};
use super::{Conflict, ResolveError};
use crate::Agreed;

/// The agreed state, asked once per key and never for a key in conflict.
pub(super) struct Base<'a> {
    agreed: &'a dyn Agreed,
    conflicted: BTreeSet<KeyNo>,
    known: BTreeMap<KeyNo, Option<EventNo>>,
    carried: Vec<Option<bool>>,
}

/// The events at the keys in conflict: each with its key and the state that has it.
pub(super) struct Candidate {
    pub(super) event: EventNo,
    pub(super) state: usize,
}

impl<'a> Base<'a> {
    pub(super) fn new(
        conflict: &Conflict<'a>,
        events: &mut Events<'_>,
    ) -> Result<(Self, Vec<Candidate>), ResolveError> {
        let mut conflicted = BTreeSet::new();
        let mut candidates = Vec::new();
        for (key, row) in &conflict.keys {
            conflicted.insert(events.keys().number(key.clone()));
            for (state, id) in row.iter().enumerate() {
                let Some(id) = id else { continue };
                candidates.push(Candidate { event: events.number(id)?, state });
            }
        }
        let agreed = conflict.agreed;
        let base = Self { agreed, conflicted, known: BTreeMap::new(), carried: Vec::new() };
        Ok((base, candidates))
    }

    pub(super) fn is_conflicted(&self, key: KeyNo) -> bool {
        self.conflicted.contains(&key)
    }

    /// The event that all states have at the key.
    pub(super) fn get(
        &mut self,
        key: KeyNo,
        events: &mut Events<'_>,
    ) -> Result<Option<EventNo>, ResolveError> {
        if self.is_conflicted(key) {
            return Ok(None);
        }
        if let Some(known) = self.known.get(&key) {
            return Ok(*known);
        }
        let id = self.agreed.get(events.keys().key(key))?;
        let event = id.map(|id| events.number(&id)).transpose()?;
        self.known.insert(key, event);
        Ok(event)
    }

    /// Whether the states agree on the event itself.
    fn is_agreed(&mut self, event: EventNo, events: &mut Events<'_>) -> Result<bool, ResolveError> {
        let Some(key) = events.key(event)? else { return Ok(false) };
        Ok(self.get(key, events)? == Some(event))
    }

    /// Whether the event is known to be agreed on or below what is, without a search.
    pub(super) fn carries_plainly(
        &mut self,
        event: EventNo,
        events: &mut Events<'_>,
    ) -> Result<bool, ResolveError> {
        if let Some(carried) = self.carried(event) {
            return Ok(carried);
        }
        let agreed = self.is_agreed(event, events)?;
        if agreed {
            self.settle(event, true);
        }
        Ok(agreed)
    }

    /// Whether the event is in the full auth chain of what the states agree on.
    ///
    /// Searches upwards, over the events that cite it, for one that is agreed on. A search in vain
    /// settles all that it visited, one that ends well the way to where it ended; so what is not
    /// shared is visited once.
    pub(super) fn carries(
        &mut self,
        event: EventNo,
        events: &mut Events<'_>,
    ) -> Result<bool, ResolveError> {
        if let Some(carried) = self.carried(event) {
            return Ok(carried);
        }
        if self.is_agreed(event, events)? {
            self.settle(event, true);
            return Ok(true);
        }
        // Each event visited, and from which of these it was found.
        let mut visited = vec![(event, 0)];
        let mut seen = BTreeSet::from([event]);
        let mut next = 0;
        while next < visited.len() {
            let citing = self.citing(visited[next].0, &seen, events)?;
            for upper in citing {
                if !seen.insert(upper) || self.carried(upper) == Some(false) {
                    continue;
                }
                visited.push((upper, next));
                if self.carried(upper) == Some(true) {
                    self.settle_way(&visited);
                    return Ok(true);
                }
            }
            next += 1;
        }
        for (event, _) in visited {
            self.settle(event, false);
        }
        Ok(false)
    }

    /// The state events that cite the event; only one of them if that settles the search.
    fn citing(
        &mut self,
        event: EventNo,
        seen: &BTreeSet<EventNo>,
        events: &mut Events<'_>,
    ) -> Result<Vec<EventNo>, ResolveError> {
        let id: OwnedEventId = events.id(event).to_owned();
        let mut citing = Vec::new();
        let mut outcome = Ok(());
        events.index().cited_by(&id, &mut |upper| {
            let step = self.look_at(upper, seen, &mut citing, events);
            let go_on = matches!(step, Ok(ControlFlow::Continue(())));
            outcome = step.map(|_| ());
            if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        outcome.map(|()| citing)
    }

    fn look_at(
        &mut self,
        upper: &EventId,
        seen: &BTreeSet<EventNo>,
        citing: &mut Vec<EventNo>,
        events: &mut Events<'_>,
    ) -> Result<ControlFlow<()>, ResolveError> {
        let upper = events.number(upper)?;
        if seen.contains(&upper) {
            return Ok(ControlFlow::Continue(()));
        }
        if self.carries_plainly(upper, events)? {
            *citing = vec![upper];
            return Ok(ControlFlow::Break(()));
        }
        citing.push(upper);
        Ok(ControlFlow::Continue(()))
    }

    /// Settles the way from the first visited to the last.
    fn settle_way(&mut self, visited: &[(EventNo, usize)]) {
        let mut at = visited.len() - 1;
        while at > 0 {
            self.settle(visited[at].0, true);
            at = visited[at].1;
        }
        self.settle(visited[0].0, true);
    }

    fn carried(&self, event: EventNo) -> Option<bool> {
        self.carried.get(event as usize).copied().flatten()
    }

    fn settle(&mut self, event: EventNo, carried: bool) {
        let at = event as usize;
        if self.carried.len() <= at {
            self.carried.resize(at + 1, None);
        }
        self.carried[at] = Some(carried);
    }
}
