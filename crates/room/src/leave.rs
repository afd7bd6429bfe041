//! Leaving: in our own graph where we reside in the room, otherwise a departure: the user is out
//! at once, and the room learns of it as soon as anyone there can be reached.
//!
//! Specification: server-server API, "Leaving Rooms (Rejecting Invites)"; spec-map rows RJ.

mod ahead;
mod local;
mod outbox;
mod take_back;

use std::time::Duration;

use exeunt_core::{Object, PendingMembership};
use exeunt_membership::{LeavePlan, LeaveView, Membership, plan_leave};
use exeunt_store::{
    Batch, Reader, StoreError,
    records::{MembershipLogRecord, MembershipRecord},
    tables,
};
use ruma::{RoomId, UserId};

use crate::{
    Intent, RoomError, Rooms,
    change::put_log,
    graph::{Graph, is_joined, joined_servers, load_event},
    locks::RoomGuard,
};

pub use outbox::{DepartureOutcome, MAX_HANDSHAKES_AT_ONCE, RACE_WINDOW_MS};

pub use ahead::LEAVE_TAKEN_WITHIN;
pub use take_back::REJOIN_WITHIN_MS;

pub(crate) use local::{departure, log_line, pending_event, put_local_leave};
pub(crate) use take_back::sent_to;

/// The first attempt is made at once; the outbox waits this long before it steps in.
const FIRST_ATTEMPT_MS: u64 = 10_000;
/// How long a candidate of a departure may take before the next one is asked as well.
pub const HEDGE_AFTER: Duration = Duration::from_secs(1);

/// The last line of a user's membership timeline in a room, and its position.
pub(crate) fn last_line(
    reader: &Reader<'_>,
    user: &UserId,
    room_id: &RoomId,
) -> Result<Option<(u64, MembershipLogRecord)>, StoreError> {
    let log = reader.scan::<tables::MembershipLog>((room_id.to_owned(), user.to_owned()));
    Ok(log.rev().first()?.map(|((.., position), line)| (position, line)))
}

/// What is known about a user who leaves.
struct View {
    resident: bool,
    membership: Option<MembershipRecord>,
    pending: Option<PendingMembership>,
}

impl Rooms {
    /// Takes a local user out of a room, whatever other servers do (spec-map 4.4).
    pub async fn leave(
        &self,
        user: &UserId,
        room_id: &RoomId,
        reason: Option<String>,
    ) -> Result<(), RoomError> {
        let guard = self.inner.locks.lock(room_id).await;
        let view = self.leave_view(user, room_id).await?;
        let membership = view.membership.as_ref();
        let plan = plan_leave(LeaveView {
            resident: view.resident,
            membership: membership.and_then(|m| Membership::parse(&m.membership)),
            pending: view.pending.as_ref(),
            ours: self.server_name(),
        });
        match plan {
            LeavePlan::Local => {
                let mut content = Object::new();
                content.insert("membership".into(), "leave".into());
                if let Some(reason) = &reason {
                    content.insert("reason".into(), reason.as_str().into());
                }
                let intent =
                    Intent::state(user.to_owned(), "m.room.member", user.as_str(), content);
                match self.append_locked(&guard, intent).await {
                    Ok(_) => Ok(()),
                    Err(error) => self.leave_broken(guard, user, reason, error).await,
                }
            }
            LeavePlan::Handshake { pending, .. } => {
                self.leave_out_of_band(pending, reason.clone(), Some(FIRST_ATTEMPT_MS)).await?;
                drop(guard);
                self.deliver_within_deadline(user, room_id).await;
                Ok(())
            }
            LeavePlan::OutOfBand => match view.pending {
                Some(pending) => self.leave_out_of_band(&pending, reason, None).await,
                None => self.leave_relic(user, room_id).await,
            },
            LeavePlan::AlreadyLeft => Ok(()),
            LeavePlan::NotKnown => Err(RoomError::NotFound("You are not in the room".into())),
            LeavePlan::Banned => Err(RoomError::Forbidden("You are banned from the room".into())),
        }
    }

