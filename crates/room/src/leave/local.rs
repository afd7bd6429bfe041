//! The leave that stays here: what the user's own clients see of a departure from a room whose
//! graph we do not have.

use exeunt_core::{CheckedPdu, Pdu, PendingMembership, RoomVersion, canonical::MAX_INT};
use exeunt_membership::{GraphPosition, candidates, leave_draft};
use exeunt_store::{
    Batch, StoreError,
    records::{DepartureRecord, MembershipLogRecord, MembershipRecord},
    tables,
};
use ruma::{OwnedServerName, RoomId, ServerName, UserId};

use crate::{
    RoomError, Rooms,
    change::{membership_record, put_log, put_membership},
    signing::Signature,
};

impl Rooms {
    /// Makes the user's leave durable here and, with `tell`, queues the departure in the same
    /// batch: the outbox steps in after so many milliseconds. The leave event that clients see is
    /// never sent anywhere: the one for the room is built when a server of the room gives it a
    /// place in the graph.
    pub(crate) async fn leave_out_of_band(
        &self,
        pending: &PendingMembership,
        reason: Option<String>,
        tell: Option<u64>,
    ) -> Result<(), RoomError> {
        let now = self.now();
        let PendingMembership { user_id, room_id, .. } = pending;
        let invite = pending_event(pending)?;
        let (leave, signature) = self.local_leave(&invite, user_id, reason.clone())?;
        let mut batch = Batch::default();
        put_local_leave(&mut batch, user_id, room_id, &leave);
        signature.journal(&mut batch, now);
        put_log(&mut batch, room_id, user_id, log_line(&leave, "out-of-band", None, now));
        if let Some(outbox_after) = tell {
            let ours = self.server_name();
            let departure = departure(pending.clone(), reason, ours, now, outbox_after);
            batch.put::<tables::Departures>(&(user_id.clone(), room_id.clone()), &departure);
        }
        let position = self.inner.store.commit(batch).await?;
        self.inner.notifier.notify([user_id], position);
        Ok(())
    }

    /// A leave event that follows the invite, for our user's clients only.
    pub(super) fn local_leave(
        &self,
        invite: &Pdu,
        user: &UserId,
        reason: Option<String>,
    ) -> Result<(CheckedPdu, Signature), RoomError> {
        let position = GraphPosition {
            version: invite.version(),
            prev_events: vec![invite.into()],
            auth_events: vec![invite.into()],
            depth: (invite.depth() + 1).min(MAX_INT as u64),
        };
        let room_id = invite.room_id().to_owned();
        let leave = leave_draft(position, room_id, user.to_owned(), reason, self.now());
        Ok(self.sign_local_leave(leave)?)
    }
}

/// A departure that begins now, for the outbox to try first after so many milliseconds.
pub(crate) fn departure(
    pending: PendingMembership,
    reason: Option<String>,
    ours: &ServerName,
    now: u64,
    outbox_after: u64,
) -> DepartureRecord {
    DepartureRecord {
        candidates: candidates(&pending, ours),
        pending,
        reason,
        departed_at: now,
        attempts: 0,
        retry_at: now + outbox_after,
        last: Vec::new(),
    }
}

/// The membership rows of a leave that no graph holds.
pub(crate) fn put_local_leave(batch: &mut Batch, user: &UserId, room_id: &RoomId, leave: &Pdu) {
    let local_event = Some(leave.object().clone());
    let record = MembershipRecord { local_event, ..membership_record(leave) };
    put_membership(batch, user, room_id, record);
}

pub(crate) fn log_line(
    event: &Pdu,
    via: &str,
    received_from: Option<OwnedServerName>,
    at: u64,
) -> MembershipLogRecord {
    MembershipLogRecord {
        membership: event.membership().unwrap_or_default().into(),
        event_id: event.event_id().to_owned(),
        sender: event.sender().to_owned(),
        via: via.into(),
        received_from,
        at,
    }
}

/// The member event of a pending membership.
pub(crate) fn pending_event(pending: &PendingMembership) -> Result<Pdu, RoomError> {
    let damaged = |problem: String| StoreError::Corrupt {
        table: "Pending",
        key: format!("{} in {}: {problem}", pending.user_id, pending.room_id),
    };
    let version = RoomVersion::parse(&pending.room_version).map_err(|e| damaged(e.to_string()))?;
    Ok(Pdu::from_object(version, pending.event.clone()).map_err(|e| damaged(e.to_string()))?)
}
