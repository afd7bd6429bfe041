//! The federation client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use exeunt_core::key::signatures_of;
use exeunt_core::ruma::{OwnedServerName, ServerName};
use exeunt_core::{Signer, request_object};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use serde_json::Value;

use crate::discovery::{self, Delegation, Destination, Dns, ResolveError, Step, Target};
use crate::dns::{CachedDns, SystemDns};
use crate::error::{RequestError, SetupError};
use crate::keys::ServerKeys;
use crate::routes::{Resolver, Routes, pick};
use crate::skew::ClockWatch;
use crate::well_known::HttpWellKnown;
use crate::{Clock, answer, tls};

/// From the start of discovery to the end of the answer.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer that is read, unpacked: 32 MiB.
pub const DEFAULT_MAX_RESPONSE: usize = 32 * 1024 * 1024;
/// Longest key document.
const MAX_KEY_DOCUMENT: usize = 256 * 1024;

/// How the client is set up.
#[derive(Clone)]
pub struct Options {
    /// A PEM file of authorities to trust beside the system's.
    pub extra_ca: Option<PathBuf>,
    /// For requests that say nothing else.
    pub timeout: Duration,
    /// For requests that say nothing else, in bytes.
    pub max_response: usize,
    pub clock: Clock,
    /// Servers with a fixed address: no discovery, but the same TLS checks.
    pub overrides: BTreeMap<OwnedServerName, SocketAddr>,
}

impl Options {
    /// The defaults.
    pub fn new(clock: Clock) -> Self {
        Self {
            extra_ca: None,
            timeout: DEFAULT_TIMEOUT,
            max_response: DEFAULT_MAX_RESPONSE,
            clock,
            overrides: BTreeMap::new(),
        }
    }
}

/// A method of the federation API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Put,
    Post,
}

impl Method {
    fn http(self) -> http::Method {
        match self {
            Self::Get => http::Method::GET,
            Self::Put => http::Method::PUT,
            Self::Post => http::Method::POST,
        }
    }
}

/// A request to another server.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub destination: &'a ServerName,
    pub method: Method,
    /// Path and query, percent-encoded.
    pub path: &'a str,
    pub body: Option<&'a Value>,
    pub timeout: Option<Duration>,
    pub max_bytes: Option<usize>,
}

impl<'a> Request<'a> {
    pub fn get(destination: &'a ServerName, path: &'a str) -> Self {
        Self { destination, method: Method::Get, path, body: None, timeout: None, max_bytes: None }
    }

    pub fn put(destination: &'a ServerName, path: &'a str, body: &'a Value) -> Self {
        Self { method: Method::Put, body: Some(body), ..Self::get(destination, path) }
    }

    pub fn post(destination: &'a ServerName, path: &'a str, body: &'a Value) -> Self {
        Self { method: Method::Post, body: Some(body), ..Self::get(destination, path) }
    }
}

/// Sends signed requests to other servers. Cheap to clone; clones share connections and caches.
#[derive(Clone)]
pub struct FederationClient(Arc<Inner>);

struct Inner {
    signer: Arc<Signer>,
    clock: Clock,
    timeout: Duration,
    max_response: usize,
    dns: Arc<dyn Dns>,
    well_known: HttpWellKnown,
    routes: Routes,
    clocks: ClockWatch,
}

impl FederationClient {
    /// A client over the system's DNS. Needs no tokio runtime yet.
    pub fn new(signer: Arc<Signer>, options: Options) -> Result<Self, SetupError> {
        let Options { extra_ca, timeout, max_response, clock, overrides } = options;
        let tls = tls::client_config(extra_ca.as_deref())?;
        let dns: Arc<dyn Dns> = Arc::new(CachedDns::new(SystemDns::new(), clock.clone()));
        let well_known = HttpWellKnown::new(&tls, Resolver::Direct(dns.clone()), clock.clone())?;
        let routes = Routes::new(&tls, &dns, &overrides)?;
        let clocks = ClockWatch::default();
        let inner = Inner { signer, clock, timeout, max_response, dns, well_known, routes, clocks };
        Ok(Self(Arc::new(inner)))
    }

    /// Sends a signed request and reads the JSON of its answer.
    pub async fn request(&self, request: Request<'_>) -> Result<Value, RequestError> {
        self.0.send(request, true).await
    }

    /// Fetches and checks the keys of a server: `GET /_matrix/key/v2/server`.
    pub async fn server_keys(&self, server: &ServerName) -> Result<ServerKeys, RequestError> {
        let mut request = Request::get(server, "/_matrix/key/v2/server");
        request.max_bytes = Some(MAX_KEY_DOCUMENT.min(self.0.max_response));
        let Value::Object(document) = self.0.send(request, false).await? else {
            return Err(RequestError::Misbehaved("the key document is not an object".into()));
        };
        ServerKeys::check(server, document, (self.0.clock)())
            .map_err(|error| RequestError::Misbehaved(error.to_string()))
    }

    /// Where requests for a server go, and why there.
    pub async fn resolve(&self, server: &ServerName) -> Result<Destination, ResolveError> {
        let inner = &self.0;
        match inner.routes.fixed(server) {
            Some(address) => Ok(Destination {
                host: server.to_string(),
                certificate: Target::parse(server)?.certificate(),
                addresses: vec![address],
                delegation: Delegation::NotAsked,
                step: Step::Override,
            }),
            None => discovery::resolve(server, &inner.well_known, &*inner.dns, &pick).await,
        }
    }
}

impl Inner {
    async fn send(&self, request: Request<'_>, signed: bool) -> Result<Value, RequestError> {
        let timeout = request.timeout.unwrap_or(self.timeout);
        let answer = tokio::time::timeout(timeout, self.exchange(request, signed)).await;
        answer.unwrap_or_else(|_| {
            let text = format!("no answer within {} s", timeout.as_secs_f32());
            Err(RequestError::Unreachable(text))
        })
    }

    async fn exchange(&self, request: Request<'_>, signed: bool) -> Result<Value, RequestError> {
        let Request { destination, method, path, body, max_bytes, .. } = request;
        let way = match self.routes.fixed_way(destination, path)? {
            Some(way) => way,
            None => {
                self.routes.way(&discovery::route(destination, &self.well_known).await?, path)?
            }
        };
        let mut http = way.client.request(method.http(), way.url);
        http = http.header(ACCEPT, "application/json");
        if let Some(host) = way.host {
            http = http.header(HOST, host);
        }
        if signed {
            http = http.header(AUTHORIZATION, self.x_matrix(request));
        }
        if let Some(body) = body {
            http = http.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let asked_at = (self.clock)();
        let response = http.send().await.map_err(|error| {
            // An operator mends this, so it is said even where the caller only tries again.
            if let Some(why) = tls::explain(&error) {
                tracing::warn!(server = %destination, why, "no TLS with another server");
            }
            RequestError::from_http(&error)
        })?;
        self.clocks.look(destination, response.headers(), asked_at..=(self.clock)());
        answer::read(response, max_bytes.unwrap_or(self.max_response)).await
    }

    /// The `Authorization` header. None of the values can hold a quote or a backslash.
    fn x_matrix(&self, request: Request<'_>) -> String {
        let Request { destination, method, path, body, .. } = request;
        let origin = self.signer.server();
        let method = method.http();
        let mut object = request_object(method.as_str(), path, origin, Some(destination), body);
        self.signer.sign_object(&mut object);
        let (key, sig) = signatures_of(&object, origin).next().unwrap_or_default();
        format!(
            "X-Matrix origin=\"{origin}\",destination=\"{destination}\",key=\"{key}\",sig=\"{sig}\""
        )
    }
}
