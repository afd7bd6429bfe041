//! Events of transactions that could not be placed at once: kept durably, and worked on room by
//! room behind the answer. Decision 0009.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use exeunt_core::Object;
use exeunt_store::{Batch, StoreError, records::InboundRecord, tables};
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use tokio::{
    sync::{OnceCell, Semaphore, watch},
    time::{Instant, sleep_until},
};

use super::{
    rest::{MAX_TRIES, Rest, Rests, RowKey},
    transaction::{is_ours, report_refusal},
};
use crate::{RoomError, Rooms, fetch::MAX_TIME_PER_EVENT, ingest::Ingested};

/// Most events of one room that wait. What comes beyond is dropped: the next event that follows it
/// brings it back as missing.
pub const MAX_QUEUED_PER_ROOM: usize = 1_000;
/// Most of them that come from one server, so that there is room for those of others.
pub const MAX_QUEUED_PER_ROOM_AND_ORIGIN: usize = MAX_QUEUED_PER_ROOM / 2;
/// Most events of one server that wait. Beyond, its transactions are refused, to be sent again.
pub const MAX_QUEUED_PER_ORIGIN: usize = 5_000;
/// Most events that wait in all.
pub const MAX_QUEUED: usize = 50_000;
/// Rooms that are worked on at a time. Their work is mostly to wait for other servers.
const ROOMS_AT_A_TIME: usize = 64;
/// Longest time that is spent on an event that was tried before.
const MAX_TIME_PER_RETRY: Duration = Duration::from_secs(30);

/// What waits and who works on it. The events themselves are in the store.
pub(crate) struct Queue {
    counts: Mutex<Counts>,
    loaded: OnceCell<()>,
    workers: Mutex<Workers>,
    slots: Semaphore,
    rests: Rests,
    /// How many rooms have a worker.
    busy: watch::Sender<usize>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    rooms: BTreeMap<OwnedRoomId, BTreeMap<OwnedServerName, usize>>,
    origins: BTreeMap<OwnedServerName, usize>,
}

#[derive(Default)]
struct Workers {
    rooms: BTreeSet<OwnedRoomId>,
    /// Rooms to which something was added since their worker last found nothing.
    again: BTreeSet<OwnedRoomId>,
}

/// An event that waits, before it is written.
pub(super) struct Waiting {
    pub room_id: OwnedRoomId,
    pub origin: OwnedServerName,
    pub event: Object,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            counts: Mutex::default(),
            loaded: OnceCell::new(),
            workers: Mutex::default(),
            slots: Semaphore::new(ROOMS_AT_A_TIME),
            rests: Rests::default(),
            busy: watch::Sender::new(0),
        }
    }
}

impl Counts {
    fn add(&mut self, room_id: &OwnedRoomId, origin: &OwnedServerName) {
        self.all += 1;
        let room = self.rooms.entry(room_id.clone()).or_default();
        *room.entry(origin.clone()).or_default() += 1;
        *self.origins.entry(origin.clone()).or_default() += 1;
    }

    fn merge(&mut self, others: Counts) {
        self.all += others.all;
        for (room_id, origins) in others.rooms {
            let room = self.rooms.entry(room_id).or_default();
            for (origin, count) in origins {
                *room.entry(origin).or_default() += count;
            }
        }
        for (origin, count) in others.origins {
            *self.origins.entry(origin).or_default() += count;
        }
    }

    fn remove(&mut self, room_id: &RoomId, origin: &OwnedServerName) {
        self.all = self.all.saturating_sub(1);
        if let Some(room) = self.rooms.get_mut(room_id) {
            less(room, origin);
            if room.is_empty() {
                self.rooms.remove(room_id);
            }
        }
        less(&mut self.origins, origin);
    }

    /// How many events of the room wait, and how many of them are the server's.
    fn room(&self, room_id: &RoomId, origin: &OwnedServerName) -> (usize, usize) {
        let Some(room) = self.rooms.get(room_id) else { return (0, 0) };
        (room.values().sum(), room.get(origin).copied().unwrap_or(0))
    }

