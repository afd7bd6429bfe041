//! Room versions 1 and 2: ids that events carry, references with hashes, lax numbers.

mod common;

use common::*;
use exeunt_core::ruma::OwnedEventId;
use exeunt_core::verify::required_signers;
use exeunt_core::{Draft, FormatError, Object, Pdu, Reference, encoding, hash};
use serde_json::{Value, json};

/// An event of version 2 and one that follows it, byte for byte as `synapse.crypto.event_signing`
/// hashes and signs them.
#[test]
fn golden_events() {
    let first = Draft {
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        origin_server_ts: 1_000_000,
        ..draft(version("2"), "m.room.message", None, json!({ "body": "hi" }))
    };
    let first = first.sign(&signer("domain")).unwrap();
    let second = Draft {
        prev_events: vec![Reference::from(first.pdu())],
        auth_events: Vec::new(),
        depth: 4,
        origin_server_ts: 1_000_001,
        ..draft(version("2"), "m.room.name", Some(""), json!({ "name": "x" }))
    };
    let second = second.sign(&signer("domain")).unwrap();
    assert_eq!(first.canonical_json(), FIRST);
    assert_eq!(second.canonical_json(), SECOND);
    let read = Pdu::parse(version("2"), SECOND.as_bytes()).unwrap();
    assert_eq!(read.prev_events(), [first.event_id().to_owned()]);
    assert_eq!(read.check(&ring(&["domain"])).unwrap().object(), second.object());
}

const FIRST: &str = concat!(
    r#"{"auth_events":[],"content":{"body":"hi"},"depth":3,"event_id":"$yhjHV9NCoDbvWRh4kPYJC"#,
    r#"beoaEUwbvU23UoYXPUFk2g:domain","hashes":{"sha256":"FDAUL/U4BejeVLXDuphtHCP8qI0U3SaXeDa"#,
    r#"axk+G2Ec"},"origin":"domain","origin_server_ts":1000000,"prev_events":[],"room_id":"!x"#,
    r#":domain","sender":"@a:domain","signatures":{"domain":{"ed25519:1":"Z343boroZlgraKHOTle"#,
    r#"otNPByPR7hMvkJSXr+pTPdNc+MhF/IdqGbwX7Y3RwIzqmRyylNUVBPdIinK/M1+oYBw"}},"type":"m.room."#,
    r#"message"}"#,
);
const SECOND: &str = concat!(
    r#"{"auth_events":[],"content":{"name":"x"},"depth":4,"event_id":"$w2T6mmgs7MzEA6lxrf6aq4"#,
    r#"UFexzCh4oWCPS-ouGC-_s:domain","hashes":{"sha256":"kEGSNmGVynPsmXQT+EfxSLtRg5q0AcaZyPZH"#,
    r#"9w8rGmA"},"origin":"domain","origin_server_ts":1000001,"prev_events":[["$yhjHV9NCoDbvW"#,
    r#"Rh4kPYJCbeoaEUwbvU23UoYXPUFk2g:domain",{"sha256":"r6QnxJVYEg2pDxiuGWtepP7ZNtVObnJwFwnz"#,
    r#"jE3oaXU"}]],"room_id":"!x:domain","sender":"@a:domain","signatures":{"domain":{"ed2551"#,
    r#"9:1":"U8v3kNIKjfDqlObgYqtDZdSJS67NzPDcd8lnOv1I1498Y6aafMEN5MUqCm7bZaPg2bekS9T7uBOqs7FY"#,
    r#"qipKDQ"}},"state_key":"","type":"m.room.name"}"#,
);

#[test]
fn ids_are_unique_and_survive_redaction() {
    for id in ["1", "2"] {
        let sign = |body: &str, at| {
            let mut draft = draft(version(id), "m.room.message", None, json!({ "body": body }));
            draft.origin_server_ts = at;
            draft.sign(&signer("domain")).unwrap()
        };
        let event = sign("a", 1);
        assert_eq!(event.event_id().server_name(), Some(&*server("domain")));
        assert_ne!(event.event_id(), sign("b", 1).event_id());
        assert_ne!(event.event_id(), sign("a", 2).event_id());
        assert_eq!(event.event_id(), sign("a", 1).event_id());
        let redacted = event.redacted();
        assert_eq!(redacted.event_id(), event.event_id());
        assert!(redacted.is_same_event(&event) && redacted.content().is_empty());
    }
}

