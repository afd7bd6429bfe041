use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::Instant;

/// Where every clock of a simulation begins.
const BEGINNING: u64 = 1_700_000_000_000;

/// The time that servers are told.
#[derive(Clone)]
pub struct SimClock(Source);

#[derive(Clone)]
enum Source {
    /// Stands still but for the millisecond that each look at it takes.
    Looks(Arc<AtomicU64>),
    /// Goes with the runtime's time, which a simulation pauses; ahead of it by some milliseconds.
    Runtime { began: Instant, ahead: u64 },
}

impl Default for SimClock {
    fn default() -> Self {
        Self(Source::Looks(Arc::new(AtomicU64::new(BEGINNING))))
    }
}

impl SimClock {
    /// A clock that goes with the runtime's time from now on. Needs a runtime.
    pub fn of_runtime() -> Self {
        Self(Source::Runtime { began: Instant::now(), ahead: 0 })
    }

    /// The same clock as a server has it that is ahead of the others.
    pub fn ahead_by(&self, ms: u64) -> Self {
        match &self.0 {
            Source::Runtime { began, ahead } => {
                Self(Source::Runtime { began: *began, ahead: ahead + ms })
            }
            Source::Looks(_) => self.clone(),
        }
    }

    pub fn now(&self) -> u64 {
        match &self.0 {
            Source::Looks(now) => now.fetch_add(1, Ordering::SeqCst),
            Source::Runtime { began, ahead } => {
                let elapsed = began.elapsed().as_millis();
                BEGINNING + ahead + u64::try_from(elapsed).unwrap_or(u64::MAX)
            }
        }
    }

    /// Moves a clock that stands still. The runtime's time is moved by waiting.
    pub fn advance(&self, ms: u64) {
        if let Source::Looks(now) = &self.0 {
            now.fetch_add(ms, Ordering::SeqCst);
        }
    }
}
