//! The knock handshake step by step.

mod common;

use common::*;
use exeunt_membership::{
    AfterMakeKnock, AfterSendKnock, Class, Knock, MakeKnock, Membership, RemoteFailure, SendApi,
    SendKnock, SendRequest,
};
use serde_json::{Value, json};

fn knock() -> Knock {
    let content = object(json!({ "reason": "let me in", "displayname": "Us" }));
    Knock { room_id: room(), user_id: us(), room_version: None, content }
}

fn make(answer: Value) -> AfterMakeKnock {
    let (awaiting, _) = MakeKnock::new(knock(), server(THEIRS));
    awaiting.on_answer(Ok(answer), sign, NOW)
}

fn send() -> (SendKnock, SendRequest) {
    match make(template("knock")) {
        AfterMakeKnock::Send(awaiting, request) => (awaiting, request),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_versions_with_knocking_are_asked_for() {
    let (_, request) = MakeKnock::new(knock(), server(THEIRS));
    assert_eq!(request.membership, Membership::Knock);
    assert_eq!(request.versions, ["7", "8", "9", "10", "11", "12"]);
    let known = Knock { room_version: Some(version("10")), ..knock() };
    assert_eq!(MakeKnock::new(known, server(THEIRS)).1.versions, ["10"]);
}

#[test]
fn the_knock_is_of_our_making() {
    let mut answer = template("knock");
    answer["event"]["content"]["reason"] = json!("they say");
    answer["event"]["content"]["join_authorised_via_users_server"] = json!("@x:theirs.example");
    answer["event"]["redacts"] = json!(id('r'));
    let AfterMakeKnock::Send(_, request) = make(answer) else { panic!("nothing to send") };
    assert_eq!((request.api, request.membership), (SendApi::V1, Membership::Knock));
    let event = request.event;
    let expected = json!({ "membership": "knock", "reason": "let me in", "displayname": "Us" });
    assert_eq!(*event.content(), object(expected));
    assert_eq!((event.sender(), event.state_key()), (&*us(), Some(us().as_str())));
    assert_eq!(event.origin_server_ts(), NOW);
    assert!(event.object().get("redacts").is_none());
}

/// CVE-2026-24471: what is no template of a knock of our user is not signed.
#[test]
fn another_template_is_not_signed() {
    let changed = |field: &str, value: Value| {
        let mut answer = template("knock");
        answer["event"][field] = value;
        answer
    };
    let mut old = template("knock");
    old["room_version"] = json!("6");
    let mut future = template("knock");
    future["room_version"] = json!("org.example.future");
    for answer in [
        template("join"),
        template("leave"),
        template("ban"),
        changed("room_id", json!("!other:theirs.example")),
        changed("sender", json!("@other:ours.example")),
        changed("state_key", json!("@other:ours.example")),
        changed("type", json!("m.room.server_acl")),
        changed("prev_events", json!([])),
        json!([]),
    ] {
        let AfterMakeKnock::NextCandidate(attempt, failure) = make(answer) else { panic!() };
        assert!(matches!(failure, RemoteFailure::Misbehaved(_)), "{failure}");
        assert_eq!(attempt.class, Class::Transient);
    }
    for answer in [old, future] {
        let AfterMakeKnock::NextCandidate(_, failure) = make(answer) else { panic!() };
        assert!(matches!(failure, RemoteFailure::Incompatible(_)), "{failure}");
    }
}

#[test]
fn any_success_means_that_the_room_has_the_knock() {
    let state = json!([{ "type": "m.room.name" }]);
    for (answer, expected) in [
        (json!({ "knock_room_state": state }), state),
        (json!({}), Value::Null),
        (json!([200, {}]), Value::Null),
    ] {
        let (awaiting, request) = send();
        match awaiting.on_answer(Ok(answer)) {
            AfterSendKnock::Done { event, room_state, attempt } => {
                assert_eq!((event, room_state), (request.event, expected));
                assert_eq!(attempt.outcome, "send_knock: accepted");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_refusal_is_told_from_no_clear_answer() {
    let refused = |status| RemoteFailure::Refused {
        status,
        errcode: "M_FORBIDDEN".into(),
        message: "no".into(),
    };
    let after = send().0.on_answer(Err(refused(403)));
    assert!(matches!(after, AfterSendKnock::Refused(..)), "{after:?}");
    for failure in [refused(500), RemoteFailure::Unreachable("time-out".into())] {
        let (awaiting, request) = send();
        match awaiting.on_answer(Err(failure)) {
            AfterSendKnock::Failed(event, _, _) => assert_eq!(event, request.event),
            other => panic!("{other:?}"),
        }
    }
}
