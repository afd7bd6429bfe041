//! Outbound federation: discovery, TLS, request signing, key fetching.
//!
//! Knows no rooms and no store. A request takes a server name and a path; the answer is JSON or an
//! error that says whose fault it is ([`RequestError`]).

mod answer;
mod cache;
mod client;
pub mod discovery;
mod dns;
mod error;
pub mod keys;
mod routes;
mod skew;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;
mod tls;
mod well_known;

use std::sync::Arc;

pub use client::{FederationClient, Method, Options, Request};
pub use discovery::{Delegation, Destination, ResolveError, Step};
pub use error::{RequestError, SetupError};
pub use keys::{KeyDocumentError, ServerKeys};

/// Milliseconds since the epoch.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;