#[test]
fn another_event_under_the_same_id_is_another_event() {
    let event = draft(version("2"), "m.room.message", None, json!({ "body": "a" }));
    let event = event.sign(&signer("domain")).unwrap();
    let mut forged = event.object().clone();
    forged["depth"] = json!(4);
    let forged = Pdu::from_object(version("2"), forged).unwrap();
    assert_eq!(forged.event_id(), event.event_id());
    assert!(!forged.is_same_event(&event) && forged != *event.pdu());
}

/// The server that the id names must sign, whoever the sender is.
#[test]
fn the_server_of_the_id_must_have_signed() {
    let mut event = draft(version("2"), "m.room.message", None, json!({}));
    event.auth_events.clear();
    let mut object = event.sign(&signer("domain")).unwrap().object().clone();
    object.insert("event_id".into(), json!("$e:other"));
    hash::set_content_hash(&mut object);
    let sign = |object: &Object, by: &[&str]| {
        let mut object = object.clone();
        object.insert("signatures".into(), json!({}));
        let mut bare = exeunt_core::redact::redact(version("2"), &object);
        for server in by {
            signer(server).sign_object(&mut bare);
        }
        object.insert("signatures".into(), bare["signatures"].clone());
        Pdu::from_object(version("2"), object).unwrap()
    };
    let keys = ring(&["domain", "other"]);
    assert_eq!(required_signers(&sign(&object, &[])), [server("domain"), server("other")]);
    assert_eq!(sign(&object, &["domain"]).check(&keys).unwrap_err().server, server("other"));
    assert_eq!(sign(&object, &["other"]).check(&keys).unwrap_err().server, server("domain"));
    assert!(sign(&object, &["domain", "other"]).check(&keys).is_ok());
}

/// As in Synapse: two entries, the second an object of strings, whatever it says.
#[test]
fn received_references_are_pairs_whose_hash_nobody_checks() {
    let parse = |entry: Value| {
        let event = draft(version("2"), "m.room.message", None, json!({}));
        let mut event = event.sign(&signer("domain")).unwrap().object().clone();
        event.insert("prev_events".into(), json!([entry]));
        Pdu::from_object(version("2"), event)
    };
    for good in [json!({ "sha256": "x" }), json!({}), json!({ "md5": "x" })] {
        let event = parse(json!(["$p:domain", good])).unwrap();
        assert_eq!(event.prev_events()[0].as_str(), "$p:domain");
    }
    for bad in [
        json!("$p:domain"),
        json!(["$p:domain"]),
        json!(["$p:domain", {}, {}]),
        json!(["$p:domain", null]),
        json!(["$p:domain", { "sha256": 1 }]),
        json!(["p", {}]),
        json!([1, {}]),
        json!({}),
    ] {
        assert_eq!(parse(bad).unwrap_err(), FormatError::Field("prev_events"));
    }
}

#[test]
fn our_references_hold_the_hash_if_it_is_known() {
    let hash = "a".repeat(42) + "A";
    let whole = json!(["$p:domain", { "sha256": hash, "md5": "x" }]);
    let event = Draft {
        prev_events: vec![Reference::from_wire(version("1"), &whole).unwrap()],
        ..draft(version("1"), "m.room.message", None, json!({}))
    };
    let event = event.sign(&signer("domain")).unwrap();
    assert_eq!(event.object()["prev_events"], json!([["$p:domain", { "sha256": hash }]]));
    for bad in [
        json!(["$p:domain"]),
        json!(["$p:domain", { "sha256": "x" }]),
        json!(["$p:domain", { "sha256": hash.replace('A', "AAAA") }]),
        json!(["$p", { "sha256": hash }]),
        json!([format!("${}:domain", "p".repeat(248)), { "sha256": hash }]),
        json!("$p:domain"),
    ] {
        assert_eq!(Reference::from_wire(version("1"), &bad), None, "{bad}");
    }
    let mut bare = draft(version("1"), "m.room.message", None, json!({}));
    bare.auth_events = vec![OwnedEventId::try_from("$a:domain").unwrap().into()];
    bare.prev_events =
        vec![Reference::from_wire(version("1"), &json!(["$p:domain", { "md5": "x" }])).unwrap()];
    let bare = bare.sign(&signer("domain")).unwrap();
    assert_eq!(bare.object()["auth_events"], json!([["$a:domain", {}]]));
    assert_eq!(bare.object()["prev_events"], json!([["$p:domain", {}]]));
}

