//! The event graph and everything else on RocksDB: typed tables, batches, snapshots.
//!
//! [`tables`] lists every table; a table is a type with a key, a value and a prefix byte. Reads go
//! through a [`Reader`], one consistent snapshot. Writes go through a [`Batch`] that is committed
//! atomically, at a stream position of its own, and is on disk when [`Store::commit`] returns.
//!
//! Below is a small [`engine`] boundary: get, range, snapshot, one atomic batch. Nothing above it
//! knows RocksDB. This crate knows nothing of Matrix's rules.

#[macro_use]
mod table;

mod batch;
mod collect;
mod commit;
mod derived;
pub mod engine;
mod error;
mod key;
mod last_news;
mod outbox;
mod purge;
mod reader;
pub mod records;
pub mod snapshot;
mod store;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod verify;

pub use batch::Batch;
pub use collect::{Collected, collect_state};
pub use engine::memory::{Fault, Faults};
pub use error::StoreError;
pub use key::{CodecError, Key, Part, Prefix};
pub use last_news::LastNews;
pub use outbox::{waiting_events, waiting_servers};
pub use purge::{PurgeError, Purged, drop_delivered, purge_room, resume_purges, rooms_with_kept};
pub use reader::{Reader, Scan};
pub use snapshot::{Root, StateChange};
pub use store::{SCHEMA, Store};
pub use table::{RowOf, Table, TableVisitor};
pub use verify::verify;
