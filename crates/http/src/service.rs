//! The one actix service in front of all endpoints.

use std::{
    any::Any,
    cell::Cell,
    mem,
    panic::AssertUnwindSafe,
    rc::Rc,
    time::{Duration, Instant},
};

use actix_web::{
    Error, HttpMessage as _, HttpResponse,
    dev::{self, ServiceRequest, ServiceResponse},
    http::header as actix_header,
    rt, web,
};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use metrics::counter;
use tracing::Instrument as _;

use crate::{
    Body, MatrixError, RawCall, Reply, RequestHead, Routes,
    pieces::Pieces,
    stream::Timed,
    tree::{Endpoint, Found, Table, Tree},
};

/// The largest body of an endpoint that names no other limit. A federation transaction of 50 PDUs
/// and 100 EDUs of 64 KiB each just fits.
pub const DEFAULT_BODY_LIMIT: usize = 10 * 1024 * 1024;
/// How long a body may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How many handlers that outlive their client may run at once in a worker.
pub const MAX_DETACHED: usize = 1024;

/// What the log calls a path that no endpoint has.
const NO_TEMPLATE: &str = "unknown path";

/// Endpoints of one or several APIs behind one listener. It is the default service of the actix
/// application: actix's own router compares paths one by one, this one walks a tree.
#[derive(Clone, Default)]
pub struct Service {
    table: Table,
}

impl Service {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an API. Panics if two APIs have the same endpoint.
    pub fn mount<S>(mut self, routes: Routes<S>) -> Self {
        self.table.append(routes.table);
        self
    }

    /// Each method and path that is served, in order: what a listing or a test wants to see.
    pub fn endpoints(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.table.iter().map(|(method, endpoint)| (method, endpoint.template))
    }

    pub fn configure(&self, config: &mut web::ServiceConfig) {
        let tree = Rc::new(Tree::new(&self.table));
        let detached = Rc::new(Cell::new(0));
        config.default_service(dev::fn_service(move |request| {
            serve(Rc::clone(&tree), Rc::clone(&detached), request)
        }));
    }
}

/// Handlers that run apart from their connection.
type Detached = Rc<Cell<usize>>;

async fn serve(
    tree: Rc<Tree>,
    detached: Detached,
    mut request: ServiceRequest,
) -> Result<ServiceResponse, Error> {
    let start = Instant::now();
    let (template, reply) = match method(&request) {
        Err(error) => (NO_TEMPLATE, Err(error)),
        Ok(Method::OPTIONS) => ("preflight", Ok(Reply::empty(StatusCode::NO_CONTENT))),
        Ok(method) => match tree.find(&method, request.path()) {
            Found::Nothing => (NO_TEMPLATE, Err(MatrixError::unrecognized())),
            Found::WrongMethod { allow } => (NO_TEMPLATE, Err(wrong_method(&allow))),
            Found::Endpoint(endpoint) => {
                let uri = request.uri().path_and_query();
                let head = RequestHead {
                    method,
                    uri_path_and_query: uri.map_or("/", |uri| uri.as_str()).to_owned(),
                    headers: take_headers(&mut request),
                    peer: request.peer_addr(),
                    template: endpoint.template,
                };
                let payload = request.take_payload();
                (endpoint.template, call(endpoint, detached, head, payload).await)
            }
        },
    };
    let mut reply = reply.unwrap_or_else(Reply::from);
    if wants_cors(request.path()) || request.method() == actix_web::http::Method::OPTIONS {
        allow_any_origin(&mut reply);
    }
    count(request.method().as_str(), template, &reply);
    tracing::debug!(
        method = request.method().as_str(),
        path = template,
        status = reply.status.as_u16(),
        ms = start.elapsed().as_millis(),
        "request"
    );
    Ok(request.into_response(into_actix(template, reply)))
}

fn count(method: &str, template: &'static str, reply: &Reply) {
    // Methods that HTTP does not know would be any number of labels.
    let method = match method {
        "GET" | "PUT" | "POST" | "DELETE" | "OPTIONS" | "HEAD" | "PATCH" => method.to_owned(),
        _ => "other".to_owned(),
    };
    let labels = [
        ("method", method),
        ("path", template.to_owned()),
        ("status", reply.status.as_str().to_owned()),
    ];
    counter!("exeunt_http_requests_total", &labels).increment(1);
}

