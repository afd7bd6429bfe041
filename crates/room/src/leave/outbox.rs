//! Queued departures: each attempt asks the candidates, and its end is written down.
//!
//! A departure ends in four ways: a server of the room has taken it; a newer invite or join has
//! come; every candidate has said for good that there is nothing to leave; an admin gave it up.

use std::pin::pin;

use exeunt_core::{CheckedPdu, date_after};
use exeunt_membership::{
    AfterMakeLeave, AfterSendLeave, Attempt, Departure, MAX_CANDIDATES, MakeLeave, candidates,
    nothing_to_leave,
};
use exeunt_store::{
    Batch, StoreError,
    records::{AttemptRecord, DepartureRecord, MembershipLogRecord},
    tables,
};
use futures_util::future::{self, Either};
use metrics::counter;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use tokio::sync::oneshot;

use super::local::log_line;
use crate::{
    Call, RoomError, Rooms,
    change::put_log,
    hedge::{Hedge, Pace},
};

/// While an invite is as young as this, nobody's "you are not invited" ends its rejection: the
/// inviter's server has the invite in state once it has our answer, and waits for that for as long
/// as its time-outs let it (pains A9). A server that does not know the room is in no such race.
pub const RACE_WINDOW_MS: u64 = 5 * 60_000;
/// Handshakes of one departure that run side by side.
pub const MAX_HANDSHAKES_AT_ONCE: usize = 3;
/// How long after an attempt that nobody took the next one is.
const RETRY_AFTER_MS: u64 = 5_000;

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

impl DepartureOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Ended => "ended",
            Self::Retry => "retry",
        }
    }
}

type Key = (OwnedUserId, OwnedRoomId);

/// What ends the race between the candidates, besides their being all through.
enum Finish {
    Taken(CheckedPdu),
    /// The departure is no more: a newer invite or join has come.
    Superseded,
    /// The user is on their way in again. If that fails, the departure still stands.
    Postponed,
    Broken(RoomError),
}

