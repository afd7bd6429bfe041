use std::net::SocketAddr;

use bytes::Bytes;
use exeunt_core::Object;
use http::{HeaderMap, Method};
use serde_json::Value;

use crate::{MatrixError, decode};

/// A request without its body.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Method,
    /// Path and query as they came, which is what `X-Matrix` signs.
    pub uri_path_and_query: String,
    pub headers: HeaderMap,
    /// The other end of the connection, maybe a reverse proxy.
    pub peer: Option<SocketAddr>,
    /// The path the endpoint was declared with.
    pub template: &'static str,
}

impl RequestHead {
    /// The first header of that name, if it is readable text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The path, not decoded.
    pub fn path(&self) -> &str {
        match self.uri_path_and_query.split_once('?') {
            Some((path, _)) => path,
            None => &self.uri_path_and_query,
        }
    }

    /// The query, not decoded.
    pub fn query_string(&self) -> &str {
        self.uri_path_and_query.split_once('?').map_or("", |(_, query)| query)
    }

    /// The first query argument of that name, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        self.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// All query arguments of that name, decoded.
    pub fn query_all(&self, name: &str) -> Vec<String> {
        self.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
    }

    fn query_pairs(&self) -> impl Iterator<Item = (String, String)> {
        form_urlencoded::parse(self.query_string().as_bytes()).into_owned()
    }
}

/// A request to an endpoint that reads it itself.
#[derive(Clone, Debug)]
pub struct RawCall {
    pub head: RequestHead,
    /// The arguments of the path in order, decoded.
    pub args: Vec<String>,
    pub body: Bytes,
}

impl RawCall {
    /// The body as JSON. An empty one counts as `{}`.
    pub fn json(&self) -> Result<Value, MatrixError> {
        if self.body.is_empty() {
            return Ok(Object::new().into());
        }
        serde_json::from_slice(&self.body).map_err(|error| decode::json_error(&error, &self.body))
    }

    /// The body as a JSON object.
    pub fn object(&self) -> Result<Object, MatrixError> {
        match self.json()? {
            Value::Object(object) => Ok(object),
            _ => Err(MatrixError::bad_json("The body is not a JSON object")),
        }
    }
}
