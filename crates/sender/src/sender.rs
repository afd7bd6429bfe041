//! The handle, and which destinations have a task.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use exeunt_core::ruma::{OwnedServerName, ServerName};
use exeunt_store::{Store, StoreError, waiting_servers};
use tokio::sync::{Notify, Semaphore};

use crate::destination::Destination;
use crate::{Backoff, Clock, Jitter, Shutdown, Transport, until_shutdown};

/// Transactions under way at once.
pub const MAX_SENDING: usize = 64;

/// How often the outbox is searched for servers that have no task. Wakes make it unnecessary; it
/// is for what a wake could miss.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Servers read from the outbox at once.
const SWEEP_PAGE: usize = 256;

/// Waits and limits. Tests and demos set them small.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub backoff: Backoff,
    /// How far the first transactions after a start are spread.
    pub start_spread: Duration,
    /// When a transport without an answer counts as unreachable.
    pub send_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backoff: Backoff { first: Duration::from_secs(1), last: Duration::from_secs(3600) },
            start_spread: Duration::from_secs(5),
            send_timeout: Duration::from_secs(90),
        }
    }
}

/// Sends what the outbox holds, in order for each server. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

type Reached = Box<dyn Fn(&ServerName) + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Clock,
    pub(crate) jitter: Jitter,
    pub(crate) server_name: OwnedServerName,
    pub(crate) options: Options,
    pub(crate) sending: Semaphore,
    /// Held by who notes what a server refuses: two may refuse the same leave.
    pub(crate) refusals: tokio::sync::Mutex<()>,
    shutdown: Shutdown,
    tasks: Mutex<BTreeMap<OwnedServerName, Arc<Signal>>>,
    reached: OnceLock<Reached>,
}

/// How a destination's task is spoken to.
#[derive(Default)]
pub(crate) struct Signal {
    pub(crate) notify: Notify,
    /// There may be new rows.
    pub(crate) woken: AtomicBool,
    /// The server has shown life.
    pub(crate) alive: AtomicBool,
}

impl Sender {
    /// Starts a task for every server that the outbox has rows for. Needs a tokio runtime.
    pub fn start(
        store: Store,
        transport: Arc<dyn Transport>,
        clock: Clock,
        jitter: Jitter,
        server_name: OwnedServerName,
        options: Options,
        shutdown: Shutdown,
    ) -> Self {
        let shared = Arc::new(Shared {
            store,
            transport,
            clock,
            jitter,
            server_name,
            options,
            sending: Semaphore::new(MAX_SENDING),
            refusals: tokio::sync::Mutex::default(),
            shutdown: shutdown.clone(),
            tasks: Mutex::default(),
            reached: OnceLock::new(),
        });
        tokio::spawn(until_shutdown(shutdown, sweep(Arc::clone(&shared))));
        Self { shared }
    }

    /// There are new rows for these servers.
    pub fn wake(&self, servers: &[OwnedServerName]) {
        for server in servers {
            self.shared.ensure(server, Duration::ZERO);
        }
    }

    /// Something authentic came from this server: what waits for it is sent at once.
    pub fn alive(&self, server: &ServerName) {
        if let Some(signal) = self.shared.tasks().get(server) {
            signal.alive.store(true, Ordering::SeqCst);
            signal.notify.notify_one();
        }
    }

    /// Called with every server that takes a transaction, for [`crate::Departures::alive`]. Can be
    /// set once; later calls return false.
    pub fn on_reached(&self, f: impl Fn(&ServerName) + Send + Sync + 'static) -> bool {
        self.shared.reached.set(Box::new(f)).is_ok()
    }

    /// Servers with rows that are being sent or wait for a retry.
    pub fn busy(&self) -> Vec<OwnedServerName> {
        self.shared.tasks().keys().cloned().collect()
    }
}

impl Shared {
    pub(crate) fn now(&self) -> u64 {
        (self.clock)()
    }

    pub(crate) fn reached(&self, server: &ServerName) {
        if let Some(reached) = self.reached.get() {
            reached(server);
        }
    }

    /// Wakes the task of a server, or starts one that begins after `delay`.
    fn ensure(self: &Arc<Self>, server: &OwnedServerName, delay: Duration) {
        if *server == self.server_name {
            return;
        }
        let mut tasks = self.tasks();
        if let Some(signal) = tasks.get(server) {
            signal.woken.store(true, Ordering::SeqCst);
            signal.notify.notify_one();
            return;
        }
        let signal = Arc::new(Signal::default());
        tasks.insert(server.clone(), Arc::clone(&signal));
        let place = Place { shared: Arc::clone(self), server: server.clone(), signal };
        tokio::spawn(until_shutdown(self.shutdown.clone(), async move {
            Destination::new(&place.shared, &place.server, &place.signal).run(delay, &place).await;
        }));
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<OwnedServerName, Arc<Signal>>> {
        self.tasks.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A task's place among the tasks. It is free again however the task ends, a panic included.
pub(crate) struct Place {
    shared: Arc<Shared>,
    server: OwnedServerName,
    signal: Arc<Signal>,
}

impl Place {
    /// Gives the place up, unless rows may have come since `woken` was last cleared.
    pub(crate) fn retire(&self) -> bool {
        let mut tasks = self.shared.tasks();
        if self.signal.woken.load(Ordering::SeqCst) {
            return false;
        }
        tasks.remove(&self.server);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tasks = self.shared.tasks();
        if tasks.get(&self.server).is_some_and(|signal| Arc::ptr_eq(signal, &self.signal)) {
            tasks.remove(&self.server);
        }
    }
}

/// Starts tasks for rows from before, now and from time to time.
async fn sweep(shared: Arc<Shared>) {
    loop {
        let wait = match sweep_once(&shared).await {
            Ok(()) => SWEEP_EVERY,
            Err(error) => {
                tracing::error!(%error, "cannot read the outbox");
                shared.options.backoff.last.min(SWEEP_EVERY)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn sweep_once(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let mut last = None;
    loop {
        let page = shared.store.read(|r| waiting_servers(r, last, SWEEP_PAGE)).await?;
        for server in &page {
            if !shared.tasks().contains_key(server) {
                let delay = shared.options.start_spread.mul_f64((shared.jitter)().clamp(0.0, 1.0));
                shared.ensure(server, delay);
            }
        }
        if page.len() < SWEEP_PAGE {
            return Ok(());
        }
        last = page.into_iter().next_back();
    }
}
