//! From a server name to addresses: the steps of the server-server API, "Resolving server names",
//! over lookups that are parameters.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use async_trait::async_trait;
use exeunt_core::ruma::{OwnedServerName, ServerName};
use thiserror::Error;
use tracing::debug;

/// The port of federation where nothing names another.
pub const DEFAULT_PORT: u16 = 8448;
/// How many targets of an SRV answer are looked up.
const MAX_TARGETS: usize = 8;
/// How many addresses of a destination are tried.
const MAX_ADDRESSES: usize = 16;

/// An SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// Without the final dot; empty for "no such service here".
    pub target: String,
}

/// Records and how long they may be kept. No records is an answer, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    pub records: Vec<T>,
    pub ttl_ms: u64,
}

/// A DNS lookup that gave no answer at all: SERVFAIL, no resolver, timeout.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct DnsError(pub String);

/// DNS as discovery needs it.
#[async_trait]
pub trait Dns: Send + Sync {
    /// The addresses of a host (AAAA and A, through CNAMEs).
    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, DnsError>;
    /// The SRV records under a full name such as `_matrix-fed._tcp.example.org`.
    async fn services(&self, name: &str) -> Result<Answer<Srv>, DnsError>;
}

/// Why `/.well-known/matrix/server` gave no delegation; resolution goes on without it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct WellKnownError(pub String);

/// The well-known lookup as discovery needs it.
#[async_trait]
pub trait WellKnown: Send + Sync {
    /// The `m.server` that a host publishes.
    async fn delegation(&self, host: &str) -> Result<OwnedServerName, WellKnownError>;
}

/// What the well-known step brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delegation {
    /// The name has a port or is an address, or the route is configured.
    NotAsked,
    To(OwnedServerName),
    None(WellKnownError),
}

/// The step that gave the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Routed by configuration.
    Override,
    IpLiteral,
    ExplicitPort,
    /// `_matrix-fed._tcp`.
    Srv,
    /// `_matrix._tcp`, deprecated.
    OldSrv,
    DefaultPort,
}

/// Where requests for a server go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The `Host` header.
    pub host: String,
    /// The name or address that the certificate must be valid for.
    pub certificate: String,
    /// In the order they are tried.
    pub addresses: Vec<SocketAddr>,
    pub delegation: Delegation,
    pub step: Step,
}

/// A server that cannot be found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ResolveError {
    #[error("{0:?} is not a host name or an address")]
    Name(String),
    #[error("looking up {host} in DNS failed: {error}")]
    Dns { host: String, error: DnsError },
    #[error("{0} has no address in DNS (no AAAA, A or CNAME record)")]
    NoAddress(String),
    #[error("the SRV record {0} says that there is no federation")]
    NoService(String),
}

/// A server name taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An address, with the port to connect to.
    Ip(SocketAddr),
    HostPort(String, u16),
    Host(String),
}

impl Target {
    /// Takes a server name apart. Stricter than the grammar: a host of digits that URLs would
    /// read as an address (`2130706433`, `0x7f.1`) is refused.
    pub fn parse(name: &ServerName) -> Result<Self, ResolveError> {
        let error = || ResolveError::Name(name.as_str().chars().take(255).collect());
        let text = name.as_str();
        let (host, port) = match text.rfind(':').filter(|_| !text.ends_with(']')) {
            Some(colon) => {
                (&text[..colon], Some(text[colon + 1..].parse::<u16>().map_err(|_| error())?))
            }
            None => (text, None),
        };
        if port == Some(0) || host.is_empty() || host.len() > 253 {
            return Err(error());
        }
        let address = if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'))
        {
            Some(IpAddr::V6(inner.parse::<Ipv6Addr>().map_err(|_| error())?))
        } else {
            host.parse().ok().filter(IpAddr::is_ipv4)
        };
        if let Some(address) = address {
            return Ok(Self::Ip(SocketAddr::new(address, port.unwrap_or(DEFAULT_PORT))));
        }
        let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        let number = last.chars().all(|c| c.is_ascii_digit())
            || last.starts_with("0x")
            || last.starts_with("0X");
        if number || !host.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.') {
            return Err(error());
        }
        let host = host.to_owned();
        Ok(port.map_or_else(|| Self::Host(host.clone()), |port| Self::HostPort(host.clone(), port)))
    }

    /// What the certificate must be valid for.
    pub fn certificate(&self) -> String {
        match self {
            Self::Ip(address) => address.ip().to_string(),
            Self::HostPort(host, _) | Self::Host(host) => host.clone(),
        }
    }
}

/// A name after the well-known step: what to connect to, and what to say in `Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub target: Target,
    pub host: String,
    pub delegation: Delegation,
}

