//! Whose signature an event needs, how long a key counts, and what we sign for others.

mod common;

use common::*;
use exeunt_core::key::{KnownKey, signatures_of};
use exeunt_core::verify::required_signers;
use exeunt_core::{
    CheckedPdu, Draft, KeyRing, Object, Pdu, RoomVersion, VerifyKey, encoding, redact, text,
};
use proptest::prelude::*;
use ring::{digest, signature::Ed25519KeyPair};
use serde_json::{Value, json};

fn signed_by_two(id: &str) -> CheckedPdu {
    let content = json!({ "membership": "join", "join_authorised_via_users_server": "@mod:other" });
    let join = draft(version(id), "m.room.member", Some("@a:domain"), content);
    join.sign(&signer("domain")).unwrap()
}

#[test]
fn a_restricted_join_needs_both_signatures() {
    for id in ["8", "9", "11", "12"] {
        let join = signed_by_two(id);
        assert_eq!(required_signers(&join), [server("domain"), server("other")]);
        let keys = ring(&["domain", "other"]);
        let error = join.clone().into_pdu().check(&keys).unwrap_err();
        assert_eq!(error.server, server("other"));
        let cosigned = join.cosign_restricted_join(&signer("other")).unwrap();
        assert_eq!(cosigned.event_id(), join.event_id());
        assert!(cosigned.into_pdu().check(&keys).is_ok());
    }
    let join = signed_by_two("7");
    assert_eq!(required_signers(&join), [server("domain")]);
    assert_eq!(join.cosign_restricted_join(&signer("other")), None);
}

#[test]
fn only_a_join_that_names_our_user_is_authorised() {
    assert_eq!(signed_by_two("8").cosign_restricted_join(&signer("third")), None);
    let refused = [
        ("m.room.member", "@a:domain", json!({ "membership": "leave" })),
        ("m.room.member", "@a:domain", json!({ "membership": "invite" })),
        ("m.room.member", "@b:domain", json!({ "membership": "join" })),
        ("m.room.power_levels", "@a:domain", json!({ "membership": "join" })),
    ];
    for (kind, state_key, mut content) in refused {
        content["join_authorised_via_users_server"] = json!("@mod:other");
        let event = draft(version("8"), kind, Some(state_key), content);
        let event = event.sign(&signer("domain")).unwrap();
        assert_eq!(event.cosign_restricted_join(&signer("other")), None, "{event:?}");
    }
}

#[test]
fn the_senders_server_signs_but_for_third_party_invites() {
    let invite = |content: Value| {
        let event = draft(version("10"), "m.room.member", Some("@b:other"), content);
        required_signers(&event.sign(&signer("domain")).unwrap())
    };
    assert_eq!(invite(json!({ "membership": "invite" })), [server("domain")]);
    let third_party = json!({ "membership": "invite", "third_party_invite": { "signed": {} } });
    assert!(invite(third_party).is_empty());
    let not_an_invite = json!({ "membership": "join", "third_party_invite": { "signed": {} } });
    assert_eq!(invite(not_an_invite), [server("domain")]);
    // Of another type, the content means nothing.
    let content = json!({ "membership": "invite", "third_party_invite": {} });
    let event = draft(version("10"), "m.room.message", None, content);
    assert_eq!(required_signers(&event.sign(&signer("domain")).unwrap()), [server("domain")]);
    // In versions 1 and 2 the event id's server signs, too.
    let mut old = signed_by_two("3").object().clone();
    old.insert("event_id".into(), json!("$e:third"));
    old.insert("prev_events".into(), json!([]));
    old.insert("auth_events".into(), json!([]));
    let old = Pdu::from_object(version("1"), old).unwrap();
    assert_eq!(required_signers(&old), [server("domain"), server("third")]);
}

#[test]
fn keys_count_until_they_expire_since_version_5() {
    let check = |id: &str, valid_until: u64| {
        let event = draft(version(id), "m.room.message", None, json!({}));
        let event = event.sign(&signer("domain")).unwrap().into_pdu();
        event.check(&ring_until(&["domain"], valid_until)).is_ok()
    };
    for id in ["3", "4"] {
        assert!(check(id, 0), "{id}");
    }
    for id in ["5", "10", "12"] {
        assert!(check(id, NOW), "{id}");
        assert!(!check(id, NOW - 1), "{id}");
    }
}

