use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use exeunt_core::Object;
use http::{HeaderMap, Method};
use serde_json::Value;

use crate::{MatrixError, decode, misfit};

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

    /// Whose address it is: the peer's, or what a reverse proxy on this machine or its network says
    /// in `X-Forwarded-For`. Its last entry counts, which is the proxy's own.
    pub fn client_ip(&self) -> Option<IpAddr> {
        let peer = self.peer?.ip().to_canonical();
        let is_near = match peer {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
        };
        let told = self.header("x-forwarded-for").filter(|_| is_near);
        let told = told.and_then(|list| list.rsplit(',').next()?.trim().parse().ok());
        Some(told.unwrap_or(peer))
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

    /// What the caller is told of the first identifier, of the path or the body, that is none.
    pub fn wrong_id(&self) -> Option<MatrixError> {
        misfit::wrong_id(self)
    }

    /// What the caller is told of a body that a typed reader does not take.
    pub fn misfit(&self, error: &serde_json::Error) -> MatrixError {
        if let Some(error) = self.wrong_id() {
            return error;
        }
        let text = misfit::plain(&error.to_string());
        if text.starts_with("missing field") {
            MatrixError::missing_param(text)
        } else {
            MatrixError::bad_json(text)
        }
    }

    /// The body as a JSON object.
    pub fn object(&self) -> Result<Object, MatrixError> {
        match self.json()? {
            Value::Object(object) => Ok(object),
            _ => Err(MatrixError::bad_json("The body is not a JSON object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;

    #[test]
    fn a_proxy_nearby_is_believed_and_nobody_else() {
        let check = |peer: &str, forwarded: &'static str, ip: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", HeaderValue::from_static(forwarded));
            let head = RequestHead {
                method: Method::GET,
                uri_path_and_query: "/x".to_owned(),
                headers,
                peer: Some(peer.parse().unwrap()),
                template: "/x",
            };
            assert_eq!(head.client_ip(), Some(ip.parse().unwrap()), "{peer} {forwarded}");
        };
        check("127.0.0.1:1", "6.6.6.6, 203.0.113.7", "203.0.113.7");
        check("[::1]:1", "2001:db8::1", "2001:db8::1");
        check("[::ffff:172.17.0.1]:1", "203.0.113.7", "203.0.113.7");
        check("198.51.100.1:1", "203.0.113.7", "198.51.100.1");
        check("10.0.0.1:1", "unknown", "10.0.0.1");
    }
}
