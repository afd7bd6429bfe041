//! The departure outbox: departures that no server has taken yet are tried until one does.
//!
//! The rows of `Departures` belong to whoever runs the departure; this loop keeps its schedule in
//! rows of its own, so that it can never bring a departure back that a newer invite has ended.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use exeunt_core::ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use exeunt_store::records::{DepartureRecord, DepartureRetryRecord};
use exeunt_store::tables::{self, DepartureRetries};
use exeunt_store::{Batch, Reader, Store, StoreError};
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::backoff::millis;
use crate::{Backoff, Clock, Jitter, Shutdown, until_shutdown};

/// Departures tried at once.
pub const MAX_DEPARTURES_AT_ONCE: usize = 8;
/// A departure that nobody took for this long (30 days) is tried no more often than the longest
/// back-off, and reported at each try. It does not end: an admin may give it up.
pub const STUCK_AFTER_MS: u64 = 30 * 24 * 3_600_000;

/// Servers whose signs of life are listened for.
const MAX_SERVERS: usize = 10_000;
/// Departures that a sign of life has brought forward.
const MAX_BROUGHT_FORWARD: usize = 10_000;
/// Due departures that one look at the table takes along, so that not each attempt needs a look.
const MAX_DUE: usize = 1_000;
/// Longest sleep of the loop.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Waits and limits. Tests and demos set them small.
#[derive(Debug, Clone, Copy)]
pub struct DepartureOptions {
    pub backoff: Backoff,
    /// When an attempt without an outcome counts as failed.
    pub attempt_timeout: Duration,
}

impl Default for DepartureOptions {
    fn default() -> Self {
        let last = Duration::from_secs(6 * 3600);
        Self {
            backoff: Backoff { first: Duration::from_secs(5), last },
            attempt_timeout: Duration::from_secs(300),
        }
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DepartureOutcome {
    /// A server took it; the row is gone.
    Delivered,
    /// There is nothing to deliver any more; the row is gone.
    Ended,
    /// Nobody took it; the row is still there.
    Retry,
}

/// Runs departures: the port to the rooms.
#[async_trait]
pub trait DepartureRunner: Send + Sync + 'static {
    /// Tries the departure once; updates or deletes its row itself.
    async fn attempt(&self, user: &UserId, room: &RoomId) -> DepartureOutcome;
}

/// The handle of the loop. Cheap to clone.
#[derive(Clone)]
pub struct Departures {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    clock: Clock,
    jitter: Jitter,
    options: DepartureOptions,
    shutdown: Shutdown,
    notify: Notify,
    ears: Mutex<Ears>,
}

#[derive(Default)]
struct Ears {
    /// Candidates of the departures that wait.
    listening: BTreeSet<OwnedServerName>,
    /// Those that have shown life since the last look.
    heard: BTreeSet<OwnedServerName>,
}

type Key = (OwnedUserId, OwnedRoomId);

impl Departures {
    /// The handle; nothing runs before [`Departures::start`].
    pub fn new(
        store: Store,
        clock: Clock,
        jitter: Jitter,
        options: DepartureOptions,
        shutdown: Shutdown,
    ) -> Self {
        let (notify, ears) = (Notify::new(), Mutex::default());
        Self { shared: Arc::new(Shared { store, clock, jitter, options, shutdown, notify, ears }) }
    }

    /// Starts the loop. Call it once, inside a tokio runtime.
    pub fn start(&self, runner: Arc<dyn DepartureRunner>) -> JoinHandle<()> {
        let shared = Arc::clone(&self.shared);
        let shutdown = shared.shutdown.clone();
        tokio::spawn(until_shutdown(shutdown, async move {
            Loop::new(&shared, &runner).run().await;
        }))
    }

    /// There is a new departure in the table.
    pub fn departure_queued(&self) {
        self.shared.notify.notify_one();
    }

    /// This server has shown life: departures that it could take are tried at once.
    pub fn alive(&self, server: &ServerName) {
        let mut ears = self.shared.ears();
        if ears.listening.contains(server) && ears.heard.insert(server.to_owned()) {
            drop(ears);
            self.shared.notify.notify_one();
        }
    }
}

impl Shared {
    fn now(&self) -> u64 {
        (self.clock)()
    }

