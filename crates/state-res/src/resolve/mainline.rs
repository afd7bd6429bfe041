//! Mainline ordering.
//!
//! Specification: rooms/v2, "Mainline ordering".

use std::cmp::Reverse;
use std::collections::BTreeMap;

use exeunt_core::Pdu;
use ruma::OwnedEventId;

use super::{ResolveError, events::Events};

/// Place of a power levels event in the mainline, 0 for the newest; `FAR` for what has none.
type Position = usize;
const FAR: Position = usize::MAX;

/// Orders events by how far back in the mainline of `power` they rest, then by time, then by id.
pub(super) fn sort(
    ids: Vec<OwnedEventId>,
    power: Option<&OwnedEventId>,
    events: &mut Events<'_>,
) -> Result<Vec<OwnedEventId>, ResolveError> {
    let mut positions = mainline(power, events)?;
    let mut ranked = Vec::with_capacity(ids.len());
    for id in ids {
        let pdu = events.get(&id)?;
        let position = position(&pdu, &mut positions, events)?;
        ranked.push((Reverse(position), pdu.origin_server_ts(), id));
    }
    ranked.sort_unstable();
    Ok(ranked.into_iter().map(|(_, _, id)| id).collect())
}

fn mainline(
    power: Option<&OwnedEventId>,
    events: &mut Events<'_>,
) -> Result<BTreeMap<OwnedEventId, Position>, ResolveError> {
    let mut positions = BTreeMap::new();
    let mut next = power.map(|id| events.get(id)).transpose()?;
    while let Some(pdu) = next {
        let position = positions.len();
        if positions.insert(pdu.event_id().to_owned(), position).is_some() {
            break;
        }
        next = events.auth_event(&pdu, "m.room.power_levels")?;
    }
    Ok(positions)
}

/// The position of the first power levels event under `pdu` that has one. What was passed on the
/// way is remembered, so that every event is passed once.
fn position(
    pdu: &Pdu,
    positions: &mut BTreeMap<OwnedEventId, Position>,
    events: &mut Events<'_>,
) -> Result<Position, ResolveError> {
    let mut passed = Vec::new();
    let mut next = events.auth_event(pdu, "m.room.power_levels")?;
    let found = loop {
        let Some(power) = next else { break FAR };
        if let Some(position) = positions.get(power.event_id()) {
            break *position;
        }
        // Until a position is found it is none; this also ends the walk should ids form a circle.
        positions.insert(power.event_id().to_owned(), FAR);
        passed.push(power.event_id().to_owned());
        next = events.auth_event(&power, "m.room.power_levels")?;
    };
    positions.extend(passed.into_iter().map(|id| (id, found)));
    Ok(found)
}
