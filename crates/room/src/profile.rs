//! Profiles where rooms meet them: those of other servers' users, and our users' member events.

use exeunt_core::Object;
use exeunt_store::tables::Memberships;
use futures_util::{StreamExt as _, stream};
use ruma::{OwnedEventId, OwnedRoomId, RoomId, UserId};
use serde_json::Value;

use crate::{Call, Intent, RemoteError, RoomError, Rooms, graph::Graph};

/// Rooms that a profile change goes to at once.
const MAX_UPDATES_AT_ONCE: usize = 8;
/// Fields of a profile that member events carry.
const PROFILE_FIELDS: [&str; 2] = ["displayname", "avatar_url"];

impl Rooms {
    /// The profile of another server's user, or one field of it, as that server gives it.
    pub async fn remote_profile(
        &self,
        user: &UserId,
        field: Option<&str>,
    ) -> Result<Object, RoomError> {
        let server = user.server_name();
        let remote = |error| RoomError::Remote { server: server.to_owned(), error };
        match self.call(server, Call::Profile { user, field }).await.map_err(remote)? {
            Value::Object(profile) => Ok(profile),
            _ => Err(remote(RemoteError::Misbehaved("the profile is not an object".into()))),
        }
    }

    /// Tells the rooms that a local user is joined to of a new profile (client-server API, "Events
    /// on Change of Profile Information"). A room that refuses keeps the old one.
    pub async fn update_profile(&self, user: &UserId, profile: Object) -> Result<(), RoomError> {
        let rooms = self.joined_rooms(user).await?;
        stream::iter(rooms)
            .for_each_concurrent(MAX_UPDATES_AT_ONCE, |room_id| {
                let profile = &profile;
                async move {
                    if let Err(error) = self.update_member(user, &room_id, profile).await {
                        tracing::info!(%user, %room_id, %error, "a profile change did not go in");
                    }
                }
            })
            .await;
        Ok(())
    }

    async fn update_member(
        &self,
        user: &UserId,
        room_id: &RoomId,
        profile: &Object,
    ) -> Result<(), RoomError> {
        let guard = self.inner.locks.lock(room_id).await;
        let (room, who) = (room_id.to_owned(), user.to_owned());
        let member = self
            .inner
            .store
            .read(move |reader| Graph::of(reader, &room)?.current("m.room.member", who.as_str()))
            .await?;
        // Who left in the meantime must not be joined again.
        let Some(member) = member.filter(|event| event.membership() == Some("join")) else {
            return Ok(());
        };
        let mut content = member.content().clone();
        // They belong to the join that the event was.
        content.remove("reason");
        content.remove("join_authorised_via_users_server");
        for field in PROFILE_FIELDS {
            match profile.get(field) {
                Some(value) => content.insert(field.into(), value.clone()),
                None => content.remove(field),
            };
        }
        let intent = Intent::state(user.to_owned(), "m.room.member", user.as_str(), content);
        self.append_locked(&guard, intent).await?;
        Ok(())
    }

    /// The rooms that a local user is joined to.
    pub async fn joined_rooms(&self, user: &UserId) -> Result<Vec<OwnedRoomId>, RoomError> {
        let user = user.to_owned();
        let rows =
            self.inner.store.read(move |reader| reader.scan::<Memberships>(user).collect()).await?;
        let joined = rows.into_iter().filter(|(_, record)| record.membership == "join");
        Ok(joined.map(|((_, room_id), _)| room_id).collect())
    }

    /// A user's membership and member event: of a local user in any room, of another one where we
    /// know the room.
    pub async fn member(
        &self,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<Option<(String, OwnedEventId)>, RoomError> {
        let (user, room_id) = (user.to_owned(), room_id.to_owned());
        self.inner
            .store
            .read(move |reader| {
                if let Some(row) = reader.get::<Memberships>(&(user.clone(), room_id.clone()))? {
                    return Ok(Some((row.membership, row.event_id)));
                }
                let Some(graph) = Graph::open(reader, &room_id)? else { return Ok(None) };
                let event = graph.current("m.room.member", user.as_str())?;
                Ok(event.map(|event| {
                    let membership = event.membership().unwrap_or_default().to_owned();
                    (membership, event.event_id().to_owned())
                }))
            })
            .await
    }
}
