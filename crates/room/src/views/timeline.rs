//! Walks along a room's timeline.

use std::collections::BTreeSet;

use exeunt_store::tables;
use ruma::OwnedEventId;

use super::{access::RoomView, filter::EventFilter, messages::Direction};
use crate::{RoomError, gaps, graph::Known};

/// Most events that one walk looks at; a filter may pass none of them.
pub(crate) const MAX_WALK: usize = 1_000;

/// A stretch of the timeline: orders above `after`, up to `until`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    pub after: i64,
    pub until: i64,
}

impl Stretch {
    pub fn contains(self, order: i64) -> bool {
        self.after < order && order <= self.until
    }
}

/// What a walk does where history is missing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gaps<'g> {
    /// It goes on behind it.
    Pass,
    /// It ends with an event that follows one that we do not have.
    End,
    /// It stops, so that others can be asked; but below these orders, where they were.
    StopBut(&'g BTreeSet<i64>),
}

/// What a walk found, in its direction.
pub(crate) struct Walk {
    pub events: Vec<(i64, Known)>,
    /// Where to go on; `None` if the stretch has nothing more to see.
    pub next: Option<i64>,
    /// The order of the event above the gap that the walk stopped at.
    pub gap: Option<i64>,
}

impl RoomView<'_> {
    /// Collects events that the user sees and the filter passes.
    pub fn walk(
        &self,
        stretch: Stretch,
        direction: Direction,
        limit: usize,
        filter: &EventFilter,
        gaps: Gaps<'_>,
    ) -> Result<Walk, RoomError> {
        let mut walk = Walk { events: Vec::new(), next: None, gap: None };
        // The place next to the last event that was taken or passed over.
        let mut place = match direction {
            Direction::Backward => stretch.until,
            Direction::Forward => stretch.after,
        };
        // The last event that was looked at; at first, the one that the stretch begins behind.
        let mut last = match direction {
            // It is of use to who may stop there.
            _ if !matches!(gaps, Gaps::StopBut(_)) => None,
            Direction::Backward => gaps::above(&self.graph, stretch.until)?
                .filter(|above| *above == stretch.until.saturating_add(1)),
            Direction::Forward => Some(stretch.after).filter(|after| *after > i64::MIN),
        };
        for (looked_at, row) in self.rows(stretch, direction).enumerate() {
            let (order, event_id) = row?;
            let sides = match direction {
                Direction::Backward => last.map(|upper| (upper, order)),
                Direction::Forward => last.map(|lower| (order, lower)),
            };
            walk.gap = self.gap_between(sides, gaps)?;
            if looked_at >= MAX_WALK || walk.gap.is_some() {
                walk.next = Some(place);
                return Ok(walk);
            }
            last = Some(order);
            let known = self.graph.event_here(&event_id)?;
            let taken = self.passes(filter, &known)? && self.sees(&known, order)?;
            if taken && walk.events.len() >= limit {
                walk.next = Some(place);
                return Ok(walk);
            }
            let ends = matches!(gaps, Gaps::End) && self.follows_gap(&known)?;
            if taken {
                walk.events.push((order, self.unless_erased(known)?));
            }
            // What is passed over stays behind the place until something is taken, so that a page
            // with another filter misses nothing.
            if taken || walk.events.is_empty() {
                place = beside(order, direction);
            }
            if ends {
                walk.next = Some(beside(order, direction));
                return Ok(walk);
            }
        }
        if direction == Direction::Backward {
            walk.gap = self.gap_between(last.map(|upper| (upper, stretch.after)), gaps)?;
            walk.next = walk.gap.map(|_| place);
        }
        Ok(walk)
    }

    /// The order of the event above, if between it and what is below there is room for history
    /// that is missing.
    fn gap_between(
        &self,
        sides: Option<(i64, i64)>,
        gaps: Gaps<'_>,
    ) -> Result<Option<i64>, RoomError> {
        let (Some((upper, lower)), Gaps::StopBut(asked)) = (sides, gaps) else { return Ok(None) };
        let has_room = |top: i64| top.saturating_sub(lower) > 1;
        let is_gap = has_room(upper)
            && !asked.contains(&upper)
            && !gaps::missing(&self.graph, upper)?.is_empty()
            && has_room(gaps::top(&self.graph, upper)?);
        Ok(is_gap.then_some(upper))
    }

    fn rows(
        &self,
        stretch: Stretch,
        direction: Direction,
    ) -> impl Iterator<Item = Result<(i64, OwnedEventId), RoomError>> {
        let room_id = &self.graph.room_id;
        let scan = self.graph.reader.scan::<tables::Timeline>(room_id.clone());
        let scan = scan
            .after((room_id.clone(), stretch.after))
            .before((room_id.clone(), stretch.until.saturating_add(1)));
        let scan = match direction {
            Direction::Backward => scan.rev(),
            Direction::Forward => scan,
        };
        scan.iter().map(|row| {
            let ((_, order), event_id) = row?;
            Ok((order, event_id))
        })
    }

    /// Whether an event follows one that we do not have, or whose place we do not know.
    fn follows_gap(&self, known: &Known) -> Result<bool, RoomError> {
        for prev in known.pdu.prev_events() {
            if self.graph.state_after(prev)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The place on the far side of an event.
pub(super) fn beside(order: i64, direction: Direction) -> i64 {
    match direction {
        Direction::Backward => order.saturating_sub(1),
        Direction::Forward => order,
    }
}
