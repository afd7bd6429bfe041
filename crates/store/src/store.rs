//! The store: opens an engine, hands out readers, commits batches.

use std::panic;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use crate::commit::Committer;
use crate::derived::Derived;
use crate::engine::memory::{Faults, MemoryEngine, Mounted};
use crate::engine::rocks::RocksEngine;
use crate::engine::{Engine, Snapshot};
use crate::table::row_key;
use crate::tables::Meta;
use crate::{Batch, Reader, StoreError};

/// Version of the tables' layout. A store with a newer one is not opened; one with an older one
/// is, and whoever writes to it brings it up to date first. 2: indices over the timelines.
pub const SCHEMA: u64 = 2;

/// Most rows that a read looks at in its caller's turn: what that takes is to be short beside a
/// round to another thread and back, many times over, and the reads of a request are to fit.
const MAX_ROWS_IN_TURN: usize = 256;

/// Most reads that run at once on the blocking pool. Each has its own memory for what it reads, and
/// more of them than this keep processors and disk no busier.
const MAX_LONG_READS: usize = 4;

/// Key of the schema version in `Meta`.
const SCHEMA_KEY: &str = "schema";

/// The store. Clones share it; the last one closes it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    // Before the engine, so that it is dropped first: it writes what waits.
    committer: Committer,
    engine: Arc<dyn Engine>,
    derived: Arc<Derived>,
    position: watch::Receiver<u64>,
    /// A place for each long read that may run at once.
    reads: Arc<Semaphore>,
    blocking: bool,
}

