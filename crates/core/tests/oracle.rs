//! The same questions to ruma: encoding, redaction, hashes, signatures.

mod common;

use common::*;
use exeunt_core::ruma::canonical_json;
use exeunt_core::ruma::signatures::{self, Verified};
use exeunt_core::{Object, Pdu, RoomVersion, canonical, encoding, hash, redact};
use proptest::prelude::*;
use serde_json::{Value, json};

const TYPES: [&str; 14] = [
    "m.room.member",
    "m.room.create",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.history_visibility",
    "m.room.redaction",
    "m.room.aliases",
    "m.room.server_acl",
    "m.room.third_party_invite",
    "m.room.tombstone",
    "m.room.message",
    "m.room.name",
    "org.example.custom",
    "",
];

/// Every key that some room version keeps in the content of some event, and some that none does.
const CONTENT_KEYS: [&str; 34] = [
    "membership",
    "join_authorised_via_users_server",
    "third_party_invite",
    "creator",
    "room_version",
    "m.federate",
    "predecessor",
    "additional_creators",
    "join_rule",
    "allow",
    "deny",
    "allow_ip_literals",
    "ban",
    "events",
    "events_default",
    "invite",
    "kick",
    "redact",
    "state_default",
    "users",
    "users_default",
    "notifications",
    "aliases",
    "history_visibility",
    "redacts",
    "reason",
    "displayname",
    "body",
    "signed",
    "content",
    "type",
    "room_id",
    "replacement_room",
    "",
];

const TOP_KEYS: [&str; 22] = [
    "event_id",
    "type",
    "room_id",
    "sender",
    "state_key",
    "hashes",
    "signatures",
    "depth",
    "prev_events",
    "auth_events",
    "origin_server_ts",
    "origin",
    "membership",
    "prev_state",
    "unsigned",
    "redacts",
    "age_ts",
    "destinations",
    "outlier",
    "prev_content",
    "extra",
    "content ",
];

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-canonical::MAX_INT..=canonical::MAX_INT).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn map_of(keys: &'static [&'static str]) -> impl Strategy<Value = Object> {
    let entry = (prop::sample::select(keys), json_value());
    prop::collection::vec(entry, 0..12)
        .prop_map(|entries| entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

fn third_party_invite() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        Just(None),
        Just(Some(json!({}))),
        json_value().prop_map(|signed| Some(json!({ "signed": signed, "display_name": "x" }))),
    ]
}

fn content() -> impl Strategy<Value = Object> {
    (map_of(&CONTENT_KEYS), third_party_invite()).prop_map(|(mut content, invite)| {
        content.remove("third_party_invite");
        content.extend(invite.map(|invite| ("third_party_invite".to_owned(), invite)));
        content
    })
}

/// Any object with a type and a content, well-formed as an event or not.
fn event_like() -> impl Strategy<Value = Object> {
    (map_of(&TOP_KEYS), prop::sample::select(&TYPES[..]), content()).prop_map(
        |(mut event, kind, content)| {
            event.insert("type".into(), kind.into());
            event.insert("content".into(), Value::Object(content));
            event
        },
    )
}

fn any_version() -> impl Strategy<Value = RoomVersion> {
    prop::sample::select(RoomVersion::all().collect::<Vec<_>>())
}

