//! A range of rows, read by an iterator that others have used and will use again: to make one, and to
//! let go of it, takes as long as reading a dozen rows.

use std::sync::{Mutex, PoisonError};

use rocksdb::DBRawIterator;

use super::{Row, Rows, StoreError, io};

/// Deleted rows in a row that an iterator passes over. It has no bounds, so it may meet those beyond
/// the range.
pub(super) const MAX_DELETED: u64 = 100;

/// Iterators that are not in use.
#[derive(Default)]
pub(super) struct Idle<'a>(Mutex<Vec<DBRawIterator<'a>>>);

impl<'a> Idle<'a> {
    pub fn take(&self) -> Option<DBRawIterator<'a>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, rows: DBRawIterator<'a>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(rows);
    }
}

pub(super) struct Range<'s, 'a, F> {
    pub idle: &'s Idle<'a>,
    /// `None` when the range has come to its end.
    pub rows: Option<DBRawIterator<'a>>,
    /// What is left: from `start` (inclusive) to `end` (exclusive).
    pub start: Vec<u8>,
    pub end: Option<Vec<u8>>,
    pub reverse: bool,
    /// Whether the iterator stands on the row that was read last.
    pub began: bool,
    /// Reads what is left within bounds, past any number of deleted rows.
    pub bounded: F,
    pub rest: Option<Rows<'s>>,
}

impl<'s, F: Fn(&[u8], Option<&[u8]>) -> Rows<'s>> Range<'s, '_, F> {
    fn step(&mut self) -> Option<Result<Row, StoreError>> {
        let rows = self.rows.as_mut()?;
        match (self.reverse, &self.end) {
            (false, _) if self.began => rows.next(),
            (true, _) if self.began => rows.prev(),
            (false, _) => rows.seek(&self.start),
            (true, None) => rows.seek_to_last(),
            (true, Some(end)) => {
                rows.seek_for_prev(end);
                if rows.key() == Some(end) {
                    rows.prev();
                }
            }
        }
        self.began = true;
        let Some((key, value)) = rows.item() else {
            let outcome = rows.status();
            self.let_go();
            return match outcome.map_err(|e| io(&e)) {
                Ok(()) => None,
                Err(StoreError::NotInMemory) => {
                    self.rest = Some((self.bounded)(&self.start, self.end.as_deref()));
                    self.rest.as_mut()?.next()
                }
                Err(error) => Some(Err(error)),
            };
        };
        let is_within = key >= &*self.start && self.end.as_deref().is_none_or(|end| key < end);
        if !is_within {
            self.let_go();
            return None;
        }
        let row = (key.into(), value.into());
        match self.reverse {
            true => self.end = Some(key.to_owned()),
            false => {
                self.start.clear();
                self.start.extend_from_slice(key);
                self.start.push(0);
            }
        }
        Some(Ok(row))
    }
}

impl<'s, F: Fn(&[u8], Option<&[u8]>) -> Rows<'s>> Iterator for Range<'s, '_, F> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.rest {
            Some(rest) => rest.next(),
            None => self.step(),
        }
    }
}

impl<F> Range<'_, '_, F> {
    fn let_go(&mut self) {
        if let Some(rows) = self.rows.take() {
            self.idle.put(rows);
        }
    }
}

impl<F> Drop for Range<'_, '_, F> {
    fn drop(&mut self) {
        self.let_go();
    }
}
