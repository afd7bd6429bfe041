//! Notices, by the `Date` of an answer, that another server's clock and ours differ.
//!
//! Signing keys and certificates are valid for a time, so a clock that is wrong ends in refusals
//! that do not look like it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::time::SystemTime;

use exeunt_core::ruma::{OwnedServerName, ServerName};
use reqwest::header::{AGE, DATE, HeaderMap};

use crate::cache::lock;

/// Clocks may differ by this much: 5 minutes.
const TOLERANCE_MS: u64 = 5 * 60 * 1000;
/// A server is mentioned once in this time: an hour.
const QUIET_MS: u64 = 60 * 60 * 1000;
/// Most servers mentioned in that time: where our own clock is wrong, all of them differ.
const MAX_MENTIONED: usize = 5;

/// Warns about clocks, now and then.
#[derive(Default)]
pub(crate) struct ClockWatch {
    /// Until when (ms) nothing more is said about a server.
    mentioned: Mutex<BTreeMap<OwnedServerName, u64>>,
}

impl ClockWatch {
    /// Looks at an answer; `during` is when, by our clock (ms), it was asked for and came.
    pub fn look(&self, server: &ServerName, headers: &HeaderMap, during: RangeInclusive<u64>) {
        let now = *during.end();
        if let Some(skew) = skew(headers, during)
            && self.is_news(server, now)
        {
            tracing::warn!(
                %server,
                "the server's clock is {skew} this machine's; if this machine's is wrong, correct it \
                 (NTP), else the other server must"
            );
        }
    }

    fn is_news(&self, server: &ServerName, now: u64) -> bool {
        let mut mentioned = lock(&self.mentioned);
        mentioned.retain(|_, until| now < *until);
        if mentioned.len() >= MAX_MENTIONED || mentioned.contains_key(server) {
            return false;
        }
        mentioned.insert(server.to_owned(), now.saturating_add(QUIET_MS));
        true
    }
}

/// By how much another clock differs from ours, in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skew {
    Ahead(u64),
    Behind(u64),
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ms, direction) = match self {
            Self::Ahead(ms) => (ms, "ahead of"),
            Self::Behind(ms) => (ms, "behind"),
        };
        let minutes = ms / 60_000;
        match minutes {
            0..120 => write!(f, "{minutes} minutes {direction}"),
            120..2_880 => write!(f, "{} hours {direction}", minutes / 60),
            _ => write!(f, "{} days {direction}", minutes / 1_440),
        }
    }
}

/// The difference, if it is worth a word. An answer from a cache (`Age`) tells nothing, and a
/// server may date its answer at any time between the request's start and the answer's.
fn skew(headers: &HeaderMap, during: RangeInclusive<u64>) -> Option<Skew> {
    if headers.contains_key(AGE) {
        return None;
    }
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let date = date.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis();
    let date = u64::try_from(date).ok()?;
    let ahead = date.saturating_sub(*during.end());
    let behind = during.start().saturating_sub(date);
    if ahead > TOLERANCE_MS {
        Some(Skew::Ahead(ahead))
    } else if behind > TOLERANCE_MS {
        Some(Skew::Behind(behind))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use exeunt_core::ruma::server_name;
    use reqwest::header::HeaderValue;

    use super::*;

    /// Tue, 14 Nov 2023 22:13:20 GMT.
    const DATED: u64 = 1_700_000_000_000;
    const MINUTE: u64 = 60_000;

    fn headers() -> HeaderMap {
        HeaderMap::from_iter([(DATE, HeaderValue::from_static("Tue, 14 Nov 2023 22:13:20 GMT"))])
    }

    #[test]
    fn a_difference_counts_from_the_nearer_end_of_the_exchange() {
        let skew = |asked, came| skew(&headers(), asked..=came);
        assert_eq!(skew(DATED - 5 * MINUTE, DATED - 5 * MINUTE), None);
        assert_eq!(skew(DATED - 9 * MINUTE, DATED - 6 * MINUTE), Some(Skew::Ahead(6 * MINUTE)));
        assert_eq!(skew(DATED + 6 * MINUTE, DATED + 9 * MINUTE), Some(Skew::Behind(6 * MINUTE)));
        assert_eq!(skew(DATED, DATED + 30 * MINUTE), None, "it was dated when it was asked for");
    }

    #[test]
    fn without_a_date_of_its_own_an_answer_tells_nothing() {
        let far = DATED * 2;
        let mut cached = headers();
        cached.insert(AGE, HeaderValue::from_static("7200"));
        assert_eq!(skew(&cached, far..=far), None);
        for text in ["", "yesterday", "Tue, 14 Nov 1923 22:13:20 GMT"] {
            let mut other = headers();
            other.insert(DATE, HeaderValue::from_str(text).unwrap());
            assert_eq!(skew(&other, far..=far), None, "{text}");
        }
        assert_eq!(skew(&HeaderMap::new(), far..=far), None);
    }

    #[test]
    fn a_difference_is_written_in_words() {
        let words = |minutes| Skew::Behind(minutes * MINUTE).to_string();
        assert_eq!(words(119), "119 minutes behind");
        assert_eq!(words(47 * 60), "47 hours behind");
        assert_eq!(words(60 * 24 * 30), "30 days behind");
        assert_eq!(Skew::Ahead(6 * MINUTE).to_string(), "6 minutes ahead of");
    }

    #[test]
    fn a_server_is_mentioned_once_an_hour_and_only_some_are() {
        let watch = ClockWatch::default();
        let (a, b) = (server_name!("a.test"), server_name!("b.test"));
        assert!(watch.is_news(a, 0));
        assert!(!watch.is_news(a, QUIET_MS - 1));
        assert!(watch.is_news(b, 10));
        assert!(watch.is_news(a, QUIET_MS));
        for n in 2..MAX_MENTIONED {
            let name: OwnedServerName = format!("s{n}.test").try_into().unwrap();
            assert!(watch.is_news(&name, QUIET_MS));
        }
        assert!(watch.is_news(server_name!("late.test"), 2 * QUIET_MS));
        assert_eq!(lock(&watch.mentioned).len(), 1);
        let many = |n: usize| -> OwnedServerName { format!("m{n}.test").try_into().unwrap() };
        let said = (0..20).filter(|&n| watch.is_news(&many(n), 2 * QUIET_MS)).count();
        assert_eq!(said, MAX_MENTIONED - 1);
    }
}