    fn origin(&self, origin: &OwnedServerName) -> usize {
        self.origins.get(origin).copied().unwrap_or(0)
    }
}

fn less<K: Ord + std::borrow::Borrow<Q>, Q: Ord + ?Sized>(
    counts: &mut BTreeMap<K, usize>,
    key: &Q,
) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Queue {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn workers(&self) -> MutexGuard<'_, Workers> {
        self.workers.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether an event more of that room may wait, beside `others` of the same transaction.
    pub fn has_room(&self, room_id: &RoomId, origin: &OwnedServerName, others: usize) -> bool {
        let (all, own) = self.counts().room(room_id, origin);
        all + others < MAX_QUEUED_PER_ROOM && own + others < MAX_QUEUED_PER_ROOM_AND_ORIGIN
    }

    /// Whether events of the room that came from other servers are to be worked on.
    fn others_wait(
        &self,
        room_id: &RoomId,
        origin: &OwnedServerName,
        rests: &BTreeMap<RowKey, Rest>,
        now: Instant,
    ) -> bool {
        let resting = rests.values().filter(|rest| rest.origin != *origin && rest.until > now);
        let (all, own) = self.counts().room(room_id, origin);
        all > own + resting.count()
    }

    /// Counts events that are about to be written; an error where the server has too many.
    fn reserve(&self, waiting: &[Waiting]) -> Result<(), RoomError> {
        let Some(first) = waiting.first() else { return Ok(()) };
        let mut counts = self.counts();
        if counts.origin(&first.origin) + waiting.len() > MAX_QUEUED_PER_ORIGIN
            || counts.all + waiting.len() > MAX_QUEUED
        {
            return Err(RoomError::Busy);
        }
        for waiting in waiting {
            counts.add(&waiting.room_id, &waiting.origin);
        }
        Ok(())
    }

    fn release(&self, waiting: &[(OwnedRoomId, OwnedServerName)]) {
        let mut counts = self.counts();
        for (room_id, origin) in waiting {
            counts.remove(room_id, origin);
        }
    }
}

/// A worker's claim on its room.
struct Claim {
    rooms: Rooms,
    room_id: OwnedRoomId,
    ended: bool,
}

impl Claim {
    /// `None` if the room has a worker: it will look again.
    fn take(rooms: &Rooms, room_id: &OwnedRoomId) -> Option<Self> {
        let queue = &rooms.inner.inbound;
        let mut workers = queue.workers();
        if !workers.rooms.insert(room_id.clone()) {
            workers.again.insert(room_id.clone());
            return None;
        }
        queue.busy.send_modify(|busy| *busy += 1);
        Some(Self { rooms: rooms.clone(), room_id: room_id.clone(), ended: false })
    }

    /// Ends the claim, unless something was added meanwhile.
    fn may_end(&mut self) -> bool {
        let mut workers = self.rooms.inner.inbound.workers();
        if workers.again.remove(&self.room_id) {
            return false;
        }
        workers.rooms.remove(&self.room_id);
        self.ended = true;
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let queue = &self.rooms.inner.inbound;
        if !self.ended {
            queue.workers().rooms.remove(&self.room_id);
        }
        queue.busy.send_modify(|busy| *busy -= 1);
    }
}

impl Rooms {
    /// Goes on with what waited when the server stopped. Within a runtime, once, at the start.
    pub fn start_inbound(&self) {
        let rooms = self.clone();
        tokio::spawn(async move {
            if let Err(error) = rooms.load_inbound().await {
                tracing::error!(%error, "the inbound queue cannot be read");
            }
        });
    }

    /// Waits until no room has a worker.
    pub async fn inbound_idle(&self) {
        let mut busy = self.inner.inbound.busy.subscribe();
        // The sender lives as long as we do.
        let _ = busy.wait_for(|busy| *busy == 0).await;
    }

    /// Waits until nobody works on a room's events.
    pub(crate) async fn inbound_idle_in(&self, room_id: &RoomId) {
        let queue = &self.inner.inbound;
        let mut busy = queue.busy.subscribe();
        // The sender lives as long as we do.
        let _ = busy.wait_for(|_| !queue.workers().rooms.contains(room_id)).await;
    }