    async fn leave_view(&self, user: &UserId, room_id: &RoomId) -> Result<View, RoomError> {
        let key = (user.to_owned(), room_id.to_owned());
        let ours = self.server_name().to_owned();
        self.inner
            .store
            .read(move |reader| {
                let pending = reader.get::<tables::Pending>(&key)?;
                let mut resident = is_joined(reader, &key.1, &ours)?;
                if resident && pending.is_some() {
                    // An invite of which the room knows nothing: its server stopped halfway.
                    let there = Graph::of(reader, &key.1)?.membership(&key.0)?;
                    resident = matches!(there.as_deref(), Some("join" | "invite" | "knock"));
                }
                let membership = reader.get::<tables::Memberships>(&key)?;
                Ok(View { resident, membership, pending })
            })
            .await
    }

    /// A leave that our own graph does not take: because by its state the user is not there, or
    /// because it is damaged. The user is out all the same (pains C2, C3); in the second case the
    /// other servers of the room are told by handshake.
    async fn leave_broken(
        &self,
        guard: RoomGuard,
        user: &UserId,
        reason: Option<String>,
        error: RoomError,
    ) -> Result<(), RoomError> {
        let room_id = guard.room_id().to_owned();
        match error {
            RoomError::Auth(_) | RoomError::Forbidden(_) => {
                tracing::warn!(%user, %room_id, %error, "the room knows nothing of one who leaves");
                return self.leave_relic(user, &room_id).await;
            }
            RoomError::Store(StoreError::Corrupt { .. })
            | RoomError::NotFound(_)
            | RoomError::Missing(_)
            | RoomError::Resolve(_)
            | RoomError::Format(_) => {}
            other => return Err(other),
        }
        tracing::error!(%user, %room_id, %error, "a damaged room is left by force");
        let Some(pending) = self.as_pending(user, &room_id).await? else { return Err(error) };
        let tell = (!pending.candidates.is_empty()).then_some(FIRST_ATTEMPT_MS);
        self.leave_out_of_band(&pending, reason, tell).await?;
        drop(guard);
        if tell.is_some() {
            self.deliver_within_deadline(user, &room_id).await;
        }
        Ok(())
    }

    /// The membership of a user in a room of ours as if it were one of elsewhere, so that the
    /// other servers of the room can be asked for a leave.
    async fn as_pending(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<Option<PendingMembership>, RoomError> {
        let key = (user.to_owned(), room_id.to_owned());
        let (ours, now) = (self.server_name().to_owned(), self.now());
        self.store()
            .read(move |reader| {
                let Some(record) = reader.get::<tables::Memberships>(&key)? else {
                    return Ok(None);
                };
                let Some(event) = load_event(reader, &record.event_id)? else { return Ok(None) };
                let mut candidates = joined_servers(reader, &key.1)?;
                candidates.retain(|server| *server != ours);
                let known = PendingMembership::of(&key.0, &event.pdu, now);
                let (membership, sender) = (record.membership, record.sender);
                Ok(Some(PendingMembership { membership, sender, candidates, ..known }))
            })
            .await
    }

    /// Ends a membership in a room that we no longer reside in and hold no invite for: nobody can
    /// be asked, so the record alone changes.
    async fn leave_relic(&self, user: &UserId, room_id: &RoomId) -> Result<(), RoomError> {
        let key = (user.to_owned(), room_id.to_owned());
        let row = key.clone();
        let relic = self
            .inner
            .store
            .read(move |reader| {
                let Some(record) = reader.get::<tables::Memberships>(&row)? else {
                    return Ok(None);
                };
                let known = load_event(reader, &record.event_id)?;
                Ok::<_, RoomError>(known.map(|known| known.pdu))
            })
            .await?;
        let Some(event) = relic else {
            return Err(RoomError::NotFound("You are not in the room".into()));
        };
        let (leave, signature) = self.local_leave(&event, user, None)?;
        let mut batch = Batch::default();
        put_local_leave(&mut batch, user, room_id, &leave);
        let now = self.now();
        signature.journal(&mut batch, now);
        put_log(&mut batch, room_id, user, log_line(&leave, "out-of-band", None, now));
        let position = self.inner.store.commit(batch).await?;
        self.inner.notifier.notify([&key.0], position);
        Ok(())
    }
}
