//! The HTTP clients behind the federation client, one for each way a URL maps to addresses.
//!
//! A URL's authority is the `Host` value, the TLS name and the key of the connection pool at once,
//! so a connection is only ever reused for the destination it was made for. Addresses come from
//! our own resolver when a connection is made, and only then.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use exeunt_core::ruma::{OwnedServerName, ServerName};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Url};
use rustls::ClientConfig;

use crate::discovery::{self, Dns, ResolveError, Route, Step, Target};
use crate::error::{RequestError, SetupError, clean};

/// Time for DNS, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Idle connections kept for a destination: as many requests at once as make no new ones.
const MAX_IDLE: usize = 16;
const USER_AGENT: &str = concat!("exeunt/", env!("CARGO_PKG_VERSION"));

/// SRV weights, by the thread's random numbers.
pub(crate) fn pick(max: u32) -> u32 {
    rand::random_range(0..=max)
}

/// Clients by the way their URLs are resolved.
pub(crate) struct Routes {
    /// Host without a port: SRV, or port 8448.
    service: Client,
    /// A port in the URL, or an address.
    direct: Client,
    /// Where the URL cannot say the `Host` value and a header must; HTTP/1.1 has one.
    direct_h1: Client,
    overrides: BTreeMap<OwnedServerName, Static>,
}

struct Static {
    address: SocketAddr,
    client: Client,
}

/// A client and what to send it.
pub(crate) struct Way<'a> {
    pub client: &'a Client,
    pub url: Url,
    /// The `Host` header, where it is not the URL's authority.
    pub host: Option<String>,
}

impl Routes {
    pub fn new(
        tls: &ClientConfig,
        dns: &Arc<dyn Dns>,
        overrides: &BTreeMap<OwnedServerName, SocketAddr>,
    ) -> Result<Self, SetupError> {
        let federation = |resolver| builder(tls, resolver).redirect(Policy::none());
        let direct = || Resolver::Direct(dns.clone());
        let fixed = |(name, address): (&OwnedServerName, &SocketAddr)| {
            let client = federation(Resolver::Fixed(*address));
            let client = match Target::parse(name)? {
                Target::Ip(_) => return Err(SetupError::OverrideOfAddress(name.to_string())),
                Target::HostPort(..) => client.http1_only().build()?,
                Target::Host(_) => client.build()?,
            };
            Ok((name.clone(), Static { address: *address, client }))
        };
        Ok(Self {
            service: federation(Resolver::Service(dns.clone())).build()?,
            direct: federation(direct()).build()?,
            direct_h1: federation(direct()).http1_only().build()?,
            overrides: overrides.iter().map(fixed).collect::<Result<_, _>>()?,
        })
    }

    /// The configured destination of a server.
    pub fn fixed(&self, server: &ServerName) -> Option<SocketAddr> {
        self.overrides.get(server).map(|fixed| fixed.address)
    }

    /// The way to a server whose route is configured.
    pub fn fixed_way(
        &self,
        server: &ServerName,
        path: &str,
    ) -> Result<Option<Way<'_>>, RequestError> {
        let Some(Static { client, .. }) = self.overrides.get(server) else {
            return Ok(None);
        };
        let target = Target::parse(server)?;
        let url = url(&target.certificate(), path)?;
        let host = matches!(target, Target::HostPort(..)).then(|| server.to_string());
        Ok(Some(Way { client, url, host }))
    }

    /// The way along a discovered route.
    pub fn way(&self, route: &Route, path: &str) -> Result<Way<'_>, RequestError> {
        let (client, authority) = match &route.target {
            Target::Host(host) => (&self.service, host.clone()),
            Target::HostPort(host, port) => (&self.direct, format!("{host}:{port}")),
            Target::Ip(address) => (&self.direct, address.to_string()),
        };
        let url = url(&authority, path)?;
        // The port is left out for 443, and put in for an address that names none.
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let said = format!("{}{port}", url.host_str().unwrap_or_default());
        if said.eq_ignore_ascii_case(&route.host) {
            return Ok(Way { client, url, host: None });
        }
        Ok(Way { client: &self.direct_h1, url, host: Some(route.host.clone()) })
    }
}

/// A URL whose host and path are sent as they stand, or an error.
fn url(authority: &str, path: &str) -> Result<Url, RequestError> {
    let changed = || RequestError::Unsendable(format!("the path {:?}", clean(path)));
    if !path.starts_with('/') || path.contains('#') {
        return Err(changed());
    }
    let url = Url::parse(&format!("https://{authority}{path}"))
        .map_err(|error| RequestError::Unreachable(format!("{}: {error}", clean(authority))))?;
    let (sent, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
    if url.path() == sent && url.query() == query { Ok(url) } else { Err(changed()) }
}

/// What all our clients have in common. HTTPS only, no proxy, nothing from the environment.
pub(crate) fn builder(tls: &ClientConfig, resolver: Resolver) -> ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .dns_resolver(resolver)
        .https_only(true)
        .no_proxy()
        .referer(false)
        .user_agent(USER_AGENT)
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE)
}

/// From the host of a URL to addresses with ports.
pub(crate) enum Resolver {
    /// SRV records, then port 8448.
    Service(Arc<dyn Dns>),
    /// Addresses only; the URL has the port.
    Direct(Arc<dyn Dns>),
    Fixed(SocketAddr),
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        match self {
            Self::Fixed(address) => {
                let addresses: Addrs = Box::new(std::iter::once(*address));
                Box::pin(std::future::ready(Ok(addresses)))
            }
            Self::Service(dns) => Box::pin(look_up(dns.clone(), Target::Host(host))),
            // Port 0 leaves the choice to the URL.
            Self::Direct(dns) => Box::pin(look_up(dns.clone(), Target::HostPort(host, 0))),
        }
    }
}

async fn look_up(
    dns: Arc<dyn Dns>,
    target: Target,
) -> Result<Addrs, Box<dyn std::error::Error + Send + Sync>> {
    let found: Result<(Vec<SocketAddr>, Step), ResolveError> =
        discovery::addresses(&target, &*dns, &pick).await;
    let (addresses, _) = found?;
    Ok(Box::new(addresses.into_iter()))
}

#[cfg(test)]
mod tests;
