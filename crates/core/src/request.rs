//! The object that a signature on a federation request covers.
//!
//! Specification: server-server API, "Request Authentication".

use ruma::ServerName;
use serde_json::Value;

use crate::Object;

/// The request object of X-Matrix authentication, unsigned; the sender signs it, the receiver
/// adds the signature of the header and verifies it.
///
/// `uri` is the path with its query exactly as sent. `destination` is absent only when the header
/// of an old server carried none (spec before v1.3).
pub fn request_object(
    method: &str,
    uri: &str,
    origin: &ServerName,
    destination: Option<&ServerName>,
    content: Option<&Value>,
) -> Object {
    let mut object = Object::new();
    object.insert("method".into(), method.into());
    object.insert("uri".into(), uri.into());
    object.insert("origin".into(), origin.as_str().into());
    if let Some(destination) = destination {
        object.insert("destination".into(), destination.as_str().into());
    }
    if let Some(content) = content {
        object.insert("content".into(), content.clone());
    }
    object
}
