use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A clock that stands still but for the millisecond that each look at it takes.
#[derive(Clone)]
pub struct SimClock(Arc<AtomicU64>);

impl Default for SimClock {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(1_700_000_000_000)))
    }
}

impl SimClock {
    pub fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}
