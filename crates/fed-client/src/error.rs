//! What can go wrong, by whose fault.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::discovery::ResolveError;
use crate::tls;

/// Longest text that is kept of what a remote server says, in characters.
pub(crate) const MAX_TEXT: usize = 500;

/// The client cannot be built from its options.
#[derive(Debug, Error)]
pub enum SetupError {
    #[error("federation.extra_ca: cannot read {path}: {error}")]
    CaUnreadable { path: PathBuf, error: io::Error },
    #[error("federation.extra_ca: {path} is not a PEM file of certificates: {reason}")]
    CaInvalid { path: PathBuf, reason: String },
    #[error("no root certificates: install the system's CA bundle or set federation.extra_ca")]
    NoRoots,
    #[error("TLS setup: {0}")]
    Tls(#[from] rustls::Error),
    #[error("HTTP setup: {0}")]
    Http(#[from] reqwest::Error),
    #[error("{0} is an address and needs no static route")]
    OverrideOfAddress(String),
    #[error(transparent)]
    OverrideName(#[from] ResolveError),
}

/// A request that did not succeed. Texts from the remote server are bounded and free of control
/// characters.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// No answer: DNS, connection, TLS, time-out. Worth another try later.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The server answered with an error.
    #[error("refused with {status}{}: {message}", errcode.as_ref().map(|c| format!(" {c}")).unwrap_or_default())]
    Refused { status: u16, errcode: Option<String>, message: String },
    /// The server answered with something that is no answer: a redirect, no JSON, too much of it.
    #[error("bad answer: {0}")]
    Misbehaved(String),
    /// The request cannot be sent as it stands: its path would change on the way.
    #[error("cannot be sent: {0}")]
    Unsendable(String),
}

impl From<ResolveError> for RequestError {
    fn from(error: ResolveError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

impl RequestError {
    /// Sorts an error of the HTTP client.
    pub(crate) fn from_http(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Unreachable("no connection or no answer in time".into());
        }
        if error.is_decode() && is_corrupt(error) {
            return Self::Misbehaved(format!("the answer cannot be unpacked: {}", root(error)));
        }
        Self::Unreachable(tls::explain(error).unwrap_or_else(|| root(error)))
    }
}

/// An error and what it wraps, outermost first. `io::Error` hides its content from `source()`.
pub(crate) fn layers<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let hidden = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        hidden.map(|hidden| hidden as &(dyn StdError + 'static)).or_else(|| error.source())
    })
}

/// The innermost reason of an error, without the layers that wrap it.
fn root(error: &(dyn StdError + 'static)) -> String {
    clean(&layers(error).last().unwrap_or(error).to_string())
}

/// Whether a body could not be unpacked. The HTTP client calls it the same as a broken connection.
fn is_corrupt(error: &(dyn StdError + 'static)) -> bool {
    let kinds = layers(error).filter_map(|e| e.downcast_ref::<io::Error>()).map(io::Error::kind);
    let bad = |kind| matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
    tls::explain(error).is_none() && kinds.into_iter().any(bad)
}

/// Text of a remote server, fit for logs and error bodies.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}
