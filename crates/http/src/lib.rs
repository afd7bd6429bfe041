//! Shared actix-web glue: one router for all Matrix endpoints, typed handlers, errors and limits.
//!
//! An API crate fills [`Routes`] with handlers of ruma's request types; [`Service`] puts one or
//! several of them on a listener. Handlers see identities, typed requests and [`MatrixError`], and
//! nothing of actix.

mod access;
mod decode;
mod error;
mod misfit;
mod pieces;
mod reply;
mod request;
mod routes;
mod service;
mod stream;
mod tree;

pub use access::{Authenticator, XMatrix, access_token, x_matrix};
pub use bytes::Bytes;
pub use error::MatrixError;
pub use http::{HeaderName, HeaderValue, Method, StatusCode, header};
pub use pieces::PIECE;
pub use reply::{Body, Reply};
pub use request::{RawCall, RequestHead};
pub use routes::Routes;
pub use service::{BODY_TIMEOUT, DEFAULT_BODY_LIMIT, MAX_DETACHED, Service};
pub use stream::STREAM_TIMEOUT;
