//! `GET query/directory`: the room behind one of our aliases.

use exeunt_store::tables;
use ruma::{OwnedRoomId, OwnedServerName, RoomAliasId};

use crate::{RoomError, Rooms, graph::joined_servers};

/// Most servers that an answer names.
pub const MAX_DIRECTORY_SERVERS: usize = 50;

impl Rooms {
    /// The room of an alias of this server, and servers that can help to join it, ours first.
    pub async fn query_directory(
        &self,
        alias: &RoomAliasId,
    ) -> Result<(OwnedRoomId, Vec<OwnedServerName>), RoomError> {
        let (alias, ours) = (alias.to_owned(), self.server_name().to_owned());
        self.store()
            .read(move |reader| {
                let record = reader.get::<tables::Aliases>(&alias)?;
                let record =
                    record.ok_or_else(|| RoomError::NotFound("Unknown room alias".into()))?;
                let mut servers = joined_servers(reader, &record.room_id)?;
                if let Some(index) = servers.iter().position(|server| *server == ours) {
                    servers[..=index].rotate_right(1);
                }
                servers.truncate(MAX_DIRECTORY_SERVERS);
                Ok((record.room_id, servers))
            })
            .await
    }
}
