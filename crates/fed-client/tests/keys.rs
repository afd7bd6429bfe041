//! Checks of key documents.

use exeunt_core::ruma::server_name;
use exeunt_core::{Object, Signer};
use exeunt_fed_client::keys::MAX_VALIDITY_MS;
use exeunt_fed_client::{KeyDocumentError as E, ServerKeys};
use serde_json::{Value, json};

const NOW: u64 = 1_700_000_000_000;

fn signer(key_id: &str, seed: u8) -> Signer {
    Signer::new("remote.test".try_into().unwrap(), key_id, &[seed; 32]).unwrap()
}

fn document(valid_until: u64) -> Value {
    json!({
        "server_name": "remote.test",
        "valid_until_ts": valid_until,
        "verify_keys": { "ed25519:k": { "key": signer("ed25519:k", 1).public() } },
        "old_verify_keys": {
            "ed25519:old": { "key": signer("ed25519:old", 2).public(), "expired_ts": 1_000 },
        },
    })
}

fn signed(mut document: Value, by: &[&Signer]) -> Object {
    let object = document.as_object_mut().unwrap();
    by.iter().for_each(|signer| signer.sign_object(object));
    object.clone()
}

fn check(document: Object) -> Result<ServerKeys, E> {
    ServerKeys::check(server_name!("remote.test"), document, NOW)
}

#[test]
fn a_good_document() {
    let keys = check(signed(document(NOW + 5), &[&signer("ed25519:k", 1)])).unwrap();
    assert_eq!((keys.valid_until, keys.keys["ed25519:k"].valid_until), (NOW + 5, NOW + 5));
    assert_eq!(keys.old_keys["ed25519:old"].valid_until, 1_000);
    let ring = keys.ring();
    assert!(ring.get(server_name!("remote.test"), "ed25519:k").is_some());
    assert!(ring.get(server_name!("remote.test"), "ed25519:old").is_some());
}

#[test]
fn validity_ends_after_seven_days() {
    let keys = check(signed(document(u64::MAX), &[&signer("ed25519:k", 1)])).unwrap();
    assert_eq!(keys.valid_until, NOW + MAX_VALIDITY_MS);
}

#[test]
fn an_old_key_is_not_valid_in_the_future() {
    let mut late = document(NOW + 5);
    late["old_verify_keys"]["ed25519:old"]["expired_ts"] = json!(NOW + 1_000_000);
    let keys = check(signed(late, &[&signer("ed25519:k", 1)])).unwrap();
    assert_eq!(keys.old_keys["ed25519:old"].valid_until, NOW);
}

#[test]
fn a_key_that_did_not_sign_does_not_count() {
    let mut two = document(NOW + 5);
    two["verify_keys"]["ed25519:m"] = json!({ "key": signer("ed25519:m", 3).public() });
    let one = check(signed(two.clone(), &[&signer("ed25519:k", 1)])).unwrap();
    assert_eq!(one.keys.keys().collect::<Vec<_>>(), ["ed25519:k"]);
    let both = check(signed(two, &[&signer("ed25519:k", 1), &signer("ed25519:m", 3)])).unwrap();
    assert_eq!(both.keys.len(), 2);
}

#[test]
fn documents_that_are_refused() {
    let good = signer("ed25519:k", 1);
    let change = |key: &str, value: Value| {
        let mut document = document(NOW + 5);
        document[key] = value;
        signed(document, &[&good])
    };
    assert_eq!(check(change("server_name", json!("other.test"))), Err(E::OtherServer));
    assert!(matches!(check(change("server_name", json!(1))), Err(E::Malformed(_))));
    assert_eq!(check(signed(document(NOW - 1), &[&good])), Err(E::Expired));
    assert!(matches!(check(change("valid_until_ts", json!("1"))), Err(E::Malformed(_))));
    assert_eq!(check(signed(document(NOW + 5), &[])), Err(E::Unsigned));
    assert_eq!(check(change("verify_keys", json!({}))), Err(E::Unsigned));
    assert!(matches!(check(change("verify_keys", json!([]))), Err(E::Malformed(_))));
    let bad = json!({ "ed25519:k": { "key": "AAAA" } });
    assert!(matches!(check(change("verify_keys", bad)), Err(E::Malformed(_))));

    let wrong = signed(document(NOW + 5), &[&signer("ed25519:k", 4)]);
    assert_eq!(check(wrong), Err(E::BadSignature("ed25519:k".into())));
    let mut tampered = signed(document(NOW + 5), &[&good]);
    tampered.insert("valid_until_ts".into(), json!(NOW + 6));
    assert_eq!(check(tampered), Err(E::BadSignature("ed25519:k".into())));
    // The old key signed, which proves nothing about the present.
    assert_eq!(check(signed(document(NOW + 5), &[&signer("ed25519:old", 2)])), Err(E::Unsigned));
}
