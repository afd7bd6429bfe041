//! The gate before everything about one room: its server ACL.
//!
//! Specification: client-server API, "Server Access Control Lists (ACLs) for rooms"; spec-map 4.10.

use exeunt_store::Reader;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};

use crate::{
    RoomError, Rooms,
    graph::{Graph, is_joined},
};

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
        return Err(RoomError::Forbidden("Server is banned from the room".into()));
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