#[test]
fn unknown_keys_are_skipped_and_one_good_signature_is_enough() {
    let event = draft(version("11"), "m.room.message", None, json!({}));
    let event = event.sign(&signer("domain")).unwrap();
    let keys = ring(&["domain"]);
    let good = event.object()["signatures"]["domain"][KEY_ID].clone();
    let check = |signatures: Value, keys: &KeyRing| {
        let mut object = event.object().clone();
        object.insert("signatures".into(), signatures);
        Pdu::from_object(version("11"), object).unwrap().check(keys).is_ok()
    };
    assert!(check(json!({ "domain": { KEY_ID: good, "ed25519:unknown": "AAAA" } }), &keys));
    assert!(check(json!({ "domain": { KEY_ID: good, "rsa:1": 3 }, "other": 1 }), &keys));
    assert!(!check(json!({ "domain": { "ed25519:unknown": good } }), &keys));
    assert!(!check(json!({ "other": { KEY_ID: good } }), &ring(&["domain", "other"])));
    for bad in [json!({}), json!({ "domain": [] }), json!({ "domain": { KEY_ID: "AAAA" } })] {
        assert!(!check(bad, &keys));
    }
    // A known key that fails does not spoil another one that holds.
    let mut two = keys.clone();
    let key = VerifyKey::from_base64(&signer("domain").public()).unwrap();
    let known = KnownKey { key, valid_until: u64::MAX };
    two.insert(server("domain"), "ed25519:2".into(), known);
    assert!(check(json!({ "domain": { KEY_ID: good, "ed25519:2": "AAAA" } }), &two));
    assert!(!check(json!({ "domain": { KEY_ID: good } }), &KeyRing::default()));
}

#[test]
#[should_panic(expected = "we sign for our own users only")]
fn we_do_not_sign_for_users_of_others() {
    let event = draft(version("11"), "m.room.message", None, json!({}));
    let _ = event.sign(&signer("other"));
}

fn invite(version: RoomVersion) -> Draft {
    draft(version, "m.room.member", Some("@us:ours"), json!({ "membership": "invite" }))
}

#[test]
fn the_exact_invite_is_cosigned_and_otherwise_untouched() {
    for version in RoomVersion::all() {
        let invite = invite(version).sign(&signer("domain")).unwrap();
        let cosigned = invite.cosign_invite(&signer("ours"), &server("domain")).unwrap();
        assert_eq!(signatures_of(cosigned.object(), &server("ours")).count(), 1);
        assert_eq!(cosigned.event_id(), invite.event_id());
        let keys = ring(&["ours", "domain"]);
        assert!(cosigned.signed_by(&server("ours"), &keys));
        assert!(cosigned.signed_by(&server("domain"), &keys));
        let mut without = cosigned.object().clone();
        without["signatures"].as_object_mut().unwrap().remove("ours");
        assert_eq!(&without, invite.object());
        // Not for another server than the one that asks, nor by another than the invitee's.
        assert_eq!(invite.cosign_invite(&signer("ours"), &server("other")), None);
        assert_eq!(invite.cosign_invite(&signer("other"), &server("domain")), None);
        assert_eq!(invite.cosign_invite(&signer("domain"), &server("domain")), None);
    }
}

fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(vec![
            "m.room.member",
            "m.room.power_levels",
            "m.room.server_acl",
            "m.room.create",
            "invite",
            "join",
            "leave",
            "ban",
            "knock",
            "Invite",
            "@us:ours",
            "@other:ours",
            "@a:domain",
            "@us:ours:80",
            "@us:Ours",
            "@us:other",
            "us:ours",
            "!x:domain",
            "",
        ])
        .prop_map(Value::from),
        Just(json!({ "membership": "invite" })),
        Just(json!({ "membership": "leave" })),
        Just(json!({ "users": { "@a:domain": 100 } })),
        Just(json!([])),
        Just(json!(null)),
        any::<u32>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ]
}

