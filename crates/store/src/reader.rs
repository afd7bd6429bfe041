//! Reading: one consistent snapshot, typed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use crate::derived::{self, Derived};
use crate::engine::{self, Row};
use crate::key::Prefix;
use crate::snapshot::Node;
use crate::table::{corrupt, decode_key, decode_value, row_key};
use crate::tables::{Meta, StateNodes};
use crate::{RowOf, StoreError, Table};

/// Key of the last committed stream position in `Meta`.
pub(crate) const POSITION: &str = "position";

/// Items that a read does on one thread before it looks for others.
const PART: usize = 5;
/// Rows that are read forwards though the last are wanted first.
const FEW: usize = 100;
/// Most state nodes that a reader keeps: a few times those of a small room.
const MAX_NODES: usize = 100;

/// A consistent view of the store. Short-lived: it keeps old rows from being cleaned up.
pub struct Reader<'s> {
    snapshot: Box<dyn engine::Snapshot + 's>,
    derived: &'s Derived,
    /// The stream position that the snapshot has reached, at least.
    reached: u64,
    /// Rows that may yet be looked at.
    allowance: Cell<usize>,
    gave_up: Cell<bool>,
    nodes: RefCell<HashMap<[u8; 16], Arc<Node>>>,
}

impl<'s> Reader<'s> {
    /// `reached`: the stream position before the snapshot was taken.
    pub(crate) fn new(
        snapshot: Box<dyn engine::Snapshot + 's>,
        derived: &'s Derived,
        reached: u64,
    ) -> Self {
        let (allowance, gave_up) = (Cell::new(usize::MAX), Cell::default());
        Self { snapshot, derived, reached, allowance, gave_up, nodes: RefCell::default() }
    }

    /// The reader gives up when it has looked at so many rows, or at one that is not in memory.
    pub(crate) fn with_allowance(self, rows: usize) -> Self {
        self.allowance.set(rows);
        self
    }

    /// Whether a row was not looked at: then whatever was made of the others means nothing.
    pub(crate) fn gave_up(&self) -> bool {
        self.gave_up.get()
    }

    pub fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>, StoreError> {
        let key = row_key::<T>(key);
        match self.row(&key)? {
            None => Ok(None),
            Some(bytes) => match decode_value::<T>(&bytes) {
                Ok(value) => Ok(Some(value)),
                Err(problem) => Err(corrupt::<T>(&key, &problem)),
            },
        }
    }

    /// What `make` makes of a row; `None` if there is no row. It is kept for later reads of the row as
    /// it stands, so it must not depend on anything else.
    pub fn derived<T: Table, D: Any + Send + Sync, E: From<StoreError>>(
        &self,
        key: &T::Key,
        make: impl FnOnce(T::Value) -> Result<D, E>,
    ) -> Result<Option<Arc<D>>, E> {
        const { assert!(derived::is_kept(T::PREFIX), "changes of the table are not noted") }
        let key = row_key::<T>(key);
        if let Some(known) = self.derived.get(&key, self.reached) {
            return Ok(Some(known));
        }
        let Some(row) = self.row(&key)? else { return Ok(None) };
        let value = decode_value::<T>(&row).map_err(|problem| corrupt::<T>(&key, &problem))?;
        let made = Arc::new(make(value)?);
        self.derived.put(key, row.len(), self.reached, made.clone());
        Ok(Some(made))
    }