impl Rooms {
    /// Tries to deliver a departure before the client has its answer, and leaves it to the outbox
    /// if that takes too long. The attempt itself goes on.
    pub(super) async fn deliver_within_deadline(&self, user: &UserId, room_id: &RoomId) {
        let (rooms, key) = (self.clone(), (user.to_owned(), room_id.to_owned()));
        let (waited_for, is_known) = oneshot::channel();
        tokio::spawn(async move {
            let (user, room_id) = &key;
            match rooms.attempt(&key, Some(waited_for)).await {
                Ok(DepartureOutcome::Retry) => rooms.inner.wake.departure_queued(),
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%user, %room_id, %error, "a departure could not be tried");
                    rooms.inner.wake.departure_queued();
                }
            }
        });
        let deadline = self.inner.options.leave_deadline;
        if tokio::time::timeout(deadline, is_known).await.is_err() {
            tracing::info!("the departure goes on without the client");
        }
    }

    /// Runs the handshake of a queued departure with its candidates, several at once where they
    /// are slow, and settles its row. One attempt at a time: another one waits.
    pub async fn attempt_departure(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<DepartureOutcome, RoomError> {
        self.attempt(&(user.to_owned(), room_id.to_owned()), None).await
    }

    /// The same. `waited_for` is dropped once the outcome is known and about to be written.
    async fn attempt(
        &self,
        key: &Key,
        waited_for: Option<oneshot::Sender<()>>,
    ) -> Result<DepartureOutcome, RoomError> {
        let (user, room_id) = key;
        let _turn = self.inner.departing.lock(key.clone()).await;
        let Some(departure) = self.departure(key).await? else {
            return Ok(DepartureOutcome::Ended);
        };
        let servers = asked(&departure, self.server_name());
        let wanted = &departure;
        let ask = |server| async move { self.leave_through(key, wanted, &server).await };
        let pace = Pace { after: self.inner.options.hedge_after, at_once: MAX_HANDSHAKES_AT_ONCE };
        let mut hedge = Hedge::new(servers.clone(), pace, ask);
        let (mut taken, mut lost) = (None, Vec::new());
        while let Some((server, outcome)) = hedge.next().await {
            match outcome {
                Ok(Finish::Taken(event)) => {
                    tracing::info!(%user, %room_id, %server, "a departure was delivered");
                    self.place_taken(&event, &server).await?;
                    taken = Some((event, server));
                    break;
                }
                Ok(Finish::Superseded) => return self.superseded(key, &departure).await,
                Ok(Finish::Postponed) => return Ok(DepartureOutcome::Retry),
                Ok(Finish::Broken(error)) => return Err(error),
                Err(attempt) => {
                    let outcome = &attempt.outcome;
                    tracing::info!(%user, %room_id, %server, outcome, "a departure failed");
                    lost.push(attempt);
                }
            }
        }
        drop(hedge);
        self.settle(key, &departure, &servers, lost, taken, waited_for).await
    }

    /// Every departure that waits.
    pub async fn departures(&self) -> Result<Vec<(Key, DepartureRecord)>, RoomError> {
        let read = self.store().read(|reader| reader.scan::<tables::Departures>(()).collect());
        Ok(read.await?)
    }

    /// Gives a departure up for an admin: the user is out here, and the room is not told. Gives
    /// what was given up, with what each server had said.
    pub async fn abandon_departure(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<DepartureRecord, RoomError> {
        let _guard = self.inner.locks.lock(room_id).await;
        let key = (user.to_owned(), room_id.to_owned());
        let row = key.clone();
        let read = self.store().read(move |reader| {
            let departure = reader.get::<tables::Departures>(&row)?;
            Ok::<_, StoreError>((departure, reader.get::<tables::Memberships>(&row)?))
        });
        let (departure, membership) = read.await?;
        let departure =
            departure.ok_or_else(|| RoomError::NotFound("No such departure waits".into()))?;
        let mut batch = Batch::default();
        batch.delete::<tables::Departures>(&key);
        if let Some(membership) = membership {
            let line = MembershipLogRecord {
                membership: membership.membership,
                event_id: membership.event_id,
                sender: membership.sender,
                via: "abandoned".into(),
                received_from: None,
                at: self.now(),
            };
            put_log(&mut batch, room_id, user, line);
        }
        self.store().commit(batch).await?;
        tracing::warn!(%user, %room_id, "a departure was given up by an admin");
        self.inner.wake.departure_queued();
        Ok(departure)
    }

    pub(super) async fn departure(&self, key: &Key) -> Result<Option<DepartureRecord>, RoomError> {
        let key = key.clone();
        Ok(self.store().read(move |reader| reader.get::<tables::Departures>(&key)).await?)
    }

    /// Whether this very departure is still wanted. A newer invite must not be turned down by it.
    async fn still_departing(
        &self,
        key: &Key,
        departure: &DepartureRecord,
    ) -> Result<bool, RoomError> {
        let key = key.clone();
        let read = self.store().read(move |reader| {
            let membership = reader.get::<tables::Memberships>(&key)?;
            Ok::<_, StoreError>((reader.get::<tables::Departures>(&key)?, membership))
        });
        let (now, membership) = read.await?;
        let is_out = membership.is_none_or(|row| matches!(&*row.membership, "leave" | "ban"));
        Ok(is_out && now.is_some_and(|now| now.pending == departure.pending))
    }

    /// Drops a departure of one who is in again, or invited, if that has not done so.
    async fn superseded(
        &self,
        key: &Key,
        departure: &DepartureRecord,
    ) -> Result<DepartureOutcome, RoomError> {
        let _guard = self.inner.locks.lock(&key.1).await;
        let row = self.departure(key).await?;
        let is_same = row.is_some_and(|row| row.pending == departure.pending);
        if is_same && !self.still_departing(key, departure).await? {
            let mut batch = Batch::default();
            batch.delete::<tables::Departures>(key);
            self.store().commit(batch).await?;
        }
        Ok(DepartureOutcome::Ended)
    }

    /// One handshake with one server.
    async fn leave_through(
        &self,
        key: &Key,
        departure: &DepartureRecord,
        server: &OwnedServerName,
    ) -> Result<Finish, Attempt> {
        let task = Departure::of(&departure.pending, departure.reason.clone());
        let (awaiting, request) = MakeLeave::new(task, server.clone());
        let answer = self.call(server, Call::Make(&request)).await;
        let Some(_crossing) = self.inner.crossing.try_share(key.clone()) else {
            return Ok(Finish::Postponed);
        };
        if answer.is_ok() {
            match self.still_departing(key, departure).await {
                Ok(true) => {}
                Ok(false) => return Ok(Finish::Superseded),
                Err(error) => return Ok(Finish::Broken(error)),
            }
        }
        let mut signing = self.signing_with(server);
        let date = date_after(self.now(), departure.pending.origin_server_ts());
        let step = awaiting.on_answer(answer, |leave| signing.sign(leave), date);
        if let Err(error) = signing.journal().await {
            return Ok(Finish::Broken(error));
        }
        let (mut awaiting, mut request) = match step {
            AfterMakeLeave::Send(awaiting, request) => (awaiting, request),
            AfterMakeLeave::NextCandidate(attempt, _) => return Err(attempt),
        };
        loop {
            let answer = self.call(server, Call::Send(&request)).await;
            match awaiting.on_answer(answer) {
                AfterSendLeave::Done(event, _) => return Ok(Finish::Taken(event)),
                AfterSendLeave::FallBackToV1(next, again) => (awaiting, request) = (next, again),
                AfterSendLeave::Refused(attempt, _) | AfterSendLeave::Failed(_, attempt, _) => {
                    return Err(attempt);
                }
            }
        }
    }

    /// Places the leave that a server of the room has taken, where others of us have come into the
    /// room meanwhile: that server does not send it back to us.
    async fn place_taken(
        &self,
        leave: &CheckedPdu,
        server: &OwnedServerName,
    ) -> Result<(), RoomError> {
        let room_id = leave.room_id().to_owned();
        if self.version_if_resident(&room_id).await?.is_none() {
            return Ok(());
        }
        self.receive_again(server, &room_id, vec![leave.object().clone()]).await
    }

    /// Writes how an attempt ended, unless the departure is another one by now: a newer invite
    /// may have come and been rejected in the meantime. Nobody waits for the disk: after a crash the
    /// departure is tried again.
    async fn settle(
        &self,
        key: &Key,
        departure: &DepartureRecord,
        servers: &[OwnedServerName],
        attempts: Vec<Attempt>,
        taken: Option<(CheckedPdu, OwnedServerName)>,
        waited_for: Option<oneshot::Sender<()>>,
    ) -> Result<DepartureOutcome, RoomError> {
        let _guard = self.inner.locks.lock(&key.1).await;
        let now_there = self.departure(key).await?;
        let Some(mut record) = now_there.filter(|now| now.pending == departure.pending) else {
            return Ok(DepartureOutcome::Ended);
        };
        let now = self.now();
        let mut batch = Batch::default();
        let outcome = match taken {
            Some((event, server)) => {
                let log = log_line(&event, "handshake", Some(server), now);
                put_log(&mut batch, &key.1, &key.0, log);
                batch.delete::<tables::Departures>(key);
                DepartureOutcome::Delivered
            }
            None if nothing_to_leave(servers, &attempts, is_fresh(&record, now)) => {
                let (user, room_id) = key;
                tracing::info!(%user, %room_id, "every server says that there is nothing to leave");
                batch.delete::<tables::Departures>(key);
                DepartureOutcome::Ended
            }
            None => {
                remember(&mut record, attempts, now);
                record.attempts = record.attempts.saturating_add(1);
                record.retry_at = now + RETRY_AFTER_MS;
                batch.put::<tables::Departures>(key, &record);
                DepartureOutcome::Retry
            }
        };
        match future::select(pin!(self.store().commit(batch)), future::ready(())).await {
            Either::Left((written, _)) => written?,
            Either::Right(((), under_way)) => {
                drop(waited_for);
                under_way.await?
            }
        };
        counter!("exeunt_departures_total", "outcome" => outcome.as_str()).increment(1);
        Ok(outcome)
    }
}

/// Whom to ask for a departure.
fn asked(departure: &DepartureRecord, ours: &ServerName) -> Vec<OwnedServerName> {
    match &departure.candidates[..] {
        [] => candidates(&departure.pending, ours),
        known => known.to_vec(),
    }
}

fn is_fresh(record: &DepartureRecord, now: u64) -> bool {
    now.saturating_sub(record.pending.received_at) < RACE_WINDOW_MS
}

/// Keeps what each server said last.
fn remember(record: &mut DepartureRecord, attempts: Vec<Attempt>, at: u64) {
    for Attempt { server, outcome, .. } in attempts {
        record.last.retain(|known| known.server != server);
        record.last.push(AttemptRecord { server, outcome, at });
    }
    let excess = record.last.len().saturating_sub(MAX_CANDIDATES);
    record.last.drain(..excess);
}
