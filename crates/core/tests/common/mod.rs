//! Signers, drafts and the bridge to ruma that the tests share.
#![allow(dead_code)]

use std::collections::BTreeMap;

use exeunt_core::encoding;
use exeunt_core::key::KnownKey;
use exeunt_core::ruma::OwnedServerName;
use exeunt_core::ruma::serde::Base64;
use exeunt_core::ruma::signatures::{Ed25519KeyPair, PublicKeyMap};
use exeunt_core::ruma::{CanonicalJsonObject, canonical_json::try_from_json_map};
use exeunt_core::{Draft, KeyRing, Object, Reference, RoomVersion, Signer, VerifyKey};
use serde_json::{Value, json};

/// The seed of the specification's test vectors.
pub const SPEC_SEED: &str = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";
pub const KEY_ID: &str = "ed25519:1";
pub const NOW: u64 = 1_700_000_000_000;

pub fn seed() -> Vec<u8> {
    encoding::from_base64(SPEC_SEED).unwrap()
}

pub fn server(name: &str) -> OwnedServerName {
    name.try_into().unwrap()
}

pub fn signer(name: &str) -> Signer {
    Signer::new(server(name), KEY_ID, &seed()).unwrap()
}

/// The key of the vectors, for each of the servers.
pub fn ring_until(servers: &[&str], valid_until: u64) -> KeyRing {
    let mut ring = KeyRing::default();
    for name in servers {
        let key = VerifyKey::from_base64(&signer(name).public()).unwrap();
        ring.insert(server(name), KEY_ID.into(), KnownKey { key, valid_until });
    }
    ring
}

pub fn ring(servers: &[&str]) -> KeyRing {
    ring_until(servers, u64::MAX)
}

/// The same key pair for ruma, as PKCS#8.
pub fn ruma_pair() -> Ed25519KeyPair {
    let prefix = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let der = [&prefix[..], &seed()].concat();
    Ed25519KeyPair::from_der(&der, "1".into()).unwrap()
}

pub fn ruma_keys(servers: &[&str]) -> PublicKeyMap {
    let public = Base64::parse(signer("domain").public()).unwrap();
    let keys = BTreeMap::from([(KEY_ID.to_owned(), public)]);
    servers.iter().map(|name| ((*name).to_owned(), keys.clone())).collect()
}

pub fn to_ruma(object: &Object) -> CanonicalJsonObject {
    try_from_json_map(object.clone()).unwrap()
}

pub fn from_ruma(object: &CanonicalJsonObject) -> Object {
    let text = serde_json::to_string(object).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub fn object(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

pub fn version(id: &str) -> RoomVersion {
    RoomVersion::all().find(|version| version.as_str() == id).unwrap()
}

pub fn draft(version: RoomVersion, kind: &str, state_key: Option<&str>, content: Value) -> Draft {
    let id = |c: &str| match version.id_is_claimed() {
        true => json!([format!("${c}:domain"), { "sha256": c.repeat(43) }]),
        false => json!(format!("${}", c.repeat(43))),
    };
    let id = |c: &str| Reference::from_wire(version, &id(c)).unwrap();
    Draft {
        version,
        room_id: Some("!x:domain".try_into().unwrap()),
        sender: "@a:domain".try_into().unwrap(),
        kind: kind.into(),
        state_key: state_key.map(Into::into),
        content: object(content),
        redacts: None,
        prev_events: vec![id("p")],
        auth_events: vec![id("a"), id("b")],
        depth: 3,
        origin_server_ts: NOW,
    }
}
