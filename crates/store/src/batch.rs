//! Changes that are committed together.

use std::collections::BTreeMap;

use crate::table::{corrupt, decode_value, encode_value, row_key};
use crate::{Prefix, StoreError, Table};

type AtPosition = Box<dyn FnOnce(u64, &mut Batch) + Send>;

/// Changes that become visible and durable together. The last change of a row wins.
#[derive(Default)]
pub struct Batch {
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    at_position: Vec<AtPosition>,
    /// Positions that are left out before the batch's.
    leap: u64,
    /// The first value that could not be encoded: the commit fails with it.
    error: Option<StoreError>,
}

impl Batch {
    pub fn put<T: Table>(&mut self, key: &T::Key, value: &T::Value) {
        match encode_value::<T>(value) {
            Ok(bytes) => {
                self.rows.insert(row_key::<T>(key), Some(bytes));
            }
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }

    pub fn delete<T: Table>(&mut self, key: &T::Key) {
        self.rows.insert(row_key::<T>(key), None);
    }

    /// Runs when the batch is committed, with the stream position it gets: rows that carry the
    /// position. Runs on the committer, so it must be quick; what it puts wins over rows put
    /// before.
    pub fn at_position(&mut self, f: impl FnOnce(u64, &mut Batch) + Send + 'static) {
        self.at_position.push(Box::new(f));
    }

    /// Leaves so many stream positions free before the one that the batch gets.
    pub fn leap(&mut self, positions: u64) {
        self.leap = self.leap.max(positions);
    }

    /// The position of the batch if it follows that one.
    pub(crate) fn position_after(&self, last: u64) -> u64 {
        last + 1 + self.leap
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.at_position.is_empty() && self.error.is_none()
    }

    /// Adds the changes of another batch, as if made after the ones here.
    pub fn append(&mut self, other: Batch) {
        self.rows.extend(other.rows);
        self.at_position.extend(other.at_position);
        self.leap(other.leap);
        if self.error.is_none() {
            self.error = other.error;
        }
    }

    /// Whether the batch puts rows whose key begins with `prefix`, as far as it goes yet.
    pub fn puts<T: Table>(&self, prefix: impl Prefix<T::Key>) -> bool {
        let prefix = row_key::<T>(&prefix);
        let rows = self.rows.range(prefix.clone()..);
        rows.take_while(|(key, _)| key.starts_with(&prefix)).any(|(_, value)| value.is_some())
    }

    /// What the batch makes of a row: `None` if it does not touch it, `Some(None)` if it deletes it.
    pub(crate) fn pending<T: Table>(
        &self,
        key: &T::Key,
    ) -> Result<Option<Option<T::Value>>, StoreError> {
        let key = row_key::<T>(key);
        match self.rows.get(&key) {
            None => Ok(None),
            Some(None) => Ok(Some(None)),
            Some(Some(bytes)) => match decode_value::<T>(bytes) {
                Ok(value) => Ok(Some(Some(value))),
                Err(problem) => Err(corrupt::<T>(&key, &problem)),
            },
        }
    }

    /// Bytes of the rows so far.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Vec::len)).sum()
    }

    /// The rows that the batch writes at its position.
    pub(crate) fn settle(
        mut self,
        position: u64,
    ) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>, StoreError> {
        while !self.at_position.is_empty() {
            for f in std::mem::take(&mut self.at_position) {
                f(position, &mut self);
            }
        }
        match self.error {
            None => Ok(self.rows),
            Some(error) => Err(error),
        }
    }

    #[cfg(test)]
    pub(crate) fn put_raw(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.rows.insert(key, Some(value));
    }
}
