//! The event graph and everything else on RocksDB: typed tables, batches, snapshots.
