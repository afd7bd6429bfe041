//! The summary of one room (MSC3266).
//!
//! Specification: client-server API, "GET /room_summary/{roomIdOrAlias}".

use exeunt_store::tables;
use ruma::{OwnedServerName, RoomId, UserId};

use super::access::{may_see_told, membership, shown_to_user};
use crate::{
    RoomError, RoomSummary, Rooms,
    graph::{Graph, is_joined, joined_servers},
};

impl Rooms {
    /// The summary of a room, and what it is to the user. `via` are servers that may know it where
    /// we do not; they are asked for users of ours, not for those who are not logged in. `NotFound`
    /// where there is nothing that may be shown.
    pub async fn room_summary(
        &self,
        user: Option<&UserId>,
        room_id: &RoomId,
        via: &[OwnedServerName],
    ) -> Result<(RoomSummary, Option<String>), RoomError> {
        let hidden = || RoomError::NotFound("Room not found".into());
        let summary = match self.look_here(user, room_id, via).await? {
            (None, servers) if user.is_some() && !servers.is_empty() => {
                self.summary_elsewhere(user, room_id, &servers).await?
            }
            (here, _) => here,
        };
        let summary = summary.ok_or_else(hidden)?;
        let Some(user) = user else { return Ok((summary, None)) };
        let (user, room_id) = (user.to_owned(), room_id.to_owned());
        let membership = self.store().read(move |reader| membership(reader, &user, &room_id));
        Ok((summary, Some(membership.await?.unwrap_or_else(|| "leave".into()))))
    }

    /// What may be shown of a room that we reside in, or the servers that may know another one.
    async fn look_here(
        &self,
        user: Option<&UserId>,
        room_id: &RoomId,
        via: &[OwnedServerName],
    ) -> Result<(Option<RoomSummary>, Vec<OwnedServerName>), RoomError> {
        let (user, room, ours) =
            (user.map(ToOwned::to_owned), room_id.to_owned(), self.server_name().to_owned());
        let (here, outside) = self
            .store()
            .read(move |reader| {
                if is_joined(reader, &room, &ours)? {
                    let shown = shown_to_user(&Graph::of(reader, &room)?, user.as_deref())?;
                    return Ok::<_, RoomError>((shown, None));
                }
                let last = joined_servers(reader, &room)?;
                let pending = match user {
                    Some(user) => reader.get::<tables::Pending>(&(user, room))?,
                    None => None,
                };
                Ok((None, Some((pending, last))))
            })
            .await?;
        let servers = outside
            .map(|(pending, last)| self.entry_candidates(room_id, via, pending.as_ref(), last));
        Ok((here, servers.unwrap_or_default()))
    }

    async fn summary_elsewhere(
        &self,
        user: Option<&UserId>,
        room_id: &RoomId,
        servers: &[OwnedServerName],
    ) -> Result<Option<RoomSummary>, RoomError> {
        let Some(told) = self.ask_about(room_id, servers).await else { return Ok(None) };
        let (summary, user) = (told.summary.clone(), user.map(ToOwned::to_owned));
        self.store()
            .read(move |reader| {
                Ok(may_see_told(reader, &summary, user.as_deref())?.then_some(summary))
            })
            .await
    }
}
