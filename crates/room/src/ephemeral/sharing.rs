//! Who shares a room with a user.

use std::collections::{BTreeMap, BTreeSet};

use exeunt_store::{Reader, tables};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, UserId};

use crate::{
    RoomError,
    graph::{Graph, is_joined, load_event},
};

/// The rooms that a local user is in.
pub(super) fn joined(
    reader: &Reader<'_>,
    user: &UserId,
) -> Result<BTreeSet<OwnedRoomId>, RoomError> {
    let rows = reader.scan::<tables::Memberships>(user.to_owned()).collect()?;
    let joined = rows.into_iter().filter(|(_, record)| record.membership == "join");
    Ok(joined.map(|((_, room_id), _)| room_id).collect())
}

/// Who shares one of these rooms.
pub(super) struct Sharing<'a> {
    reader: &'a Reader<'a>,
    ours: &'a OwnedServerName,
    rooms: &'a BTreeSet<OwnedRoomId>,
    /// Those of the rooms that a server is in.
    by_server: BTreeMap<OwnedServerName, Vec<Graph<'a>>>,
    /// The member events of all rooms by user, if they were read.
    members: Option<BTreeMap<String, Vec<OwnedEventId>>>,
}

impl<'a> Sharing<'a> {
    pub fn new(
        reader: &'a Reader<'a>,
        ours: &'a OwnedServerName,
        rooms: &'a BTreeSet<OwnedRoomId>,
    ) -> Self {
        Self { reader, ours, rooms, by_server: BTreeMap::new(), members: None }
    }

    /// Reads who is in the rooms, where that is less work than to look for each of so many users.
    pub fn read_members(&mut self, users: usize) -> Result<(), RoomError> {
        let (mut members, mut looked_at) = (BTreeMap::<_, Vec<_>>::new(), 0);
        for room_id in self.rooms {
            let graph = Graph::of(self.reader, room_id)?;
            for entry in graph.state_entries(graph.room.state) {
                let (key, id) = entry?;
                looked_at += 1;
                if looked_at > users {
                    return Ok(());
                }
                if key.kind == "m.room.member" {
                    members.entry(key.key).or_default().push(id);
                }
            }
        }
        self.members = Some(members);
        Ok(())
    }

    /// Whether it is possible, for all that was read.
    pub fn may_have(&self, user: &UserId) -> bool {
        self.members.as_ref().is_none_or(|members| members.contains_key(user.as_str()))
    }

    pub fn has(&mut self, user: &UserId) -> Result<bool, RoomError> {
        if let Some(members) = &self.members {
            for id in members.get(user.as_str()).into_iter().flatten() {
                let event = load_event(self.reader, id)?;
                if event.is_some_and(|event| event.pdu.membership() == Some("join")) {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        let server = user.server_name();
        if server == self.ours {
            return Ok(!joined(self.reader, user)?.is_disjoint(self.rooms));
        }
        if !self.by_server.contains_key(server) {
            let mut graphs = Vec::new();
            for room_id in self.rooms {
                if is_joined(self.reader, room_id, server)? {
                    graphs.push(Graph::of(self.reader, room_id)?);
                }
            }
            self.by_server.insert(server.to_owned(), graphs);
        }
        for graph in self.by_server.get(server).into_iter().flatten() {
            if graph.membership(user)?.as_deref() == Some("join") {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
