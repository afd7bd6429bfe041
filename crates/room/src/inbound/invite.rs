//! `PUT invite`: an invite of one of our users. Rows IN1 to IN9.

use exeunt_core::{
    CheckedPdu, Object, Pdu, PendingMembership, RoomVersion, verify::required_signers,
};
use exeunt_membership::check_invite;
use exeunt_store::{Batch, Reader, tables};
use ruma::{EventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use serde_json::Value;

use super::{Admitted, withdrawal::member_of};
use crate::{
    RoomError, Rooms,
    change::{membership_record, put_log, put_membership},
    graph::{Graph, is_joined, load_event},
    invite::shown_to_invited,
    leave::log_line,
    locks::RoomGuard,
    place::Placement,
};

/// An invite as the inviter's server sends it.
#[derive(Debug, Clone)]
pub struct InboundInvite {
    pub room_version: String,
    pub event: Object,
    /// Of unknown shape: whatever is not stripped state is dropped (CVE-2024-52815).
    pub invite_room_state: Value,
}

impl InboundInvite {
    /// An invite by the v1 endpoint, whose body is the event. It is of room version 1 or 2, which
    /// are the same to all that an invite goes through; the template of a join or leave will say.
    pub fn v1(mut event: Object) -> Result<Self, RoomError> {
        let version = RoomVersion::all().find(|version| version.id_is_claimed());
        let version = version.ok_or_else(|| RoomError::UnsupportedVersion("1".into()))?;
        let unsigned = event.remove("unsigned").unwrap_or_default();
        let invite_room_state = unsigned.get("invite_room_state").cloned().unwrap_or_default();
        Ok(Self { room_version: version.as_str().into(), event, invite_room_state })
    }
}

/// What the invite meets here.
struct Meets {
    /// The version of the room, if we reside in it.
    resident: Option<RoomVersion>,
    /// This very invite has been taken before. It does not come back after it was rejected.
    seen: bool,
}

impl Rooms {
    /// Signs the invite of a user of ours, and shows it to them. Where we reside in the room it is
    /// signed and kept: the event itself arrives in a transaction (row IN9).
    ///
    /// That the user has an account is the caller's to check.
    pub async fn receive_invite(
        &self,
        entry: &Admitted,
        event_id: &EventId,
        invite: InboundInvite,
    ) -> Result<CheckedPdu, RoomError> {
        let version = RoomVersion::parse(&invite.room_version)
            .map_err(|e| RoomError::UnsupportedVersion(e.0))?;
        let pdu = Pdu::from_object(version, invite.event)?;
        check_invite(entry.origin(), self.server_name(), entry.room_id(), event_id, &pdu)?;
        let event = self.check_invite_signatures(entry, pdu).await?;
        if let Some(user) = event.target() {
            self.check_not_blocked(event.sender(), user).await?;
        }
        let state = &invite.invite_room_state;
        let stripped_state = self.check_invite_state(version, entry.room_id(), state).await?;
        let (signed, signature) = self
            .cosign_invite(&event, entry.origin())
            .ok_or_else(|| RoomError::InvalidParam("Not an invite of a user of ours".into()))?;
        let user = signed.target().map(ToOwned::to_owned);
        let user = user.ok_or_else(|| RoomError::InvalidParam("No user is invited".into()))?;
        let now = self.now();
        let pending = PendingMembership {
            stripped_state,
            delivered_by: Some(entry.origin().to_owned()),
            ..PendingMembership::of(&user, &signed, now)
        };
        let (guard, withdrawn) = self.lock_knowing_withdrawals(entry, &pending).await?;
        let meets = self.meets(&user, &signed).await?;
        if meets.resident.is_some_and(|known| !known.shares_events_with(version)) {
            return Err(RoomError::InvalidParam("The room has another version".into()));
        }
        let mut batch = Batch::default();
        signature.journal(&mut batch, now);
        let mut placement = Placement::only(batch);
        if meets.resident.is_some() && !meets.seen {
            // Until the room tells of it, or the last of us leaves without having heard of it.
            let key = (entry.room_id().to_owned(), user);
            placement.batch.put::<tables::SignedInvites>(&key, &pending);
        } else if !meets.seen {
            if withdrawn {
                tracing::info!(%user, room_id = %entry.room_id(), "an invite came withdrawn");
                let from = Some(entry.origin().to_owned());
                let line = log_line(&signed, "handshake", from, now);
                put_log(&mut placement.batch, entry.room_id(), &user, line);
            } else {
                put_pending(&mut placement.batch, &signed, pending, now);
                placement.users.insert(user);
            }
        }
        self.commit(&guard, placement).await?;
        Ok(signed)
    }

    /// The invite of a user of ours that an event of a room that we have left may be.
    pub(super) async fn late_invite(&self, object: &Object) -> Result<Option<Pdu>, RoomError> {
        let invited = member_of(self.server_name(), object)
            .is_some_and(|(_, membership)| membership == Some("invite"));
        let room_id = object.get("room_id").and_then(Value::as_str);
        let room_id = room_id.and_then(|id| RoomId::parse(id).ok());
        let Some(room_id) = room_id.filter(|_| invited) else { return Ok(None) };
        let version = self
            .store()
            .read(move |reader| Ok(Graph::open(reader, &room_id)?.map(|graph| graph.version)));
        let version: Result<_, RoomError> = version.await;
        Ok(version?.and_then(|version| Pdu::from_object(version, object.clone()).ok()))
    }

    /// Shows an invite that we only signed, for we were in the room (row IN9), and that comes when
    /// the last of us has left. `false` if we are in the room again.
    pub(super) async fn receive_late_invite(
        &self,
        from: &OwnedServerName,
        pdu: Pdu,
    ) -> Result<bool, RoomError> {
        pdu.check_reference_limits()?;
        let event = self.checked(pdu).await?;
        let not_ours = || RoomError::NotFound("This server is not in the room".into());
        let user = event.target().map(ToOwned::to_owned).ok_or_else(not_ours)?;
        if !self.keys().is_signed_by(&event, self.server_name()).await? {
            return Err(not_ours());
        }
        let guard = self.inner.locks.lock(event.room_id()).await;
        let meets = self.meets(&user, &event).await?;
        if meets.resident.is_some() {
            return Ok(false);
        }
        if meets.seen {
            return Ok(true);
        }
        let Some(stripped_state) = self.state_of_old(&user, &event).await? else {
            return Ok(true);
        };
        let now = self.now();
        let pending = PendingMembership {
            stripped_state,
            delivered_by: Some(from.clone()),
            ..PendingMembership::of(&user, &event, now)
        };
        let mut placement = Placement::only(Batch::default());
        put_pending(&mut placement.batch, &event, pending, now);
        placement.users.insert(user);
        self.commit(&guard, placement).await?;
        Ok(true)
    }

    /// What the room told those that it invited when we were last in it; `None` if the user has had
    /// another membership after the invite.
    async fn state_of_old(
        &self,
        user: &UserId,
        invite: &CheckedPdu,
    ) -> Result<Option<Vec<Object>>, RoomError> {
        let key = (user.to_owned(), invite.room_id().to_owned());
        let (depth, sender) = (invite.depth(), invite.sender().to_owned());
        self.store()
            .read(move |reader| {
                if has_moved_on(reader, &key, depth)? {
                    return Ok(None);
                }
                let graph = Graph::of(reader, &key.1)?;
                shown_to_invited(&graph, &sender).map(Some)
            })
            .await
    }

    /// The inviter's server must have signed the event as it stands, whatever its content claims:
    /// a third-party invite needs no signature by the rules, ours needs theirs (CVE-2025-68667).
    async fn check_invite_signatures(
        &self,
        entry: &Admitted,
        pdu: Pdu,
    ) -> Result<CheckedPdu, RoomError> {
        let sent = pdu.object().clone();
        let event = self.checked(pdu).await?;
        // What the rules demand has been checked.
        let is_signed = required_signers(&event).iter().any(|signer| signer == entry.origin());
        if !is_signed && !self.keys().is_signed_by(&event, entry.origin()).await? {
            return Err(RoomError::Signature(entry.origin().to_owned()));
        }
        if *event.object() != sent {
            return Err(RoomError::InvalidParam("The content hash is wrong".into()));
        }
        Ok(event)
    }

    /// Takes the room's lock, knowing whether the invite was withdrawn before it came (row RS6).
    /// What is to be known is read without the lock, and read again if it has changed.
    async fn lock_knowing_withdrawals(
        &self,
        entry: &Admitted,
        pending: &PendingMembership,
    ) -> Result<(RoomGuard, bool), RoomError> {
        let held = || self.held(entry.origin(), &pending.user_id, &pending.room_id);
        let mut known = held().await?;
        loop {
            let withdrawn = self.withdrawal_among(&known, pending).await?.is_some();
            let guard = self.inner.locks.lock(entry.room_id()).await;
            let now_there = held().await?;
            if now_there == known {
                return Ok((guard, withdrawn));
            }
            known = now_there;
        }
    }

    async fn meets(&self, user: &UserId, event: &CheckedPdu) -> Result<Meets, RoomError> {
        let (room_id, user) = (event.room_id().to_owned(), user.to_owned());
        let (event_id, ours) = (event.event_id().to_owned(), self.server_name().to_owned());
        self.store()
            .read(move |reader| {
                let resident = match is_joined(reader, &room_id, &ours)? {
                    true => Some(Graph::of(reader, &room_id)?.version),
                    false => None,
                };
                let seen = reader.contains::<tables::Invites>(&(room_id, user, event_id))?;
                Ok(Meets { resident, seen })
            })
            .await
    }
}

/// Whether a user of ours has had another membership in the room after an invite of that depth.
pub(crate) fn has_moved_on(
    reader: &Reader<'_>,
    key: &(OwnedUserId, OwnedRoomId),
    invite_depth: u64,
) -> Result<bool, RoomError> {
    let Some(record) = reader.get::<tables::Memberships>(key)? else { return Ok(false) };
    let last = match &record.local_event {
        Some(leave) => leave.get("depth").and_then(Value::as_u64),
        None => load_event(reader, &record.event_id)?.map(|event| event.pdu.depth()),
    };
    Ok(last.is_some_and(|last| last >= invite_depth))
}

/// The rows of a new invite or knock. It replaces an older one, and ends a departure under way.
pub(crate) fn put_pending(
    batch: &mut Batch,
    event: &CheckedPdu,
    pending: PendingMembership,
    now: u64,
) {
    let PendingMembership { user_id, room_id, .. } = &pending;
    put_membership(batch, user_id, room_id, membership_record(event));
    let from = pending.delivered_by.clone();
    put_log(batch, room_id, user_id, log_line(event, "handshake", from, now));
    batch.put::<tables::Pending>(&(user_id.clone(), room_id.clone()), &pending);
}
