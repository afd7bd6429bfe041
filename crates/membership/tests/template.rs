//! Templates: an honest one is taken, any other is refused, and nothing but the graph position
//! ever reaches an event of ours (CVE-2026-24471).

mod common;

use common::*;
use exeunt_core::ruma::ServerName;
use exeunt_core::{KeyRing, RoomVersion, VerifyKey, key::KnownKey};
use exeunt_membership::TemplateError::{self, *};
use exeunt_membership::{
    AfterMakeLeave, Class, Departure, Expected, GraphPosition, JoinPosition, MAX_REASON_BYTES,
    MakeLeave, Membership, RemoteFailure, check_join_template, check_template, join_draft,
    leave_draft,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn take(known: Option<RoomVersion>, answer: &Value) -> Result<GraphPosition, TemplateError> {
    let (room_id, user_id) = (room(), us());
    let membership = Membership::Leave;
    let expect = Expected { room_id: &room_id, user_id: &user_id, membership, room_version: known };
    check_template(&expect, answer)
}

fn take_join(answer: &Value) -> Result<JoinPosition, TemplateError> {
    let (room_id, user_id) = (room(), us());
    let membership = Membership::Join;
    let expect = Expected { room_id: &room_id, user_id: &user_id, membership, room_version: None };
    check_join_template(&expect, &server(THEIRS), answer)
}

fn good() -> GraphPosition {
    let ids = |seeds: &str| seeds.chars().map(|c| reference(&id(c))).collect();
    let (prev_events, auth_events) = (ids("pq"), ids("abc"));
    GraphPosition { version: version("10"), prev_events, auth_events, depth: 12 }
}

#[test]
fn an_honest_template_gives_its_graph_position() {
    assert_eq!(take(None, &template("leave")), Ok(good()));
    assert_eq!(take(Some(version("10")), &template("leave")), Ok(good()));
}

/// Sets `field` of the template's event (a JSON pointer) and expects `error`.
#[track_caller]
fn refused(pointer: &str, value: Value, error: TemplateError) {
    let mut answer = template("leave");
    *answer.pointer_mut(pointer).unwrap() = value;
    assert_eq!(take(None, &answer), Err(error), "{pointer}");
}

#[test]
fn every_mismatch_has_its_own_error() {
    refused("/event/type", json!("m.room.message"), Type);
    refused("/event/room_id", json!("!other:theirs.example"), RoomId);
    refused("/event/sender", json!("@other:ours.example"), Sender);
    refused("/event/state_key", json!("@other:ours.example"), StateKey);
    refused("/event/state_key", json!(""), StateKey);
    refused("/event/content/membership", json!("join"), Membership);
    refused("/room_version", json!("99"), UnsupportedVersion("99".into()));
    refused("/room_version", json!("1"), EventId("prev_events"));
    refused("/room_version", json!(10), Field("room_version"));
    refused("/event", json!([]), Field("event"));
    refused("", json!("hello"), NotAnObject);
    let many: Vec<_> = ('A'..='Z').map(id).collect();
    refused("/event/prev_events", json!([]), NoPrevEvents);
    refused("/event/prev_events", json!(many[..21]), TooManyPrevEvents(21));
    refused("/event/auth_events", json!(many[..11]), TooManyAuthEvents(11));
    refused("/event/prev_events", json!([id('p'), id('p')]), Duplicate("prev_events"));
    refused("/event/auth_events", json!([id('a'), id('a')]), Duplicate("auth_events"));
    let not_ids = [
        json!("$short"),
        json!(format!("${}", "+".repeat(43))),
        json!(format!("{}:theirs.example", id('p'))),
        json!("p".repeat(44)),
        json!([id('p'), {}]),
        json!(null),
    ];
    for bad in not_ids {
        refused("/event/prev_events", json!([bad.clone()]), EventId("prev_events"));
        refused("/event/auth_events", json!([id('a'), bad]), EventId("auth_events"));
    }
    let not_depths =
        [json!(-1), json!(1.0), json!("1"), json!(null), json!(1_u64 << 53), json!(u64::MAX)];
    for bad in not_depths {
        refused("/event/depth", bad, Depth);
    }
}

#[test]
fn every_field_must_be_there() {
    for field in ["type", "room_id", "sender", "state_key", "content", "prev_events", "auth_events"]
    {
        let mut answer = template("leave");
        answer["event"].as_object_mut().unwrap().remove(field);
        assert_eq!(take(None, &answer), Err(Field(field)));
    }
    let mut answer = template("leave");
    answer["event"].as_object_mut().unwrap().remove("depth");
    assert_eq!(take(None, &answer), Err(Depth));
    let mut answer = template("leave");
    answer["event"]["content"] = json!({});
    assert_eq!(take(None, &answer), Err(Field("membership")));
    let mut answer = template("leave");
    answer.as_object_mut().unwrap().remove("room_version");
    assert_eq!(take(None, &answer), Err(EventId("prev_events")), "read as of version 1");
    answer.as_object_mut().unwrap().remove("event");
    answer["room_version"] = json!("10");
    assert_eq!(take(None, &answer), Err(Field("event")));
}

#[test]
fn another_version_than_the_invite_said_is_not_believed() {
    let (known, claimed) = (version("11"), version("10"));
    let error = OtherVersion { known, claimed };
    assert_eq!(take(Some(known), &template("leave")), Err(error));
}

/// A template of version 2, with pairs.
fn early_template() -> Value {
    let pair =
        |id: &str| json!([format!("${id}:theirs.example"), { "sha256": "a".repeat(42) + "A" }]);
    let mut answer = template("leave");
    answer["room_version"] = json!("2");
    answer["event"]["prev_events"] = json!([pair("p")]);
    answer["event"]["auth_events"] = json!([pair("a"), pair("b")]);
    answer
}

#[test]
fn a_template_of_version_2_gives_ids_with_hashes() {
    let answer = early_template();
    let position = take(None, &answer).unwrap();
    let ids: Vec<_> = position.auth_events.iter().map(|r| r.id().as_str()).collect();
    assert_eq!(ids, ["$a:theirs.example", "$b:theirs.example"]);
    let leave = sign(leave_draft(position, room(), us(), None, NOW)).unwrap();
    for field in ["prev_events", "auth_events"] {
        assert_eq!(leave.object()[field], answer["event"][field]);
    }
    assert_eq!(leave.event_id().server_name(), Some(&*server(OURS)));
    assert!(leave.pdu().clone().check(&keys()).is_ok());

    // Synapse leaves some hashes out.
    let mut bare = early_template();
    bare["event"]["auth_events"][0][1] = json!({});
    assert!(take(None, &bare).is_ok());

    let refused = |entries: Value, error| {
        let mut answer = early_template();
        answer["event"]["prev_events"] = entries;
        assert_eq!(take(None, &answer), Err(error));
    };
    let good = answer["event"]["prev_events"][0].clone();
    refused(json!([good, good]), Duplicate("prev_events"));
    refused(json!(vec![good.clone(); 21]), TooManyPrevEvents(21));
    let id = "$p:theirs.example";
    for bad in [json!(id), json!([id]), json!([id, {}, {}]), json!([id, { "sha256": "x" }])] {
        refused(json!([bad]), EventId("prev_events"));
    }
}

/// An invite by the v1 endpoint does not say which of the two versions it is of.
#[test]
fn versions_1_and_2_stand_in_for_each_other() {
    let first = RoomVersion::all().next();
    assert_eq!(take(first, &early_template()).unwrap().version, version("2"));
    let (known, claimed) = (version("3"), version("2"));
    assert_eq!(take(Some(known), &early_template()), Err(OtherVersion { known, claimed }));
}

#[test]
fn limits_hold_up_to_the_last_allowed_value() {
    let many: Vec<_> = ('A'..='Z').map(id).collect();
    let mut answer = template("leave");
    answer["event"]["prev_events"] = json!(many[..20]);
    answer["event"]["auth_events"] = json!(many[..10]);
    for depth in [0, (1 << 53) - 1] {
        answer["event"]["depth"] = json!(depth);
        let position = take(None, &answer).unwrap();
        assert_eq!((position.prev_events.len(), position.auth_events.len()), (20, 10));
        assert_eq!(position.depth, depth);
    }
}

#[test]
fn event_ids_follow_the_room_version() {
    let mut answer = template("leave");
    for (version, other) in [("3", "-_"), ("4", "+/"), ("12", "+/")] {
        answer["room_version"] = json!(version);
        answer["event"]["prev_events"] = json!([id('p')]);
        assert!(take(None, &answer).is_ok(), "{version}");
        answer["event"]["prev_events"] = json!([format!("${other}{}", "p".repeat(41))]);
        assert_eq!(take(None, &answer), Err(EventId("prev_events")), "{version}");
    }
}

#[test]
fn the_authoriser_of_a_join_is_of_the_answering_server() {
    assert_eq!(take_join(&template("join")).unwrap().authorised_via, None);
    let mut answer = template("join");
    let via = |answer: &mut Value, user: Value| {
        answer["event"]["content"]["join_authorised_via_users_server"] = user;
        take_join(answer).map(|taken| taken.authorised_via)
    };
    let theirs = user("@mod:theirs.example");
    assert_eq!(via(&mut answer, json!(theirs)), Ok(Some(theirs.clone())));
    let bad = [json!("@us:ours.example"), json!("@mod:other.example"), json!("mod"), json!(1)];
    for user in bad.into_iter().chain([json!(null)]) {
        assert_eq!(via(&mut answer, user), Err(Authoriser));
    }
    // Before room version 8 the key means nothing.
    answer["room_version"] = json!("7");
    assert_eq!(via(&mut answer, json!(theirs)), Ok(None));
    // Nor does it in a leave.
    let mut answer = template("leave");
    answer["event"]["content"]["join_authorised_via_users_server"] = json!(1);
    assert_eq!(take(None, &answer), Ok(good()));
}

#[test]
fn drafts_hold_what_we_say() {
    let position = take(None, &template("leave")).unwrap();
    let reason = "é".repeat(MAX_REASON_BYTES);
    let leave = leave_draft(position.clone(), room(), us(), Some(reason), NOW);
    let leave = sign(leave).unwrap();
    assert_eq!(leave.content_str("reason").unwrap().len(), MAX_REASON_BYTES);
    let content = json!({
        "displayname": "Us",
        "membership": "ban",
        "join_authorised_via_users_server": "@us:ours.example",
    });
    let position = JoinPosition { position, authorised_via: Some(inviter()) };
    let join = join_draft(position, room(), us(), object(content), NOW);
    let expected = json!({
        "displayname": "Us",
        "membership": "join",
        "join_authorised_via_users_server": inviter(),
    });
    assert_eq!(join.into_draft().content, object(expected));
}

fn json_value() -> impl Strategy<Value = Value> {
    let ids = prop::char::range('a', 'z').prop_map(|c| json!(id(c)));
    let names = prop::sample::select(vec![
        "m.room.member",
        "m.room.power_levels",
        "m.room.server_acl",
        "leave",
        "join",
        "ban",
        "invite",
        ROOM,
        "!other:theirs.example",
        "@us:ours.example",
        "@other:ours.example",
        "@inviter:theirs.example",
        "10",
        "1",
        "12",
        "",
        "$",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        names.prop_map(Value::from),
        ids,
    ];
    leaf.prop_recursive(2, 40, 24, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..24).prop_map(Value::from),
            prop::collection::btree_map("\\PC{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Everywhere in a template that a hostile server can write, known keys and new ones.
fn pointer() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "room_version",
        "extra",
        "event",
        "event/type",
        "event/room_id",
        "event/sender",
        "event/state_key",
        "event/content",
        "event/content/membership",
        "event/content/reason",
        "event/content/join_authorised_via_users_server",
        "event/content/third_party_invite",
        "event/content/users",
        "event/prev_events",
        "event/prev_events/0",
        "event/prev_events/1",
        "event/auth_events",
        "event/auth_events/0",
        "event/auth_events/2",
        "event/depth",
        "event/origin",
        "event/origin_server_ts",
        "event/redacts",
        "event/unsigned",
        "event/hashes",
        "event/signatures",
        "event/event_id",
        "event/prev_state",
    ])
}

fn mutate(template: &mut Value, pointer: &str, value: Option<Value>) {
    let Some((parent, key)) = pointer.rsplit_once('/').or(Some(("", pointer))) else { return };
    let parent = if parent.is_empty() { String::new() } else { format!("/{parent}") };
    match (template.pointer_mut(&parent), value) {
        (Some(Value::Object(map)), Some(value)) => drop(map.insert(key.into(), value)),
        (Some(Value::Object(map)), None) => drop(map.remove(key)),
        (Some(Value::Array(list)), Some(value)) => {
            if let Some(slot) = key.parse().ok().and_then(|i: usize| list.get_mut(i)) {
                *slot = value;
            }
        }
        _ => {}
    }
}

fn keys() -> KeyRing {
    let key = VerifyKey::from_base64(&signer(OURS).public()).unwrap();
    let mut keys = KeyRing::default();
    keys.insert(server(OURS), "ed25519:a".into(), KnownKey { key, valid_until: u64::MAX });
    keys
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6000))]

    /// A hostile helper: whatever it answers, what we sign is our user's leave of that room, at
    /// a position within bounds, or nothing at all.
    /// CVE-2026-24471.
    #[test]
    fn we_sign_our_own_leave_or_nothing(
        mutations in prop::collection::vec((pointer(), prop::option::of(json_value())), 1..4),
        know_version: bool,
    ) {
        let mut answer = template("leave");
        for (pointer, value) in mutations {
            mutate(&mut answer, pointer, value);
        }
        let departure = Departure {
            room_version: know_version.then(|| version("10")),
            ..Departure::of(&pending(), None)
        };
        let (awaiting, _) = MakeLeave::new(departure, server(THEIRS));
        match awaiting.on_answer(Ok(answer.clone()), sign, NOW) {
            AfterMakeLeave::NextCandidate(attempt, failure) => {
                prop_assert_eq!(attempt.class, Class::Transient);
                let by_peer = matches!(
                    failure, RemoteFailure::Misbehaved(_) | RemoteFailure::Incompatible(_)
                );
                prop_assert!(by_peer);
            }
            AfterMakeLeave::Send(_, request) => {
                let event = request.event;
                // Graph data as in the template.
                let template = &answer["event"];
                prop_assert_eq!(&event.object()["prev_events"], &template["prev_events"]);
                prop_assert_eq!(&event.object()["auth_events"], &template["auth_events"]);
                prop_assert_eq!(&event.object()["depth"], &template["depth"]);
                prop_assert!((1..=20).contains(&event.prev_events().len()));
                prop_assert!(event.auth_events().len() <= 10);
                prop_assert_eq!(event.version().as_str(), answer["room_version"].as_str().unwrap());
                prop_assert!(!know_version || event.version() == version("10"));
                // All else ours.
                prop_assert_eq!(event.room_id(), &*room());
                prop_assert_eq!(event.sender(), &*us());
                prop_assert!(event.is_state("m.room.member", us().as_str()));
                prop_assert_eq!(event.content(), &object(json!({ "membership": "leave" })));
                prop_assert_eq!(event.origin_server_ts(), NOW);
                let known = [
                    "auth_events", "content", "depth", "hashes", "origin", "origin_server_ts",
                    "prev_events", "room_id", "sender", "signatures", "state_key", "type",
                ];
                prop_assert!(event.object().keys().all(|key| known.contains(&key.as_str())));
                prop_assert!(event.object().get("origin").is_none_or(|origin| origin == OURS));
                prop_assert!(event.pdu().clone().check(&keys()).is_ok());
            }
        }
    }

    /// The same for a join: of the content only the authoriser can come from the peer.
    /// CVE-2026-24471.
    #[test]
    fn a_join_takes_the_position_and_an_authoriser_of_the_peer(
        mutations in prop::collection::vec((pointer(), prop::option::of(json_value())), 1..4),
    ) {
        let mut answer = template("join");
        for (pointer, value) in mutations {
            mutate(&mut answer, pointer, value);
        }
        if let Ok(taken) = take_join(&answer) {
            let via = taken.authorised_via.clone();
            prop_assert!(via.is_none_or(|via| via.server_name() == <&ServerName>::try_from(THEIRS).unwrap()));
            let draft = join_draft(taken, room(), us(), object(json!({})), NOW);
            let event = sign(draft).unwrap();
            prop_assert!(event.is_state("m.room.member", us().as_str()));
            prop_assert_eq!(event.membership(), Some("join"));
            prop_assert_eq!((event.room_id(), event.sender()), (&*room(), &*us()));
        }
    }
}
