//! Kick, ban and unban by local users of rooms that we reside in.

use exeunt_core::Object;
use ruma::{OwnedEventId, RoomId, UserId};

use crate::{Intent, RoomError, Rooms, graph::Graph};

impl Rooms {
    /// Removes a user who is joined, invited or knocking. A withdrawn invite is told to the
    /// invited user's server (row RS1).
    pub async fn kick(
        &self,
        sender: &UserId,
        target: &UserId,
        room_id: &RoomId,
        reason: Option<String>,
    ) -> Result<OwnedEventId, RoomError> {
        let present = |m: Option<&str>| matches!(m, Some("join" | "invite" | "knock"));
        self.expel(sender, target, room_id, "leave", reason, present, "is not in the room").await
    }

    /// Bans a user, present or not.
    pub async fn ban(
        &self,
        sender: &UserId,
        target: &UserId,
        room_id: &RoomId,
        reason: Option<String>,
    ) -> Result<OwnedEventId, RoomError> {
        self.expel(sender, target, room_id, "ban", reason, |_| true, "").await
    }

    /// Lifts a ban.
    pub async fn unban(
        &self,
        sender: &UserId,
        target: &UserId,
        room_id: &RoomId,
        reason: Option<String>,
    ) -> Result<OwnedEventId, RoomError> {
        let banned = |m: Option<&str>| m == Some("ban");
        self.expel(sender, target, room_id, "leave", reason, banned, "is not banned").await
    }

    #[allow(clippy::too_many_arguments)]
    async fn expel(
        &self,
        sender: &UserId,
        target: &UserId,
        room_id: &RoomId,
        membership: &str,
        reason: Option<String>,
        fits: impl Fn(Option<&str>) -> bool,
        otherwise: &str,
    ) -> Result<OwnedEventId, RoomError> {
        let guard = self.inner.locks.lock(room_id).await;
        let (room, user) = (room_id.to_owned(), target.to_owned());
        let present = self
            .inner
            .store
            .read(move |reader| Graph::of(reader, &room)?.membership(&user))
            .await?;
        if !fits(present.as_deref()) {
            return Err(RoomError::Forbidden(format!("{target} {otherwise}")));
        }
        let mut content = Object::new();
        content.insert("membership".into(), membership.into());
        if let Some(reason) = reason {
            content.insert("reason".into(), reason.into());
        }
        let intent = Intent::state(sender.to_owned(), "m.room.member", target.as_str(), content);
        self.append_locked(&guard, intent).await
    }
}
