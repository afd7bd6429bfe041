//! The gate before everything about one room: its server ACL.
//!
//! Specification: client-server API, "Server Access Control Lists (ACLs) for rooms"; spec-map 4.10.

use exeunt_store::{Reader, tables};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};

use crate::{
    RoomError, Rooms,
    graph::{Graph, Known, is_joined},
};

/// What a server hears that the room's ACL denies: the words by which others tell it from a refusal
/// of the user.
const DENIED: &str = "Server is banned from the room";

/// A server that the room's ACL lets in, and the room. Made by [`Rooms::admit`] only.
#[derive(Debug, Clone)]
pub struct Admitted {
    origin: OwnedServerName,
    room_id: OwnedRoomId,
}

impl Admitted {
    pub fn origin(&self) -> &ServerName {
        &self.origin
    }

    pub fn room_id(&self) -> &RoomId {
        &self.room_id
    }

    pub(super) fn owned_origin(&self) -> &OwnedServerName {
        &self.origin
    }
}

impl Rooms {
    /// Lets `origin` ask about a room, unless the room's ACL denies it (row ML5). Of a room that we
    /// do not reside in no ACL is known, and there is nothing to protect (row IN7).
    pub async fn admit(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
    ) -> Result<Admitted, RoomError> {
        let admitted = Admitted { origin: origin.to_owned(), room_id: room_id.to_owned() };
        let (entry, ours) = (admitted.clone(), self.server_name().to_owned());
        self.store().read(move |reader| room_gate(reader, &entry, &ours)).await?;
        Ok(admitted)
    }
}

fn room_gate(reader: &Reader<'_>, entry: &Admitted, ours: &ServerName) -> Result<(), RoomError> {
    if !is_joined(reader, &entry.room_id, ours)? {
        return Ok(());
    }
    if !Graph::of(reader, &entry.room_id)?.acl_allows(&entry.origin)? {
        return Err(RoomError::Forbidden(DENIED.into()));
    }
    Ok(())
}

/// The graph of a room that we reside in; `NotFound` for any other (rows ML4, ML6).
pub(super) fn resident<'a>(
    reader: &'a Reader<'a>,
    room_id: &RoomId,
    ours: &ServerName,
) -> Result<Graph<'a>, RoomError> {
    if !is_joined(reader, room_id, ours)? {
        return Err(RoomError::NotFound("Unknown room".into()));
    }
    Graph::of(reader, room_id)
}

/// The same, for a server that has users in the room now. Others may read nothing of it
/// (GHSA-qcjr-46gf-7f4r).
pub(super) fn shared<'a>(
    reader: &'a Reader<'a>,
    entry: &Admitted,
    ours: &ServerName,
) -> Result<Graph<'a>, RoomError> {
    let graph = resident(reader, &entry.room_id, ours)?;
    if !is_joined(reader, &entry.room_id, &entry.origin)? {
        return Err(RoomError::Forbidden("Host not in room".into()));
    }
    Ok(graph)
}

/// The same, for a server that has to place these events or what follows them: also where it is we
/// who have left, and also to one that is out of the room, of what was here when its last user went.
/// Drops the other events. Decision 0017.
pub(super) fn shared_until_parting<'a>(
    reader: &'a Reader<'a>,
    entry: &Admitted,
    events: &mut Vec<OwnedEventId>,
) -> Result<Graph<'a>, RoomError> {
    let graph = Graph::of(reader, &entry.room_id)?;
    // Where we are not in the room the gate has let everyone pass.
    if !graph.acl_allows(&entry.origin)? {
        return Err(RoomError::Forbidden(DENIED.into()));
    }
    let outside = || RoomError::Forbidden("Host not in room".into());
    let until = shared_until(reader, &entry.room_id, &entry.origin)?.ok_or_else(outside)?;
    if until == i64::MAX {
        return Ok(graph);
    }
    let mut shared = Vec::new();
    for id in events.drain(..) {
        if graph.event(&id)?.is_some_and(|known| was_here(&known, until)) {
            shared.push(id);
        }
    }
    *events = shared;
    if events.is_empty() { Err(outside()) } else { Ok(graph) }
}

/// Up to which order a server is given events of a room: all of one that it is in; of one that it
/// was in, those that were here when its last user went. `None` for any other.
pub(super) fn shared_until(
    reader: &Reader<'_>,
    room_id: &RoomId,
    server: &ServerName,
) -> Result<Option<i64>, RoomError> {
    if is_joined(reader, room_id, server)? {
        return Ok(Some(i64::MAX));
    }
    let key = (room_id.to_owned(), server.to_owned());
    let parted = reader.get::<tables::DepartedServers>(&key)?;
    Ok(parted.map(|position| i64::try_from(position).unwrap_or(i64::MAX)))
}

/// Whether an event was here by then. State from before our own join has no order, and was handed
/// out with every join since.
pub(super) fn was_here(event: &Known, until: i64) -> bool {
    let is_old = || event.record.states.is_none() && event.pdu.state_key().is_some();
    until == i64::MAX || event.record.order.map_or_else(is_old, |order| order <= until)
}
