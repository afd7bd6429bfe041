//! `/.well-known/matrix/server`: fetched, checked, remembered.
//!
//! Specification: server-server API, "Resolving server names", step 3.

use std::time::Duration;

use async_trait::async_trait;
use exeunt_core::ruma::OwnedServerName;
use reqwest::header::{CACHE_CONTROL, DATE, EXPIRES, HeaderMap};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use rustls::ClientConfig;
use serde_json::Value;

use crate::Clock;
use crate::answer;
use crate::cache::{Cache, Gates};
use crate::discovery::{Target, WellKnown, WellKnownError};
use crate::error::{RequestError, SetupError, clean};
use crate::routes::{Resolver, builder};

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BODY: usize = 50 * 1024;
const MAX_REDIRECTS: usize = 5;
/// Hosts remembered.
const MAX_CACHED: usize = 20_000;
const HOUR_MS: u64 = 3_600_000;
/// Without headers 24 hours, at most 48 (the specification's advice), at least 5 minutes.
const DEFAULT_TTL_MS: u64 = 24 * HOUR_MS;
const MAX_TTL_MS: u64 = 48 * HOUR_MS;
const MIN_TTL_MS: u64 = HOUR_MS / 12;
/// Failures: 2 minutes, doubled each time up to an hour.
const FIRST_FAILURE_TTL_MS: u64 = 120_000;
const MAX_FAILURE_TTL_MS: u64 = HOUR_MS;
/// How long a name is remembered: what we knew outlives a short failure of its web server.
const MEMORY_MS: u64 = 2 * MAX_TTL_MS;

/// The well-known lookup over HTTPS, with a cache.
pub(crate) struct HttpWellKnown {
    client: Client,
    clock: Clock,
    known: Cache<Known>,
    gates: Gates,
}

#[derive(Clone)]
struct Known {
    outcome: Result<OwnedServerName, WellKnownError>,
    /// When to ask again.
    fresh_until: u64,
    /// Up to when `outcome` may stand in for a failing server, if it is a name.
    good_until: u64,
    failures: u32,
}

/// A delegation, and for how long.
struct Fetched {
    to: OwnedServerName,
    ttl_ms: u64,
}

impl HttpWellKnown {
    pub fn new(tls: &ClientConfig, resolver: Resolver, clock: Clock) -> Result<Self, SetupError> {
        let client = builder(tls, resolver)
            .redirect(Policy::limited(MAX_REDIRECTS))
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self { client, clock, known: Cache::new(MAX_CACHED), gates: Gates::default() })
    }

    async fn fetch(&self, host: &str) -> Result<Fetched, Failure> {
        let url = format!("https://{host}/.well-known/matrix/server");
        let response = self.client.get(url).send().await.map_err(|e| Failure::of_http(&e))?;
        let status = response.status();
        if status != StatusCode::OK {
            let lasting = status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
            return Err(Failure { lasting, text: format!("status {}", status.as_u16()) });
        }
        let ttl_ms = time_to_live(response.headers(), (self.clock)());
        let body = match answer::bytes(response, MAX_BODY).await {
            Ok(body) => body,
            Err(error) => {
                let lasting = matches!(error, RequestError::Misbehaved(_));
                return Err(Failure { lasting, text: error.to_string() });
            }
        };
        let to = parse(&body).map_err(|text| Failure { lasting: true, text })?;
        Ok(Fetched { to, ttl_ms })
    }

    /// What to remember after a fetch.
    fn learn(&self, old: Option<Known>, fetched: Result<Fetched, Failure>, now: u64) -> Known {
        let failure = match fetched {
            Ok(Fetched { to, ttl_ms }) => {
                let good_until = now.saturating_add(ttl_ms.max(MAX_TTL_MS));
                let fresh_until = now.saturating_add(ttl_ms);
                return Known { outcome: Ok(to), fresh_until, good_until, failures: 0 };
            }
            Err(failure) => failure,
        };
        let failures = old.as_ref().map_or(0, |k| k.failures).saturating_add(1);
        let ttl = FIRST_FAILURE_TTL_MS << (failures - 1).min(16);
        let fresh_until = now.saturating_add(ttl.min(MAX_FAILURE_TTL_MS));
        let error = WellKnownError(failure.text);
        match old {
            Some(Known { outcome: Ok(to), good_until, .. })
                if !failure.lasting && now < good_until =>
            {
                Known { outcome: Ok(to), fresh_until, good_until, failures }
            }
            _ => Known { outcome: Err(error), fresh_until, good_until: now, failures },
        }
    }
}

#[async_trait]
impl WellKnown for HttpWellKnown {
    async fn delegation(&self, host: &str) -> Result<OwnedServerName, WellKnownError> {
        let host = host.to_ascii_lowercase();
        let fresh = |known: &Known| (self.clock)() < known.fresh_until;
        if let Some(known) = self.known.get(&host, (self.clock)()).filter(fresh) {
            return known.outcome;
        }
        let _gate = self.gates.enter(&host).await;
        let old = self.known.get(&host, (self.clock)());
        if let Some(known) = old.clone().filter(fresh) {
            return known.outcome;
        }
        let fetched = self.fetch(&host).await;
        let now = (self.clock)();
        let known = self.learn(old, fetched, now);
        self.known.put(&host, known.clone(), now.saturating_add(MEMORY_MS), now);
        known.outcome
    }
}

/// A failed lookup; a lasting one is the host's answer, another may be an accident.
struct Failure {
    lasting: bool,
    text: String,
}

impl Failure {
    fn of_http(error: &reqwest::Error) -> Self {
        if error.is_redirect() {
            return Self { lasting: true, text: "too many redirects, or not to HTTPS".into() };
        }
        Self { lasting: false, text: RequestError::from_http(error).to_string() }
    }
}

/// The `m.server` of a body.
fn parse(body: &[u8]) -> Result<OwnedServerName, String> {
    let body: Value = serde_json::from_slice(body).map_err(|e| format!("not JSON ({e})"))?;
    let name = body.get("m.server").and_then(Value::as_str).ok_or("it has no m.server")?;
    let invalid = || format!("m.server is no server name: {:?}", clean(name));
    let name = OwnedServerName::try_from(name).map_err(|_| invalid())?;
    Target::parse(&name).map_err(|_| invalid())?;
    Ok(name)
}

/// How long an answer may be kept, by its `Cache-Control` or `Expires`.
fn time_to_live(headers: &HeaderMap, now: u64) -> u64 {
    let header = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let directives = headers.get_all(CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok());
    let directives: Vec<_> = directives
        .flat_map(|v| v.split(','))
        .map(|d| d.trim().trim_matches('"').to_ascii_lowercase())
        .collect();
    if directives.iter().any(|d| d == "no-store" || d == "no-cache") {
        return MIN_TTL_MS;
    }
    let age = directives.iter().find_map(|d| d.strip_prefix("max-age=")).map(|s| {
        s.trim_matches('"').parse::<u64>().map_or(MIN_TTL_MS, |s| s.saturating_mul(1_000))
    });
    let at = |text: &str| {
        let time = httpdate::parse_http_date(text).ok()?;
        let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    };
    // A date that cannot be read means "already expired" (RFC 9111, 5.3).
    let expires = header(EXPIRES).map(|text| {
        let from = header(DATE).and_then(at).unwrap_or(now);
        at(text).map_or(0, |until| until.saturating_sub(from))
    });
    age.or(expires).unwrap_or(DEFAULT_TTL_MS).clamp(MIN_TTL_MS, MAX_TTL_MS)
}

#[cfg(test)]
mod tests;
