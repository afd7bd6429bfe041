//! How long to wait after failures in a row.

use std::time::Duration;

/// Doubles from `first` to `last`, half of it fixed and half of it random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub last: Duration,
}

impl Backoff {
    /// The wait after so many failures; `jitter` is from 0 to 1.
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.first.saturating_mul(1 << doublings).min(self.last);
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 1.0 };
        full / 2 + (full / 2).mul_f64(jitter)
    }

    /// The same as a time of the clock.
    pub(crate) fn retry_at(&self, now: u64, failures: u32, jitter: f64) -> u64 {
        now.saturating_add(millis(self.delay(failures, jitter)))
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_last() {
        let backoff = Backoff { first: Duration::from_secs(1), last: Duration::from_secs(3600) };
        let seconds = |failures| backoff.delay(failures, 1.0).as_secs();
        assert_eq!([1, 2, 3, 4].map(seconds), [1, 2, 4, 8]);
        assert_eq!([12, 13, 1000, u32::MAX].map(seconds), [2048, 3600, 3600, 3600]);
        assert_eq!(backoff.delay(2, 0.0), Duration::from_secs(1));
        assert_eq!(backoff.delay(2, f64::NAN), Duration::from_secs(2));
    }
}
