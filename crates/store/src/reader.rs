//! Reading: one consistent snapshot, typed.

use std::marker::PhantomData;

use crate::engine::{self, Row};
use crate::key::Prefix;
use crate::table::{corrupt, decode_key, decode_value, row_key};
use crate::tables::Meta;
use crate::{RowOf, StoreError, Table};

/// Key of the last committed stream position in `Meta`.
pub(crate) const POSITION: &str = "position";

/// A consistent view of the store. Short-lived: it keeps old rows from being cleaned up.
pub struct Reader<'s> {
    snapshot: Box<dyn engine::Snapshot + 's>,
    position: u64,
    /// The position could not be read: neither can anything else.
    broken: Option<StoreError>,
}

impl<'s> Reader<'s> {
    /// `at_least` is a position from before the snapshot.
    pub(crate) fn new(snapshot: Box<dyn engine::Snapshot + 's>, at_least: u64) -> Self {
        let mut reader = Self { snapshot, position: at_least, broken: None };
        match reader.get::<Meta>(&POSITION.to_owned()) {
            Ok(position) => reader.position = position.unwrap_or(at_least),
            Err(error) => reader.broken = Some(error),
        }
        reader
    }

    pub fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>, StoreError> {
        self.check()?;
        let key = row_key::<T>(key);
        match self.snapshot.get(&key)? {
            None => Ok(None),
            Some(bytes) => match decode_value::<T>(&bytes) {
                Ok(value) => Ok(Some(value)),
                Err(problem) => Err(corrupt::<T>(&key, &problem)),
            },
        }
    }

    /// The stream position of the last batch that this snapshot has seen.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Rows whose key begins with `prefix`: `()` for all, or the first parts of the key.
    pub fn scan<T: Table>(&self, prefix: impl Prefix<T::Key>) -> Scan<'_, T> {
        let start = row_key::<T>(&prefix);
        let end = engine::after_prefix(&start);
        let (reverse, limit) = (false, usize::MAX);
        Scan { reader: self, start, end, reverse, limit, table: PhantomData }
    }

    fn check(&self) -> Result<(), StoreError> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Whether the row is there. Its value is not looked at.
    pub fn contains<T: Table>(&self, key: &T::Key) -> Result<bool, StoreError> {
        self.check()?;
        Ok(self.snapshot.get(&row_key::<T>(key))?.is_some())
    }

    /// Rows as they are, for the verifier.
    pub(crate) fn raw<T: Table>(&self) -> engine::Rows<'_> {
        self.raw_prefix(T::PREFIX)
    }

    pub(crate) fn raw_prefix(&self, prefix: u8) -> engine::Rows<'_> {
        self.snapshot.range(&[prefix], engine::after_prefix(&[prefix]).as_deref(), false)
    }
}

/// A range of a table's rows. Bounds are in key order, whatever the direction.
#[must_use]
pub struct Scan<'r, T> {
    reader: &'r Reader<'r>,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    reverse: bool,
    limit: usize,
    table: PhantomData<fn() -> T>,
}

impl<'r, T: Table> Scan<'r, T> {
    /// Only rows after this key, and after every key that it is a prefix of.
    pub fn after(self, key: impl Prefix<T::Key>) -> Self {
        match engine::after_prefix(&row_key::<T>(&key)) {
            Some(start) => self.starting(start),
            None => self.limit(0),
        }
    }

    /// Only this key and rows after it.
    pub fn from(self, key: impl Prefix<T::Key>) -> Self {
        let start = row_key::<T>(&key);
        self.starting(start)
    }

    /// Only rows before this key.
    pub fn before(mut self, key: impl Prefix<T::Key>) -> Self {
        let end = row_key::<T>(&key);
        if self.end.as_ref().is_none_or(|known| end < *known) {
            self.end = Some(end);
        }
        self
    }

    /// Largest key first.
    pub fn rev(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// At most this many rows.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = self.limit.min(limit);
        self
    }

    pub fn collect(self) -> Result<Vec<RowOf<T>>, StoreError> {
        self.iter().collect()
    }

    /// The first row in the scan's direction.
    pub fn first(self) -> Result<Option<RowOf<T>>, StoreError> {
        self.iter().next().transpose()
    }

    /// Keys alone; the values are not looked at.
    pub fn keys(self) -> Result<Vec<T::Key>, StoreError> {
        self.rows().map(|row| key_of::<T>(&row?.0)).collect()
    }

    /// Row by row.
    pub fn iter(self) -> impl Iterator<Item = Result<RowOf<T>, StoreError>> + 'r {
        self.rows().map(|row| {
            let (key, value) = row?;
            match decode_value::<T>(&value) {
                Ok(value) => Ok((key_of::<T>(&key)?, value)),
                Err(problem) => Err(corrupt::<T>(&key, &problem)),
            }
        })
    }

    fn rows(self) -> impl Iterator<Item = Result<Row, StoreError>> + 'r {
        let rows = match self.reader.check() {
            Ok(()) => self.reader.snapshot.range(&self.start, self.end.as_deref(), self.reverse),
            Err(error) => Box::new(std::iter::once(Err(error))),
        };
        rows.take(self.limit)
    }

    fn starting(mut self, start: Vec<u8>) -> Self {
        self.start = self.start.max(start);
        self
    }
}

fn key_of<T: Table>(row_key: &[u8]) -> Result<T::Key, StoreError> {
    decode_key::<T>(row_key).map_err(|problem| corrupt::<T>(row_key, &problem))
}