impl Store {
    /// Opens the RocksDB database in a directory, and creates both if they are not there.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let store = Self::on_engine(Arc::new(RocksEngine::open(path)?), true);
        store.map_err(|error| match error {
            StoreError::Corrupt { table, key } => StoreError::Damaged {
                path: path.to_owned(),
                problem: format!("unreadable row in table {table}: {key}"),
            },
            error => error,
        })
    }

    /// A store in memory, which is deterministic: reads and commits run in their caller's turn.
    pub fn memory() -> Store {
        // The memory engine cannot fail, and it is empty.
        Self::on_engine(Arc::new(MemoryEngine::default()), false)
            .expect("an empty memory engine opens")
    }

    /// A store in memory whose disk fails on request.
    pub fn memory_with_faults() -> (Store, Faults) {
        let (engine, faults) = Mounted::new();
        (Self::on_memory(engine).expect("an empty memory engine opens"), faults)
    }

    /// Opens a database for reading, also beside the process that writes to it. Commits fail.
    pub fn open_read_only(path: &Path) -> Result<Store, StoreError> {
        Self::on_engine(Arc::new(RocksEngine::open_read_only(path)?), true)
    }

    pub(crate) fn on_memory(engine: Mounted) -> Result<Store, StoreError> {
        Self::on_engine(Arc::new(engine), false)
    }

    /// `blocking`: the engine's calls take time, so they leave the async threads.
    pub(crate) fn on_engine(engine: Arc<dyn Engine>, blocking: bool) -> Result<Store, StoreError> {
        let position = check_schema(&*engine)?;
        let derived = Arc::new(Derived::default());
        let committer = Committer::inline(engine.clone(), derived.clone(), position);
        let committer = match blocking {
            false => committer,
            true => committer
                .spawn()
                .map_err(|e| StoreError::Io(format!("cannot start the committer: {e}")))?,
        };
        let position = committer.position();
        let reads = Arc::new(Semaphore::new(MAX_LONG_READS));
        let inner = Inner { committer, engine, derived, position, reads, blocking };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Runs a function on one consistent snapshot.
    ///
    /// It begins in the caller's turn, on what is in memory. If it comes to a row that is not, or
    /// to more than [`MAX_ROWS_IN_TURN`], what it made is dropped, and it begins anew on the blocking
    /// pool: so it must do nothing but read (decision 0022).
    pub async fn read<R, E>(
        &self,
        f: impl FnOnce(&Reader) -> Result<R, E> + Clone + Send + 'static,
    ) -> Result<R, E>
    where
        E: From<StoreError> + Send + 'static,
        R: Send + 'static,
    {
        if self.inner.blocking {
            // A task that does nothing but read lets others have their turn, too.
            tokio::task::consume_budget().await;
            if let Some(outcome) = self.read_in_turn(f.clone()) {
                return outcome;
            }
        }
        self.read_long(f).await
    }

    /// The same for a function that is known to look at many rows, or does more than reading: it
    /// runs once, on the blocking pool.
    pub async fn read_long<R, E>(
        &self,
        f: impl FnOnce(&Reader) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        E: From<StoreError> + Send + 'static,
        R: Send + 'static,
    {
        let turn = self.inner.reads.clone().acquire_owned().await;
        let turn = turn.map_err(|_| StoreError::Closed)?;
        let store = self.clone();
        let read = move || {
            // Until the end, though the caller may have stopped waiting.
            let _turn = turn;
            f(&store.reader())
        };
        self.off_thread(read).await?
    }

    /// Runs a function that takes long off the async threads: on the blocking pool, unless the
    /// store is deterministic.
    pub async fn off_thread<R: Send + 'static>(
        &self,
        f: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        if !self.inner.blocking {
            tokio::task::yield_now().await;
            return Ok(f());
        }
        tokio::task::spawn_blocking(f).await.map_err(|error| match error.try_into_panic() {
            Ok(panic) => panic::resume_unwind(panic),
            // The runtime is going down.
            Err(_) => StoreError::Closed,
        })
    }

    /// `None` if that would take long.
    fn read_in_turn<R>(&self, f: impl FnOnce(&Reader) -> R) -> Option<R> {
        let reader = self.read_with(Engine::memory_snapshot).with_allowance(MAX_ROWS_IN_TURN);
        let outcome = f(&reader);
        (!reader.gave_up()).then_some(outcome)
    }

    /// A snapshot, for blocking contexts and tests.
    pub fn reader(&self) -> Reader<'_> {
        self.read_with(Engine::snapshot)
    }

    fn read_with<'s>(
        &'s self,
        snapshot: impl FnOnce(&'s dyn Engine) -> Box<dyn Snapshot + 's>,
    ) -> Reader<'s> {
        let Inner { engine, derived, position, .. } = &*self.inner;
        // The position first: what is written after it is in the snapshot, or not.
        let reached = *position.borrow();
        Reader::new(snapshot(&**engine), derived, reached)
    }

    /// Atomic and durable (synced) when it returns; batches of many callers share one sync. Returns
    /// the batch's stream position; of an empty batch, which writes nothing, the last one. A batch
    /// whose caller stops waiting may be committed all the same.
    pub async fn commit(&self, batch: Batch) -> Result<u64, StoreError> {
        if !self.inner.blocking {
            tokio::task::yield_now().await;
        }
        self.inner.committer.commit(batch, !self.inner.blocking).await
    }

    /// The version of the layout that the store has.
    pub fn schema(&self) -> Result<u64, StoreError> {
        Ok(self.reader().get::<Meta>(&SCHEMA_KEY.to_owned())?.unwrap_or(SCHEMA))
    }

    /// Says that the store has the newest layout.
    pub async fn set_newest_schema(&self) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put::<Meta>(&SCHEMA_KEY.to_owned(), &SCHEMA);
        self.commit(batch).await.map(|_| ())
    }

    /// Last committed stream position, to wait on.
    pub fn position(&self) -> watch::Receiver<u64> {
        let mut position = self.inner.position.clone();
        position.mark_unchanged();
        position
    }

    /// Gives back the space of deleted rows. Blocks, for as long as it takes to write all others.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.inner.engine.compact()
    }

    /// Writes what waits, flushes and stops: later commits fail with [`StoreError::Closed`]. Blocks.
    pub fn close(&self) {
        self.inner.committer.close();
        if let Err(error) = self.inner.engine.flush() {
            // Nothing is lost: what was committed is in the log.
            tracing::warn!(%error, "flushing at close failed");
        }
    }
}

/// Checks the schema version, or writes it into an empty database. Returns the stream position.
fn check_schema(engine: &dyn Engine) -> Result<u64, StoreError> {
    let schema = SCHEMA_KEY.to_owned();
    let snapshot = engine.snapshot();
    let empty = snapshot.range(&[], None, false).next().transpose()?.is_none();
    let derived = Derived::default();
    let reader = Reader::new(snapshot, &derived, 0);
    match reader.get::<Meta>(&schema)? {
        Some(found) if found > SCHEMA => Err(StoreError::NewerSchema { found, known: SCHEMA }),
        Some(_) => {
            // A position that cannot be read must not start again from 0.
            reader.position()
        }
        None if empty => {
            let mut batch = Batch::default();
            batch.put::<Meta>(&schema, &SCHEMA);
            engine.write(&batch.settle(0)?)?;
            Ok(0)
        }
        None => Err(StoreError::Corrupt {
            table: "Meta",
            key: row_key::<Meta>(&schema).escape_ascii().to_string(),
        }),
    }
}
