//! Leaving: in our own graph where we reside in the room, otherwise a departure: the user is out
//! at once, and the room learns of it as soon as anyone there can be reached.
//!
//! Specification: server-server API, "Leaving Rooms (Rejecting Invites)"; spec-map rows RJ.

use exeunt_core::{CheckedPdu, Object, Pdu, PendingMembership, RoomVersion, canonical::MAX_INT};
use exeunt_membership::{
    AfterMakeLeave, AfterSendLeave, Attempt, Departure, GraphPosition, LeavePlan, LeaveView,
    MakeLeave, Membership, all_definite, candidates, leave_draft, plan_leave,
};
use exeunt_store::{
    Batch, StoreError,
    records::{AttemptRecord, DepartureRecord, MembershipLogRecord, MembershipRecord},
    tables,
};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};

use crate::{
    Call, Intent, RoomError, Rooms,
    change::{journal, membership_record, put_log, put_membership},
    graph::is_joined,
};

/// The first attempt is made at once; the outbox waits this long before it steps in.
const FIRST_ATTEMPT_MS: u64 = 10_000;

/// How an attempt to deliver a departure ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DepartureOutcome {
    /// A server of the room has the leave.
    Delivered,
    /// There is nothing left to deliver: it is gone, or every candidate said so for good.
    Ended,
    /// Nobody took it; try again later.
    Retry,
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
                if let Some(reason) = reason {
                    content.insert("reason".into(), reason.into());
                }
                let intent =
                    Intent::state(user.to_owned(), "m.room.member", user.as_str(), content);
                self.append_locked(&guard, intent).await?;
                Ok(())
            }
            LeavePlan::Handshake { pending, .. } => {
                self.leave_out_of_band(pending, reason.clone(), true).await?;
                drop(guard);
                self.deliver_within_deadline(user, room_id).await;
                Ok(())
            }
            LeavePlan::OutOfBand => match view.pending {
                Some(pending) => self.leave_out_of_band(&pending, reason, false).await,
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
                Ok(View {
                    resident: is_joined(reader, &key.1, &ours)?,
                    membership: reader.get::<tables::Memberships>(&key)?,
                    pending: reader.get::<tables::Pending>(&key)?,
                })
            })
            .await
    }

    /// Makes the user's leave durable here and, with `deliver`, queues the departure in the same
    /// batch. The leave event that clients see is never sent anywhere: the one for the room is
    /// built when a server of the room gives it a place in the graph.
    async fn leave_out_of_band(
        &self,
        pending: &PendingMembership,
        reason: Option<String>,
        deliver: bool,
    ) -> Result<(), RoomError> {
        let now = self.now();
        let PendingMembership { user_id, room_id, .. } = pending;
        let invite = pending_event(pending)?;
        let leave = self.local_leave(&invite, user_id, reason.clone())?;
        let mut batch = Batch::default();
        put_local_leave(&mut batch, user_id, room_id, &leave);
        let peer = None;
        journal(&mut batch, "out-of-band leave", leave.event_id(), peer, now);
        put_log(&mut batch, room_id, user_id, log_line(&leave, "out-of-band", None, now));
        if deliver {
            let departure = DepartureRecord {
                pending: pending.clone(),
                reason,
                departed_at: now,
                attempts: 0,
                retry_at: now + FIRST_ATTEMPT_MS,
                last: Vec::new(),
            };
            batch.put::<tables::Departures>(&(user_id.clone(), room_id.clone()), &departure);
        }
        let position = self.inner.store.commit(batch).await?;
        self.inner.notifier.notify([user_id], position);
        Ok(())
    }

    /// A leave event that follows the invite, for our user's clients only.
    fn local_leave(
        &self,
        invite: &Pdu,
        user: &UserId,
        reason: Option<String>,
    ) -> Result<CheckedPdu, RoomError> {
        let position = GraphPosition {
            version: invite.version(),
            prev_events: vec![invite.into()],
            auth_events: vec![invite.into()],
            depth: (invite.depth() + 1).min(MAX_INT as u64),
        };
        let room_id = invite.room_id().to_owned();
        let draft = leave_draft(position, room_id, user.to_owned(), reason, self.now());
        Ok(draft.sign(self.signer())?)
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
                let known = crate::graph::load_event(reader, &record.event_id)?;
                Ok::<_, RoomError>(known.map(|known| known.pdu))
            })
            .await?;
        let Some(event) = relic else {
            return Err(RoomError::NotFound("You are not in the room".into()));
        };
        let leave = self.local_leave(&event, user, None)?;
        let mut batch = Batch::default();
        put_local_leave(&mut batch, user, room_id, &leave);
        let log = log_line(&leave, "out-of-band", None, self.now());
        put_log(&mut batch, room_id, user, log);
        let position = self.inner.store.commit(batch).await?;
        self.inner.notifier.notify([&key.0], position);
        Ok(())
    }

    /// Tries to deliver a departure before the client has its answer, and leaves it to the outbox
    /// if that takes too long. The attempt itself goes on.
    async fn deliver_within_deadline(&self, user: &UserId, room_id: &RoomId) {
        let (rooms, user, room_id) = (self.clone(), user.to_owned(), room_id.to_owned());
        let attempt = tokio::spawn(async move {
            let outcome = rooms.attempt_departure(&user, &room_id).await;
            match outcome {
                Ok(DepartureOutcome::Retry) => rooms.inner.wake.departure_queued(),
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%user, %room_id, %error, "a departure could not be tried");
                    rooms.inner.wake.departure_queued();
                }
            }
        });
        let deadline = self.inner.options.leave_deadline;
        if tokio::time::timeout(deadline, attempt).await.is_err() {
            tracing::info!("the departure goes on without the client");
        }
    }

    /// Runs the handshake of a queued departure with its candidates, one after the other, and
    /// settles its row.
    pub async fn attempt_departure(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<DepartureOutcome, RoomError> {
        let key = (user.to_owned(), room_id.to_owned());
        let row = key.clone();
        let departure =
            self.inner.store.read(move |reader| reader.get::<tables::Departures>(&row)).await?;
        let Some(departure) = departure else { return Ok(DepartureOutcome::Ended) };
        let servers = candidates(&departure.pending, self.server_name());
        let mut attempts = Vec::new();
        for server in &servers {
            match self.leave_through(&departure, server).await {
                Ok((event, attempt)) => {
                    tracing::info!(%user, %room_id, %server, "a departure was delivered");
                    attempts.push(attempt);
                    return self.settle(key, departure, attempts, Some((event, server))).await;
                }
                Err(attempt) => {
                    let outcome = &attempt.outcome;
                    tracing::info!(%user, %room_id, %server, outcome, "a departure failed");
                    attempts.push(attempt);
                }
            }
        }
        self.settle(key, departure, attempts, None).await
    }

    /// One handshake with one server.
    async fn leave_through(
        &self,
        departure: &DepartureRecord,
        server: &OwnedServerName,
    ) -> Result<(CheckedPdu, Attempt), Attempt> {
        let task = Departure::of(&departure.pending, departure.reason.clone());
        let (awaiting, request) = MakeLeave::new(task, server.clone());
        let answer = self.call(server, Call::Make(&request)).await;
        let (mut awaiting, mut request) =
            match awaiting.on_answer(answer, self.signer(), self.now()) {
                AfterMakeLeave::Send(awaiting, request) => (awaiting, request),
                AfterMakeLeave::NextCandidate(attempt, _) => return Err(attempt),
            };
        loop {
            let answer = self.call(server, Call::Send(&request)).await;
            match awaiting.on_answer(answer) {
                AfterSendLeave::Done(event, attempt) => return Ok((event, attempt)),
                AfterSendLeave::FallBackToV1(next, again) => (awaiting, request) = (next, again),
                AfterSendLeave::Refused(attempt, _) | AfterSendLeave::Failed(_, attempt, _) => {
                    return Err(attempt);
                }
            }
        }
    }

    /// Writes how an attempt ended, unless the departure is another one by now: a newer invite
    /// may have come and been rejected in the meantime.
    async fn settle(
        &self,
        key: (OwnedUserId, OwnedRoomId),
        departure: DepartureRecord,
        attempts: Vec<Attempt>,
        delivered: Option<(CheckedPdu, &OwnedServerName)>,
    ) -> Result<DepartureOutcome, RoomError> {
        let _guard = self.inner.locks.lock(&key.1).await;
        let row = key.clone();
        let now_there =
            self.inner.store.read(move |reader| reader.get::<tables::Departures>(&row)).await?;
        let Some(mut record) = now_there.filter(|now| now.pending == departure.pending) else {
            return Ok(DepartureOutcome::Ended);
        };
        let mut batch = Batch::default();
        let servers = candidates(&departure.pending, self.server_name());
        let outcome = match &delivered {
            Some((event, server)) => {
                let log = log_line(event, "handshake", Some((*server).clone()), self.now());
                put_log(&mut batch, &key.1, &key.0, log);
                let peer = Some(server.as_ref());
                journal(&mut batch, "departure", event.event_id(), peer, self.now());
                DepartureOutcome::Delivered
            }
            None if all_definite(&servers, &attempts) => {
                tracing::info!(user = %key.0, room_id = %key.1, "every server says the invite is gone");
                DepartureOutcome::Ended
            }
            None => DepartureOutcome::Retry,
        };
        if outcome == DepartureOutcome::Retry {
            record.last = attempts
                .into_iter()
                .map(|a| AttemptRecord { server: a.server, outcome: a.outcome })
                .collect();
            record.attempts += 1;
            record.retry_at = self.now();
            batch.put::<tables::Departures>(&key, &record);
        } else {
            batch.delete::<tables::Departures>(&key);
        }
        self.inner.store.commit(batch).await?;
        Ok(outcome)
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
