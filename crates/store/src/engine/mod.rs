//! The boundary to a key-value engine: get, range, snapshot and one atomic batch.

use std::collections::BTreeMap;

use crate::StoreError;

pub mod memory;
pub mod rocks;

#[cfg(test)]
mod conformance;

/// A row: key and value.
pub type Row = (Box<[u8]>, Box<[u8]>);

/// Rows to put and, with `None`, to delete.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Rows in the order asked for.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a>;

/// An ordered key-value engine.
pub trait Engine: Send + Sync + 'static {
    /// A view that later writes do not change.
    fn snapshot(&self) -> Box<dyn Snapshot + '_>;

    /// The same for reads that must not wait for a disk: what is not in memory is
    /// [`StoreError::NotInMemory`].
    fn memory_snapshot(&self) -> Box<dyn Snapshot + '_> {
        self.snapshot()
    }

    /// Writes all or nothing. On success the changes are on disk; on failure it is unknown whether
    /// they are.
    fn write(&self, changes: &Changes) -> Result<(), StoreError>;

    /// Moves what is only in the log to its final place, so that the next start is quick.
    fn flush(&self) -> Result<(), StoreError>;

    /// Gives back the space of deleted rows. Takes long.
    fn compact(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A consistent view of an [`Engine`].
pub trait Snapshot: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Rows from `start` (inclusive) to `end` (exclusive, `None` for the last key), in key order or
    /// against it.
    fn range(&self, start: &[u8], end: Option<&[u8]>, reverse: bool) -> Rows<'_>;
}

impl<S: Snapshot + ?Sized> Snapshot for &S {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        (**self).get(key)
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, reverse: bool) -> Rows<'_> {
        (**self).range(start, end, reverse)
    }
}

/// The first key after all keys that begin with `prefix`; `None` if there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}
