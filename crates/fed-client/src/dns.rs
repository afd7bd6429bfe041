//! DNS: the system's resolver configuration, and a bounded cache in front of it.

use std::net::IpAddr;

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError as HickoryDnsError, NetError};
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::sync::Semaphore;
use tracing::warn;

use crate::Clock;
use crate::cache::Cache;
use crate::discovery::{Answer, Dns, DnsError, Srv};

/// Lookups in flight at once; a home router's resolver falls over long before a big one.
const MAX_LOOKUPS: usize = 64;
/// Names kept, for addresses and for services each.
const MAX_CACHED: usize = 20_000;
/// Bounds for what a record's own time to live says.
const MIN_TTL_MS: u64 = 5_000;
const MAX_TTL_MS: u64 = 3_600_000;
/// Bound for "there is no such record".
const MAX_NEGATIVE_TTL_MS: u64 = 300_000;
/// For "no such record" without a time to live.
const DEFAULT_NEGATIVE_TTL_MS: u64 = 60_000;
/// How long a failed lookup (SERVFAIL, timeout) is not repeated.
const FAILURE_TTL_MS: u64 = 10_000;

/// The resolver of `/etc/resolv.conf` and `/etc/hosts`.
pub(crate) struct SystemDns {
    /// A broken configuration fails lookups, not the start: static routes work without DNS.
    resolver: Result<TokioResolver, DnsError>,
}

impl SystemDns {
    pub fn new() -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
            let options = builder.options_mut();
            options.cache_size = 0;
            options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            builder.build()
        });
        let resolver = resolver.map_err(|error| {
            warn!(%error, "the DNS configuration of the system is unusable");
            DnsError(format!("the DNS configuration of the system is unusable: {error}"))
        });
        Self { resolver }
    }

    fn resolver(&self) -> Result<&TokioResolver, DnsError> {
        self.resolver.as_ref().map_err(Clone::clone)
    }
}

#[async_trait]
impl Dns for SystemDns {
    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, DnsError> {
        let answer = match self.resolver()?.lookup_ip(absolute(host)).await {
            Ok(found) => Ok(found.as_lookup().clone()),
            Err(error) => Err(error),
        };
        let address = |data: &RData| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(a) => Some(IpAddr::V6(a.0)),
            _ => None,
        };
        read(answer, address)
    }

    async fn services(&self, name: &str) -> Result<Answer<Srv>, DnsError> {
        let answer = self.resolver()?.lookup(absolute(name), RecordType::SRV).await;
        let service = |data: &RData| match data {
            RData::SRV(srv) => Some(Srv {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_ascii().trim_end_matches('.').to_owned(),
            }),
            _ => None,
        };
        read(answer, service)
    }
}

/// A name that search domains do not apply to.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn read<T>(
    answer: Result<Lookup, NetError>,
    pick: impl Fn(&RData) -> Option<T>,
) -> Result<Answer<T>, DnsError> {
    match answer {
        Ok(lookup) => {
            let ttl = lookup.answers().iter().map(|r| r.ttl).min();
            let ttl_ms = ttl.map_or(DEFAULT_NEGATIVE_TTL_MS, |s| u64::from(s) * 1_000);
            let records = lookup.answers().iter().filter_map(|r| pick(&r.data)).collect();
            Ok(Answer { records, ttl_ms })
        }
        Err(NetError::Dns(HickoryDnsError::NoRecordsFound(none))) => {
            let ttl = none.negative_ttl.map(|s| u64::from(s) * 1_000);
            Ok(Answer { records: Vec::new(), ttl_ms: ttl.unwrap_or(DEFAULT_NEGATIVE_TTL_MS) })
        }
        Err(error) => Err(DnsError(error.to_string())),
    }
}

/// Remembers answers, empty answers and failures, and bounds the lookups in flight.
pub(crate) struct CachedDns<D> {
    inner: D,
    clock: Clock,
    addresses: Cache<Result<Answer<IpAddr>, DnsError>>,
    services: Cache<Result<Answer<Srv>, DnsError>>,
    lookups: Semaphore,
}

impl<D: Dns> CachedDns<D> {
    pub fn new(inner: D, clock: Clock) -> Self {
        let (addresses, services) = (Cache::new(MAX_CACHED), Cache::new(MAX_CACHED));
        Self { inner, clock, addresses, services, lookups: Semaphore::new(MAX_LOOKUPS) }
    }

    async fn through<T: Clone>(
        &self,
        cache: &Cache<Result<Answer<T>, DnsError>>,
        name: &str,
        lookup: impl Future<Output = Result<Answer<T>, DnsError>>,
    ) -> Result<Answer<T>, DnsError> {
        let name = name.to_ascii_lowercase();
        if let Some(known) = cache.get(&name, (self.clock)()) {
            return known;
        }
        let _permit = self.lookups.acquire().await.map_err(|e| DnsError(e.to_string()))?;
        let answer = lookup.await;
        let ttl_ms = match &answer {
            Ok(a) if a.records.is_empty() => a.ttl_ms.clamp(MIN_TTL_MS, MAX_NEGATIVE_TTL_MS),
            Ok(a) => a.ttl_ms.clamp(MIN_TTL_MS, MAX_TTL_MS),
            Err(_) => FAILURE_TTL_MS,
        };
        let now = (self.clock)();
        cache.put(&name, answer.clone(), now.saturating_add(ttl_ms), now);
        answer
    }
}

#[async_trait]
impl<D: Dns> Dns for CachedDns<D> {
    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, DnsError> {
        if let Ok(address) = host.parse() {
            return Ok(Answer { records: vec![address], ttl_ms: MAX_TTL_MS });
        }
        self.through(&self.addresses, host, self.inner.addresses(host)).await
    }

    async fn services(&self, name: &str) -> Result<Answer<Srv>, DnsError> {
        self.through(&self.services, name, self.inner.services(name)).await
    }
}

#[cfg(test)]
mod tests;
