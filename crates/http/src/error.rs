use std::{error::Error, fmt};

use exeunt_core::Object;
use http::{HeaderName, HeaderValue, header};
use serde_json::Value;

use crate::Reply;

/// What a client or server gets on failure (client-server API, "Standard error response").
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixError {
    pub status: u16,
    /// Left out of the body when empty, as the first answer of user-interactive auth wants it.
    pub errcode: String,
    pub message: String,
    /// More fields of the body.
    pub extra: Object,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl MatrixError {
    pub fn new(status: u16, errcode: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status,
            errcode: errcode.into(),
            message: message.into(),
            extra: Object::new(),
            headers: Vec::new(),
        }
    }

    /// A 401 that carries no errcode: the flows of user-interactive authentication.
    pub fn interactive_auth(body: Object) -> Self {
        Self { extra: body, ..Self::new(401, "", "") }
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "M_FORBIDDEN", message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, "M_NOT_FOUND", message)
    }

    pub fn bad_json(message: impl Into<String>) -> Self {
        Self::new(400, "M_BAD_JSON", message)
    }

    pub fn not_json() -> Self {
        Self::new(400, "M_NOT_JSON", "The body is not JSON")
    }

    pub fn invalid_param(message: impl Into<String>) -> Self {
        Self::new(400, "M_INVALID_PARAM", message)
    }

    pub fn missing_param(message: impl Into<String>) -> Self {
        Self::new(400, "M_MISSING_PARAM", message)
    }

    /// No endpoint has this path.
    pub fn unrecognized() -> Self {
        Self::new(404, "M_UNRECOGNIZED", "Unrecognized request")
    }

    /// An endpoint has this path, but not for this method.
    pub fn wrong_method() -> Self {
        Self::new(405, "M_UNRECOGNIZED", "Method not allowed")
    }

    pub fn unknown_token(soft_logout: bool) -> Self {
        Self::new(401, "M_UNKNOWN_TOKEN", "Unknown access token").with("soft_logout", soft_logout)
    }

    pub fn missing_token() -> Self {
        Self::new(401, "M_MISSING_TOKEN", "Missing access token")
    }

    /// The signature of another server's request is missing or wrong.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "M_UNAUTHORIZED", message)
    }

    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(400, "M_UNKNOWN", message)
    }

    pub fn too_large() -> Self {
        Self::new(413, "M_TOO_LARGE", "The body is too large")
    }

    /// `Retry-After` is the header of the spec since v1.10, `retry_after_ms` the older field.
    pub fn limit_exceeded(retry_ms: u64) -> Self {
        Self::new(429, "M_LIMIT_EXCEEDED", "Too many requests")
            .with("retry_after_ms", retry_ms)
            .with_header(header::RETRY_AFTER, retry_ms.div_ceil(1000).into())
    }

    /// Logs the error with its sources; the caller of the API learns nothing of it.
    pub fn internal(error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        tracing::error!(error = text, "internal error");
        Self::internal_silent()
    }

    pub(crate) fn internal_silent() -> Self {
        Self::new(500, "M_UNKNOWN", "Internal server error")
    }

    /// Adds a field to the body.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra.insert(key.into(), value.into());
        self
    }

    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The body as it goes over the wire.
    pub fn body(&self) -> Object {
        let mut body = self.extra.clone();
        if !self.errcode.is_empty() {
            body.insert("errcode".to_owned(), self.errcode.clone().into());
            body.insert("error".to_owned(), self.message.clone().into());
        }
        body
    }
}

impl fmt::Display for MatrixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.errcode, self.message)
    }
}

impl Error for MatrixError {}

impl From<MatrixError> for Reply {
    fn from(error: MatrixError) -> Self {
        let mut reply = Self::json_with_status(error.status, error.body().into());
        for (name, value) in error.headers {
            reply = reply.with_header(name, value);
        }
        reply
    }
}