    /// Counts what waits, and sets workers to it, the first time.
    pub(super) async fn load_inbound(&self) -> Result<(), RoomError> {
        let load = || async {
            let found = self
                .store()
                .read(|reader| {
                    // Row by row: all the events together may be large.
                    let mut found = Counts::default();
                    for row in reader.scan::<tables::InboundQueue>(()).iter() {
                        let ((room_id, ..), record) = row?;
                        found.add(&room_id, &record.origin);
                    }
                    Ok::<_, RoomError>(found)
                })
                .await?;
            let rooms: Vec<_> = found.rooms.keys().cloned().collect();
            self.inner.inbound.counts().merge(found);
            rooms.iter().for_each(|room_id| self.work_on(room_id));
            Ok(())
        };
        self.inner.inbound.loaded.get_or_try_init(load).await.copied()
    }

    /// Writes what waits in one batch with `batch`, and sets workers to it.
    pub(super) async fn enqueue(
        &self,
        mut batch: Batch,
        waiting: Vec<Waiting>,
    ) -> Result<(), RoomError> {
        let queue = &self.inner.inbound;
        queue.reserve(&waiting)?;
        let keys: Vec<_> = waiting.iter().map(|w| (w.room_id.clone(), w.origin.clone())).collect();
        let at = self.now();
        batch.at_position(move |position, batch| {
            for (index, Waiting { room_id, origin, event }) in (0..).zip(waiting) {
                let record = InboundRecord { origin, event, at, tries: 0 };
                batch.put::<tables::InboundQueue>(&(room_id, position, index), &record);
            }
        });
        if let Err(error) = self.store().commit(batch).await {
            queue.release(&keys);
            return Err(error.into());
        }
        let rooms: BTreeSet<_> = keys.into_iter().map(|(room_id, _)| room_id).collect();
        rooms.iter().for_each(|room_id| self.work_on(room_id));
        Ok(())
    }

    /// A server shows life, with events of some rooms: what it sent, and what waits of these rooms,
    /// is tried again soon.
    pub(super) fn stir_inbound(&self, origin: &ServerName, rooms: &BTreeSet<OwnedRoomId>) {
        for (room_id, at) in self.inner.inbound.rests.stir(origin, rooms, Instant::now()) {
            self.work_later(&room_id, at);
        }
    }

    /// Sees to it that somebody works on a room at that time. Whoever waits does not keep us alive.
    fn work_later(&self, room_id: &OwnedRoomId, at: Instant) {
        if !self.inner.inbound.rests.set_alarm(room_id, at) {
            return;
        }
        let (inner, room_id) = (Arc::downgrade(&self.inner), room_id.clone());
        tokio::spawn(async move {
            sleep_until(at).await;
            let Some(inner) = inner.upgrade() else { return };
            if inner.inbound.rests.take_alarm(&room_id, at) {
                Rooms { inner }.work_on(&room_id);
            }
        });
    }

    /// Sees to it that somebody works on a room.
    fn work_on(&self, room_id: &OwnedRoomId) {
        let Some(mut claim) = Claim::take(self, room_id) else { return };
        tokio::spawn(async move {
            let (rooms, room_id) = (claim.rooms.clone(), claim.room_id.clone());
            let rests = &rooms.inner.inbound.rests;
            let mut last = None;
            loop {
                match rooms.work_off_one(&room_id, last.take()).await {
                    Ok(origin) => {
                        last = origin;
                        rests.recover(&room_id);
                    }
                    Err(error) => return rooms.stand_still(&room_id, &error),
                }
                if last.is_none() {
                    let next = rests.of_room(&room_id).values().map(|rest| rest.until).min();
                    next.into_iter().for_each(|at| rooms.work_later(&room_id, at));
                    if claim.may_end() {
                        return;
                    }
                }
            }
        });
    }

