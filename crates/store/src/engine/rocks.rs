//! RocksDB: one keyspace, every write synced.

use std::fs;
use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIterator, DBRecoveryMode,
    DataBlockIndexType, ErrorKind, IteratorMode, LogLevel, Options, ReadOptions, ReadTier,
    WriteBatch, WriteOptions,
};

use super::{Changes, Engine, Row, Rows, Snapshot};
use crate::StoreError;

mod range;

use range::{Idle, MAX_DELETED, Range};

const BLOCK_CACHE_BYTES: usize = 14 << 20;
const MEMTABLE_BYTES: usize = 4 << 20;
/// All memtables together, those being written out too.
const MEMTABLES_BYTES: usize = 12 << 20;
/// Bounds what a start has to replay.
const LOG_BYTES: u64 = 32 << 20;
const OPEN_FILES: i32 = 512;
const BLOOM_BITS: f64 = 10.0;

/// A RocksDB database.
pub struct RocksEngine {
    db: DB,
}

impl RocksEngine {
    /// Opens the database in a directory, and creates both if they are not there.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if path.exists() && !path.is_dir() {
            return Err(StoreError::NotADirectory { path: path.to_owned() });
        }
        fs::create_dir_all(path)
            .map_err(|e| StoreError::Io(format!("cannot create {}: {e}", path.display())))?;
        refuse_headless(path)?;
        let db = DB::open(&options(), path).map_err(|e| open_error(path, &e))?;
        Ok(Self { db })
    }

    /// Opens the database for reading, also while another process writes to it: what was written
    /// up to now is seen. Writes fail.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        let mut options = options();
        options.create_if_missing(false);
        // The writer's logs may go while they are read.
        options.set_track_and_verify_wals_in_manifest(false);
        let db = DB::open_for_read_only(&options, path, false).map_err(|e| open_error(path, &e))?;
        Ok(Self { db })
    }
}

fn options() -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_bloom_filter(BLOOM_BITS, false);
    blocks.set_block_cache(&Cache::new_hyper_clock_cache(BLOCK_CACHE_BYTES, 0));
    blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);

    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_db_write_buffer_size(MEMTABLES_BYTES);
    options.set_max_total_wal_size(LOG_BYTES);
    options.set_max_open_files(OPEN_FILES);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    // A write that power loss tore was never acknowledged: start without it. A log that was synced
    // and is gone is an error.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options
}

/// RocksDB would take a directory that lost its `CURRENT` file for a new one, and clear it.
fn refuse_headless(path: &Path) -> Result<(), StoreError> {
    if path.join("CURRENT").exists() {
        return Ok(());
    }
    let unreadable = |e: std::io::Error| StoreError::Io(format!("{}: {e}", path.display()));
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let name = PathBuf::from(entry.map_err(unreadable)?.file_name());
        if name.extension().is_some_and(|kind| kind == "sst" || kind == "log") {
            return Err(StoreError::Damaged {
                path: path.to_owned(),
                problem: format!("{} is there, CURRENT is not", name.display()),
            });
        }
    }
    Ok(())
}

fn open_error(path: &Path, error: &rocksdb::Error) -> StoreError {
    let text = error.to_string();
    let path = path.to_owned();
    match error.kind() {
        ErrorKind::IOError if text.contains("/LOCK: ") && text.contains("lock") => {
            StoreError::Locked { path }
        }
        ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotFound => {
            StoreError::Damaged { path, problem: text }
        }
        // A file that the manifest names and that is gone.
        ErrorKind::IOError if text.contains("No such file") => {
            StoreError::Damaged { path, problem: text }
        }
        _ => io(error),
    }
}

fn io(error: &rocksdb::Error) -> StoreError {
    match error.kind() {
        ErrorKind::Incomplete => StoreError::NotInMemory,
        _ => StoreError::Io(error.to_string()),
    }
}

impl Engine for RocksEngine {
    fn snapshot(&self) -> Box<dyn Snapshot + '_> {
        Box::new(RocksSnapshot::new(&self.db, ReadTier::All))
    }

    fn memory_snapshot(&self) -> Box<dyn Snapshot + '_> {
        Box::new(RocksSnapshot::new(&self.db, ReadTier::BlockCache))
    }

    fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(|e| io(&e))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(|e| io(&e))
    }

    fn compact(&self) -> Result<(), StoreError> {
        self.flush()?;
        self.db.compact_range::<&[u8], &[u8]>(None, None);
        Ok(())
    }
}

struct RocksSnapshot<'a> {
    idle: Idle<'a>,
    snapshot: rocksdb::Snapshot<'a>,
    db: &'a DB,
    tier: ReadTier,
}

impl<'a> RocksSnapshot<'a> {
    fn new(db: &'a DB, tier: ReadTier) -> Self {
        Self { idle: Idle::default(), snapshot: db.snapshot(), db, tier }
    }

    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_read_tier(self.tier);
        options
    }

    /// An iterator without bounds.
    fn unbounded(&self) -> DBRawIterator<'a> {
        let mut options = self.options();
        options.set_snapshot(&self.snapshot);
        options.set_max_skippable_internal_keys(MAX_DELETED);
        self.db.raw_iterator_opt(options)
    }

    fn bounded(&self, start: &[u8], end: Option<&[u8]>, reverse: bool) -> Rows<'_> {
        let mut options = self.options();
        options.set_iterate_lower_bound(start);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let mode = if reverse { IteratorMode::End } else { IteratorMode::Start };
        Box::new(self.snapshot.iterator_opt(mode, options).map(|row| row.map_err(|e| io(&e))))
    }
}

impl Snapshot for RocksSnapshot<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.snapshot.get_opt(key, self.options()).map_err(|e| io(&e))
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, reverse: bool) -> Rows<'_> {
        if end.is_some_and(|end| end <= start) {
            return Box::new(std::iter::empty());
        }
        // Beyond the range there may be what is not in memory.
        if self.tier == ReadTier::BlockCache {
            return self.bounded(start, end, reverse);
        }
        Box::new(Range {
            idle: &self.idle,
            rows: Some(self.idle.take().unwrap_or_else(|| self.unbounded())),
            start: start.to_owned(),
            end: end.map(<[u8]>::to_owned),
            reverse,
            began: false,
            bounded: move |start: &[u8], end: Option<&[u8]>| self.bounded(start, end, reverse),
            rest: None,
        })
    }
}
