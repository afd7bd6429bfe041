//! What is an event of its room version, and what is not.

mod common;

use common::*;
use exeunt_core::canonical::CanonicalError;
use exeunt_core::pdu::{FormatError, MAX_ID_BYTES, MAX_PDU_BYTES};
use exeunt_core::ruma::OwnedRoomId;
use exeunt_core::{Object, Pdu, RoomVersion, canonical, hash};
use serde_json::{Value, json, value::RawValue};

fn message(id: &str) -> Object {
    let event = draft(version(id), "m.room.message", None, json!({ "body": "hello" }));
    event.sign(&signer("domain")).unwrap().object().clone()
}

fn parse(id: &str, event: &Object) -> Result<Pdu, FormatError> {
    Pdu::parse(version(id), &serde_json::to_vec(event).unwrap())
}

fn with(id: &str, field: &str, value: Value) -> Result<Pdu, FormatError> {
    let mut event = message(id);
    event.insert(field.into(), value);
    parse(id, &event)
}

#[test]
fn every_field_must_be_there_and_of_its_type() {
    let fields = [
        "type",
        "sender",
        "room_id",
        "content",
        "hashes",
        "signatures",
        "prev_events",
        "auth_events",
        "depth",
        "origin_server_ts",
    ];
    for field in fields {
        let mut event = message("11");
        event.remove(field);
        assert_eq!(parse("11", &event).unwrap_err(), FormatError::Field(field));
        for wrong in [json!(null), json!(true), json!(-1), json!([1]), json!("")] {
            let result = with("11", field, wrong);
            // An empty type is an odd one, but a type.
            assert!(result.is_err() || field == "type", "{field}: {result:?}");
        }
    }
    assert_eq!(with("11", "state_key", json!(null)).unwrap_err(), FormatError::Field("state_key"));
    for not_json in ["", "[]", "null", "{", "{}x", "\"x\""] {
        let result = Pdu::parse(version("11"), not_json.as_bytes());
        assert!(matches!(result, Err(FormatError::Json(_))), "{not_json}");
    }
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep = format!(r#"{{"content":{deep}}}"#);
    assert!(matches!(Pdu::parse(version("11"), deep.as_bytes()), Err(FormatError::Json(_))));
}

#[test]
fn ids_and_keys_have_at_most_255_bytes() {
    let long = |n: usize| "é".repeat(n / 2) + &"a".repeat(n % 2);
    for field in ["type", "state_key"] {
        assert!(with("11", field, json!(long(MAX_ID_BYTES))).is_ok());
        let error = with("11", field, json!(long(MAX_ID_BYTES + 1))).unwrap_err();
        assert_eq!(error, FormatError::FieldTooLong(field));
        // Old rooms have events that Synapse let pass by counting otherwise.
        assert!(with("10", field, json!("é".repeat(MAX_ID_BYTES))).is_ok());
        let error = with("10", field, json!("é".repeat(MAX_ID_BYTES + 1))).unwrap_err();
        assert_eq!(error, FormatError::FieldTooLong(field));
    }
    for (field, sigil) in [("sender", '@'), ("room_id", '!')] {
        let id = |len: usize| json!(format!("{sigil}{}:domain", "a".repeat(len - 8)));
        assert!(with("11", field, id(MAX_ID_BYTES)).is_ok());
        let error = with("11", field, id(MAX_ID_BYTES + 1)).unwrap_err();
        assert_eq!(error, FormatError::FieldTooLong(field));
    }
}

#[test]
fn an_event_has_at_most_65536_bytes_with_signatures_without_unsigned() {
    let padded = |bytes: usize| {
        let mut event = message("11");
        event["content"]["body"] = json!("");
        let room = bytes - exeunt_core::canonical::encode(&event).len();
        event["content"]["body"] = json!("a".repeat(room));
        event
    };
    let mut largest = padded(MAX_PDU_BYTES);
    assert_eq!(parse("11", &largest).unwrap().canonical_json().len(), MAX_PDU_BYTES);
    largest.insert("unsigned".into(), json!({ "age": "x".repeat(1000) }));
    let read = parse("11", &largest).unwrap();
    assert!(!read.object().contains_key("unsigned"));
    let error = parse("11", &padded(MAX_PDU_BYTES + 1)).unwrap_err();
    assert_eq!(error, FormatError::TooLarge(MAX_PDU_BYTES + 1));
    // Ours are held to it with the signature that they will carry.
    let body = "a".repeat(MAX_PDU_BYTES - 300);
    let event = draft(version("11"), "m.room.message", None, json!({ "body": body }));
    let error = event.sign(&signer("domain")).unwrap_err();
    assert!(matches!(error, FormatError::TooLarge(_)), "{error:?}");
}

#[test]
fn numbers_are_strict_since_version_6() {
    for number in [json!(1.5), json!(1_u64 << 53)] {
        for id in ["3", "5"] {
            assert!(with(id, "org.example", number.clone()).is_ok(), "{id}");
        }
        for id in ["6", "12"] {
            let error = with(id, "org.example", json!([{ "a": number.clone() }])).unwrap_err();
            assert!(matches!(error, FormatError::Canonical(_)), "{id}");
        }
    }
    let event = draft(version("10"), "m.room.message", None, json!({ "n": 0.5 }));
    let error = event.sign(&signer("domain")).unwrap_err();
    assert_eq!(error, FormatError::Canonical(CanonicalError::Float));
    // Depth and time are strict everywhere: peers refuse the rest.
    for id in ["3", "12"] {
        for field in ["depth", "origin_server_ts"] {
            assert!(with(id, field, json!((1_u64 << 53) - 1)).is_ok());
            assert!(with(id, field, json!(1_u64 << 53)).is_err());
            assert!(with(id, field, json!(1.0)).is_err());
        }
    }
}

/// Where floats are allowed they are written as they came: a last digit changed is another hash,
/// and another event id. Python's repr is what the others write.
#[test]
fn floats_of_the_lax_versions_keep_every_digit() {
    for number in ["121.47399999999999", "9.16750723e-26", "-9.007199111111111e+83"] {
        let text = format!("{{\"n\":{number}}}");
        let object: Object = serde_json::from_str(&text).unwrap();
        assert_eq!(canonical::encode(&object), text);
    }
}

#[test]
fn references_are_lists_of_ids() {
    let ids = |n: usize| json!((0..n).map(|i| format!("$e{i}")).collect::<Vec<_>>());
    for field in ["prev_events", "auth_events"] {
        for wrong in [json!({}), json!([1]), json!(["p"]), json!([["$p", {}]]), json!([null])] {
            assert_eq!(with("4", field, wrong).unwrap_err(), FormatError::Field(field));
        }
    }
    for (field, most) in [("prev_events", 20), ("auth_events", 10)] {
        assert_eq!(with("4", field, ids(most)).unwrap().check_reference_limits(), Ok(()));
        let too_many = with("4", field, ids(most + 1)).unwrap();
        let error = FormatError::TooManyReferences(field);
        assert_eq!(too_many.check_reference_limits(), Err(error));
    }
}

#[test]
fn versions_1_and_2_carry_their_ids() {
    let mut event = message("3");
    event.insert("event_id".into(), json!("$e:domain"));
    event.insert("prev_events".into(), json!([["$p:domain", { "sha256": "x" }]]));
    event.insert("auth_events".into(), json!([]));
    let read = parse("1", &event).unwrap();
    assert_eq!(read.event_id().as_str(), "$e:domain");
    assert_eq!(read.prev_events()[0].as_str(), "$p:domain");
    let long = format!("${}:domain", "e".repeat(248));
    for bad in [json!("$no_server"), json!("e:domain"), json!("$e:"), json!(null), json!(long)] {
        event.insert("event_id".into(), bad);
        assert_eq!(parse("2", &event).unwrap_err(), FormatError::Field("event_id"));
    }
    event.insert("event_id".into(), json!(format!("${}:domain", "e".repeat(247))));
    assert!(parse("2", &event).is_ok());
    assert!(RoomVersion::parse("").is_err() && RoomVersion::parse("13").is_err());
    assert_eq!(RoomVersion::latest().as_str(), "12");
    let all: Vec<_> = RoomVersion::all().map(RoomVersion::as_str).collect();
    assert_eq!(all, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"]);
}

/// A stray field is covered by the content hash, not by id and signature.
#[test]
fn stray_fields_change_neither_id_nor_signature() {
    for id in ["3", "11", "12"] {
        let original = parse(id, &message(id)).unwrap();
        for field in ["redacts", "replaces_state", "org.example.x", "prev_content", "age_ts"] {
            let stray = with(id, field, json!("x")).unwrap();
            assert_eq!(stray.event_id(), original.event_id(), "{id} {field}");
            assert!(!hash::content_hash_holds(stray.object()));
            let checked = stray.check(&ring(&["domain"])).unwrap();
            assert_eq!(checked.object(), original.redacted().object());
        }
    }
    // `origin` and its like were kept until version 10, an `event_id` always is.
    for (id, field, kept) in [
        ("10", "membership", true),
        ("11", "membership", false),
        ("10", "event_id", true),
        ("12", "event_id", true),
    ] {
        let stray = with(id, field, json!("$x")).unwrap();
        assert_eq!(stray.check(&ring(&["domain"])).is_err(), kept, "{id} {field}");
    }
}

#[test]
fn an_events_own_event_id_field_is_not_believed() {
    let read = with("11", "event_id", json!("$forged")).unwrap();
    assert_eq!(Some(read.event_id().to_owned()), hash::event_id(version("11"), read.object()));
}

#[test]
fn what_was_kept_reads_as_before() {
    for id in ["1", "3", "11", "12"] {
        for (kind, key) in [("m.room.message", None), ("m.room.create", Some(""))] {
            let event = draft(version(id), kind, key, json!({ "room_version": id }));
            let event = event.sign(&signer("domain")).unwrap();
            for event in [event.redacted(), Pdu::clone(&event)] {
                let kept = RawValue::from_string(event.canonical_json()).unwrap().into();
                let read = Pdu::reparse(event.version(), event.event_id(), &kept).unwrap();
                assert_eq!(read.content(), event.content());
                assert_eq!(read.object(), event.object());
                assert_eq!(read.event_id(), event.event_id());
                assert_eq!(read.room_id(), event.room_id());
                assert_eq!((read.kind(), read.state_key()), (event.kind(), event.state_key()));
                assert_eq!((read.sender(), read.depth()), (event.sender(), event.depth()));
                assert_eq!(read.prev_events(), event.prev_events());
                assert_eq!(read.auth_events(), event.auth_events());
                assert_eq!(read.origin_server_ts(), event.origin_server_ts());
            }
        }
    }
}

/// CVE-2025-54315.
#[test]
fn a_version_12_room_is_named_by_its_create_event() {
    let create = |id| draft(version(id), "m.room.create", Some(""), json!({ "room_version": id }));
    let founded = create("12").sign(&signer("domain")).unwrap();
    assert!(!founded.object().contains_key("room_id"));
    assert_eq!(founded.room_id().as_str()[1..], founded.event_id().as_str()[1..]);
    let v12 = version("12");
    assert_eq!(v12.create_event_id(founded.room_id()).as_deref(), Some(founded.event_id()));
    assert_eq!(v12.room_id_of_create(founded.event_id()).as_deref(), Some(founded.room_id()));
    assert_eq!(version("11").create_event_id(founded.room_id()), None);
    assert_eq!(version("11").room_id_of_create(founded.event_id()), None);
    // With a room id it is malformed; another content founds another room.
    let mut named = founded.object().clone();
    named.insert("room_id".into(), json!(founded.room_id()));
    assert_eq!(parse("12", &named).unwrap_err(), FormatError::Field("room_id"));
    let mut other = founded.object().clone();
    other["content"]["m.federate"] = json!(false);
    assert_ne!(parse("12", &other).unwrap().room_id(), founded.room_id());
    assert_eq!(founded.redacted().room_id(), founded.room_id());
    // Elsewhere, and in any other event, the room id is told.
    let older = create("11").sign(&signer("domain")).unwrap();
    assert_eq!(older.room_id().as_str(), "!x:domain");
    let mut unnamed = older.object().clone();
    unnamed.remove("room_id");
    assert_eq!(parse("11", &unnamed).unwrap_err(), FormatError::Field("room_id"));
    let room_id: OwnedRoomId = founded.room_id().to_owned();
    let mut event = draft(v12, "m.room.name", Some(""), json!({}));
    event.room_id = Some(room_id.clone());
    assert_eq!(event.sign(&signer("domain")).unwrap().room_id(), room_id);
}

#[test]
fn the_target_of_a_redaction_moved_in_version_11() {
    let redaction = |id, content| {
        let mut draft = draft(version(id), "m.room.redaction", None, content);
        draft.redacts = Some("$target".try_into().unwrap());
        draft.sign(&signer("domain")).unwrap()
    };
    for (id, in_content) in [("10", false), ("11", true), ("12", true)] {
        let event = redaction(id, json!({}));
        assert_eq!(event.redacts().unwrap().as_str(), "$target");
        assert_eq!(event.content().contains_key("redacts"), in_content);
        assert_eq!(event.object().contains_key("redacts"), !in_content);
        assert_eq!(event.redacted().redacts().is_some(), in_content);
    }
}

#[test]
fn the_authoriser_of_a_join_must_be_a_user() {
    let member = |id: &str, membership: &str, user: Value| {
        let mut event = message(id);
        event["type"] = json!("m.room.member");
        let content = json!({ "membership": membership, "join_authorised_via_users_server": user });
        event["content"] = content;
        parse(id, &event)
    };
    assert!(member("8", "join", json!("@mod:other")).is_ok());
    let error = FormatError::Field("join_authorised_via_users_server");
    for bad in [json!(null), json!(1), json!("mod"), json!("@mod"), json!(["@mod:other"])] {
        assert_eq!(member("8", "join", bad.clone()).unwrap_err(), error);
        assert!(member("8", "leave", bad.clone()).is_ok());
        assert!(member("7", "join", bad).is_ok());
    }
}
