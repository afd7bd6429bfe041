//! Events at send_leave, send_join and invite, and withdrawn invites: one test per row.

mod common;

use common::*;
use exeunt_core::pdu::FormatError;
use exeunt_core::ruma::{EventId, OwnedRoomId};
use exeunt_core::{CheckedPdu, Pdu};
use exeunt_membership::{
    InboundError, Membership, PendingMembership, Probed, RemoteFailure, Rescission, check_invite,
    check_rescission, check_send_join, check_send_knock, check_send_leave, judge_probe,
    probe_request, probe_servers,
};
use serde_json::json;

fn leaver() -> exeunt_core::ruma::OwnedUserId {
    user("@leaver:theirs.example")
}

fn own(membership: &str) -> CheckedPdu {
    member(&leaver(), leaver().as_str(), membership, &[])
}

fn send_leave(pdu: &Pdu) -> Result<(), InboundError> {
    check_send_leave(&server(THEIRS), &room(), pdu.event_id(), pdu)
}

fn invited(pdu: &Pdu) -> Result<(), InboundError> {
    check_invite(&server(THEIRS), &server(OURS), &room(), pdu.event_id(), pdu)
}

#[track_caller]
fn invalid(result: Result<(), InboundError>) {
    assert!(matches!(result, Err(InboundError::InvalidParam(_))), "{result:?}");
}

#[track_caller]
fn forbidden(result: Result<(), InboundError>) {
    assert!(matches!(result, Err(InboundError::Forbidden(_))), "{result:?}");
}

#[test]
fn sl1_a_leave_by_its_sender_passes() {
    assert_eq!(send_leave(&own("leave")), Ok(()));
}

#[test]
fn sl2_what_is_no_leave_is_refused() {
    for membership in ["join", "invite", "knock", "ban", "", "Leave"] {
        invalid(send_leave(&own(membership)));
    }
    let content = json!({ "membership": "leave" });
    let key = Some("@leaver:theirs.example");
    invalid(send_leave(&event(&leaver(), "m.room.message", key, content.clone(), &[])));
    invalid(send_leave(&event(&leaver(), "m.room.member", None, content.clone(), &[])));
    invalid(send_leave(&event(&leaver(), "m.room.member", key, json!({}), &[])));
    invalid(send_leave(&event(&leaver(), "m.room.member", key, json!({ "membership": 1 }), &[])));
    for target in ["@other:theirs.example", "@us:ours.example", "", "theirs.example"] {
        invalid(send_leave(&member(&leaver(), target, "leave", &[])));
    }
}

#[test]
fn sl3_a_leave_of_another_servers_user_is_forbidden() {
    let replayed = member(&us(), us().as_str(), "leave", &[]);
    forbidden(send_leave(&replayed));
}

#[test]
fn sl5_path_and_body_must_agree() {
    let pdu = own("leave");
    let other_room: OwnedRoomId = "!other:theirs.example".try_into().unwrap();
    invalid(check_send_leave(&server(THEIRS), &other_room, pdu.event_id(), &pdu));
    let other_id = id('x');
    let other_id = <&EventId>::try_from(other_id.as_str()).unwrap();
    invalid(check_send_leave(&server(THEIRS), &room(), other_id, &pdu));
}

#[test]
fn sl6_too_many_references_are_malformed() {
    let ids: Vec<_> = ('A'..='Z').map(id).collect();
    for (field, count) in [("prev_events", 21), ("auth_events", 11)] {
        let pdu = with(&own("leave"), json!({ field: ids[..count] }));
        let expected = FormatError::TooManyReferences(field);
        assert_eq!(send_leave(&pdu), Err(InboundError::BadJson(expected)));
    }
}

