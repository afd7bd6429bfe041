//! Key documents of other servers: as they come, and signed, so that the rest is read too.

#![no_main]

use std::sync::LazyLock;

use exeunt_core::ruma::{OwnedServerName, server_name};
use exeunt_core::{Object, Signer, VerifyKey, key::signatures_of};
use exeunt_fed_client::keys::{MAX_VALIDITY_MS, ServerKeys};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const NOW: u64 = 1_700_000_000_000;

static SIGNER: LazyLock<Signer> = LazyLock::new(|| {
    let name = server_name!("a.example").to_owned();
    Signer::new(name, "ed25519:a", &[7; 32]).expect("a seed")
});

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = VerifyKey::from_base64(text)
    {
        assert_eq!(VerifyKey::from_base64(&key.to_base64()), Ok(key));
    }
    let Ok(document) = serde_json::from_slice::<Object>(data) else { return };
    let name = document.get("server_name").and_then(Value::as_str).unwrap_or_default();
    if let Ok(name) = OwnedServerName::try_from(name) {
        check(&name, document.clone());
    }
    check(SIGNER.server(), signed(document));
});

/// The document with our key in it, and our signature on it.
fn signed(mut document: Object) -> Object {
    document.insert("server_name".into(), SIGNER.server().as_str().into());
    document.entry("valid_until_ts").or_insert_with(|| (NOW + 1).into());
    let keys = document.entry("verify_keys").or_insert_with(|| json!({}));
    if let Some(keys) = keys.as_object_mut() {
        keys.insert(SIGNER.key_id().into(), json!({ "key": SIGNER.public() }));
    }
    SIGNER.sign_object(&mut document);
    document
}

fn check(name: &exeunt_core::ruma::ServerName, document: Object) {
    let Ok(keys) = ServerKeys::check(name, document.clone(), NOW) else { return };
    assert_eq!(keys.server, name);
    assert!((NOW..=NOW + MAX_VALIDITY_MS).contains(&keys.valid_until));
    assert!(!keys.keys.is_empty());
    for (key_id, known) in &keys.keys {
        assert_eq!(known.valid_until, keys.valid_until);
        let signed = |(id, sig)| id == key_id && known.key.verifies(&document, sig);
        assert!(signatures_of(&document, name).any(signed), "{key_id} did not sign");
    }
    for (key_id, known) in &keys.old_keys {
        assert!(known.valid_until <= NOW, "{key_id} is old, and good for the future");
        assert!(!keys.keys.contains_key(key_id));
    }
    assert!(keys.ring().signed_by(&document, name, Some(NOW)));
    // A notary passes the document on: written and read, it says the same.
    let json = serde_json::to_vec(&keys.document).expect("JSON is written");
    let passed_on = serde_json::from_slice(&json).expect("what we write, we read");
    assert_eq!(ServerKeys::check(name, passed_on, NOW), Ok(keys));
}