    /// Does something that takes long in parts, on all processors: `f` gets items that follow one
    /// another, and a reader of the same snapshot. Its answers are in the order of the items.
    pub fn split<I: Send, R: Send>(
        &self,
        items: Vec<I>,
        f: impl Fn(&Reader<'_>, Vec<I>) -> R + Sync,
    ) -> Vec<R> {
        if items.len() <= PART {
            return vec![f(self, items)];
        }
        let Self { snapshot, derived, reached, .. } = self;
        let (snapshot, derived, reached) = (&**snapshot, *derived, *reached);
        let reader = || Reader::new(Box::new(snapshot), derived, reached);
        let parts = items.into_par_iter().chunks(PART);
        parts.map(|part| f(&reader(), part)).collect()
    }

    /// A node of a state tree. Those of a room are asked for many times over, by one reader.
    pub(crate) fn node(&self, id: &[u8; 16]) -> Result<Option<Arc<Node>>, StoreError> {
        if let Some(node) = self.nodes.borrow().get(id) {
            return Ok(Some(node.clone()));
        }
        let node = self.derived::<StateNodes, Node, StoreError>(id, Ok)?;
        let mut nodes = self.nodes.borrow_mut();
        if nodes.len() >= MAX_NODES {
            nodes.clear();
        }
        nodes.extend(node.clone().map(|node| (*id, node)));
        Ok(node)
    }

    /// The stream position of the last batch that this snapshot has seen.
    pub fn position(&self) -> Result<u64, StoreError> {
        Ok(self.get::<Meta>(&POSITION.to_owned())?.unwrap_or(0))
    }

    /// Rows whose key begins with `prefix`: `()` for all, or the first parts of the key.
    pub fn scan<T: Table>(&self, prefix: impl Prefix<T::Key>) -> Scan<'_, T> {
        let start = row_key::<T>(&prefix);
        let end = engine::after_prefix(&start);
        let (reverse, limit) = (false, usize::MAX);
        Scan { reader: self, start, end, reverse, limit, table: PhantomData }
    }

    /// Whether the row is there. Its value is not looked at.
    pub fn contains<T: Table>(&self, key: &T::Key) -> Result<bool, StoreError> {
        Ok(self.row(&row_key::<T>(key))?.is_some())
    }

    fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.allowed(self.snapshot.get(key))
    }

    /// Counts a row.
    fn allowed<R>(&self, row: Result<R, StoreError>) -> Result<R, StoreError> {
        let row = match self.allowance.get().checked_sub(1) {
            Some(rest) => {
                self.allowance.set(rest);
                row
            }
            None => Err(StoreError::NotInMemory),
        };
        if let Err(StoreError::NotInMemory) = row {
            self.gave_up.set(true);
        }
        row
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
        self.rows(self.reverse, self.limit).map(|row| key_of::<T>(&row?.0)).collect()
    }

    /// Row by row.
    pub fn iter(self) -> impl Iterator<Item = Result<RowOf<T>, StoreError>> + 'r {
        self.rows(self.reverse, self.limit).map(row_of::<T>)
    }

    /// Row by row, largest key first, of what mostly has few rows: those are read forwards, at half
    /// the cost.
    pub fn iter_back(self) -> Box<dyn Iterator<Item = Result<RowOf<T>, StoreError>> + 'r> {
        let rows: Vec<_> = self.rows(false, FEW + 1).collect();
        match rows.len() <= FEW {
            true => Box::new(rows.into_iter().rev().take(self.limit).map(row_of::<T>)),
            false => Box::new(self.rows(true, self.limit).map(row_of::<T>)),
        }
    }

    fn rows(
        &self,
        reverse: bool,
        limit: usize,
    ) -> impl Iterator<Item = Result<Row, StoreError>> + use<'r, T> {
        let reader = self.reader;
        let rows = reader.snapshot.range(&self.start, self.end.as_deref(), reverse);
        rows.take(limit).map(|row| reader.allowed(row))
    }

    fn starting(mut self, start: Vec<u8>) -> Self {
        self.start = self.start.max(start);
        self
    }
}

fn row_of<T: Table>(row: Result<Row, StoreError>) -> Result<RowOf<T>, StoreError> {
    let (key, value) = row?;
    match decode_value::<T>(&value) {
        Ok(value) => Ok((key_of::<T>(&key)?, value)),
        Err(problem) => Err(corrupt::<T>(&key, &problem)),
    }
}

fn key_of<T: Table>(row_key: &[u8]) -> Result<T::Key, StoreError> {
    decode_key::<T>(row_key).map_err(|problem| corrupt::<T>(row_key, &problem))
}

#[cfg(test)]
mod tests;
