//! Walks along a room's timeline.

use exeunt_store::tables;
use ruma::OwnedEventId;

use super::{access::RoomView, filter::EventFilter, messages::Direction};
use crate::{RoomError, graph::Known};

/// Most events that one walk looks at; a filter may pass none of them.
pub(crate) const MAX_WALK: usize = 1_000;

/// A stretch of the timeline: orders above `after`, up to `until`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    pub after: i64,
    pub until: i64,
}

/// What a walk found, in its direction.
pub(crate) struct Walk {
    pub events: Vec<(i64, Known)>,
    /// Where to go on; `None` if the stretch has nothing more to see.
    pub next: Option<i64>,
    /// The walk ended at an event whose predecessors we do not have.
    pub gap: bool,
}

impl RoomView<'_> {
    /// Collects events that the user sees and the filter passes. Backwards, `stop_at_gap` ends
    /// the walk where the events before are not known.
    pub fn walk(
        &self,
        stretch: Stretch,
        direction: Direction,
        limit: usize,
        filter: &EventFilter,
        stop_at_gap: bool,
    ) -> Result<Walk, RoomError> {
        let mut walk = Walk { events: Vec::new(), next: None, gap: false };
        // The place next to the last event that was taken or passed over.
        let mut place = match direction {
            Direction::Backward => stretch.until,
            Direction::Forward => stretch.after,
        };
        for (looked_at, row) in self.rows(stretch, direction).enumerate() {
            let (order, event_id) = row?;
            if looked_at >= MAX_WALK {
                walk.next = Some(place);
                break;
            }
            let known = self.graph.event_here(&event_id)?;
            let taken = filter.allows(&known.pdu) && self.sees(&known, order)?;
            if taken && walk.events.len() >= limit {
                walk.next = Some(place);
                break;
            }
            let gap = stop_at_gap && self.follows_gap(&known)?;
            if taken {
                walk.events.push((order, known));
            }
            // What is passed over stays behind the place until something is taken, so that a page
            // with another filter misses nothing.
            if taken || walk.events.is_empty() {
                place = beside(order, direction);
            }
            if gap {
                (walk.next, walk.gap) = (Some(beside(order, direction)), true);
                break;
            }
        }
        Ok(walk)
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
fn beside(order: i64, direction: Direction) -> i64 {
    match direction {
        Direction::Backward => order.saturating_sub(1),
        Direction::Forward => order,
    }
}
