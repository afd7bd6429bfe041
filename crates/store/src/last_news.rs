//! Of which rooms or users something is new, so that others are not read.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::Batch;

/// Keys whose last news is known. Beyond that all are forgotten, and each is looked at once.
const MAX_KEYS: usize = 20_000;

/// The position of the last news of each key.
pub struct LastNews<K>(Arc<Mutex<State<K>>>);

struct State<K> {
    known: HashMap<K, u64>,
    /// Keys that are not listed have nothing newer.
    others: u64,
}

impl<K> Clone for LastNews<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Hash + Eq + Send + 'static> LastNews<K> {
    /// `position`: of the store at the start.
    pub fn new(position: u64) -> Self {
        Self(Arc::new(Mutex::new(State { known: HashMap::new(), others: position })))
    }

    /// The batch is news of the key. It is noted while the position is given out, so that no
    /// `/sync` passes it by.
    pub fn note_with(&self, batch: &mut Batch, key: K) {
        let index = self.clone();
        batch.at_position(move |position, _| index.note(key, position));
    }

    fn note(&self, key: K, position: u64) {
        let mut state = self.lock();
        if state.known.len() >= MAX_KEYS && !state.known.contains_key(&key) {
            state.known.clear();
            state.others = position;
        }
        let known = state.known.entry(key).or_default();
        *known = position.max(*known);
    }

    /// Whether there may be news from after that position.
    pub fn may_be_after<Q>(&self, since: u64, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let state = self.lock();
        state.known.get(key).copied().unwrap_or(state.others) > since
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_news_is_missed_when_keys_are_forgotten() {
        let (index, one) = (LastNews::<String>::new(5), "one");
        assert!(index.may_be_after(4, one) && !index.may_be_after(5, one));
        index.note(one.to_owned(), 7);
        assert!(index.may_be_after(6, one) && !index.may_be_after(7, one));
        for n in 0..MAX_KEYS {
            index.note(n.to_string(), 8);
        }
        assert!(index.may_be_after(7, one) && !index.may_be_after(8, one));
        assert!(index.lock().known.len() <= MAX_KEYS);
    }
}
