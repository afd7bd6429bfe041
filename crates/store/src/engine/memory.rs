//! The in-memory engine, for tests and for the simulation, where its disk can fail.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Changes, Engine, Rows, Snapshot};
use crate::{Store, StoreError};

type Tree = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// Rows in memory. Clones share them.
#[derive(Clone, Default)]
pub struct MemoryEngine {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    rows: Arc<Tree>,
    /// What a crash leaves, while syncs are held back; otherwise that is `rows`.
    synced: Option<Arc<Tree>>,
    fault: Option<Fault>,
    unreadable: bool,
    /// Counts crashes: an engine from before one cannot write any more.
    life: u64,
    /// What was there at each crash: all that engines from before it see.
    past: Vec<Arc<Tree>>,
}

/// How a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing of it reaches the disk.
    Lose,
    /// It reaches the disk, but the answer is a failure: the power went in between.
    Keep,
}

/// The hand on the disk of [`Store::memory_with_faults`]. Clones share it.
#[derive(Clone)]
pub struct Faults {
    disk: Arc<Mutex<Disk>>,
}

impl Faults {
    /// The next write fails, in this way.
    pub fn fail_next_write(&self, fault: Fault) {
        lock(&self.disk).fault = Some(fault);
    }

    /// Whether reads fail from now on.
    pub fn fail_reads(&self, fail: bool) {
        lock(&self.disk).unreadable = fail;
    }

    /// From now on the disk lies: what is written is lost in a crash, until syncs are released.
    pub fn hold_syncs(&self) {
        let mut disk = lock(&self.disk);
        if disk.synced.is_none() {
            disk.synced = Some(disk.rows.clone());
        }
    }

    /// Syncs what was held back, and every later write.
    pub fn release_syncs(&self) {
        lock(&self.disk).synced = None;
    }

    /// The power goes and comes back: unsynced writes are lost, writes of earlier stores fail, and
    /// a store opens on what the disk has.
    pub fn crash(&self) -> Result<Store, StoreError> {
        let mut disk = lock(&self.disk);
        let seen = disk.rows.clone();
        disk.past.push(seen);
        if let Some(synced) = disk.synced.take() {
            disk.rows = synced;
        }
        disk.fault = None;
        disk.life += 1;
        let life = disk.life;
        drop(disk);
        Store::on_memory(Mounted { engine: MemoryEngine { disk: self.disk.clone() }, life })
    }
}

/// A faulty disk as one run of the server has it.
pub(crate) struct Mounted {
    engine: MemoryEngine,
    life: u64,
}

impl Mounted {
    pub(crate) fn new() -> (Mounted, Faults) {
        let engine = MemoryEngine::default();
        let faults = Faults { disk: engine.disk.clone() };
        (Mounted { engine, life: 0 }, faults)
    }
}

impl Engine for Mounted {
    fn snapshot(&self) -> Box<dyn Snapshot + '_> {
        let disk = lock(&self.engine.disk);
        if disk.unreadable {
            return Box::new(Unreadable);
        }
        if let Some(seen) = usize::try_from(self.life).ok().and_then(|life| disk.past.get(life)) {
            return Box::new(MemorySnapshot(seen.clone()));
        }
        drop(disk);
        self.engine.snapshot()
    }

    fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        let mut disk = lock(&self.engine.disk);
        if disk.life != self.life {
            return Err(StoreError::Io("the disk has crashed".to_owned()));
        }
        match disk.fault.take() {
            None => disk.apply(changes),
            Some(fault) => {
                if fault == Fault::Keep {
                    disk.apply(changes);
                }
                return Err(StoreError::Io("the disk failed".to_owned()));
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Disk {
    /// Copies the tree only while a snapshot holds it.
    fn apply(&mut self, changes: &Changes) {
        let rows = Arc::make_mut(&mut self.rows);
        for (key, value) in changes {
            match value {
                Some(value) => {
                    rows.insert(key.as_slice().into(), value.as_slice().into());
                }
                None => {
                    rows.remove(key.as_slice());
                }
            }
        }
    }
}

/// Nothing panics while it holds the lock, and a half-applied batch is impossible in any case.
fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine for MemoryEngine {
    fn snapshot(&self) -> Box<dyn Snapshot + '_> {
        Box::new(MemorySnapshot(lock(&self.disk).rows.clone()))
    }

    fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        lock(&self.disk).apply(changes);
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A snapshot of a disk that cannot be read.
struct Unreadable;

impl Snapshot for Unreadable {
    fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Err(StoreError::Io("the disk cannot be read".to_owned()))
    }

    fn range(&self, _: &[u8], _: Option<&[u8]>, _: bool) -> Rows<'_> {
        Box::new(std::iter::once(Err(StoreError::Io("the disk cannot be read".to_owned()))))
    }
}

struct MemorySnapshot(Arc<Tree>);

impl Snapshot for MemorySnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).map(|value| value.to_vec()))
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, reverse: bool) -> Rows<'_> {
        if end.is_some_and(|end| end <= start) {
            return Box::new(std::iter::empty());
        }
        let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        let rows = self.0.range::<[u8], _>(bounds);
        let rows = rows.map(|(key, value)| Ok((key.clone(), value.clone())));
        if reverse { Box::new(rows.rev()) } else { Box::new(rows) }
    }
}
