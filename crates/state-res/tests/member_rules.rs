//! Member events. One table per rule. Every verdict is compared with ruma's too, but for the cases where we
//! differ on purpose, which say why.

mod support;

use exeunt_core::{Signer, StateKey};
use exeunt_state_res::AuthError::*;
use serde_json::{Value, json};
use support::room::{ALICE, ALL, BOB, FOUNDER, MOD, Room, member, rooms, state};
use support::{Shape, build, object};

#[test]
fn join_to_a_public_room() {
    for mut room in rooms(&ALL) {
        for before in ["none", "leave", "invite", "join", "odd"] {
            room.member(BOB, before).check(member(BOB, BOB, "join"), Ok(()));
        }
        room.check(member(MOD, BOB, "join"), Err(NotSelf));
        room.member(BOB, "ban").check(member(BOB, BOB, "join"), Err(Banned));
    }
}

#[test]
fn join_by_rule_and_membership() {
    let since = |rule: &str| match rule {
        "knock" => 7,
        "restricted" => 8,
        "knock_restricted" => 10,
        _ => 1,
    };
    for (number, mut room) in (1..).zip(rooms(&ALL)) {
        for rule in ["invite", "knock", "restricted", "knock_restricted", "private", "odd"] {
            room.rule(rule);
            let known = number >= since(rule) && !matches!(rule, "private" | "odd");
            for before in ["none", "leave", "knock", "invite", "join"] {
                let admitted = matches!(before, "invite" | "join");
                let expected = match (known, admitted) {
                    (true, true) => Ok(()),
                    (true, false) if rule.contains("restricted") => Err(Authoriser),
                    _ => Err(JoinRule),
                };
                room.member(BOB, before).check(member(BOB, BOB, "join"), expected);
            }
        }
    }
}

#[test]
fn join_without_a_join_rule() {
    for mut room in rooms(&ALL) {
        room.state.remove(&StateKey::single("m.room.join_rules"));
        room.check(member(BOB, BOB, "join"), Err(JoinRule));
        room.set(state(FOUNDER, "m.room.join_rules", json!({"join_rule": 5})));
        room.member(BOB, "invite").check(member(BOB, BOB, "join"), Err(JoinRule));
        room.state.remove(&StateKey::single("m.room.join_rules"));
        // ruma wants a join rules event. Synapse takes `invite`.
        room.member(BOB, "invite").check_unlike_ruma(member(BOB, BOB, "join"), Ok(()));
    }
}

#[test]
fn join_by_authorising_user() {
    for mut room in rooms(&["8", "9", "10", "11", "12"]) {
        room.rule("restricted").levels(json!({"users": {MOD: 50}, "invite": 50}));
        let join = |user: Value| {
            let mut join = member(BOB, BOB, "join");
            join.content["join_authorised_via_users_server"] = user;
            join
        };
        room.check(join(MOD.into()), Ok(()));
        room.check(join(ALICE.into()), Err(Authoriser));
        room.check(join("@nobody:one".into()), Err(Authoriser));
        room.member(MOD, "leave").check(join(MOD.into()), Err(Authoriser));
        room.member(MOD, "join").member(BOB, "ban").check(join(MOD.into()), Err(Banned));
        room.member(BOB, "none").rule("invite").check(join(MOD.into()), Err(JoinRule));
    }
}

#[test]
fn first_join_of_the_creator() {
    for id in ALL {
        let mut room = Room::new(id);
        room.state.retain(|key, _| key.kind == "m.room.create");
        let create = room.create.event_id().to_owned();
        let join = |room: &Room, user, prev| build(&member(user, user, "join"), &room.place(prev));
        let first = join(&room, FOUNDER, vec![create.clone()]);
        room.check_pdu(&first, Ok(()));
        let other = join(&room, ALICE, vec![create.clone()]);
        room.check_pdu(&other, Err(JoinRule));
        let late = join(&room, FOUNDER, vec![create, first.event_id().to_owned()]);
        room.check_pdu(&late, Err(JoinRule));
    }
    // An additional creator waits for an invite (room version 12).
    let mut room = Room::with_create("12", json!({"additional_creators": [ALICE]}));
    room.state.retain(|key, _| key.kind == "m.room.create");
    let prev = vec![room.create.event_id().to_owned()];
    let join = build(&member(ALICE, ALICE, "join"), &room.place(prev));
    room.check_pdu(&join, Err(JoinRule));
}