/// A content that can be sent in an event of `kind`: ruma demands a signature of the authorising
/// user's server on every event that names one, and a membership in each member event.
fn sendable(kind: &str, mut content: Object) -> Value {
    content.remove("join_authorised_via_users_server");
    if kind == "m.room.member" {
        content.insert("membership".into(), "join".into());
        content.insert("join_authorised_via_users_server".into(), "@mod:domain".into());
    }
    Value::Object(content)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn encodes_as_ruma(value in json_value()) {
        let object = object(json!({ "value": value }));
        prop_assert_eq!(canonical::check_object(&object), Ok(()));
        let encoded = canonical::encode(&object);
        let theirs = serde_json::to_string(&to_ruma(&object)).unwrap();
        prop_assert_eq!(&encoded, &theirs);
        let read: Object = serde_json::from_str(&encoded).unwrap();
        prop_assert_eq!(canonical::encode(&read), encoded);
    }

    #[test]
    fn redacts_as_ruma(version in any_version(), event in event_like()) {
        let ours = redact::redact(version, &event);
        let rules = &version.rules().redaction;
        let theirs = canonical_json::redact(to_ruma(&event), rules, None).unwrap();
        prop_assert_eq!(&ours, &from_ruma(&theirs));
        prop_assert_eq!(&redact::redact(version, &ours), &ours);
    }

    #[test]
    fn hashes_as_ruma(version in any_version(), event in event_like()) {
        let theirs = to_ruma(&event);
        let content_hash = signatures::content_hash(&theirs).unwrap().encode();
        prop_assert_eq!(encoding::to_base64(&hash::content_hash(&event)), content_hash);
        let reference_hash = signatures::reference_hash(&theirs, version.rules()).unwrap();
        let ours = hash::reference_hash(version, &event);
        if version.id_is_claimed() {
            prop_assert_eq!(encoding::to_base64(&ours), reference_hash);
        } else {
            let id = hash::event_id(version, &event).unwrap();
            prop_assert_eq!(id.as_str(), format!("${reference_hash}"));
        }
    }

    #[test]
    fn ruma_verifies_what_we_sign(
        version in any_version(),
        kind in prop::sample::select(&TYPES[..]),
        is_state: bool,
        content in content(),
    ) {
        let content = sendable(kind, content);
        let event = draft(version, kind, is_state.then_some("@a:domain"), content);
        let event = event.sign(&signer("domain")).unwrap();
        let theirs = to_ruma(event.object());
        let keys = ruma_keys(&["domain"]);
        let verified = signatures::verify_event(&keys, &theirs, version.rules()).unwrap();
        prop_assert_eq!(verified, Verified::All);
        // So do we, from bytes; and the redacted event keeps its id and signature.
        let read = Pdu::parse(version, event.canonical_json().as_bytes()).unwrap();
        let checked = read.check(&ring(&["domain"])).unwrap();
        prop_assert_eq!(checked.object(), event.object());
        let redacted = event.redacted();
        prop_assert_eq!(redacted.event_id(), event.event_id());
        let checked = redacted.clone().check(&ring(&["domain"])).unwrap();
        prop_assert_eq!(checked.object(), redacted.object());
    }

    #[test]
    fn we_verify_what_ruma_signs(
        version in any_version(),
        kind in prop::sample::select(&TYPES[..]),
        content in content(),
        stray in map_of(&["extra", "age_ts", "membership", "prev_state", "unsigned"]),
    ) {
        let mut event = stray;
        event.extend(object(json!({
            "type": kind, "sender": "@a:domain", "state_key": "@a:domain", "depth": 7,
            "content": sendable(kind, content), "origin_server_ts": NOW,
            "prev_events": ["$p"], "auth_events": [], "room_id": "!x:domain",
        })));
        if kind == "m.room.create" && version.room_id_is_create_hash() {
            event.remove("room_id");
        }
        if version.id_is_claimed() {
            event.insert("event_id".into(), json!("$e:domain"));
            event.insert("prev_events".into(), json!([["$p:domain", { "sha256": "x" }]]));
        }
        let mut theirs = to_ruma(&event);
        let rules = version.rules();
        signatures::hash_and_sign_event("domain", &ruma_pair(), &mut theirs, &rules.redaction)
            .unwrap();
        let mut signed = from_ruma(&theirs);
        let pdu = Pdu::from_object(version, signed.clone()).unwrap();
        let reference_hash = signatures::reference_hash(&theirs, rules).unwrap();
        let is_hash = pdu.event_id().as_str() == format!("${reference_hash}");
        prop_assert_eq!(is_hash, !version.id_is_claimed());
        prop_assert_eq!(
            encoding::to_base64(&hash::reference_hash(version, pdu.object())),
            reference_hash.replace('-', "+").replace('_', "/")
        );
        let checked = pdu.clone().check(&ring(&["domain"])).unwrap();
        prop_assert_eq!(checked.object(), pdu.object());

        // What redaction drops may be changed: then the hash fails, and the event is redacted.
        signed.insert("org.example.added".into(), json!(1));
        let pdu = Pdu::from_object(version, signed.clone()).unwrap();
        let checked = pdu.clone().check(&ring(&["domain"])).unwrap();
        prop_assert_eq!(checked.object(), &redact::redact(version, &signed));
        let verified = signatures::verify_event(
            &ruma_keys(&["domain"]), &to_ruma(&signed), rules,
        ).unwrap();
        prop_assert_eq!(verified, Verified::Signatures);

        // What redaction keeps may not.
        signed.insert("depth".into(), json!(8));
        let pdu = Pdu::from_object(version, signed).unwrap();
        prop_assert_eq!(pdu.check(&ring(&["domain"])).unwrap_err().server, server("domain"));
    }
}

/// Where ruma and Synapse differ we follow Synapse, the room's likely majority: a
/// `third_party_invite` that is no object is dropped.
#[test]
fn a_third_party_invite_that_is_no_object_is_redacted() {
    let keep = |invite: Value, expected: Value| {
        let content = object(json!({ "membership": "invite", "third_party_invite": invite }));
        let redacted = redact::redact_content(version("11"), "m.room.member", &content);
        assert_eq!(redacted, object(expected));
    };
    keep(json!("x"), json!({ "membership": "invite" }));
    keep(json!({ "a": 1 }), json!({ "membership": "invite", "third_party_invite": {} }));
    let signed = json!({ "membership": "invite", "third_party_invite": { "signed": 1 } });
    keep(json!({ "a": 1, "signed": 1 }), signed);
}
