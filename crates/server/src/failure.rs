//! Why the program ends early, and the exit code that says so.

use std::{io, net::SocketAddr, path::PathBuf};

use exeunt_room::RoomError;
use exeunt_store::StoreError;
use exeunt_users::UsersError;
use thiserror::Error;

use crate::{
    app_services::AppServiceError, config::ConfigError, signing_key::SigningKeyError, tls::TlsError,
};

/// An error for the operator. Its text says what to do.
#[derive(Debug, Error)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    AppServices(#[from] AppServiceError),
    #[error(transparent)]
    Federation(#[from] exeunt_fed_client::SetupError),
    #[error(transparent)]
    SigningKey(#[from] SigningKeyError),
    #[error("{error}; {}", advice(error))]
    Store { error: StoreError },
    #[error("{path}: there is no database; correct store.path, or start the server once")]
    NoStore { path: PathBuf },
    #[error("cannot listen on {address}: {error}; {}", bind_advice(error))]
    Bind { address: SocketAddr, error: io::Error },
    #[error("{path}: {error}; this command is carried out by the running server")]
    NotRunning { path: PathBuf, error: io::Error },
    #[error("{address}: {text}")]
    Unhealthy { address: SocketAddr, text: String },
    #[error("{0}")]
    User(UsersError),
    #[error("{0}")]
    Room(RoomError),
    #[error("{0}")]
    Input(String),
    #[error("cannot start a thread or a socket: {0}; raise this process's limits")]
    Runtime(io::Error),
    #[error("cannot count: {0}")]
    Metrics(metrics_exporter_prometheus::BuildError),
    #[error("standard output cannot be written: {0}")]
    Output(io::Error),
}

impl Failure {
    /// 1: the command failed; 2: the configuration; 3: the store; 4: a listener.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unhealthy { .. }
            | Self::NotRunning { .. }
            | Self::User(_)
            | Self::Room(_)
            | Self::Input(_)
            | Self::Runtime(_)
            | Self::Metrics(_)
            | Self::Output(_) => 1,
            Self::Config(_) | Self::Tls(_) | Self::AppServices(_) | Self::Federation(_) => 2,
            Self::SigningKey(_) | Self::Store { .. } | Self::NoStore { .. } => 3,
            Self::Bind { .. } => 4,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store { error }
    }
}

impl From<UsersError> for Failure {
    fn from(error: UsersError) -> Self {
        match error {
            UsersError::Store(error) => Self::Store { error },
            error => Self::User(error),
        }
    }
}

impl From<RoomError> for Failure {
    fn from(error: RoomError) -> Self {
        match error {
            RoomError::Store(error) => Self::Store { error },
            error => Self::Room(error),
        }
    }
}

fn advice(error: &StoreError) -> &'static str {
    match error {
        StoreError::Locked { .. } => "stop the server first, or the other command that runs",
        StoreError::NotADirectory { .. } => "correct store.path",
        StoreError::NewerSchema { .. } => {
            "start the newer version again, or restore a backup from before the upgrade"
        }
        StoreError::Corrupt { .. } | StoreError::Encode { .. } | StoreError::Damaged { .. } => {
            "restore a backup"
        }
        StoreError::Io(_) | StoreError::Failed(_) | StoreError::NotInMemory => {
            "see that the disk is healthy and not full, and that this user may write there"
        }
        StoreError::Closed => "start again",
    }
}

fn bind_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop what listens there, or choose another port",
        io::ErrorKind::AddrNotAvailable => "choose an address of this machine",
        io::ErrorKind::PermissionDenied => "choose a port above 1023, or allow this user the port",
        _ => "choose another address",
    }
}