async fn call(
    endpoint: Endpoint,
    detached: Detached,
    head: RequestHead,
    payload: dev::Payload,
) -> Result<Reply, MatrixError> {
    let args = endpoint.args(head.path())?;
    // In a box, which a request that waits for long does not keep.
    let body = Box::pin(read_body(&head, payload, endpoint.body_limit)).await?;
    let span = tracing::debug_span!("request", method = %head.method, path = head.template);
    let safe = head.method == Method::GET || head.method == Method::HEAD;
    let run = AssertUnwindSafe((endpoint.handler)(RawCall { head, args, body }))
        .catch_unwind()
        .map(|result| result.unwrap_or_else(|panic| Err(panicked(endpoint.template, &*panic))))
        .instrument(span);
    if safe {
        return run.await;
    }
    // A client that hangs up must not stop a change halfway.
    let Some(slot) = Slot::take(detached) else { return Err(MatrixError::limit_exceeded(1000)) };
    let task = rt::spawn(async move {
        let reply = run.await;
        drop(slot);
        reply
    });
    task.await.unwrap_or_else(|error| Err(MatrixError::internal(&error)))
}

/// One of [`MAX_DETACHED`].
struct Slot(Detached);

impl Slot {
    fn take(detached: Detached) -> Option<Self> {
        (detached.get() < MAX_DETACHED).then(|| {
            detached.set(detached.get() + 1);
            Self(detached)
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn panicked(template: &str, panic: &(dyn Any + Send)) -> MatrixError {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(path = template, panic = message, "a handler panicked");
    MatrixError::internal_silent()
}

async fn read_body(
    head: &RequestHead,
    mut payload: dev::Payload,
    limit: usize,
) -> Result<Bytes, MatrixError> {
    // Nothing is decompressed, so that a small body cannot grow past the limit.
    if head.header(header::CONTENT_ENCODING.as_str()).is_some_and(|encoding| encoding != "identity")
    {
        return Err(MatrixError::new(415, "M_UNKNOWN", "Content encodings are not supported"));
    }
    let announced = head.header(header::CONTENT_LENGTH.as_str()).and_then(|n| n.parse().ok());
    if announced.is_some_and(|length: u64| length > limit as u64) {
        return Err(MatrixError::too_large());
    }
    let read = async {
        let mut body = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|error| {
                tracing::debug!(%error, "unreadable body");
                MatrixError::unknown("The body could not be read")
            })?;
            if body.len() + chunk.len() > limit {
                return Err(MatrixError::too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    };
    rt::time::timeout(BODY_TIMEOUT, read).await.unwrap_or_else(|_| {
        Err(MatrixError::new(408, "M_UNKNOWN", "The body took too long to arrive"))
    })
}

fn wrong_method(allow: &str) -> MatrixError {
    let error = MatrixError::wrong_method();
    match HeaderValue::from_str(allow) {
        Ok(allow) => error.with_header(header::ALLOW, allow),
        Err(_) => error,
    }
}

/// actix-web is built on an older `http` than ruma, hence the three conversions.
fn method(request: &ServiceRequest) -> Result<Method, MatrixError> {
    Method::from_bytes(request.method().as_str().as_bytes()).map_err(|_| wrong_method(""))
}

/// The headers, of which the request keeps nothing: its map would take 7 KiB for as long as it waits,
/// and the connection's buffer, which they lie in, 8 KiB.
fn take_headers(request: &mut ServiceRequest) -> HeaderMap {
    let taken = mem::replace(request.headers_mut(), actix_header::HeaderMap::new());
    let convert = |(name, value): (&actix_header::HeaderName, &actix_header::HeaderValue)| {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in taken.iter().filter_map(convert) {
        headers.append(name, value);
    }
    headers
}

fn into_actix(template: &'static str, reply: Reply) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(reply.status.as_u16())
        .unwrap_or(actix_web::http::StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    for (name, value) in &reply.headers {
        response.append_header((name.as_str(), value.as_bytes()));
    }
    match reply.body {
        Body::Whole(bytes) => response.body(Pieces(bytes)),
        Body::Stream(stream) => response.streaming(Timed::new(template, stream)),
    }
}

/// Browsers call everything but the server-server API ("Web Browser Clients").
fn wants_cors(path: &str) -> bool {
    !["/_matrix/federation/", "/_matrix/key/"].iter().any(|prefix| path.starts_with(prefix))
}

fn allow_any_origin(reply: &mut Reply) {
    let cors = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With, Content-Type, Authorization"),
    ];
    for (name, value) in cors {
        reply.headers.insert(name, HeaderValue::from_static(value));
    }
}
