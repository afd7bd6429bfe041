//! Events of transactions that could not be placed at once: kept durably, and worked on room by
//! room behind the answer. Decision 0009.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
};

use exeunt_core::Object;
use exeunt_store::{Batch, StoreError, records::InboundRecord, tables};
use ruma::{OwnedRoomId, OwnedServerName, RoomId};
use tokio::sync::{OnceCell, Semaphore, watch};

use super::transaction::{is_ours, report_refusal};
use crate::{RoomError, Rooms};

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

/// What waits and who works on it. The events themselves are in the store.
pub(crate) struct Queue {
    counts: Mutex<Counts>,
    loaded: OnceCell<()>,
    workers: Mutex<Workers>,
    slots: Semaphore,
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

    /// Whether events of the room wait that came from other servers.
    fn others_wait(&self, room_id: &RoomId, origin: &OwnedServerName) -> bool {
        let (all, own) = self.counts().room(room_id, origin);
        all > own
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
                let record = InboundRecord { origin, event, at };
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

    /// Sees to it that somebody works on a room.
    fn work_on(&self, room_id: &OwnedRoomId) {
        let Some(mut claim) = Claim::take(self, room_id) else { return };
        tokio::spawn(async move {
            let mut last = None;
            loop {
                match claim.rooms.work_off_one(&claim.room_id, last.take()).await {
                    Ok(Some(origin)) => last = Some(origin),
                    Ok(None) if claim.may_end() => return,
                    Ok(None) => {}
                    Err(error) => {
                        // The rows stay. The next event of the room, or the next start, goes on.
                        let room_id = &claim.room_id;
                        tracing::error!(%room_id, %error, "the inbound queue stands still");
                        return;
                    }
                }
            }
        });
    }

    /// Works on the room's oldest event, but not on two of one server in a row if others wait: one
    /// that never answers holds up its own events only. The server whose turn it was.
    async fn work_off_one(
        &self,
        room_id: &OwnedRoomId,
        last: Option<OwnedServerName>,
    ) -> Result<Option<OwnedServerName>, RoomError> {
        let slot = self.inner.inbound.slots.acquire().await;
        let prefix = room_id.clone();
        let last = last.filter(|last| self.inner.inbound.others_wait(room_id, last));
        let row = self
            .store()
            .read(move |reader| {
                let mut first = None;
                for row in reader.scan::<tables::InboundQueue>(prefix).iter() {
                    let (key, record) = row?;
                    if last.as_ref() != Some(&record.origin) {
                        return Ok(Some((key, record)));
                    }
                    first.get_or_insert((key, record));
                }
                Ok::<_, RoomError>(first)
            })
            .await?;
        let Some((key, InboundRecord { origin, event, .. })) = row else { return Ok(None) };
        let (rooms, from, room) = (self.clone(), origin.clone(), room_id.clone());
        // A task of its own: an event upon which it panics must not block its room for ever.
        let worked = tokio::spawn(async move { rooms.ingest(&from, &room, event).await });
        match worked.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if is_ours(&error) => return Err(error),
            Ok(Err(error)) => report_refusal(&origin, room_id, &error),
            Err(error) if error.is_panic() => {
                tracing::error!(%origin, %room_id, %error, "an event was not taken");
            }
            // The runtime is going down.
            Err(_) => return Err(StoreError::Closed.into()),
        }
        let mut batch = Batch::default();
        batch.delete::<tables::InboundQueue>(&key);
        self.store().commit(batch).await?;
        self.inner.inbound.release(&[(room_id.clone(), origin.clone())]);
        drop(slot);
        Ok(Some(origin))
    }
}
