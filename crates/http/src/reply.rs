use std::{error::Error, fmt};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream::LocalBoxStream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

/// What a raw handler answers.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

/// What an answer says.
pub enum Body {
    Whole(Bytes),
    /// Made while it is sent. An error ends the connection, so that nobody takes what was sent for
    /// the whole.
    Stream(LocalBoxStream<'static, Result<Bytes, Box<dyn Error>>>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => bytes.fmt(f),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        Self::json(value)
    }
}

impl Reply {
    /// 200 with a JSON body.
    pub fn json(value: Value) -> Self {
        Self::raw_json(serde_json::to_vec(&value).expect("a value is always JSON"))
    }

    /// 200 with a body that is JSON already.
    pub fn raw_json(body: impl Into<Bytes>) -> Self {
        Self::bytes("application/json", body)
    }

    /// A status outside 100 to 999 becomes 500.
    pub fn json_with_status(status: u16, value: Value) -> Self {
        Self::json(value).with_status(status)
    }

    pub fn html(body: impl Into<Bytes>) -> Self {
        Self::bytes("text/html; charset=utf-8", body)
    }

    /// 200 with a body of that content type.
    pub fn bytes(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self::ok(content_type, Body::Whole(body.into()))
    }

    /// 200 with JSON that is read when the client is ready for more, within
    /// [`STREAM_TIMEOUT`](crate::STREAM_TIMEOUT).
    pub fn json_stream<B: Into<Bytes> + 'static, E: Error + 'static>(
        body: impl Stream<Item = Result<B, E>> + 'static,
    ) -> Self {
        let body = body.map_ok(B::into).map_err(|error| Box::new(error).into());
        Self::ok("application/json", Body::Stream(body.boxed_local()))
    }

    fn ok(content_type: &'static str, body: Body) -> Self {
        Self { status: StatusCode::OK, headers: HeaderMap::new(), body }
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }

    /// No body and no content type.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Body::Whole(Bytes::new()) }
    }

    pub fn with_status(mut self, status: u16) -> Self {
        self.status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self
    }

    /// Replaces a header of the same name.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}
