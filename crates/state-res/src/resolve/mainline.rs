//! Mainline ordering.
//!
//! Specification: rooms/v2, "Mainline ordering".

use std::cmp::Reverse;
use std::collections::HashMap;

use ruma::OwnedEventId;

use super::ResolveError;
use super::events::{EventNo, Events};

/// Place of a power levels event in the mainline, 0 for the newest; `FAR` for what has none.
type Position = usize;
const FAR: Position = usize::MAX;

const POWER_LEVELS: &str = "m.room.power_levels";

/// A power levels event and those that it came from, the newest first, as far as they are needed.
pub(super) struct Mainline {
    line: Vec<EventNo>,
    positions: HashMap<EventNo, Position>,
    next: Option<EventNo>,
    /// Whether generations fall along it, as they do unless ids form a circle.
    ordered: bool,
}

impl Mainline {
    pub(super) fn new(power: Option<EventNo>) -> Self {
        Self { line: Vec::new(), positions: HashMap::new(), next: power, ordered: true }
    }

    /// What has been walked so far.
    pub(super) fn line(&self) -> &[EventNo] {
        &self.line
    }

    /// Where the event is on it, `None` if it is not. Walks on from where it stands until it comes to
    /// the event or below it.
    fn position(
        &mut self,
        event: EventNo,
        events: &mut Events<'_>,
    ) -> Result<Option<Position>, ResolveError> {
        let generation = events.generation(event)?;
        loop {
            if let Some(position) = self.positions.get(&event) {
                return Ok(Some(*position));
            }
            let Some(next) = self.next else { return Ok(None) };
            if self.ordered && events.generation(next)? < generation {
                return Ok(None);
            }
            self.step(next, events)?;
        }
    }

    fn step(&mut self, event: EventNo, events: &mut Events<'_>) -> Result<(), ResolveError> {
        self.positions.insert(event, self.line.len());
        self.line.push(event);
        self.next = events.auth_event(event, POWER_LEVELS)?;
        if let Some(next) = self.next {
            self.ordered &= events.generation(next)? < events.generation(event)?;
        }
        self.next = self.next.filter(|next| !self.positions.contains_key(next));
        Ok(())
    }
}

/// Orders events by how far back in the mainline they rest, then by time, then by id.
pub(super) fn sort(
    unordered: Vec<EventNo>,
    mainline: &mut Mainline,
    events: &mut Events<'_>,
) -> Result<Vec<EventNo>, ResolveError> {
    let mut passed = HashMap::new();
    let mut ranked: Vec<(Reverse<Position>, u64, OwnedEventId, EventNo)> = Vec::new();
    for event in unordered {
        let position = position(event, mainline, &mut passed, events)?;
        let time = events.pdu(event)?.origin_server_ts();
        ranked.push((Reverse(position), time, events.id(event).to_owned(), event));
    }
    ranked.sort_unstable();
    Ok(ranked.into_iter().map(|(.., event)| event).collect())
}

/// The position of the first power levels event under `event` that has one. What was passed on the
/// way is remembered, so that every event is passed once.
fn position(
    event: EventNo,
    mainline: &mut Mainline,
    known: &mut HashMap<EventNo, Position>,
    events: &mut Events<'_>,
) -> Result<Position, ResolveError> {
    let mut passed = Vec::new();
    let mut next = events.auth_event(event, POWER_LEVELS)?;
    let found = loop {
        let Some(power) = next else { break FAR };
        if let Some(position) = known.get(&power) {
            break *position;
        }
        if let Some(position) = mainline.position(power, events)? {
            break position;
        }
        // Until a position is found it is none; this also ends the walk should ids form a circle.
        known.insert(power, FAR);
        passed.push(power);
        next = events.auth_event(power, POWER_LEVELS)?;
    };
    known.extend(passed.into_iter().map(|power| (power, found)));
    Ok(found)
}
