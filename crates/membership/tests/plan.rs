//! The decision table of a leave, and whom a departure asks.

mod common;

use common::*;
use exeunt_membership::Membership::*;
use exeunt_membership::{
    Attempt, Class, LeavePlan, LeaveView, MAX_CANDIDATES, Membership, PendingMembership,
    candidates, nothing_to_leave, plan_leave,
};
use serde_json::json;

#[track_caller]
fn check(
    resident: bool,
    membership: Option<Membership>,
    pending: Option<&PendingMembership>,
    expect: &LeavePlan<'_>,
) {
    let ours = server(OURS);
    let plan = plan_leave(LeaveView { resident, membership, pending, ours: &ours });
    assert_eq!(plan, *expect, "resident: {resident}, membership: {membership:?}");
}

fn handshake<'a>(pending: &'a PendingMembership, names: &[&str]) -> LeavePlan<'a> {
    LeavePlan::Handshake { candidates: names.iter().map(|name| server(name)).collect(), pending }
}

#[test]
fn residents_leave_in_the_graph() {
    for membership in [Join, Invite, Knock] {
        check(true, Some(membership), None, &LeavePlan::Local);
        check(true, Some(membership), Some(&pending()), &LeavePlan::Local);
    }
}

#[test]
fn outsiders_leave_by_handshake() {
    let invite = pending();
    let knock = pending_knock();
    for membership in [None, Some(Invite), Some(Knock), Some(Leave), Some(Ban), Some(Join)] {
        check(false, membership, Some(&invite), &handshake(&invite, &[THEIRS]));
        check(false, membership, Some(&knock), &handshake(&knock, &["knocked.example", THEIRS]));
    }
}

#[test]
fn an_invite_by_a_local_user_is_known_to_the_others_in_the_room() {
    let mut invite = pending();
    invite.sender = user("@friend:ours.example");
    invite.candidates = vec![server("third.example")];
    let others = [THEIRS, "third.example"];
    check(false, Some(Invite), Some(&invite), &handshake(&invite, &others));
    check(false, Some(Invite), None, &LeavePlan::OutOfBand);
}

#[test]
fn nobody_to_ask_is_out_of_band() {
    let mut knock = pending_knock();
    knock.delivered_by = None;
    knock.room_id = format!("!{}", "r".repeat(43)).try_into().unwrap();
    check(false, Some(Knock), Some(&knock), &LeavePlan::OutOfBand);
}

#[test]
fn no_membership_to_end() {
    for resident in [true, false] {
        check(resident, Some(Leave), None, &LeavePlan::AlreadyLeft);
        check(resident, Some(Ban), None, &LeavePlan::Banned);
        check(resident, None, None, &LeavePlan::NotKnown);
    }
}

#[test]
fn a_pending_invite_that_the_graph_does_not_show_is_not_stuck() {
    let invite = pending();
    for membership in [None, Some(Leave), Some(Ban)] {
        check(true, membership, Some(&invite), &handshake(&invite, &[THEIRS]));
    }
}

#[test]
fn candidates_come_in_order_once_and_without_us() {
    let mut pending = pending();
    pending.sender = user("@x:inviter.example");
    pending.delivered_by = Some(server("delivered.example:8448"));
    let senders = [
        "@a:stripped1.example",
        "@us:ours.example",
        "@b:inviter.example",
        "@c:stripped2.example",
        "@d:stripped1.example",
        "no user",
        "@nobody",
        "",
    ];
    pending.stripped_state = senders.map(|sender| object(json!({ "sender": sender }))).into();
    pending.stripped_state.push(object(json!({ "sender": 3 })));
    pending.stripped_state.push(object(json!({})));
    let learnt = ["learnt.example", OURS, "stripped2.example", "delivered.example"];
    pending.candidates = learnt.map(server).into();
    let expected = [
        "inviter.example",
        "delivered.example:8448",
        "stripped1.example",
        "stripped2.example",
        "learnt.example",
        "delivered.example",
        THEIRS,
    ];
    assert_eq!(candidates(&pending, &server(OURS)), expected.map(server));
}

#[test]
fn candidates_are_bounded_and_stripped_state_crowds_nobody_out() {
    let mut pending = pending();
    let senders = (0..500).map(|i| object(json!({ "sender": format!("@x:s{i}.example") })));
    pending.stripped_state = senders.collect();
    pending.candidates = vec![server("learnt.example")];
    let found = candidates(&pending, &server(OURS));
    assert_eq!(found.len(), 12);
    assert_eq!((&*found[0], &*found[11]), (&*server(THEIRS), &*server("learnt.example")));
    pending.candidates = (0..500).map(|i| server(&format!("l{i}.example"))).collect();
    assert_eq!(candidates(&pending, &server(OURS)).len(), MAX_CANDIDATES);
}

#[test]
fn a_room_id_without_a_domain_gives_no_candidate() {
    let mut pending = pending();
    pending.sender = user("@x:inviter.example");
    pending.delivered_by = None;
    pending.room_id = format!("!{}", "r".repeat(43)).try_into().unwrap();
    assert_eq!(candidates(&pending, &server(OURS)), [server("inviter.example")]);
}

#[test]
fn a_departure_ends_when_every_last_word_is_definite() {
    let attempt = |name: &str, class| Attempt { server: server(name), outcome: "".into(), class };
    let servers = [server("a.example"), server("b.example")];
    let (not_invited, no_room) =
        (attempt("a.example", Class::NotInvited), attempt("a.example", Class::NoRoom));
    let b_gone = attempt("b.example", Class::NoRoom);
    let b_down = attempt("b.example", Class::Transient);
    for (attempts, of_old, of_fresh) in [
        (vec![], false, false),
        (vec![&no_room], false, false),
        (vec![&no_room, &b_down], false, false),
        (vec![&b_down, &no_room, &b_gone], true, true),
        (vec![&b_down, &not_invited, &b_gone], true, false),
        (vec![&not_invited, &b_gone, &b_down], false, false),
    ] {
        let attempts: Vec<_> = attempts.into_iter().cloned().collect();
        assert_eq!(nothing_to_leave(&servers, &attempts, false), of_old, "{attempts:?}");
        assert_eq!(nothing_to_leave(&servers, &attempts, true), of_fresh, "{attempts:?}");
    }
    assert!(!nothing_to_leave(&[], &[], false));
}
