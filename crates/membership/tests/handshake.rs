//! The handshakes step by step: what is sent next, and what an ending means.

mod common;

use common::*;
use exeunt_core::{CheckedPdu, Object};
use exeunt_membership::{
    AfterMakeJoin, AfterMakeLeave, AfterSendJoin, AfterSendLeave, Class, Departure, Join,
    MAX_OUTCOME_BYTES, MakeJoin, MakeLeave, Membership, RemoteFailure, SendApi, SendJoin,
    SendLeave, SendRequest,
};
use serde_json::{Value, json};

fn refused(status: u16, errcode: &str) -> RemoteFailure {
    RemoteFailure::Refused { status, errcode: errcode.into(), message: "no".into() }
}

fn unreachable() -> RemoteFailure {
    RemoteFailure::Unreachable("time-out".into())
}

fn make_leave() -> MakeLeave {
    MakeLeave::new(Departure::of(&pending(), Some("no thanks".into())), server(THEIRS)).0
}

fn send_leave() -> (SendLeave, SendRequest) {
    match make_leave().on_answer(Ok(template("leave")), sign, NOW) {
        AfterMakeLeave::Send(awaiting, request) => (awaiting, request),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_leave_goes_by_make_leave_and_send_leave_at_the_same_server() {
    let departure = Departure::of(&pending(), Some("no thanks".into()));
    assert_eq!(departure.room_version, Some(version("10")));
    let (_, request) = MakeLeave::new(departure, server(THEIRS));
    assert_eq!((request.server, request.membership), (server(THEIRS), Membership::Leave));
    assert_eq!((request.room_id, request.user_id), (room(), us()));
    assert!(request.versions.is_empty());
    let (awaiting, request) = send_leave();
    assert_eq!((request.api, request.membership), (SendApi::V2, Membership::Leave));
    assert_eq!(request.server, server(THEIRS));
    assert_eq!(request.room_id, room());
    assert_eq!(&*request.event_id, request.event.event_id());
    assert_eq!(request.event.content_str("reason"), Some("no thanks"));
    match awaiting.on_answer(Ok(json!({}))) {
        AfterSendLeave::Done(event, attempt) => {
            assert_eq!(event, request.event);
            assert_eq!(attempt.outcome, "send_leave v2: accepted");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_a_real_refusal_of_make_leave_is_definite() {
    let ends = |failure: RemoteFailure| {
        let expected = failure.clone();
        match make_leave().on_answer(Err(failure), sign, NOW) {
            AfterMakeLeave::NextCandidate(attempt, failure) => {
                assert_eq!((&attempt.server, failure), (&server(THEIRS), expected));
                assert!(attempt.outcome.starts_with("make_leave: "));
                attempt.class
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ends(refused(403, "M_FORBIDDEN")), Class::NotInvited);
    assert_eq!(ends(refused(404, "M_NOT_FOUND")), Class::NoRoom);
    // A proxy without a homeserver behind it, rate limits, other codes.
    for (status, errcode) in [
        (404, ""),
        (403, ""),
        (404, "M_UNRECOGNIZED"),
        (401, "M_UNAUTHORIZED"),
        (429, "M_LIMIT_EXCEEDED"),
        (500, "M_UNKNOWN"),
        (403, "M_INVALID_SIGNATURE"),
        (400, "M_NOT_FOUND"),
    ] {
        assert_eq!(ends(refused(status, errcode)), Class::Transient, "{status} {errcode}");
    }
    assert_eq!(ends(unreachable()), Class::Transient);
    assert_eq!(ends(RemoteFailure::Misbehaved("not JSON".into())), Class::Transient);
}

#[test]
fn a_wrong_template_is_the_peers_fault_and_nothing_is_signed() {
    let mut other_room = template("leave");
    other_room["event"]["room_id"] = json!("!other:theirs.example");
    let mut future = template("leave");
    future["room_version"] = json!("org.example.future");
    for (answer, incompatible) in [(other_room, false), (template("join"), false), (future, true)] {
        match make_leave().on_answer(Ok(answer), sign, NOW) {
            AfterMakeLeave::NextCandidate(_, RemoteFailure::Misbehaved(_)) => {
                assert!(!incompatible)
            }
            AfterMakeLeave::NextCandidate(_, RemoteFailure::Incompatible(_)) => {
                assert!(incompatible)
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_peers_message_is_recorded_only_so_far() {
    let message = "é".repeat(100_000);
    let failure = RemoteFailure::Refused { status: 403, errcode: "M_FORBIDDEN".into(), message };
    let make = make_leave().on_answer(Err(failure.clone()), sign, NOW);
    let AfterMakeLeave::NextCandidate(attempt, _) = make else { panic!("{make:?}") };
    assert!((MAX_OUTCOME_BYTES - 1..=MAX_OUTCOME_BYTES).contains(&attempt.outcome.len()));
    let send = send_leave().0.on_answer(Err(failure));
    let AfterSendLeave::Refused(attempt, _) = send else { panic!("{send:?}") };
    assert!((MAX_OUTCOME_BYTES - 1..=MAX_OUTCOME_BYTES).contains(&attempt.outcome.len()));
}

#[test]
fn v1_follows_only_where_v2_is_not_there() {
    for (status, errcode) in [
        (404, "M_UNRECOGNIZED"),
        (400, "M_UNRECOGNIZED"),
        (405, "M_UNRECOGNIZED"),
        (404, ""),
        (400, ""),
        (405, ""),
    ] {
        let (awaiting, first) = send_leave();
        let AfterSendLeave::FallBackToV1(awaiting, second) =
            awaiting.on_answer(Err(refused(status, errcode)))
        else {
            panic!("{status} {errcode}");
        };
        assert_eq!(second, SendRequest { api: SendApi::V1, ..first });
        match awaiting.on_answer(Ok(json!([200, {}]))) {
            AfterSendLeave::Done(event, attempt) => {
                assert_eq!(event, second.event);
                assert_eq!(attempt.outcome, "send_leave v1: accepted");
            }
            other => panic!("{other:?}"),
        }
        // v1 is the last word: no loop.
        let (awaiting, _) = send_leave();
        let AfterSendLeave::FallBackToV1(awaiting, _) = awaiting.on_answer(Err(refused(404, "")))
        else {
            panic!();
        };
        let last = awaiting.on_answer(Err(refused(404, "")));
        assert!(matches!(last, AfterSendLeave::Refused(..)), "{last:?}");
    }
}

#[test]
fn a_real_refusal_of_send_leave_ends_at_this_candidate() {
    for (status, errcode) in
        [(403, "M_FORBIDDEN"), (404, "M_NOT_FOUND"), (400, "M_BAD_JSON"), (400, "M_INVALID_PARAM")]
    {
        match send_leave().0.on_answer(Err(refused(status, errcode))) {
            AfterSendLeave::Refused(attempt, _) => assert_eq!(attempt.class, Class::Transient),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn without_a_clear_answer_the_same_event_can_be_sent_again() {
    let (_, first) = send_leave();
    for failure in [unreachable(), refused(502, ""), RemoteFailure::Misbehaved("…".into())] {
        match send_leave().0.on_answer(Err(failure)) {
            AfterSendLeave::Failed(event, attempt, _) => {
                assert_eq!((&event, attempt.class), (&first.event, Class::Transient));
                let (_, again) = SendLeave::new(server(THEIRS), event);
                assert_eq!(again, first);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn join() -> Join {
    let content = object(json!({ "displayname": "Us" }));
    Join { room_id: room(), user_id: us(), room_version: None, content }
}

fn send_join(template: Value) -> (SendJoin, SendRequest) {
    let (awaiting, _) = MakeJoin::new(join(), server(THEIRS));
    match awaiting.on_answer(Ok(template), sign, NOW) {
        AfterMakeJoin::Send(awaiting, request) => (awaiting, request),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_join_names_the_versions_it_can_live_in() {
    let (_, request) = MakeJoin::new(join(), server(THEIRS));
    assert_eq!(request.versions, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"]);
    let known = Join { room_version: Some(version("9")), ..join() };
    assert_eq!(MakeJoin::new(known, server(THEIRS)).1.versions, ["9"]);
}

#[test]
fn a_refused_make_join_keeps_its_reason() {
    let (awaiting, _) = MakeJoin::new(join(), server(THEIRS));
    match awaiting.on_answer(Err(refused(403, "M_FORBIDDEN")), sign, NOW) {
        AfterMakeJoin::NextCandidate(attempt, failure) => {
            assert_eq!(attempt.class, Class::NotInvited);
            assert_eq!(failure, refused(403, "M_FORBIDDEN"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_join_ends_with_our_event() {
    let (awaiting, request) = send_join(template("join"));
    assert_eq!((request.api, request.membership), (SendApi::V2, Membership::Join));
    assert_eq!(request.event.content_str("displayname"), Some("Us"));
    let answer = json!({
        "members_omitted": false,
        "servers_in_room": [THEIRS, 3, "not a server"],
        "event": { "ignored": "in rooms that are not restricted" },
    });
    match awaiting.on_answer(Ok(answer)) {
        AfterSendJoin::Done(event, _) => assert_eq!(event.object(), request.event.object()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_join_falls_back_to_v1_and_its_pair() {
    let fall_back = || match send_join(template("join")).0.on_answer(Err(refused(404, ""))) {
        AfterSendJoin::FallBackToV1(awaiting, request) => {
            assert_eq!(request.api, SendApi::V1);
            awaiting
        }
        other => panic!("{other:?}"),
    };
    let body = json!({ "origin": THEIRS });
    let done = fall_back().on_answer(Ok(json!([200, body])));
    assert!(matches!(done, AfterSendJoin::Done(..)), "{done:?}");
    for wrong in [body, json!([200]), json!([200, []])] {
        let failed = fall_back().on_answer(Ok(wrong));
        assert!(matches!(failed, AfterSendJoin::Failed(..)), "{failed:?}");
    }
    let refused = send_join(template("join")).0.on_answer(Err(refused(403, "M_FORBIDDEN")));
    assert!(matches!(refused, AfterSendJoin::Refused(..)), "{refused:?}");
}

#[test]
fn a_welcome_of_the_wrong_shape_is_misbehaviour() {
    // We never ask for fewer members.
    for answer in [json!([]), json!([200, {}]), json!("ok"), json!({ "members_omitted": true })] {
        match send_join(template("join")).0.on_answer(Ok(answer)) {
            AfterSendJoin::Failed(_, _, RemoteFailure::Misbehaved(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn restricted() -> (SendJoin, CheckedPdu) {
    let mut template = template("join");
    template["event"]["content"]["join_authorised_via_users_server"] = json!("@mod:theirs.example");
    let (awaiting, request) = send_join(template);
    (awaiting, request.event)
}

fn welcome(event: Option<Object>) -> Value {
    let mut answer = json!({});
    if let Some(event) = event {
        answer["event"] = Value::Object(event);
    }
    answer
}

#[test]
fn a_restricted_join_takes_the_authorisers_signature_and_nothing_else() {
    let (awaiting, ours) = restricted();
    assert_eq!(ours.content_str("join_authorised_via_users_server"), Some("@mod:theirs.example"));
    let cosigned = ours.cosign_restricted_join(&signer(THEIRS)).unwrap();
    let mut copy = cosigned.object().clone();
    copy["signatures"]["evil.example"] = json!({ "ed25519:a": "evil" });
    copy["content"]["displayname"] = json!("Evil");
    copy.insert("evil".into(), json!(true));
    match awaiting.on_answer(Ok(welcome(Some(copy)))) {
        AfterSendJoin::Done(event, _) => assert_eq!(event.object(), cosigned.object()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_restricted_join_without_that_signature_has_failed() {
    let (_, ours) = restricted();
    let cosigned = ours.cosign_restricted_join(&signer(THEIRS)).unwrap();
    let mut of_other_event = cosigned.object().clone();
    of_other_event["depth"] = json!(13);
    for event in [None, Some(ours.object().clone()), Some(of_other_event), Some(Object::new())] {
        match restricted().0.on_answer(Ok(welcome(event))) {
            AfterSendJoin::Failed(_, _, RemoteFailure::Misbehaved(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}