    fn ears(&self) -> MutexGuard<'_, Ears> {
        self.ears.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// One look at the table.
#[derive(Default)]
struct Look {
    due: VecDeque<(Key, u64)>,
    /// When the next one is due.
    next: Option<u64>,
    listening: BTreeSet<OwnedServerName>,
    brought_forward: BTreeMap<Key, u64>,
}

struct Loop<'l> {
    shared: &'l Arc<Shared>,
    runner: &'l Arc<dyn DepartureRunner>,
    attempts: JoinSet<DepartureOutcome>,
    /// What runs: the departure and its `departed_at`.
    running: HashMap<Id, (Key, u64)>,
    /// What is due and begins when an attempt ends.
    due: VecDeque<(Key, u64)>,
    /// Due earlier than scheduled, because a candidate has shown life.
    brought_forward: BTreeMap<Key, u64>,
}

impl<'l> Loop<'l> {
    fn new(shared: &'l Arc<Shared>, runner: &'l Arc<dyn DepartureRunner>) -> Self {
        Self {
            shared,
            runner,
            attempts: JoinSet::new(),
            running: HashMap::new(),
            due: VecDeque::new(),
            brought_forward: BTreeMap::new(),
        }
    }

    async fn run(mut self) {
        if let Err(error) = drop_stale_schedules(&self.shared.store).await {
            tracing::error!(%error, "cannot clean up the schedules of departures");
        }
        let mut look_at = Instant::now();
        let mut is_stale = true;
        loop {
            if is_stale || self.due.is_empty() {
                let wait = match self.look().await {
                    Ok(wait) => wait,
                    Err(error) => {
                        tracing::error!(%error, "cannot read the departures");
                        self.shared.options.backoff.first
                    }
                };
                look_at = Instant::now() + wait;
            }
            self.begin_due();
            is_stale = tokio::select! {
                biased;
                Some(ended) = self.attempts.join_next_with_id() => {
                    self.ended(ended).await;
                    false
                }
                () = self.shared.notify.notified() => true,
                () = tokio::time::sleep_until(look_at) => true,
            };
        }
    }

    /// Finds what is due and returns how long there is nothing else to do.
    async fn look(&mut self) -> Result<Duration, StoreError> {
        let now = self.shared.now();
        let gap = millis(self.shared.options.backoff.first);
        let heard = std::mem::take(&mut self.shared.ears().heard);
        let running: BTreeSet<Key> = self.running.values().map(|(key, _)| key.clone()).collect();
        let forward = self.brought_forward.clone();
        let look =
            self.shared.store.read(move |r| look(r, now, gap, &heard, &running, &forward)).await?;
        self.shared.ears().listening = look.listening;
        self.brought_forward = look.brought_forward;
        self.due = look.due;
        let wait = look.next.map(|at| Duration::from_millis(at.saturating_sub(now)));
        Ok(wait.map_or(SWEEP_EVERY, |wait| wait.min(SWEEP_EVERY)))
    }

    /// Starts what is due, as much of it as may run.
    fn begin_due(&mut self) {
        while self.attempts.len() < MAX_DEPARTURES_AT_ONCE
            && let Some((key, departed_at)) = self.due.pop_front()
        {
            self.brought_forward.remove(&key);
            let runner = Arc::clone(self.runner);
            let limit = self.shared.options.attempt_timeout;
            let (user, room) = key.clone();
            let attempt = self.attempts.spawn(async move {
                let attempt = runner.attempt(&user, &room);
                tokio::time::timeout(limit, attempt).await.unwrap_or(DepartureOutcome::Retry)
            });
            self.running.insert(attempt.id(), (key, departed_at));
        }
    }