#[test]
fn send_join_takes_joins_and_send_knock_knocks() {
    let join = |pdu: &Pdu| check_send_join(&server(THEIRS), &room(), pdu.event_id(), pdu);
    let knock = |pdu: &Pdu| check_send_knock(&server(THEIRS), &room(), pdu.event_id(), pdu);
    assert_eq!(join(&own("join")), Ok(()));
    assert_eq!(knock(&own("knock")), Ok(()));
    for membership in ["leave", "invite", "ban"] {
        invalid(join(&own(membership)));
        invalid(knock(&own(membership)));
    }
    invalid(join(&own("knock")));
    invalid(knock(&own("join")));
    forbidden(join(&member(&us(), us().as_str(), "join", &[])));
    invalid(join(&member(&leaver(), us().as_str(), "join", &[])));
    let old = Pdu::from_object(version("6"), own("knock").object().clone()).unwrap();
    forbidden(knock(&old));
}

#[test]
fn in1_an_invite_of_our_user_passes() {
    assert_eq!(invited(&invite()), Ok(()));
}

#[test]
fn in2_what_is_no_invite_of_our_user_is_refused() {
    for membership in ["join", "leave", "knock", "ban", ""] {
        invalid(invited(&member(&inviter(), us().as_str(), membership, &[])));
    }
    for target in ["@other:theirs.example", "", "us", "@us:ours.example:8448"] {
        invalid(invited(&member(&inviter(), target, "invite", &[])));
    }
    let content = json!({ "membership": "invite" });
    invalid(invited(&event(&inviter(), "m.room.server_acl", Some(us().as_str()), content, &[])));
    // By one of ours, and by a third server.
    invalid(invited(&member(&user("@friend:ours.example"), us().as_str(), "invite", &[])));
    invalid(invited(&member(&user("@x:third.example"), us().as_str(), "invite", &[])));
    let pdu = member(&user("@friend:ours.example"), us().as_str(), "invite", &[]);
    let ours = server(OURS);
    invalid(check_invite(&ours, &ours, &room(), pdu.event_id(), &pdu));
    let pdu = invite();
    let other_room: OwnedRoomId = "!other:theirs.example".try_into().unwrap();
    invalid(check_invite(&server(THEIRS), &ours, &other_room, pdu.event_id(), &pdu));
    let other_id = id('x');
    let other_id = <&EventId>::try_from(other_id.as_str()).unwrap();
    invalid(check_invite(&server(THEIRS), &ours, &room(), other_id, &pdu));
}

#[test]
fn rs2_the_inviter_withdraws_with_the_invite_in_hand() {
    let invite = invite();
    for membership in ["leave", "ban"] {
        let event = member(&inviter(), us().as_str(), membership, &[invite.event_id().as_str()]);
        assert_eq!(check_rescission(&pending(), &event), Rescission::Withdrawn);
    }
}

#[test]
fn rs3_anyone_elses_word_and_another_invite_prove_nothing() {
    let invite = invite();
    let with_invite = [invite.event_id().as_str()];
    let by = |sender: &str, auth: &[&str]| {
        check_rescission(&pending(), &member(&user(sender), us().as_str(), "leave", auth))
    };
    assert_eq!(by("@other:theirs.example", &with_invite), Rescission::Unproven);
    assert_eq!(by("@inviter:third.example", &with_invite), Rescission::Unproven);
    assert_eq!(by("@inviter:theirs.example", &[]), Rescission::Unproven);
    assert_eq!(by("@inviter:theirs.example", &[&id('x')]), Rescission::Unproven);
}

#[test]
fn rs4_what_is_about_something_else_is_unrelated() {
    let invite = invite();
    let auth = [invite.event_id().as_str()];
    let judge = |pdu: &CheckedPdu| check_rescission(&pending(), pdu);
    let unrelated = Rescission::Unrelated;
    assert_eq!(judge(&member(&inviter(), "@other:ours.example", "leave", &auth)), unrelated);
    for membership in ["join", "invite", "knock"] {
        assert_eq!(judge(&member(&inviter(), us().as_str(), membership, &auth)), unrelated);
    }
    assert_eq!(judge(&member(&us(), us().as_str(), "leave", &auth)), unrelated);
    let content = json!({ "membership": "leave" });
    assert_eq!(
        judge(&event(&inviter(), "m.room.name", Some(us().as_str()), content, &auth)),
        unrelated
    );
    let mut elsewhere = pending();
    elsewhere.room_id = "!other:theirs.example".try_into().unwrap();
    let event = member(&inviter(), us().as_str(), "leave", &auth);
    assert_eq!(check_rescission(&elsewhere, &event), unrelated);
}

