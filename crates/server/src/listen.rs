//! Listeners: sockets, TLS, time limits, and the way they stop.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{fs::DirBuilderExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use actix_web::{
    App, HttpResponse, HttpServer,
    dev::{Server, ServerHandle},
    web,
};
use exeunt_http::{PIECE, Service};
use exeunt_store::{Store, StoreError, tables::Meta};
use rustls::ServerConfig;
use tokio::task::JoinHandle;

use crate::failure::Failure;

/// How long an idle connection is kept. Longer than usual proxies keep theirs.
const KEEP_ALIVE: Duration = Duration::from_secs(120);
/// How long the head of a request may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to close a connection.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long running requests have to finish when the server stops.
const SHUTDOWN_SECONDS: u64 = 10;
/// Open connections per worker.
const MAX_CONNECTIONS: usize = 10_000;
/// Worker threads of a listener. What takes time runs elsewhere.
const MAX_WORKERS: usize = 4;

/// A socket that is bound: no request is answered yet, and none is lost.
pub struct Bound {
    socket: Socket,
    address: String,
}

enum Socket {
    Tcp(TcpListener, Option<Arc<ServerConfig>>),
    Local(UnixListener),
}

/// Where the running server takes the operator's commands: in a folder that nobody else may enter.
pub fn operator_socket(data: &Path) -> PathBuf {
    data.join("operator").join("socket")
}

impl Bound {
    pub fn new(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Result<Self, Failure> {
        let failure = |error| Failure::Bind { address, error };
        let socket = TcpListener::bind(address).map_err(failure)?;
        let address = socket.local_addr().map_err(failure)?.to_string();
        Ok(Self { socket: Socket::Tcp(socket, tls), address })
    }

    /// The operator's socket. The caller has the store, so that what an earlier process left there
    /// is nobody's.
    pub fn operator(data: &Path) -> io::Result<Self> {
        let path = operator_socket(data);
        let folder = path.parent().unwrap_or(data);
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::DirBuilder::new().mode(0o700).create(folder)?,
        }
        let socket = UnixListener::bind(&path)?;
        Ok(Self { socket: Socket::Local(socket), address: path.display().to_string() })
    }

    /// Answers requests until [`Listening::stop`].
    pub fn serve(self, service: Service, store: Store) -> Result<Listening, Failure> {
        let address = self.address.clone();
        let server = self.server(service, store).map_err(Failure::Runtime)?;
        let handle = server.handle();
        Ok(Listening { address, handle, task: tokio::spawn(server) })
    }

    fn server(self, service: Service, store: Store) -> io::Result<Server> {
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(store.clone()))
                .route("/health", web::get().to(health))
                .configure(|config| service.configure(config))
        })
        .workers(thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS))
        .max_connections(MAX_CONNECTIONS)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .tls_handshake_timeout(HANDSHAKE_TIMEOUT)
        .tcp_nodelay(true)
        .h1_write_buffer_size(PIECE)
        .shutdown_timeout(SHUTDOWN_SECONDS)
        .disable_signals();
        let server = match self.socket {
            Socket::Tcp(socket, Some(tls)) => server.listen_rustls_0_23(socket, (*tls).clone())?,
            Socket::Tcp(socket, None) => server.listen(socket)?,
            Socket::Local(socket) => server.listen_uds(socket)?,
        };
        Ok(server.run())
    }
}

/// A listener that answers.
pub struct Listening {
    address: String,
    handle: ServerHandle,
    task: JoinHandle<io::Result<()>>,
}

impl Listening {
    /// Where it listens, with the port that the system chose for port 0.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Accepts nothing more and waits for running requests, within a bound.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        match self.task.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, address = %self.address, "listener failed"),
            Err(error) => tracing::warn!(%error, address = %self.address, "listener panicked"),
        }
    }
}

/// `GET /health`: whether the store can be read.
async fn health(store: web::Data<Store>) -> HttpResponse {
    let read = store.read(|reader| reader.get::<Meta>(&"schema".to_owned())).await;
    match read {
        Ok(_) => HttpResponse::Ok().content_type("text/plain").body("ok\n"),
        Err(error) => unhealthy(&error),
    }
}

fn unhealthy(error: &StoreError) -> HttpResponse {
    tracing::error!(%error, "the store cannot be read");
    HttpResponse::ServiceUnavailable().content_type("text/plain").body("the store cannot be read\n")
}