/// Steps 1 to 3: literal, port, or delegation. A delegated name is not delegated further.
pub async fn route(name: &ServerName, well_known: &dyn WellKnown) -> Result<Route, ResolveError> {
    let plain = |target, delegation| Route { target, host: name.to_string(), delegation };
    let target = Target::parse(name)?;
    let Target::Host(host) = &target else {
        return Ok(plain(target, Delegation::NotAsked));
    };
    let to = match well_known.delegation(host).await {
        Ok(to) => to,
        Err(error) => return Ok(plain(target, Delegation::None(error))),
    };
    match Target::parse(&to) {
        Ok(target) => Ok(Route { target, host: to.to_string(), delegation: Delegation::To(to) }),
        Err(error) => {
            Ok(plain(target, Delegation::None(WellKnownError(format!("m.server: {error}")))))
        }
    }
}

/// Steps 3.1 to 6: the addresses of a target. `pick(n)` gives a number from 0 to n, to spread
/// load over SRV weights.
pub async fn addresses(
    target: &Target,
    dns: &dyn Dns,
    pick: &(dyn Fn(u32) -> u32 + Sync),
) -> Result<(Vec<SocketAddr>, Step), ResolveError> {
    match target {
        Target::Ip(address) => Ok((vec![*address], Step::IpLiteral)),
        Target::HostPort(host, port) => {
            Ok((host_addresses(host, *port, dns).await?, Step::ExplicitPort))
        }
        Target::Host(host) => {
            for (service, step) in [("_matrix-fed", Step::Srv), ("_matrix", Step::OldSrv)] {
                let name = format!("{service}._tcp.{host}");
                // A DNS server that fails on SRV must not make the server unreachable.
                let records =
                    dns.services(&name).await.map(|a| a.records).unwrap_or_else(|error| {
                        debug!(name, %error, "SRV lookup failed; going on as if there were none");
                        Vec::new()
                    });
                if !records.is_empty() {
                    return Ok((service_addresses(&name, records, dns, pick).await?, step));
                }
            }
            Ok((host_addresses(host, DEFAULT_PORT, dns).await?, Step::DefaultPort))
        }
    }
}

/// All steps.
pub async fn resolve(
    name: &ServerName,
    well_known: &dyn WellKnown,
    dns: &dyn Dns,
    pick: &(dyn Fn(u32) -> u32 + Sync),
) -> Result<Destination, ResolveError> {
    let Route { target, host, delegation } = route(name, well_known).await?;
    let (addresses, step) = addresses(&target, dns, pick).await?;
    Ok(Destination { host, certificate: target.certificate(), addresses, delegation, step })
}

async fn host_addresses(
    host: &str,
    port: u16,
    dns: &dyn Dns,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let answer = dns.addresses(host).await;
    let answer = answer.map_err(|error| ResolveError::Dns { host: host.into(), error })?;
    if answer.records.is_empty() {
        return Err(ResolveError::NoAddress(host.into()));
    }
    let with_port = |ip| SocketAddr::new(ip, port);
    Ok(answer.records.into_iter().take(MAX_ADDRESSES).map(with_port).collect())
}

async fn service_addresses(
    name: &str,
    records: Vec<Srv>,
    dns: &dyn Dns,
    pick: &(dyn Fn(u32) -> u32 + Sync),
) -> Result<Vec<SocketAddr>, ResolveError> {
    let targets: Vec<Srv> = records.into_iter().filter(|r| !r.target.is_empty()).collect();
    if targets.is_empty() {
        return Err(ResolveError::NoService(name.into()));
    }
    let mut found = Vec::new();
    let mut failure = None;
    for srv in in_order(targets, pick).into_iter().take(MAX_TARGETS) {
        match host_addresses(&srv.target, srv.port, dns).await {
            Ok(addresses) => found.extend(addresses),
            Err(error) => failure = Some(error),
        }
    }
    found.truncate(MAX_ADDRESSES);
    match failure {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// Priority order; within a priority a weighted shuffle (RFC 2782).
fn in_order(mut records: Vec<Srv>, pick: &(dyn Fn(u32) -> u32 + Sync)) -> Vec<Srv> {
    // Weight 0 first, so that it is chosen only when the dice say 0.
    records.sort_by(|a, b| {
        (a.priority, a.weight, &a.target, a.port).cmp(&(b.priority, b.weight, &b.target, b.port))
    });
    records.truncate(4 * MAX_TARGETS);
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|r| r.priority) {
        let group = records.iter().take_while(|r| r.priority == priority);
        let total = group.clone().map(|r| u32::from(r.weight)).sum();
        let dice = pick(total);
        let mut sum = 0;
        let chosen = group
            .map(|r| {
                sum += u32::from(r.weight);
                sum
            })
            .position(|sum| sum >= dice);
        ordered.push(records.remove(chosen.unwrap_or(0)));
    }
    ordered
}
