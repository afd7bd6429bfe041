//! The federation client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use exeunt_core::ruma::{OwnedServerName, ServerName};
use exeunt_core::{Signer, canonical};
use reqwest::Response;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::discovery::{self, Delegation, Destination, Dns, ResolveError, Step, Target};
use crate::dns::{CachedDns, SystemDns};
use crate::error::{RequestError, SetupError};
use crate::keys::ServerKeys;
use crate::listing::{self, Entry, Listing};
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
/// Longest answer of a notary.
const MAX_NOTARY_ANSWER: usize = 8 * 1024 * 1024;

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
        self.0.within(request, self.0.whole(request, true)).await
    }

    /// The same for an answer with long lists: their entries go to `entries` as they arrive, and
    /// the other values are returned.
    pub async fn request_listing(
        &self,
        request: Request<'_>,
        listing: Listing,
        entries: mpsc::Sender<Entry>,
    ) -> Result<Value, RequestError> {
        let answer = async {
            let response = self.0.exchange(request, true).await?;
            let max_bytes = request.max_bytes.unwrap_or(self.0.max_response);
            listing::read(response, listing, max_bytes, entries).await
        };
        self.0.within(request, answer).await
    }

    /// Fetches and checks the keys of a server: `GET /_matrix/key/v2/server`.
    pub async fn server_keys(&self, server: &ServerName) -> Result<ServerKeys, RequestError> {
        let mut request = Request::get(server, "/_matrix/key/v2/server");
        request.max_bytes = Some(MAX_KEY_DOCUMENT.min(self.0.max_response));
        let answer = self.0.within(request, self.0.whole(request, false)).await?;
        let Value::Object(document) = answer else {
            return Err(RequestError::Misbehaved("the key document is not an object".into()));
        };
        ServerKeys::check(server, document, (self.0.clock)())
            .map_err(|error| RequestError::Misbehaved(error.to_string()))
    }

    /// Asks a notary for the keys of other servers: `POST /_matrix/key/v2/query`. Documents that
    /// their servers have not signed are left out; the notary's signature is not looked at.
    pub async fn keys_by_notary(
        &self,
        notary: &ServerName,
        wanted: &BTreeMap<OwnedServerName, BTreeMap<String, u64>>,
    ) -> Result<Vec<ServerKeys>, RequestError> {
        let body = notary_query(wanted);
        let mut request = Request::post(notary, "/_matrix/key/v2/query", &body);
        request.max_bytes = Some(MAX_NOTARY_ANSWER.min(self.0.max_response));
        let mut answer = self.0.within(request, self.0.whole(request, false)).await?;
        let Some(Value::Array(documents)) = answer.get_mut("server_keys").map(Value::take) else {
            return Err(RequestError::Misbehaved("server_keys is not a list".into()));
        };
        let now = (self.0.clock)();
        let mut keys = Vec::new();
        for document in documents {
            let Value::Object(document) = document else { continue };
            match ServerKeys::check_any(document, now) {
                Ok(checked) => keys.push(checked),
                Err(error) => tracing::info!(%notary, %error, "a notary gave a bad key document"),
            }
        }
        Ok(keys)
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
    /// The outcome of a request, unless it takes too long.
    async fn within(
        &self,
        request: Request<'_>,
        answer: impl Future<Output = Result<Value, RequestError>>,
    ) -> Result<Value, RequestError> {
        let timeout = request.timeout.unwrap_or(self.timeout);
        let answer = tokio::time::timeout(timeout, answer).await;
        answer.unwrap_or_else(|_| {
            let text = format!("no answer within {} s", timeout.as_secs_f32());
            Err(RequestError::Unreachable(text))
        })
    }

    async fn whole(&self, request: Request<'_>, signed: bool) -> Result<Value, RequestError> {
        let response = self.exchange(request, signed).await?;
        answer::read(response, request.max_bytes.unwrap_or(self.max_response)).await
    }

    /// Sends a request. The answer's body is yet to be read.
    async fn exchange(&self, request: Request<'_>, signed: bool) -> Result<Response, RequestError> {
        let Request { destination, method, path, body, .. } = request;
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
        let body = body.map(canonical::encode_value);
        if signed {
            http = http.header(AUTHORIZATION, self.x_matrix(request, body.as_deref()));
        }
        if let Some(body) = body {
            http = http.header(CONTENT_TYPE, "application/json").body(body);
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
        answer::success(response).await
    }

    /// The `Authorization` header. None of the values can hold a quote or a backslash.
    fn x_matrix(&self, request: Request<'_>, body: Option<&str>) -> String {
        let Request { destination, method, path, .. } = request;
        let (origin, key) = (self.signer.server(), self.signer.key_id());
        let sig = self.signer.sign_request(method.http().as_str(), path, destination, body);
        format!(
            "X-Matrix origin=\"{origin}\",destination=\"{destination}\",key=\"{key}\",sig=\"{sig}\""
        )
    }
}

/// The body that asks for keys by id, each valid at a time.
fn notary_query(wanted: &BTreeMap<OwnedServerName, BTreeMap<String, u64>>) -> Value {
    let criteria = |keys: &BTreeMap<String, u64>| -> Value {
        let keys =
            keys.iter().map(|(id, at)| (id.clone(), json!({ "minimum_valid_until_ts": at })));
        Value::Object(keys.collect())
    };
    let servers = wanted.iter().map(|(server, keys)| (server.to_string(), criteria(keys)));
    json!({ "server_keys": Value::Object(servers.collect()) })
}
