//! Invites that are taken back and knocks that are turned down, told to us in a transaction by
//! the server of a room that we do not reside in. Rows RS1 to RS7.

use exeunt_core::{CheckedPdu, Object, Pdu, PendingMembership, RoomVersion, hash};
use exeunt_membership::{Rescission, check_rescission};
use exeunt_store::{Batch, tables};
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::Value;

use crate::{
    RoomError, Rooms,
    change::put_log,
    leave::{log_line, put_local_leave},
    place::Placement,
};

/// A pending membership that an event of a transaction is about.
pub(super) struct Concerned {
    pub user: OwnedUserId,
    pub pending: PendingMembership,
    pub version: RoomVersion,
}

impl Concerned {
    /// The id of the event, which the room's version makes.
    pub fn event_id(&self, object: &Object) -> Option<OwnedEventId> {
        hash::event_id(self.version, object)
    }
}

/// The user of a server whom an unchecked event gives a membership, and which.
pub(super) fn member_of<'e>(
    server: &ServerName,
    object: &'e Object,
) -> Option<(&'e UserId, Option<&'e str>)> {
    let text = |field| object.get(field).and_then(Value::as_str);
    let user = <&UserId>::try_from(text("state_key")?).ok()?;
    let membership = object.get("content").and_then(|content| content.get("membership"));
    let fits = text("type") == Some("m.room.member") && user.server_name() == server;
    fits.then(|| (user, membership.and_then(Value::as_str)))
}

/// The user of a server whom an unchecked event takes out of a room, by the word of somebody else.
pub(super) fn expelled_of<'e>(server: &ServerName, object: &'e Object) -> Option<&'e UserId> {
    let (user, membership) = member_of(server, object)?;
    let by_other = object.get("sender").and_then(Value::as_str) != Some(user.as_str());
    (by_other && matches!(membership, Some("leave" | "ban"))).then_some(user)
}

impl Rooms {
    /// The invite or knock of a user of ours that the event may end. Also one that the user has
    /// turned down while no server could be told of it.
    pub(super) async fn concerned(
        &self,
        room_id: &RoomId,
        object: &Object,
    ) -> Result<Option<Concerned>, RoomError> {
        let Some((user, _)) = member_of(self.server_name(), object) else { return Ok(None) };
        let Some(pending) = self.pending(user, room_id).await? else { return Ok(None) };
        let Ok(version) = RoomVersion::parse(&pending.room_version) else { return Ok(None) };
        Ok(Some(Concerned { user: user.to_owned(), pending, version }))
    }

    /// The same for an event of a transaction. A withdrawal that is here before its invite is kept,
    /// and the invite that comes in that moment is not missed.
    pub(super) async fn concerned_by(
        &self,
        origin: &OwnedServerName,
        room_id: &RoomId,
        object: &Object,
    ) -> Result<Option<Concerned>, RoomError> {
        let concerned = self.concerned(room_id, object).await?;
        if concerned.is_none() && self.hold_early(origin, room_id, object).await? {
            return self.concerned(room_id, object).await;
        }
        Ok(concerned)
    }

    async fn pending(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<Option<PendingMembership>, RoomError> {
        let key = (user.to_owned(), room_id.to_owned());
        self.store()
            .read(move |reader| {
                if let Some(pending) = reader.get::<tables::Pending>(&key)? {
                    return Ok(Some(pending));
                }
                Ok(reader.get::<tables::Departures>(&key)?.map(|departure| departure.pending))
            })
            .await
    }

    /// Ends the invite, if the event proves that its sender may do so. If it does not, the invite
    /// is in doubt.
    pub(super) async fn withdraw(
        &self,
        from: &OwnedServerName,
        concerned: Concerned,
        object: Object,
    ) -> Result<(), RoomError> {
        let pdu = Pdu::from_object(concerned.version, object)?;
        pdu.check_reference_limits()?;
        let event = self.checked(pdu).await?;
        match check_rescission(&concerned.pending, &event) {
            Rescission::Withdrawn => self.end(from, &concerned, &event, "withdrawal").await,
            Rescission::Unproven => {
                self.doubt(from, concerned, event).await?;
                Err(RoomError::Forbidden(
                    "It cannot be seen from here that the sender may do this".into(),
                ))
            }
            Rescission::Unrelated => {
                Err(RoomError::NotFound("This server is not in the room".into()))
            }
        }
    }

    /// Ends the invite; `via` is how that was known.
    pub(super) async fn end(
        &self,
        from: &OwnedServerName,
        concerned: &Concerned,
        event: &CheckedPdu,
        via: &str,
    ) -> Result<(), RoomError> {
        let (user, room_id) = (&concerned.user, &concerned.pending.room_id);
        let guard = self.inner.locks.lock(room_id).await;
        // A newer invite, or a join, may have come since.
        if self.pending(user, room_id).await?.as_ref() != Some(&concerned.pending) {
            return Ok(());
        }
        let mut batch = Batch::default();
        let key = (user.clone(), room_id.clone());
        put_local_leave(&mut batch, user, room_id, event);
        batch.delete::<tables::Departures>(&key);
        batch.delete::<tables::Withdrawals>(&(from.clone(), user.clone(), room_id.clone()));
        let line = log_line(event, via, Some(from.clone()), self.now());
        put_log(&mut batch, room_id, user, line);
        let mut placement = Placement::only(batch);
        placement.users.insert(user.clone());
        self.commit(&guard, placement).await?;
        tracing::info!(%user, %room_id, server = %from, "an invite was taken back");
        Ok(())
    }
}
