//! A room's forward extremities. The deepest stand in the room's row, which is written with each
//! event; where a flood of forks made more than it holds, the others have a table. Decision 0036.

use std::collections::BTreeSet;

use exeunt_core::Pdu;
use exeunt_store::{records::RoomRecord, tables};
use ruma::OwnedEventId;

use crate::{RoomError, graph::Graph};

/// Most heads in a room's row.
pub(crate) const MAX_IN_ROW: usize = 100;
/// With fewer in the row, as many come back from the table.
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
    let delete = |id| graph.batch().delete::<tables::OlderHeads>(&(graph.room_id.clone(), id));
    followed.iter().cloned().for_each(delete);
    if room.extremities.len() < FEW {
        let rows = graph.reader.scan::<tables::OlderHeads>(graph.room_id.clone()).limit(FEW);
        let older = rows.keys()?;
        room.has_older_heads = older.len() == FEW;
        for (_, id) in older {
            if !followed.contains(&id) {
                delete(id.clone());
                insert(graph, room, &graph.event_here(&id)?.pdu)?;
            }
        }
    }
    Ok(())
}

/// Adds an event that nothing follows.
pub(crate) fn add(graph: &Graph<'_>, room: &mut RoomRecord, event: &Pdu) -> Result<(), RoomError> {
    insert(graph, room, event)?;
    if room.extremities.len() > MAX_IN_ROW {
        let shallowest = room.extremities.remove(0);
        graph.batch().put::<tables::OlderHeads>(&(graph.room_id.clone(), shallowest), &());
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

/// The row is sorted by depth, then by id.
fn insert(graph: &Graph<'_>, room: &mut RoomRecord, event: &Pdu) -> Result<(), RoomError> {
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
    room.extremities.insert(from, event.event_id().to_owned());
    Ok(())
}
