//! The one place that asks the operating system for the time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch; 0 for a clock that is set before it.
pub fn now_ms() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "everybody else is handed this")]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
