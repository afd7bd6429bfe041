//! The auth difference.
//!
//! Specification: rooms/v2, "Auth difference". A state's events count as part of its chain, as in
//! Synapse. By the letter of the specification they do not; then an event that all states agree on
//! could be in the difference, merely because only some states have events that cite it.
//!
//! A state's full auth chain is what lies below the agreed events together with what lies below its
//! conflicted ones. So the walk starts at the conflicted events, and each event below is painted
//! with the states whose conflicted events reach it, the highest generation first. An event painted
//! with all states, or below the agreed events, is in every chain, and so is all below it: such
//! paint is only carried down to cover what other paint may have reached, and when nothing else
//! waits the walk is over.

use std::collections::BinaryHeap;

use super::ResolveError;
use super::base::{Base, Candidate};
use super::events::{EventNo, Events};

/// The events in the full auth chain of some state but not of every state.
pub(super) fn difference(
    candidates: &[Candidate],
    states: usize,
    base: &mut Base<'_>,
    events: &mut Events<'_>,
) -> Result<Vec<EventNo>, ResolveError> {
    let mut canvas = Canvas::new(states);
    for candidate in candidates {
        let paint = canvas.paint_of(candidate.state);
        canvas.paint(candidate.event, &paint, events)?;
    }
    // Generations that do not fall along auth events (ids in a circle) give no order to trust.
    let mut ordered = true;
    while let Some((generation, event)) = canvas.next(ordered) {
        if canvas.is_full(event) {
            if base.carries_plainly(event, events)? {
                continue;
            }
        } else if base.carries(event, events)? {
            canvas.fill(event);
            continue;
        }
        let paint = canvas.of(event).to_vec();
        for &cited in events.auth(event)?.iter() {
            ordered &= events.generation(cited)? < generation;
            canvas.paint(cited, &paint, events)?;
        }
    }
    Ok(canvas.partly_painted())
}

/// Which states reach each event, a bit per state, and the events whose paint is to be carried on.
struct Canvas {
    full: Vec<u64>,
    paints: Vec<u64>,
    waiting: BinaryHeap<(u64, EventNo)>,
    is_waiting: Vec<bool>,
    /// How many of those that wait are not painted with all states.
    partial: usize,
}

impl Canvas {
    fn new(states: usize) -> Self {
        let mut full = vec![0; states.div_ceil(64)];
        for state in 0..states {
            full[state / 64] |= 1 << (state % 64);
        }
        Self {
            full,
            paints: Vec::new(),
            waiting: BinaryHeap::new(),
            is_waiting: Vec::new(),
            partial: 0,
        }
    }

    fn paint_of(&self, state: usize) -> Vec<u64> {
        let mut paint = vec![0; self.full.len()];
        paint[state / 64] |= 1 << (state % 64);
        paint
    }

    fn of(&self, event: EventNo) -> &[u64] {
        let words = self.full.len();
        &self.paints[event as usize * words..][..words]
    }

    fn is_full(&self, event: EventNo) -> bool {
        self.of(event) == self.full
    }

    /// Paints an event that does not wait with all states.
    fn fill(&mut self, event: EventNo) {
        let words = self.full.len();
        self.paints[event as usize * words..][..words].copy_from_slice(&self.full);
    }

    /// Adds paint; an event that gets more than it had waits for it to be carried on.
    fn paint(
        &mut self,
        event: EventNo,
        paint: &[u64],
        events: &mut Events<'_>,
    ) -> Result<(), ResolveError> {
        let (words, at) = (self.full.len(), event as usize);
        if self.is_waiting.len() <= at {
            self.is_waiting.resize(events.len(), false);
            self.paints.resize(events.len() * words, 0);
        }
        let counted = self.is_waiting[at] && !self.is_full(event);
        let mut grown = false;
        for (old, new) in self.paints[at * words..].iter_mut().zip(paint) {
            grown |= new & !*old != 0;
            *old |= new;
        }
        if !grown {
            return Ok(());
        }
        if !self.is_waiting[at] {
            self.is_waiting[at] = true;
            self.waiting.push((events.generation(event)?, event));
        }
        self.partial = self.partial + usize::from(!self.is_full(event)) - usize::from(counted);
        Ok(())
    }

    /// The next event to carry paint on from, none when what waits can no longer change what is
    /// painted in part.
    fn next(&mut self, ordered: bool) -> Option<(u64, EventNo)> {
        if ordered && self.partial == 0 {
            return None;
        }
        let (generation, event) = self.waiting.pop()?;
        self.is_waiting[event as usize] = false;
        self.partial -= usize::from(!self.is_full(event));
        Some((generation, event))
    }

    fn partly_painted(&self) -> Vec<EventNo> {
        let words = self.full.len();
        let painted = self.paints.chunks_exact(words).zip(0..);
        let partly =
            painted.filter(|(paint, _)| *paint != self.full && paint.iter().any(|w| *w != 0));
        partly.map(|(_, event)| event).collect()
    }
}