#[test]
fn invite() {
    for mut room in rooms(&ALL) {
        for before in ["none", "leave", "invite", "knock"] {
            room.member(BOB, before).check(member(ALICE, BOB, "invite"), Ok(()));
        }
        room.member(BOB, "join").check(member(ALICE, BOB, "invite"), Err(TargetJoined));
        room.member(BOB, "ban").check(member(ALICE, BOB, "invite"), Err(TargetBanned));
        room.member(BOB, "none").check(member("@eve:four", BOB, "invite"), Err(SenderNotJoined));
        room.levels(json!({"users": {MOD: 50}, "invite": 50}));
        room.check(member(ALICE, BOB, "invite"), Err(InvitePower));
        room.check(member(MOD, BOB, "invite"), Ok(()));
    }
}

#[test]
fn leave_of_oneself() {
    for mut room in rooms(&ALL) {
        for before in ["join", "invite"] {
            room.member(BOB, before).check(member(BOB, BOB, "leave"), Ok(()));
        }
        let knock = if room.has_knocks() { Ok(()) } else { Err(NothingToLeave) };
        room.member(BOB, "knock").check(member(BOB, BOB, "leave"), knock);
        for before in ["none", "leave", "ban", "odd"] {
            room.member(BOB, before).check(member(BOB, BOB, "leave"), Err(NothingToLeave));
        }
    }
}

#[test]
fn kick_rescind_deny_and_unban() {
    for mut room in rooms(&ALL) {
        for before in ["join", "invite", "knock", "leave", "none", "ban"] {
            room.member(BOB, before).check(member(MOD, BOB, "leave"), Ok(()));
        }
        room.member(BOB, "join").check(member(ALICE, BOB, "leave"), Err(KickPower));
        room.check(member("@eve:four", BOB, "leave"), Err(SenderNotJoined));
        room.member("@eve:four", "invite");
        room.check(member("@eve:four", BOB, "leave"), Err(SenderNotJoined));
        room.check(member(MOD, FOUNDER, "leave"), Err(KickPower));
        room.levels(json!({"users": {MOD: 50, BOB: 50}}));
        room.check(member(MOD, BOB, "leave"), Err(KickPower));
        // Unbanning takes the levels for both.
        room.levels(json!({"users": {MOD: 50}, "ban": 60})).member(BOB, "ban");
        room.check(member(MOD, BOB, "leave"), Err(UnbanPower));
        room.member(BOB, "join").check(member(MOD, BOB, "leave"), Ok(()));
        room.levels(json!({"users": {MOD: 50}, "kick": 60})).member(BOB, "ban");
        room.check(member(MOD, BOB, "leave"), Err(KickPower));
    }
}

#[test]
fn ban() {
    for mut room in rooms(&ALL) {
        for before in ["join", "invite", "knock", "leave", "none", "ban"] {
            room.member(BOB, before).check(member(MOD, BOB, "ban"), Ok(()));
        }
        room.check(member(ALICE, BOB, "ban"), Err(BanPower));
        room.check(member("@eve:four", BOB, "ban"), Err(SenderNotJoined));
        room.check(member(MOD, FOUNDER, "ban"), Err(BanPower));
        room.check(member(MOD, MOD, "ban"), Err(BanPower));
        room.levels(json!({"users": {MOD: 50, BOB: 50}}));
        room.check(member(MOD, BOB, "ban"), Err(BanPower));
    }
}