/// Spellings and hashes as `synapse.crypto.event_signing` gives them.
#[test]
fn lax_numbers_hash_as_in_synapse() {
    let event = |number: &str| -> Object {
        let text = format!(
            r#"{{"auth_events":[],"prev_events":[],"type":"m.room.power_levels","state_key":"",
            "sender":"@u:l","content":{{"ban":{number}}},"depth":2,"origin_server_ts":1,
            "hashes":{{"sha256":"h"}},"signatures":{{}},"unsigned":{{}},"room_id":"!a:l",
            "event_id":"$a:l"}}"#
        );
        serde_json::from_str(&text).unwrap()
    };
    for (number, spelt, reference_hash, content_hash) in [
        (
            "1.0",
            "1.0",
            "CXtCG7cfv9IIyAnnTj9YEI1ZE7HVp+0UrQxZQjzRF8A",
            "pSvnH6ZzaFjWN9eN2xgRxI7uzMFmB5xGP412ZnDlDsI",
        ),
        (
            "1e3",
            "1000.0",
            "YKBGZ71aXdZZpLN7O8dlkWLIFh5tXSVbRPfft8RSR7k",
            "ofZH/ZbGeNFV3McVM2RFEZygDutZ31Zu9NZVDIhVGKw",
        ),
        (
            "-0.0",
            "-0.0",
            "KRQwY+aeFXfwTjMGJLm5l8g7k+E4ZI5P7w/kP/UVNII",
            "pSmkqypqK8E2C0Kanafi0upVFVlpbnoW28+vgroq0X0",
        ),
        (
            "9007199254740993",
            "9007199254740993",
            "5Pf5iBwMI4LAiW5dzdtpextBujJvEXkGPFYKSlsbK/0",
            "E6ugqH8TymySliAcg7MNf0WvZgdTQ8dESex7kblKzQo",
        ),
        (
            "1e20",
            "1e+20",
            "PMwbrcFSdq7s53/uxKhA82YVtmtblr98m73yw6yEEEA",
            "yiRX1Prp983ADRND4pvTdOCv7Fn/wi+66dgyqQgQyTk",
        ),
        (
            "1e-5",
            "1e-05",
            "lNTrSAQBJizjuYQJl+xJAMj3/Bgt36+tgpDynVPXroE",
            "S/QwvrNgnudKz77QPIYEgnQuVm5GuCz0dyJn0ZczNNU",
        ),
    ] {
        let event = event(number);
        let hash = encoding::to_base64(&hash::reference_hash(version("2"), &event));
        assert_eq!(hash, reference_hash, "{number}");
        assert_eq!(encoding::to_base64(&hash::content_hash(&event)), content_hash, "{number}");
        let pdu = Pdu::from_object(version("2"), event).unwrap();
        assert!(pdu.canonical_json().contains(&format!(r#""ban":{spelt}}}"#)), "{number}");
        // Stored and read again, it is the same.
        let read = Pdu::parse(version("2"), pdu.canonical_json().as_bytes()).unwrap();
        assert_eq!(read.object(), pdu.object());
    }
    // What is known not to survive: integers beyond 64 bits, and an integer of minus nought.
    for (number, spelt) in [("100000000000000000000", "1e+20"), ("-0", "-0.0")] {
        let pdu = Pdu::from_object(version("2"), event(number)).unwrap();
        assert!(pdu.canonical_json().contains(&format!(r#""ban":{spelt}}}"#)), "{number}");
    }
}