#[test]
fn in11_a_newer_invite_is_withdrawn_by_its_own_inviter_only() {
    let older = invite();
    let newer = user("@newer:third.example");
    let invite = member(&newer, us().as_str(), "invite", &[]);
    let mut pending = pending();
    pending.event = invite.object().clone();
    pending.sender = newer.clone();
    let by_older = member(&inviter(), us().as_str(), "leave", &[older.event_id().as_str()]);
    assert_eq!(check_rescission(&pending, &by_older), Rescission::Unproven);
    let by_newer = member(&newer, us().as_str(), "leave", &[invite.event_id().as_str()]);
    assert_eq!(check_rescission(&pending, &by_newer), Rescission::Withdrawn);
}

#[test]
fn a_knock_is_turned_down_by_the_server_knocked_at() {
    let pending = pending_knock();
    let knock = member(&us(), us().as_str(), "knock", &[]);
    let auth = [knock.event_id().as_str()];
    let by = |sender: &str, auth: &[&str]| {
        check_rescission(&pending, &member(&user(sender), us().as_str(), "leave", auth))
    };
    assert_eq!(by("@mod:knocked.example", &auth), Rescission::Withdrawn);
    assert_eq!(by("@mod:knocked.example", &[]), Rescission::Unproven);
    assert_eq!(by("@mod:theirs.example", &auth), Rescission::Unproven);
}

#[test]
fn an_invite_that_cannot_be_read_any_more_is_not_withdrawn_by_guess() {
    let invite = invite();
    let event = member(&inviter(), us().as_str(), "leave", &[invite.event_id().as_str()]);
    let mut unreadable = pending();
    unreadable.event.remove("type");
    assert_eq!(check_rescission(&unreadable, &event), Rescission::Unproven);
    let mut unknown_version = pending();
    unknown_version.room_version = "99".into();
    assert_eq!(check_rescission(&unknown_version, &event), Rescission::Unproven);
}

#[test]
fn rs3_the_servers_that_would_know_are_asked() {
    let ours = server(OURS);
    assert_eq!(probe_servers(&pending(), &ours), [server(THEIRS)]);
    let delivered = PendingMembership { delivered_by: Some(server("third.example")), ..pending() };
    assert_eq!(probe_servers(&delivered, &ours), [server(THEIRS), server("third.example")]);
    assert_eq!(probe_servers(&pending_knock(), &ours), [server("knocked.example")]);
    let mut by_us = pending();
    by_us.sender = user("@friend:ours.example");
    (by_us.delivered_by, by_us.candidates) = (None, vec![server("third.example")]);
    assert_eq!(probe_servers(&by_us, &ours), by_us.candidates);
    let request = probe_request(&pending(), server(THEIRS));
    assert_eq!((request.membership, request.user_id), (Membership::Leave, us()));

    let judge = |answer| judge_probe(&pending(), &answer);
    let refused = |status, errcode: &str| {
        let (errcode, message) = (errcode.into(), "no".into());
        Err(RemoteFailure::Refused { status, errcode, message })
    };
    assert_eq!(judge(Ok(template("leave"))), Probed::Live);
    assert_eq!(judge(refused(403, "M_FORBIDDEN")), Probed::Gone);
    assert_eq!(judge(refused(404, "M_NOT_FOUND")), Probed::Gone);
    for unclear in [
        Ok(json!({})),
        Ok(template("join")),
        refused(404, ""),
        refused(404, "M_UNRECOGNIZED"),
        refused(500, "M_UNKNOWN"),
        Err(RemoteFailure::Unreachable("time-out".into())),
    ] {
        assert_eq!(judge(unclear), Probed::Unknown);
    }
}
