//! `GET query/directory`: the room behind one of our aliases.

use ruma::{OwnedRoomId, OwnedServerName, RoomAliasId};

use crate::{RoomError, Rooms};

impl Rooms {
    /// The room of an alias of this server, and servers that can help to join it. Aliases of
    /// others are not looked up on anyone's behalf.
    pub async fn query_directory(
        &self,
        alias: &RoomAliasId,
    ) -> Result<(OwnedRoomId, Vec<OwnedServerName>), RoomError> {
        let found = self.local_alias(alias).await?;
        found.ok_or_else(|| RoomError::NotFound("Unknown room alias".into()))
    }
}
