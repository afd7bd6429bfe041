//! Checking the key document of another server.
//!
//! Specification: server-server API, "Publishing Keys".

use std::collections::BTreeMap;

use exeunt_core::Object;
use exeunt_core::key::{KeyRing, KnownKey, VerifyKey, signatures_of};
use exeunt_core::ruma::{OwnedServerName, ServerName};
use serde_json::Value;
use thiserror::Error;

/// Keys are trusted at most this long after they were fetched: 7 days.
pub const MAX_VALIDITY_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Keys of one kind that a document may hold.
const MAX_KEYS: usize = 64;
/// Longest key id.
const MAX_KEY_ID: usize = 255;

/// The keys of a server, from a document that it signed itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerKeys {
    pub server: OwnedServerName,
    /// Keys for requests and events.
    pub keys: BTreeMap<String, KnownKey>,
    /// Keys for events up to their `expired_ts` only.
    pub old_keys: BTreeMap<String, KnownKey>,
    /// When to fetch again (ms): `valid_until_ts`, at most 7 days ahead.
    pub valid_until: u64,
    /// The document as it came, for those who ask us as a notary.
    pub document: Object,
}

/// A key document that cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyDocumentError {
    #[error("the key document is not as specified: {0}")]
    Malformed(&'static str),
    #[error("the key document is of another server")]
    OtherServer,
    #[error("the key document has expired; check both clocks")]
    Expired,
    #[error("the signature by {0} on the key document is wrong")]
    BadSignature(String),
    #[error("the key document is not signed by any key that it lists")]
    Unsigned,
}

impl ServerKeys {
    /// Checks a document that claims to be `server`'s, received at `now_ms`.
    ///
    /// Only keys that signed the document count; one wrong signature spoils it.
    pub fn check(
        server: &ServerName,
        document: Object,
        now_ms: u64,
    ) -> Result<Self, KeyDocumentError> {
        use KeyDocumentError::Malformed;
        let name = document.get("server_name").and_then(Value::as_str);
        if name.ok_or(Malformed("server_name is missing"))? != server.as_str() {
            return Err(KeyDocumentError::OtherServer);
        }
        let keys = Self::check_any(document, now_ms)?;
        if keys.valid_until < now_ms { Err(KeyDocumentError::Expired) } else { Ok(keys) }
    }

    /// Checks a document of whatever server, as a notary gives it: it may have expired, and serves
    /// for events of its time. The notary's signature is for the caller to check.
    pub fn check_any(document: Object, now_ms: u64) -> Result<Self, KeyDocumentError> {
        use KeyDocumentError::Malformed;
        let server = document.get("server_name").and_then(Value::as_str);
        let server = server.ok_or(Malformed("server_name is missing"))?;
        let server = OwnedServerName::try_from(server)
            .map_err(|_| Malformed("server_name is no server name"))?;
        let server = &*server;
        let valid_until = document.get("valid_until_ts").and_then(Value::as_u64);
        let valid_until = valid_until.ok_or(Malformed("valid_until_ts is missing"))?;
        let valid_until = valid_until.min(now_ms.saturating_add(MAX_VALIDITY_MS));

        let mut keys = BTreeMap::new();
        for (key_id, key, _) in listed(&document, "verify_keys")? {
            let Some((_, signature)) = signatures_of(&document, server).find(|s| s.0 == key_id)
            else {
                continue;
            };
            if !key.verifies(&document, signature) {
                return Err(KeyDocumentError::BadSignature(key_id));
            }
            keys.insert(key_id, KnownKey { key, valid_until });
        }
        if keys.is_empty() {
            return Err(KeyDocumentError::Unsigned);
        }

        let mut old_keys = BTreeMap::new();
        for (key_id, key, entry) in listed(&document, "old_verify_keys")? {
            let expired = entry.get("expired_ts").and_then(Value::as_u64);
            let expired = expired.ok_or(Malformed("an old key has no expired_ts"))?.min(now_ms);
            if !keys.contains_key(&key_id) {
                old_keys.insert(key_id, KnownKey { key, valid_until: expired });
            }
        }
        Ok(Self { server: server.to_owned(), keys, old_keys, valid_until, document })
    }

    /// All keys as a ring, for events.
    pub fn ring(&self) -> KeyRing {
        let mut ring = KeyRing::default();
        for (key_id, key) in self.old_keys.iter().chain(&self.keys) {
            ring.insert(self.server.clone(), key_id.clone(), key.clone());
        }
        ring
    }
}

/// The Ed25519 keys under `field`, with their entries; other algorithms are passed over.
fn listed<'a>(
    document: &'a Object,
    field: &str,
) -> Result<Vec<(String, VerifyKey, &'a Value)>, KeyDocumentError> {
    use KeyDocumentError::Malformed;
    let entries = match document.get(field) {
        Some(Value::Object(entries)) => entries,
        None => return Ok(Vec::new()),
        Some(_) => return Err(Malformed("a list of keys is not an object")),
    };
    if entries.len() > MAX_KEYS {
        return Err(Malformed("too many keys"));
    }
    let ours =
        entries.iter().filter(|(id, _)| id.starts_with("ed25519:") && id.len() <= MAX_KEY_ID);
    ours.map(|(id, entry)| {
        let text = entry.get("key").and_then(Value::as_str).ok_or(Malformed("a key is missing"))?;
        let key = VerifyKey::from_base64(text).map_err(|_| Malformed("a key is not base64"))?;
        Ok((id.clone(), key, entry))
    })
    .collect()
}