/// What CVE-2025-68667 was about, written once more and independently of the code.
fn is_exact_invite(event: &Object) -> bool {
    let text = |field: &str| event.get(field).and_then(Value::as_str).unwrap_or_default();
    text("type") == "m.room.member"
        && event["content"].get("membership") == Some(&json!("invite"))
        && text("state_key").starts_with('@')
        && text("state_key").ends_with(":ours")
        && text("sender").ends_with(":domain")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    /// Whatever a hostile server sends to `/invite`, validly signed or not: nothing but an
    /// invite of our user by its own user gets our signature.
    #[test]
    fn nothing_else_is_cosigned(
        version in prop::sample::select(RoomVersion::all().collect::<Vec<_>>()),
        mutations in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "type", "state_key", "sender", "content", "content/membership",
                    "content/third_party_invite", "room_id", "membership", "redacts", "origin",
                    "content/join_authorised_via_users_server", "unsigned",
                ]),
                prop::option::of(odd_value()),
            ),
            0..4,
        ),
    ) {
        let mut event = invite(version).sign(&signer("domain")).unwrap().object().clone();
        for (field, value) in mutations {
            let (object, field) = match field.split_once('/') {
                Some((parent, field)) => (event[parent].as_object_mut(), field),
                None => (Some(&mut event), field),
            };
            if let Some(object) = object {
                match value {
                    Some(value) => drop(object.insert(field.into(), value)),
                    None => drop(object.remove(field)),
                }
            }
            if !event.get("content").is_some_and(Value::is_object) {
                event.insert("content".into(), json!({}));
            }
        }
        let Ok(pdu) = Pdu::from_object(version, event) else { return Ok(()) };
        let exact = is_exact_invite(pdu.object());
        let pdu = CheckedPdu::trusted(pdu);
        let cosigned = pdu.cosign_invite(&signer("ours"), &server("domain"));
        prop_assert_eq!(cosigned.is_some(), exact, "{:?}", pdu.object());
        prop_assert_eq!(pdu.cosign_restricted_join(&signer("ours")).is_some() && exact, false);
    }
}

/// An event of room version 5 with an integer that no value holds, signed by a server that can
/// write it.
fn with_huge_integer(kind: &str) -> String {
    let (place, huge) = ("7777777", "777777777777777777777777");
    let content = json!({ "users": { "@a:domain": 7777777 } });
    let draft = draft(version("5"), kind, Some(""), content).sign(&signer("domain")).unwrap();
    let mut object = draft.object().clone();
    let in_full = |object: &Object| {
        let text = json!(object).to_string().replace(place, huge);
        text::canonical(text.as_bytes()).unwrap()
    };
    object.remove("signatures");
    object.remove("hashes");
    let hash = digest::digest(&digest::SHA256, in_full(&object).as_bytes());
    object.insert("hashes".into(), json!({ "sha256": encoding::to_base64(hash.as_ref()) }));
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed()).unwrap();
    let signature = pair.sign(in_full(&redact::redact(version("5"), &object)).as_bytes());
    let signature = encoding::to_base64(signature.as_ref());
    object.insert("signatures".into(), json!({ "domain": { KEY_ID: signature } }));
    in_full(&object)
}

/// Decision 0011.
#[test]
fn an_integer_beyond_64_bits_costs_the_content_or_the_event() {
    let check = |kind| {
        let text = with_huge_integer(kind);
        Pdu::parse(version("5"), text.as_bytes()).unwrap().check(&ring(&["domain"]))
    };
    let redacted = check("org.example.state").unwrap();
    assert!(redacted.content().is_empty());
    let error = check("m.room.power_levels").unwrap_err();
    assert!(error.has_lost_integer);
    let text = with_huge_integer("org.example.state");
    assert!(Pdu::parse(version("6"), text.as_bytes()).is_err());
}

#[test]
fn a_missing_signature_is_not_blamed_on_integers() {
    let event = draft(version("5"), "m.room.power_levels", Some(""), json!({ "ban": 50 }));
    let event = event.sign(&signer("domain")).unwrap().into_pdu();
    assert!(!event.check(&KeyRing::default()).unwrap_err().has_lost_integer);
}
