//! A bounded cache with expiry, and a gate that lets one of many equal lookups through.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Values by name, each until its time. When full, what expires first goes first.
pub(crate) struct Cache<V> {
    limit: usize,
    entries: Mutex<BTreeMap<String, Entry<V>>>,
}

struct Entry<V> {
    until: u64,
    value: V,
}

impl<V: Clone> Cache<V> {
    pub fn new(limit: usize) -> Self {
        Self { limit, entries: Mutex::default() }
    }

    /// The value under `key`, if it has not expired at `now` (ms).
    pub fn get(&self, key: &str, now: u64) -> Option<V> {
        lock(&self.entries).get(key).filter(|e| now < e.until).map(|e| e.value.clone())
    }

    /// Keeps `value` until `until` (ms).
    pub fn put(&self, key: &str, value: V, until: u64, now: u64) {
        let mut entries = lock(&self.entries);
        if entries.len() >= self.limit && !entries.contains_key(key) {
            entries.retain(|_, e| now < e.until);
        }
        if entries.len() >= self.limit && !entries.contains_key(key) {
            let first = entries.iter().min_by_key(|(_, e)| e.until).map(|(key, _)| key.clone());
            if let Some(first) = first {
                entries.remove(&first);
            }
        }
        entries.insert(key.into(), Entry { until, value });
    }
}

/// Lets one task at a time work on a name, so that the others find its result in a cache.
#[derive(Default)]
pub(crate) struct Gates(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Gates {
    /// Waits for whoever works on `key`. Holds no more gates than there are waiting tasks.
    pub async fn enter(&self, key: &str) -> Gate<'_> {
        let mutex = lock(&self.0).entry(key.into()).or_default().clone();
        let mut gate = Gate { gates: self, key: key.into(), mutex: mutex.clone(), held: None };
        gate.held = Some(mutex.lock_owned().await);
        gate
    }
}

pub(crate) struct Gate<'a> {
    gates: &'a Gates,
    key: String,
    mutex: Arc<tokio::sync::Mutex<()>>,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        let mut gates = lock(&self.gates.0);
        self.held = None;
        // Two owners left: the map and this gate. New ones appear only under the map's lock.
        if Arc::strong_count(&self.mutex) == 2 {
            gates.remove(&self.key);
        }
    }
}

/// Locks a mutex whose data stays whole even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_expire_and_the_earliest_goes_first() {
        let cache = Cache::new(2);
        cache.put("a", 1, 100, 0);
        cache.put("b", 2, 200, 0);
        assert_eq!(cache.get("a", 99), Some(1));
        assert_eq!(cache.get("a", 100), None);
        cache.put("c", 3, 300, 0);
        assert_eq!(
            (cache.get("a", 0), cache.get("b", 0), cache.get("c", 0)),
            (None, Some(2), Some(3))
        );
    }

    #[tokio::test]
    async fn gates_exclude_and_leave_nothing_behind() {
        let gates = Gates::default();
        let first = gates.enter("x").await;
        assert!(futures_util::FutureExt::now_or_never(gates.enter("x")).is_none());
        assert!(futures_util::FutureExt::now_or_never(gates.enter("y")).is_some());
        drop(first);
        assert!(futures_util::FutureExt::now_or_never(gates.enter("x")).is_some());
        assert!(lock(&gates.0).is_empty());
    }
}
