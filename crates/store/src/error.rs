//! What can go wrong in the store.

use std::path::PathBuf;

use thiserror::Error;

/// A failure of the store. None of them means "absent".
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// A row, or a state node that is referred to, cannot be read.
    #[error("unreadable row in table {table}: {key}")]
    Corrupt { table: &'static str, key: String },
    #[error("a value of table {table} cannot be written: {problem}")]
    Encode { table: &'static str, problem: String },
    #[error("{} is in use by another process", path.display())]
    Locked { path: PathBuf },
    #[error("{} is not a directory", path.display())]
    NotADirectory { path: PathBuf },
    #[error("the database in {} is damaged: {problem}", path.display())]
    Damaged { path: PathBuf, problem: String },
    #[error("the database has schema version {found}, this program knows up to {known}")]
    NewerSchema { found: u64, known: u64 },
    #[error("storage: {0}")]
    Io(String),
    /// An earlier write failed. What reached the disk is unknown, so nothing is written any more.
    #[error("the store has stopped writing after a failure: {0}")]
    Failed(String),
    #[error("the store is closed")]
    Closed,
    /// A read in its caller's turn that would have to wait. [`Store::read`](crate::Store::read)
    /// begins it anew where it may, so that nobody else sees this.
    #[error("not in memory")]
    NotInMemory,
}
