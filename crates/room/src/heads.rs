//! A room's forward extremities. The deepest stand in the room's row, which is written with each
//! event; where a flood of forks made more than it holds, the others have a table. Decision 0036.

use std::collections::BTreeSet;

use exeunt_core::Pdu;
use exeunt_store::{records::RoomRecord, tables};
use ruma::{OwnedEventId, OwnedRoomId};

use crate::{RoomError, graph::Graph};

/// Most heads in a room's row.
pub(crate) const MAX_IN_ROW: usize = 100;
/// With fewer in the row, as many come back from the table: its deepest.
const FEW: usize = MAX_IN_ROW / 2;

/// Takes out those that are followed now.
pub(crate) fn remove(
    graph: &Graph<'_>,
    room: &mut RoomRecord,
    followed: &BTreeSet<OwnedEventId>,
) -> Result<(), RoomError> {
    room.extremities.retain(|id| !followed.contains(id));
    if !room.has_older_heads {
        return Ok(());
    }
    for id in followed {
        if let Some(known) = graph.event(id)? {
            graph.batch().delete::<tables::OlderHeads>(&key(graph, &known.pdu));
        }
    }
    if room.extremities.len() >= FEW {
        return Ok(());
    }
    room.has_older_heads = false;
    let mut back = 0;
    for row in graph.reader.scan::<tables::OlderHeads>(graph.room_id.clone()).rev().iter() {
        let (key, ()) = row?;
        if followed.contains(&key.2) {
            continue;
        }
        if back == FEW {
            room.has_older_heads = true;
            break;
        }
        graph.batch().delete::<tables::OlderHeads>(&key);
        room.extremities.insert(0, key.2);
        back += 1;
    }
    Ok(())
}

/// Adds an event that nothing follows.
pub(crate) fn add(graph: &Graph<'_>, room: &mut RoomRecord, event: &Pdu) -> Result<(), RoomError> {
    let place = place(graph, room, event)?;
    room.extremities.insert(place, event.event_id().to_owned());
    let is_below_row = place == 0 && room.has_older_heads;
    if is_below_row || room.extremities.len() > MAX_IN_ROW {
        let shallowest = graph.event_here(&room.extremities.remove(0))?.pdu;
        graph.batch().put::<tables::OlderHeads>(&key(graph, &shallowest), &());
        room.has_older_heads = true;
    }
    Ok(())
}

/// Deletes what an earlier stay has left in the table.
pub(crate) fn forget_older(graph: &Graph<'_>) -> Result<(), RoomError> {
    let rows = graph.reader.scan::<tables::OlderHeads>(graph.room_id.clone()).keys()?;
    rows.iter().for_each(|row| graph.batch().delete::<tables::OlderHeads>(row));
    Ok(())
}

/// At most so many: the deepest first, and among equals the greatest ids.
pub(crate) fn newest(room: &RoomRecord, limit: usize) -> Vec<OwnedEventId> {
    room.extremities.iter().rev().take(limit).cloned().collect()
}

fn key(graph: &Graph<'_>, event: &Pdu) -> (OwnedRoomId, u64, OwnedEventId) {
    (graph.room_id.clone(), event.depth(), event.event_id().to_owned())
}

/// Where the event belongs in the row, which is sorted by depth, then by id.
fn place(graph: &Graph<'_>, room: &RoomRecord, event: &Pdu) -> Result<usize, RoomError> {
    let new = (event.depth(), event.event_id());
    let (mut from, mut to) = (0, room.extremities.len());
    while from < to {
        let middle = (from + to) / 2;
        let id = &room.extremities[middle];
        match (graph.event_here(id)?.pdu.depth(), &**id) < new {
            true => from = middle + 1,
            false => to = middle,
        }
    }
    Ok(from)
}
