use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

/// What a raw handler answers.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// 200 with a JSON body.
    pub fn json(value: Value) -> Self {
        Self::raw_json(value.to_string())
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
        Self { status: StatusCode::OK, headers: HeaderMap::new(), body: body.into() }
            .with_header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }

    /// No body and no content type.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
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