    async fn ended(&mut self, ended: Result<(Id, DepartureOutcome), JoinError>) {
        let (id, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "an attempt at a departure broke");
                (error.id(), DepartureOutcome::Retry)
            }
        };
        let Some((key, departed_at)) = self.running.remove(&id) else { return };
        if let Err(error) = self.settle(&key, departed_at, outcome).await {
            let (user, room) = &key;
            tracing::error!(%user, %room, %error, "the outcome of a departure is not stored");
            // Without a schedule it would be due at once, again and again.
            tokio::time::sleep(self.shared.options.backoff.first).await;
        }
    }

    /// Writes down when the departure is tried next, if it is.
    async fn settle(
        &self,
        key: &Key,
        departed_at: u64,
        outcome: DepartureOutcome,
    ) -> Result<(), StoreError> {
        let (user, room) = key;
        let read_key = key.clone();
        let (row, retry) = self
            .shared
            .store
            .read(move |r| {
                let row = r.get::<tables::Departures>(&read_key)?;
                Ok::<_, StoreError>((row, r.get::<DepartureRetries>(&read_key)?))
            })
            .await?;
        let row = row.filter(|row| row.departed_at == departed_at);
        let mut batch = Batch::default();
        let Some(row) = row else {
            tracing::info!(%user, %room, ?outcome, "a departure is through");
            if retry.is_some() {
                batch.delete::<DepartureRetries>(key);
                self.shared.store.commit(batch).await?;
            }
            return Ok(());
        };
        if outcome != DepartureOutcome::Retry {
            tracing::warn!(%user, %room, ?outcome, "a departure ended, but its row is still there");
        }
        let now = self.shared.now();
        let known = retry.filter(|retry| retry.departed_at == departed_at);
        let before = known.map_or(row.attempts, |retry| retry.attempts.max(row.attempts));
        let attempts = before.saturating_add(1);
        let backoff = self.shared.options.backoff;
        let mut retry_at = backoff.retry_at(now, attempts, (self.shared.jitter)());
        if now.saturating_sub(row.departed_at) >= STUCK_AFTER_MS {
            retry_at = now.saturating_add(millis(backoff.last));
            let last = row.last.iter().map(|a| format!("{}: {}", a.server, a.outcome));
            let last = last.collect::<Vec<_>>().join("; ");
            tracing::error!(%user, %room, attempts, last, "nobody has taken a departure for long");
        } else {
            tracing::info!(%user, %room, attempts, retry_at, "a departure is tried again later");
        }
        let retry = DepartureRetryRecord { departed_at, attempts, tried_at: now, retry_at };
        batch.put::<DepartureRetries>(key, &retry);
        self.shared.store.commit(batch).await?;
        Ok(())
    }
}

/// Which departures are due, and what to listen for.
fn look(
    r: &Reader<'_>,
    now: u64,
    gap: u64,
    heard: &BTreeSet<OwnedServerName>,
    running: &BTreeSet<Key>,
    forward: &BTreeMap<Key, u64>,
) -> Result<Look, StoreError> {
    let mut look = Look::default();
    for row in r.scan::<tables::Departures>(()).iter() {
        let (key, departure) = row?;
        let retry = r.get::<DepartureRetries>(&key)?;
        let retry = retry.filter(|retry| retry.departed_at == departure.departed_at);
        let mut due = retry.as_ref().map_or(departure.retry_at, |retry| retry.retry_at);
        let servers = candidates(&departure);
        let mut sooner = forward.get(&key).copied();
        if servers.iter().any(|server| heard.contains(server)) {
            let tried_at = match retry {
                _ if running.contains(&key) => now,
                Some(retry) => retry.tried_at,
                None => 0,
            };
            sooner = Some(tried_at.saturating_add(gap).max(now).min(sooner.unwrap_or(u64::MAX)));
        }
        if look.listening.len() < MAX_SERVERS {
            look.listening.extend(servers);
        }
        if let Some(at) = sooner
            && look.brought_forward.len() < MAX_BROUGHT_FORWARD
        {
            look.brought_forward.insert(key.clone(), at);
            due = due.min(at);
        }
        if running.contains(&key) {
            continue;
        }
        if due > now {
            look.next = Some(look.next.map_or(due, |next| next.min(due)));
        } else if look.due.len() < MAX_DUE {
            look.due.push_back((key, departure.departed_at));
        }
        // What is due beyond that is found when these are through.
    }
    Ok(look)
}

/// The servers that could take a departure: those that whoever runs it asks, and what the pending
/// membership tells, for rows of before that name none.
fn candidates(departure: &DepartureRecord) -> BTreeSet<OwnedServerName> {
    let pending = &departure.pending;
    let mut servers: BTreeSet<_> = departure.candidates.iter().cloned().collect();
    servers.extend(pending.candidates.iter().cloned());
    servers.insert(pending.sender.server_name().to_owned());
    servers.extend(pending.delivered_by.clone());
    servers.extend(pending.room_id.server_name().map(ToOwned::to_owned));
    servers.remove(pending.user_id.server_name());
    servers
}

/// Removes schedules whose departure has gone.
async fn drop_stale_schedules(store: &Store) -> Result<(), StoreError> {
    let stale = store
        .read(|r| {
            let mut stale = Vec::new();
            for row in r.scan::<DepartureRetries>(()).iter() {
                let (key, retry) = row?;
                let row: Option<DepartureRecord> = r.get::<tables::Departures>(&key)?;
                if row.is_none_or(|row| row.departed_at != retry.departed_at) {
                    stale.push(key);
                }
            }
            Ok::<_, StoreError>(stale)
        })
        .await?;
    let mut batch = Batch::default();
    for key in &stale {
        batch.delete::<DepartureRetries>(key);
    }
    store.commit(batch).await?;
    Ok(())
}
