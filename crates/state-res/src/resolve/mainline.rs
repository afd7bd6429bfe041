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

/// The power levels event and those that it came from, the newest first.
pub(super) fn mainline(
    power: Option<EventNo>,
    events: &mut Events<'_>,
) -> Result<Vec<EventNo>, ResolveError> {
    let mut line = Vec::new();
    let mut passed = super::subgraph::Marks::default();
    let mut next = power;
    while let Some(event) = next {
        if !passed.set(event) {
            break;
        }
        line.push(event);
        next = events.auth_event(event, POWER_LEVELS)?;
    }
    Ok(line)
}

/// Orders events by how far back in the mainline they rest, then by time, then by id.
pub(super) fn sort(
    unordered: Vec<EventNo>,
    mainline: &[EventNo],
    events: &mut Events<'_>,
) -> Result<Vec<EventNo>, ResolveError> {
    let mut positions: HashMap<EventNo, Position> = mainline.iter().copied().zip(0..).collect();
    let mut ranked: Vec<(Reverse<Position>, u64, OwnedEventId, EventNo)> = Vec::new();
    for event in unordered {
        let position = position(event, &mut positions, events)?;
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
    positions: &mut HashMap<EventNo, Position>,
    events: &mut Events<'_>,
) -> Result<Position, ResolveError> {
    let mut passed = Vec::new();
    let mut next = events.auth_event(event, POWER_LEVELS)?;
    let found = loop {
        let Some(power) = next else { break FAR };
        if let Some(position) = positions.get(&power) {
            break *position;
        }
        // Until a position is found it is none; this also ends the walk should ids form a circle.
        positions.insert(power, FAR);
        passed.push(power);
        next = events.auth_event(power, POWER_LEVELS)?;
    };
    positions.extend(passed.into_iter().map(|power| (power, found)));
    Ok(found)
}
