//! The object that a signature on a federation request covers.
//!
//! Specification: server-server API, "Request Authentication".

use ruma::ServerName;
use serde_json::Value;

use crate::{Object, canonical};

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

/// The text that the signature covers, with `content` in the canonical form of the text that came
/// ([`text::canonical`](crate::text::canonical)).
pub fn request_text(
    method: &str,
    uri: &str,
    origin: &ServerName,
    destination: Option<&ServerName>,
    content: Option<&str>,
) -> String {
    let others = canonical::encode(&request_object(method, uri, origin, destination, None));
    match content {
        // The first key of all.
        Some(content) => format!("{{\"content\":{content},{}", &others[1..]),
        None => others,
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;
    use serde_json::json;

    use super::*;

    #[test]
    fn text_and_object_are_the_same() {
        let (origin, to) = (server_name!("a.example"), server_name!("b.example"));
        for destination in [None, Some(to)] {
            for content in [None, Some(json!({ "b": [1], "a": {} }))] {
                let object = request_object("PUT", "/x", origin, destination, content.as_ref());
                let content = content.map(|content| content.to_string());
                let content = content.map(|c| crate::text::canonical(c.as_bytes()).unwrap());
                let text = request_text("PUT", "/x", origin, destination, content.as_deref());
                assert_eq!(text, canonical::encode(&object));
            }
        }
    }
}
