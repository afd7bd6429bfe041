//! What was made of rows, kept from one read to the next: events and state nodes are read many times
//! over, and rarely change.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most bytes of rows whose values are kept, half of them for sure. The values take some times that.
const MAX_BYTES: usize = 1 << 20;

type Value = Arc<dyn Any + Send + Sync>;

/// Values by the key of the row that they were made of. A value is found under the same bytes of
/// the row only, so that nothing is ever out of date, in whatever snapshot the row was read.
#[derive(Default)]
pub(crate) struct Derived(Mutex<Generations>);

/// Of values that are not asked for while half of [`MAX_BYTES`] comes in, the older half goes.
#[derive(Default)]
struct Generations {
    young: HashMap<Vec<u8>, Entry>,
    old: HashMap<Vec<u8>, Entry>,
    /// Of the young.
    bytes: usize,
}

struct Entry {
    row: Vec<u8>,
    value: Value,
}

impl Derived {
    pub fn get<D: Any + Send + Sync>(&self, key: &[u8], row: &[u8]) -> Option<Arc<D>> {
        let mut generations = self.lock();
        if let Some((key, entry)) = generations.old.remove_entry(key) {
            generations.put(key, entry);
        }
        let entry = generations.young.get(key).filter(|entry| entry.row == row)?;
        entry.value.clone().downcast().ok()
    }

    pub fn put(&self, key: Vec<u8>, row: Vec<u8>, value: Value) {
        self.lock().put(key, Entry { row, value });
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn put(&mut self, key: Vec<u8>, entry: Entry) {
        let bytes = key.len() + entry.row.len();
        if self.bytes + bytes > MAX_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.young.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_for_its_row_alone() {
        let derived = Derived::default();
        derived.put(b"key".to_vec(), b"row".to_vec(), Arc::new(7_u64));
        assert_eq!(derived.get::<u64>(b"key", b"row").as_deref(), Some(&7));
        assert_eq!(derived.get::<u64>(b"key", b"changed"), None);
        assert_eq!(derived.get::<u64>(b"other", b"row"), None);
        assert_eq!(derived.get::<u32>(b"key", b"row"), None);
        derived.put(b"key".to_vec(), b"changed".to_vec(), Arc::new(8_u64));
        assert_eq!(derived.get::<u64>(b"key", b"changed").as_deref(), Some(&8));
        assert_eq!(derived.get::<u64>(b"key", b"row"), None);
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let derived = Derived::default();
        let row = vec![0; 64 << 10];
        for number in 0..1_000_u64 {
            derived.put(number.to_be_bytes().to_vec(), row.clone(), Arc::new(number));
            assert!(derived.get::<u64>(&0_u64.to_be_bytes(), &row).is_some(), "{number}");
        }
        assert!(derived.get::<u64>(&1_u64.to_be_bytes(), &row).is_none());
        let generations = derived.lock();
        let kept = generations.young.len() + generations.old.len();
        assert!(kept * row.len() <= MAX_BYTES, "{kept} rows are kept");
    }
}