#[test]
fn knock() {
    for (number, mut room) in (1..).zip(rooms(&ALL)) {
        room.rule("knock");
        if number < 7 {
            room.check(member(BOB, BOB, "knock"), Err(UnknownMembership));
            continue;
        }
        for before in ["none", "leave", "knock"] {
            room.member(BOB, before).check(member(BOB, BOB, "knock"), Ok(()));
        }
        room.member(BOB, "invite").check(member(BOB, BOB, "knock"), Err(KnockInvited));
        room.member(BOB, "join").check(member(BOB, BOB, "knock"), Err(KnockJoined));
        room.member(BOB, "ban").check(member(BOB, BOB, "knock"), Err(Banned));
        room.member(BOB, "none").check(member(MOD, BOB, "knock"), Err(NotSelf));
        for rule in ["public", "invite", "restricted", "private"] {
            room.rule(rule).check(member(BOB, BOB, "knock"), Err(JoinRule));
        }
        let expected = if number >= 10 { Ok(()) } else { Err(JoinRule) };
        room.rule("knock_restricted").check(member(BOB, BOB, "knock"), expected);
    }
}

#[test]
fn malformed_member_events() {
    for mut room in rooms(&ALL) {
        room.check(Shape { state_key: None, ..member(BOB, BOB, "join") }, Err(MemberStateKey));
        room.check(
            Shape { state_key: Some("bob"), ..member(BOB, BOB, "join") },
            Err(MemberStateKey),
        );
        room.check(
            Shape { content: json!({}), ..member(BOB, BOB, "join") },
            Err(UnknownMembership),
        );
        room.check(member(BOB, BOB, "sit"), Err(UnknownMembership));
    }
}

#[test]
fn third_party_invites() {
    let signer = |seed: u8| {
        let server = ruma::ServerName::parse("id.four").expect("a name");
        Signer::new(server, "ed25519:0", &[seed; 32]).expect("a seed")
    };
    let signed = |mxid: &str, token: &str| {
        let mut object = object(json!({"mxid": mxid, "token": token}));
        signer(1).sign_object(&mut object);
        Value::Object(object)
    };
    let invite = |sender: &'static str, signed: Value| {
        let mut invite = member(sender, BOB, "invite");
        invite.content["third_party_invite"] = json!({"display_name": "b", "signed": signed});
        invite
    };
    for mut room in rooms(&ALL) {
        let token = |key: Value| Shape {
            state_key: Some("tok"),
            ..state(ALICE, "m.room.third_party_invite", key)
        };
        let good = signed(BOB, "tok");
        room.check(invite(ALICE, good.clone()), Err(ThirdPartyInvite));
        room.set(token(json!({"public_key": signer(1).public()})));
        room.check(invite(ALICE, good.clone()), Ok(()));
        room.check(invite(MOD, good.clone()), Err(ThirdPartyInvite));
        room.check(invite(ALICE, signed(MOD, "tok")), Err(ThirdPartyInvite));
        room.check(invite(ALICE, signed(BOB, "other")), Err(ThirdPartyInvite));
        room.check(invite(ALICE, json!({"token": "tok"})), Err(ThirdPartyInvite));
        room.check(invite(ALICE, json!({"mxid": BOB})), Err(ThirdPartyInvite));
        room.check(invite(ALICE, json!([])), Err(ThirdPartyInvite));
        let mut tampered = good.clone();
        tampered["more"] = 1.into();
        room.check(invite(ALICE, tampered), Err(ThirdPartyInvite));
        let mut unsigned = good.clone();
        unsigned["signatures"] = json!({});
        room.check(invite(ALICE, unsigned), Err(ThirdPartyInvite));
        // The sender may have left, the target may be joined: only a ban counts.
        room.member(ALICE, "leave").check(invite(ALICE, good.clone()), Ok(()));
        room.member(BOB, "ban").check(invite(ALICE, good.clone()), Err(Banned));
        room.member(BOB, "none");
        let keys = json!([{"public_key": signer(2).public()}, {"public_key": signer(1).public()}]);
        room.set(token(json!({"public_keys": keys}))).check(invite(ALICE, good.clone()), Ok(()));
        room.set(token(json!({"public_key": signer(2).public()})));
        room.check(invite(ALICE, good), Err(ThirdPartyInvite));
    }
}