    /// The work on a room failed. Its rows stay, and it goes on by itself, unless the store is out
    /// of service until the next start.
    fn stand_still(&self, room_id: &OwnedRoomId, error: &RoomError) {
        if let RoomError::Store(StoreError::Closed | StoreError::Failed(_)) = error {
            tracing::error!(%room_id, %error, "the inbound queue stands still");
            return;
        }
        let pause = self.inner.inbound.rests.fail(room_id);
        tracing::error!(%room_id, %error, ?pause, "the inbound queue pauses");
        self.work_later(room_id, Instant::now() + pause);
    }

    /// Works on the room's oldest event, new ones first, but not on two of one server in a row if
    /// others wait: one that never answers holds up its own events only. The server whose turn it
    /// was, `None` if there is nothing to do now.
    async fn work_off_one(
        &self,
        room_id: &OwnedRoomId,
        last: Option<OwnedServerName>,
    ) -> Result<Option<OwnedServerName>, RoomError> {
        let queue = &self.inner.inbound;
        // Not with a slot, which other rooms need.
        self.pause(room_id).await;
        let slot = queue.slots.acquire().await;
        let (prefix, rests, now) = (room_id.clone(), queue.rests.of_room(room_id), Instant::now());
        let last = last.filter(|last| queue.others_wait(room_id, last, &rests, now));
        let (row, gone) = self
            .store()
            .read(move |reader| {
                let mut first = None;
                let keys = reader.scan::<tables::InboundQueue>(prefix).keys()?;
                // A purge of the room takes the rows of events that rest, too.
                let gone = rests.iter().filter(|(key, _)| keys.binary_search(key).is_err());
                let gone: Vec<_> =
                    gone.map(|(key, rest)| (key.clone(), rest.origin.clone())).collect();
                let (tried, new): (Vec<_>, Vec<_>) =
                    keys.into_iter().partition(|key| rests.contains_key(key));
                let due = tried.into_iter().filter(|key| rests[key].until <= now);
                for key in new.into_iter().chain(due) {
                    let Some(record) = reader.get::<tables::InboundQueue>(&key)? else { continue };
                    if last.as_ref() != Some(&record.origin) {
                        return Ok((Some((key, record)), gone));
                    }
                    first.get_or_insert((key, record));
                }
                Ok::<_, RoomError>((first, gone))
            })
            .await?;
        for (key, origin) in gone {
            queue.rests.end(&key);
            queue.release(&[(room_id.clone(), origin)]);
        }
        let Some((key, record)) = row else { return Ok(None) };
        let origin = record.origin.clone();
        let (rooms, from, room) = (self.clone(), origin.clone(), room_id.clone());
        let (event, tries) = (record.event.clone(), record.tries + 1);
        let time = if tries == 1 { MAX_TIME_PER_EVENT } else { MAX_TIME_PER_RETRY };
        // A task of its own: an event upon which it panics must not block its room for ever.
        let worked = tokio::spawn(async move { rooms.ingest(&from, &room, event, time).await });
        let mut batch = Batch::default();
        match worked.await {
            Ok(Ok(Ingested::Placed)) => {}
            Ok(Ok(Ingested::Unanswered)) if tries < MAX_TRIES => {
                let record = InboundRecord { tries, ..record };
                batch.put::<tables::InboundQueue>(&key, &record);
                self.store().commit(batch).await?;
                queue.rests.begin(key, origin.clone(), tries, Instant::now());
                return Ok(Some(origin));
            }
            Ok(Ok(Ingested::Unanswered)) => {
                tracing::info!(%origin, %room_id, tries, "an event was given up: nobody answers");
            }
            Ok(Err(error)) if is_ours(&error) => return Err(error),
            Ok(Err(error)) => report_refusal(&origin, room_id, &error),
            Err(error) if error.is_panic() => {
                tracing::error!(%origin, %room_id, %error, "an event was not taken");
            }
            // The runtime is going down.
            Err(_) => return Err(StoreError::Closed.into()),
        }
        batch.delete::<tables::InboundQueue>(&key);
        self.store().commit(batch).await?;
        queue.rests.end(&key);
        queue.release(&[(room_id.clone(), origin.clone())]);
        drop(slot);
        Ok(Some(origin))
    }
}
