//! Ed25519 keys: signing, verifying, and rings of other servers' keys. Ring behind one interface.
//!
//! Specification: appendices, "Signing JSON"; server-server API, "Retrieving server keys".

use std::collections::BTreeMap;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use ruma::{OwnedServerName, ServerName};
use serde_json::Value;
use thiserror::Error;

use crate::{Object, canonical, encoding, request_text};

/// This server's name and signing key. Signs only objects that this process built; see
/// [`Draft::sign`](crate::Draft::sign) and [`CheckedPdu::cosign_invite`](crate::CheckedPdu).
pub struct Signer {
    server: OwnedServerName,
    key_id: String,
    pair: Ed25519KeyPair,
}

/// The seed or the key id of a signing key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    #[error("an Ed25519 seed has 32 bytes")]
    Seed,
    #[error("a key id looks like ed25519:abc_1, not {0:?}")]
    KeyId(String),
    #[error("not an Ed25519 public key in base64")]
    Public,
}

impl Signer {
    /// A signer for `server`; `key_id` with its algorithm, as in `ed25519:abc`.
    pub fn new(server: OwnedServerName, key_id: &str, seed: &[u8]) -> Result<Self, KeyError> {
        let name = key_id.strip_prefix("ed25519:").unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(KeyError::KeyId(key_id.into()));
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Seed)?;
        Ok(Self { server, key_id: key_id.into(), pair })
    }

    pub fn server(&self) -> &ServerName {
        &self.server
    }

    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public half, in unpadded base64.
    pub fn public(&self) -> String {
        encoding::to_base64(self.pair.public_key().as_ref())
    }

    /// The signature of a request to another server, whose content is in canonical form.
    pub fn sign_request(
        &self,
        method: &str,
        uri: &str,
        destination: &ServerName,
        content: Option<&str>,
    ) -> String {
        let text = request_text(method, uri, self.server(), Some(destination), content);
        encoding::to_base64(self.pair.sign(text.as_bytes()).as_ref())
    }

    /// Adds our signature to an object, leaving `unsigned` and other signatures as they are.
    ///
    /// Not for events (see [`Draft`](crate::Draft)): this signs what it is given. Its callers are
    /// the key document, built from scratch, and the notary,
    /// whose documents hold `server_name`, which no event keeps when it is redacted for signing.
    pub fn sign_object(&self, object: &mut Object) {
        let signature = self.signature_of(object);
        self.add_signature(object, signature);
    }

    pub(crate) fn signature_of(&self, object: &Object) -> String {
        encoding::to_base64(self.pair.sign(signed_bytes(object).as_bytes()).as_ref())
    }

    pub(crate) fn add_signature(&self, object: &mut Object, signature: String) {
        let all = entry_object(object, "signatures");
        entry_object(all, self.server.as_str()).insert(self.key_id.clone(), signature.into());
    }
}

/// The object under `key`, made (or replaced, where it is something else) if need be.
fn entry_object<'a>(object: &'a mut Object, key: &str) -> &'a mut Object {
    let slot = object.entry(key).or_insert_with(|| Value::Object(Object::new()));
    if !slot.is_object() {
        *slot = Value::Object(Object::new());
    }
    slot.as_object_mut().expect("made an object just now")
}

/// What a signature covers: the canonical form without `signatures` and `unsigned`.
fn signed_bytes(object: &Object) -> String {
    canonical::encode_without(object, &["signatures", "unsigned"])
}

/// A public Ed25519 key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyKey([u8; 32]);

impl VerifyKey {
    /// Parses unpadded (or padded) base64.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes = encoding::from_base64(text);
        bytes.and_then(|b| b.try_into().ok()).map(Self).ok_or(KeyError::Public)
    }

    pub fn to_base64(&self) -> String {
        encoding::to_base64(&self.0)
    }

    /// Whether `signature` (base64) is this key's over `object`.
    pub fn verifies(&self, object: &Object, signature: &str) -> bool {
        self.verifies_text(&signed_bytes(object), signature)
    }

    /// Whether `signature` (base64) is this key's over just that text.
    pub fn verifies_text(&self, text: &str, signature: &str) -> bool {
        let Some(signature) = encoding::from_base64(signature) else {
            return false;
        };
        UnparsedPublicKey::new(&ED25519, &self.0).verify(text.as_bytes(), &signature).is_ok()
    }
}

/// A known key of another server and how long it may be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    pub key: VerifyKey,
    /// Milliseconds since the epoch: `valid_until_ts` (capped by whoever fetched the key) of a
    /// current key, `expired_ts` of an old one.
    pub valid_until: u64,
}

/// Keys of servers, as plain data: fetched before a check, never during it.
#[derive(Debug, Clone, Default)]
pub struct KeyRing(BTreeMap<OwnedServerName, BTreeMap<String, KnownKey>>);

impl KeyRing {
    pub fn insert(&mut self, server: OwnedServerName, key_id: String, key: KnownKey) {
        self.0.entry(server).or_default().insert(key_id, key);
    }

    pub fn get(&self, server: &ServerName, key_id: &str) -> Option<&KnownKey> {
        self.0.get(server)?.get(key_id)
    }

    pub fn merge(&mut self, other: KeyRing) {
        for (server, keys) in other.0 {
            self.0.entry(server).or_default().extend(keys);
        }
    }

    /// Whether `object` carries a signature by `server` that holds under a key we know. With
    /// `at`, only keys still valid at that time (ms) count. Unknown keys are skipped; one good
    /// signature is enough (server-server API, "Validating hashes and signatures").
    pub fn signed_by(&self, object: &Object, server: &ServerName, at: Option<u64>) -> bool {
        signatures_of(object, server).any(|(key_id, signature)| {
            self.get(server, key_id).is_some_and(|known| {
                at.is_none_or(|at| at <= known.valid_until) && known.key.verifies(object, signature)
            })
        })
    }
}

/// The (key id, signature) pairs that an object carries for a server.
pub fn signatures_of<'a>(
    object: &'a Object,
    server: &ServerName,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    object
        .get("signatures")
        .and_then(|all| all.get(server.as_str()))
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key_id, value)| Some((key_id.as_str(), value.as_str()?)))
}
