//! Rate limits: how often each user, or each address, may ask for what.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use exeunt_http::MatrixError;
use exeunt_users::Clock;

/// Who asks often enough to be counted, over all classes. Beyond that those are forgotten who have
/// not asked lately, and if that does not help, all.
const MAX_COUNTED: usize = 50_000;

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Logging in, and other guesses at a secret: by address, by account.
    Login,
    /// Registering: by address.
    Registration,
    /// Messages, state and redactions.
    Sending,
    /// Joining, knocking, creating and upgrading rooms.
    Joins,
    Invites,
    /// Everything else, but for leaving, rejecting and logging out, which are never limited.
    Others,
}

/// So many requests at once, and as many again in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub requests: u32,
    pub per: Duration,
}

/// The rate of each class; `None`: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rates {
    pub login: Option<Rate>,
    pub registration: Option<Rate>,
    pub sending: Option<Rate>,
    pub joins: Option<Rate>,
    pub invites: Option<Rate>,
    pub others: Option<Rate>,
}

impl Rates {
    fn of(&self, class: Class) -> Option<Rate> {
        match class {
            Class::Login => self.login,
            Class::Registration => self.registration,
            Class::Sending => self.sending,
            Class::Joins => self.joins,
            Class::Invites => self.invites,
            Class::Others => self.others,
        }
    }
}

/// Counts requests as leaky buckets do (GCRA): of each bucket, when it will be empty is known.
pub(crate) struct Limits {
    rates: Rates,
    clock: Clock,
    hasher: RandomState,
    /// By class and user or address, hashed: microseconds since the epoch.
    empty_at: Mutex<HashMap<u64, u64>>,
}

impl Limits {
    pub fn new(rates: Rates, clock: Clock) -> Self {
        Self { rates, clock, hasher: RandomState::new(), empty_at: Mutex::default() }
    }

    /// Counts requests of a user, or says when to come again: 429 `M_LIMIT_EXCEEDED`.
    pub fn take(&self, class: Class, who: &str, requests: usize) -> Result<(), MatrixError> {
        let Some(rate) = self.rates.of(class) else { return Ok(()) };
        let now = (self.clock)() * 1000;
        let full = micros(rate.per);
        let requests = u64::try_from(requests).unwrap_or(u64::MAX).min(rate.requests.into());
        let cost = full / u64::from(rate.requests).max(1) * requests;
        let key = self.hasher.hash_one((class, who));
        let mut buckets = self.empty_at.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let empty_at = buckets.get(&key).copied().unwrap_or(0).max(now) + cost;
        let wait = (empty_at - now).saturating_sub(full);
        if wait > 0 {
            return Err(MatrixError::limit_exceeded(wait.div_ceil(1000)));
        }
        if buckets.len() >= MAX_COUNTED && !buckets.contains_key(&key) {
            buckets.retain(|_, empty_at| *empty_at > now);
            if buckets.len() >= MAX_COUNTED {
                buckets.clear();
            }
        }
        buckets.insert(key, empty_at);
        Ok(())
    }

    /// The same of whoever has an address. A network of IPv6 counts as one.
    pub fn take_address(&self, class: Class, ip: Option<IpAddr>) -> Result<(), MatrixError> {
        let who = match ip {
            Some(IpAddr::V4(ip)) => ip.to_string(),
            Some(IpAddr::V6(ip)) => format!("{:x?}", &ip.segments()[..4]),
            None => String::new(),
        };
        self.take(class, &who, 1)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn limits(requests: u32, seconds: u64) -> (Limits, Arc<AtomicU64>) {
        let now = Arc::new(AtomicU64::new(1_700_000_000_000));
        let time = now.clone();
        let rate = Some(Rate { requests, per: Duration::from_secs(seconds) });
        let rates = Rates { sending: rate, login: rate, ..Rates::default() };
        (Limits::new(rates, Arc::new(move || time.load(Ordering::SeqCst))), now)
    }

    fn wait(refused: Result<(), MatrixError>) -> u64 {
        let error = refused.unwrap_err();
        assert_eq!((error.status, &*error.errcode), (429, "M_LIMIT_EXCEEDED"));
        error.extra["retry_after_ms"].as_u64().unwrap()
    }

    #[test]
    fn a_burst_and_then_a_steady_rate() {
        let (limits, now) = limits(5, 10);
        for _ in 0..5 {
            limits.take(Class::Sending, "@a:x", 1).unwrap();
        }
        assert_eq!(wait(limits.take(Class::Sending, "@a:x", 1)), 2_000);
        // Others are not concerned, nor other classes, nor those without a limit.
        limits.take(Class::Sending, "@b:x", 1).unwrap();
        limits.take(Class::Login, "@a:x", 1).unwrap();
        for _ in 0..1000 {
            limits.take(Class::Others, "@a:x", 1).unwrap();
        }
        now.fetch_add(1_500, Ordering::SeqCst);
        // A refusal costs nothing.
        assert_eq!(wait(limits.take(Class::Sending, "@a:x", 1)), 500);
        now.fetch_add(500, Ordering::SeqCst);
        limits.take(Class::Sending, "@a:x", 1).unwrap();
        assert_eq!(wait(limits.take(Class::Sending, "@a:x", 1)), 2_000);
        now.fetch_add(60_000, Ordering::SeqCst);
        for _ in 0..5 {
            limits.take(Class::Sending, "@a:x", 1).unwrap();
        }
        wait(limits.take(Class::Sending, "@a:x", 1));
    }

    #[test]
    fn many_at_once_cost_as_much_as_a_burst_at_most() {
        let (limits, _) = limits(5, 10);
        limits.take(Class::Sending, "@a:x", 100).unwrap();
        assert_eq!(wait(limits.take(Class::Sending, "@a:x", 3)), 6_000);
        limits.take(Class::Sending, "@a:x", 0).unwrap();
    }

    #[test]
    fn addresses_count_by_network() {
        let (limits, _) = limits(1, 10);
        let take = |ip: &str| limits.take_address(Class::Login, Some(ip.parse().unwrap()));
        take("2001:db8::1").unwrap();
        wait(take("2001:db8::2:3"));
        take("2001:db8:0:1::1").unwrap();
        take("192.0.2.1").unwrap();
        take("192.0.2.2").unwrap();
        wait(take("192.0.2.1"));
    }

    #[test]
    fn memory_is_bounded() {
        let (limits, _) = limits(1, 10);
        for i in 0..MAX_COUNTED * 2 + 1 {
            limits.take(Class::Login, &i.to_string(), 1).unwrap();
        }
        assert!(limits.empty_at.lock().unwrap().len() <= MAX_COUNTED);
    }
}
