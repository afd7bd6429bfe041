//! The specification's own examples (appendices, "Canonical JSON" and "Cryptographic Test
//! Vectors"), and event ids computed by hand.

mod common;

use common::*;
use exeunt_core::canonical::{self, CanonicalError};
use exeunt_core::{Draft, Object, Signer, VerifyKey, hash, redact};
use serde_json::{Value, json};

#[track_caller]
fn encodes(json: &str, expected: &str) {
    assert_eq!(canonical::encode(&serde_json::from_str(json).unwrap()), expected);
}

#[test]
fn canonical_json() {
    encodes("{}", "{}");
    encodes(r#"{ "one": 1, "two": "Two" }"#, r#"{"one":1,"two":"Two"}"#);
    encodes(r#"{ "b": "2", "a": "1" }"#, r#"{"a":"1","b":"2"}"#);
    encodes(r#"{"b":"2","a":"1"}"#, r#"{"a":"1","b":"2"}"#);
    encodes(
        r#"{ "auth": { "success": true, "mxid": "@john.doe:example.com", "profile": {
            "display_name": "John Doe", "three_pids": [
                { "medium": "email", "address": "john.doe@example.org" },
                { "medium": "msisdn", "address": "123456789" } ] } } }"#,
        concat!(
            r#"{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","#,
            r#""three_pids":[{"address":"john.doe@example.org","medium":"email"},"#,
            r#"{"address":"123456789","medium":"msisdn"}]},"success":true}}"#
        ),
    );
    encodes(r#"{ "a": "日本語" }"#, r#"{"a":"日本語"}"#);
    encodes(r#"{ "本": 2, "日": 1 }"#, r#"{"日":1,"本":2}"#);
    encodes(r#"{ "a": "\u65E5" }"#, r#"{"a":"日"}"#);
    encodes(r#"{ "a": null }"#, r#"{"a":null}"#);
}

#[test]
fn canonical_json_escapes_what_the_grammar_escapes() {
    encodes(
        r#"{ "a": "\b\t\n\f\r\"\\\/\u0000\u001F\u007f\u2028" }"#,
        "{\"a\":\"\\b\\t\\n\\f\\r\\\"\\\\/\\u0000\\u001f\u{7f}\u{2028}\"}",
    );
    // By code point: astral characters after U+FFFF, unlike in UTF-16.
    encodes(r#"{ "\ud83d\ude00": 1, "\uff61": 2 }"#, "{\"\u{ff61}\":2,\"\u{1f600}\":1}");
}

/// Python's `repr`, which Synapse writes into the canonical form.
#[test]
fn floats_are_spelt_as_python_spells_them() {
    for (json, expected) in [
        ("0.0", "0.0"),
        ("1e15", "1000000000000000.0"),
        ("1e16", "1e+16"),
        ("123456789012345680.0", "1.2345678901234568e+17"),
        ("-0.0001", "-0.0001"),
        ("-0.00001", "-1e-05"),
        ("1.5e-7", "1.5e-07"),
        ("5e-324", "5e-324"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("3.141592653589793", "3.141592653589793"),
        ("2.2250738585072014E-308", "2.2250738585072014e-308"),
        ("18446744073709551615", "18446744073709551615"),
    ] {
        encodes(&format!(r#"{{"a":{json}}}"#), &format!(r#"{{"a":{expected}}}"#));
    }
}

#[test]
fn canonical_json_has_integers_of_53_bits_only() {
    let check = |json: &str| canonical::check(&serde_json::from_str(json).unwrap());
    assert_eq!(check(r#"{ "a": [9007199254740991, -9007199254740991, 0] }"#), Ok(()));
    for wide in ["9007199254740992", "-9007199254740992", "18446744073709551615"] {
        assert_eq!(check(&format!(r#"{{ "a": [[{wide}]] }}"#)), Err(CanonicalError::IntegerRange));
    }
    for float in ["1.0", "1e3", "0.1", "-0", "99999999999999999999999"] {
        assert_eq!(check(&format!(r#"{{ "a": {{ "b": {float} }} }}"#)), Err(CanonicalError::Float));
    }
}

fn signature(object: &Object) -> &Value {
    &object["signatures"]["domain"][KEY_ID]
}

#[test]
fn json_signing() {
    let vectors = [
        (
            json!({}),
            "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ",
        ),
        (
            json!({ "one": 1, "two": "Two" }),
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        ),
    ];
    for (json, expected) in vectors {
        let mut signed = object(json);
        signer("domain").sign_object(&mut signed);
        assert_eq!(signature(&signed), expected);
        assert!(ring(&["domain"]).signed_by(&signed, &server("domain"), None));
        // Neither unsigned data nor further signatures are covered; all else is.
        signed.insert("unsigned".into(), json!({ "age_ts": 922834800000_u64 }));
        signer("other").sign_object(&mut signed);
        assert_eq!(signature(&signed), expected);
        assert!(ring(&["domain"]).signed_by(&signed, &server("domain"), None));
        signed.insert("two".into(), json!("2"));
        assert!(!ring(&["domain"]).signed_by(&signed, &server("domain"), None));
    }
}

#[test]
fn event_signing_of_the_minimal_event() {
    let minimal = Draft {
        prev_events: vec![],
        auth_events: vec![],
        origin_server_ts: 1_000_000,
        ..draft(version("3"), "X", None, json!({}))
    };
    let signed = minimal.sign(&signer("domain")).unwrap();
    let expected = json!({
        "auth_events": [],
        "content": {},
        "depth": 3,
        "hashes": { "sha256": "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos" },
        "origin": "domain",
        "origin_server_ts": 1_000_000,
        "prev_events": [],
        "room_id": "!x:domain",
        "sender": "@a:domain",
        "signatures": { "domain": { "ed25519:1":
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"
        } },
        "type": "X",
    });
    assert_eq!(signed.object(), &object(expected));
}

#[test]
fn event_signing_of_redactable_content() {
    let mut event = object(json!({
        "content": { "body": "Here is the message content" },
        "event_id": "$0:domain",
        "origin": "domain",
        "origin_server_ts": 1_000_000,
        "type": "m.room.message",
        "room_id": "!r:domain",
        "sender": "@u:domain",
        "signatures": {},
        "unsigned": { "age_ts": 1_000_000 },
    }));
    hash::set_content_hash(&mut event);
    assert_eq!(event["hashes"]["sha256"], "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g");
    assert!(hash::content_hash_holds(&event));
    let mut redacted = redact::redact(version("1"), &event);
    assert_eq!(redacted["content"], json!({}));
    signer("domain").sign_object(&mut redacted);
    assert_eq!(
        signature(&redacted),
        "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA"
    );
}

/// SHA-256 of the redacted event's canonical JSON, computed with Python's hashlib.
#[test]
fn event_ids() {
    let event = object(json!({
        "auth_events": ["$aaa"],
        "content": { "membership": "leave", "reason": "bye" },
        "depth": 9,
        "hashes": { "sha256": "x" },
        "origin": "domain",
        "origin_server_ts": 1_000_000,
        "prev_events": ["$ppp"],
        "room_id": "!x:domain",
        "sender": "@a:domain",
        "signatures": { "domain": { "ed25519:1": "s" } },
        "state_key": "@a:domain",
        "type": "m.room.member",
        "unsigned": { "age": 1 },
    }));
    let expected = [
        ("3", "$+3Brqic3vYaNLcGQfn/XTj9+xt0YVK2i4Uteim35S8s"),
        ("4", "$-3Brqic3vYaNLcGQfn_XTj9-xt0YVK2i4Uteim35S8s"),
        ("10", "$-3Brqic3vYaNLcGQfn_XTj9-xt0YVK2i4Uteim35S8s"),
        ("11", "$t69krgMTxwiwoT97LpB-Etoi-0KJbunSZ9qTP2IAz_8"),
        ("12", "$t69krgMTxwiwoT97LpB-Etoi-0KJbunSZ9qTP2IAz_8"),
    ];
    assert_eq!(hash::event_id(version("1"), &event), None);
    let mut named = event.clone();
    named.insert("event_id".into(), json!("$e:domain"));
    assert_eq!(hash::event_id(version("2"), &named).unwrap().as_str(), "$e:domain");
    for (id, expected) in expected {
        assert_eq!(hash::event_id(version(id), &event).unwrap().as_str(), expected, "{id}");
    }
}

#[test]
fn keys_and_base64() {
    assert_eq!(signer("domain").public(), "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI");
    for bad in ["ed25519:", "ed25519", "rsa:1", "ed25519:a b", "ed25519:a.b", ""] {
        assert!(Signer::new(server("domain"), bad, &seed()).is_err(), "{bad}");
    }
    assert!(Signer::new(server("domain"), KEY_ID, &seed()[1..]).is_err());
    let public = signer("domain").public();
    let key = VerifyKey::from_base64(&public).unwrap();
    assert_eq!(key.to_base64(), public);
    // Padding and leftover bits in the last character do not matter, as at other servers.
    assert_eq!(VerifyKey::from_base64(&format!("{public}=")), Ok(key.clone()));
    assert_eq!(VerifyKey::from_base64(&public.replace("cJNI", "cJNJ")), Ok(key));
    for bad in ["", "AAAA", &public[1..], &format!("{public}AA"), &public.replace('X', "-")] {
        assert!(VerifyKey::from_base64(bad).is_err(), "{bad}");
    }
}
