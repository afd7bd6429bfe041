//! What was made of rows, kept from one read to the next: events and state nodes are read many times
//! over, and rarely change.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Table;
use crate::engine::Changes;
use crate::tables::{Events, RoomStates, StateNodes};

/// Most bytes of rows whose values are kept, half of them for sure. The values take some times that.
const MAX_BYTES: usize = 3 << 20;
/// What a value takes beside what is its row's, at least.
const VALUE_BYTES: usize = 200;

type Value = Arc<dyn Any + Send + Sync>;

/// Values by the key of the row that they were made of. Each is as old as its row, so that a snapshot
/// finds what it would have made itself. What is written is noted before it is there.
#[derive(Default)]
pub(crate) struct Derived(Mutex<Values>);

/// Of values that are not asked for while half of [`MAX_BYTES`] comes in, the older half goes.
#[derive(Default)]
struct Values {
    entries: HashMap<Vec<u8>, Entry>,
    /// How often the older half went.
    generation: u64,
    /// Of the entries of this generation.
    bytes: usize,
    /// Rows that have no entry have not changed since this stream position.
    horizon: u64,
}

struct Entry {
    /// In which it was asked for last.
    generation: u64,
    bytes: usize,
    /// The stream position from which on the row is as it is.
    since: u64,
    /// `None` until somebody has read the row.
    value: Option<Value>,
}

/// Whether values of a table's rows may be kept.
pub(crate) const fn is_kept(prefix: u8) -> bool {
    matches!(prefix, Events::PREFIX | RoomStates::PREFIX | StateNodes::PREFIX)
}

impl Derived {
    /// What was made of a row that is the same in a snapshot of that stream position.
    pub fn get<D: Any + Send + Sync>(&self, key: &[u8], position: u64) -> Option<Arc<D>> {
        let mut values = self.lock();
        let entry = values.find(key).filter(|entry| entry.since <= position)?;
        let value = entry.value.clone()?;
        drop(values);
        value.downcast().ok()
    }

    /// Keeps what was made of a row, read in a snapshot of that stream position.
    pub fn put(&self, key: Vec<u8>, row_bytes: usize, position: u64, value: Value) {
        let mut values = self.lock();
        let since = values.find(&key).map(|entry| entry.since).unwrap_or(values.horizon);
        if since <= position {
            let bytes = key.len() + row_bytes + VALUE_BYTES;
            values.put(key, bytes, since, Some(value));
        }
    }

    /// Forgets what is being written, and will be there from a stream position on.
    pub fn change(&self, changes: &Changes, position: u64) {
        let mut values = self.lock();
        for key in changes.keys().filter(|key| key.first().is_some_and(|first| is_kept(*first))) {
            values.put(key.clone(), key.len(), position, None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Values {
    /// An entry, which is asked for again.
    fn find(&mut self, key: &[u8]) -> Option<&Entry> {
        let entry = self.entries.get_mut(key)?;
        if entry.generation < self.generation {
            entry.generation = self.generation;
            self.bytes += entry.bytes;
        }
        Some(entry)
    }

    fn put(&mut self, key: Vec<u8>, bytes: usize, since: u64, value: Option<Value>) {
        if self.bytes + bytes > MAX_BYTES / 2 {
            self.entries.retain(|_, entry| {
                let stays = entry.generation == self.generation;
                if !stays {
                    self.horizon = self.horizon.max(entry.since);
                }
                stays
            });
            self.generation += 1;
            self.bytes = 0;
        }
        self.bytes += bytes;
        let generation = self.generation;
        self.entries.insert(key, Entry { generation, bytes, since, value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Vec<u8> {
        let mut key = vec![Events::PREFIX];
        key.extend(number.to_be_bytes());
        key
    }

    fn changes(number: u64) -> Changes {
        Changes::from([(key(number), None)])
    }

    #[test]
    fn a_snapshot_finds_what_it_would_make() {
        let derived = Derived::default();
        let get = |position| derived.get::<u64>(&key(1), position).map(|value| *value);
        derived.put(key(1), 10, 5, Arc::new(7_u64));
        assert_eq!((get(4), get(5), get(6)), (Some(7), Some(7), Some(7)));
        assert_eq!(derived.get::<u32>(&key(1), 5), None);
        assert_eq!(derived.get::<u64>(&key(2), 5), None);

        derived.change(&changes(1), 6);
        assert_eq!((get(5), get(6)), (None, None));
        // A snapshot from before the change reads the row as it was.
        derived.put(key(1), 10, 5, Arc::new(7_u64));
        assert_eq!((get(5), get(6)), (None, None));
        derived.put(key(1), 10, 6, Arc::new(8_u64));
        assert_eq!((get(5), get(6), get(7)), (None, Some(8), Some(8)));
    }

    #[test]
    fn a_change_counts_when_it_is_forgotten_too() {
        let derived = Derived::default();
        derived.change(&changes(1), 6);
        for number in 2..10 {
            derived.put(key(number), MAX_BYTES / 4, 7, Arc::new(number));
        }
        derived.put(key(1), 10, 5, Arc::new(7_u64));
        assert!(derived.get::<u64>(&key(1), 5).is_none());
        derived.put(key(1), 10, 6, Arc::new(8_u64));
        assert_eq!(derived.get::<u64>(&key(1), 6).as_deref(), Some(&8));
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let derived = Derived::default();
        let row = 64 << 10;
        for number in 0..1_000 {
            derived.put(key(number), row, 1, Arc::new(number));
            assert!(derived.get::<u64>(&key(0), 1).is_some(), "{number}");
        }
        assert!(derived.get::<u64>(&key(1), 1).is_none());
        let kept = derived.lock().entries.len();
        assert!(kept * row <= MAX_BYTES, "{kept} rows are kept");
    }
}
