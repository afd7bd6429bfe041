//! One table per authorisation rule. Every verdict is compared with ruma's too, but for the cases
//! where we differ on purpose, which say why.

mod support;

use exeunt_core::{Pdu, RoomVersion, Signer, StateKey, StateMap};
use exeunt_state_res::AuthError::{self, *};
use exeunt_state_res::{
    AuthEvent, Level, LookupError, MalformedLevel, PowerLevels, StateLookup, check_auth,
    check_auth_events, check_create,
};
use ruma::UserId;
use serde_json::{Value, json};
use support::{Place, Shape, build, object, oracle, version};

const ALL: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];
const FOUNDER: &str = "@founder:one";
const MOD: &str = "@mod:one";
const ALICE: &str = "@alice:two";
const BOB: &str = "@bob:three";

/// A public room with a founder (level 100, or a creator), a moderator (50) and Alice.
struct Room {
    version: RoomVersion,
    create: Pdu,
    state: StateMap<Pdu>,
    number: usize,
}

impl Room {
    fn new(id: &str) -> Self {
        Self::with_create(id, json!({}))
    }

    fn with_create(id: &str, mut content: Value) -> Self {
        let version = version(id);
        let founds = version.room_id_is_create_hash();
        if !version.rules().authorization.use_room_create_sender {
            content["creator"] = FOUNDER.into();
        }
        let shape = state(FOUNDER, "m.room.create", content);
        let place = Place {
            version,
            room_id: (!founds).then(|| "!r:one".to_owned()),
            prev_events: vec![],
            auth_events: vec![],
            ts: 1,
            number: 0,
        };
        let create = build(&shape, &place);
        let map = StateMap::from([(StateKey::single("m.room.create"), create.clone())]);
        let mut room = Self { version, create, state: map, number: 0 };
        let users = if founds { json!({MOD: 50}) } else { json!({MOD: 50, FOUNDER: 100}) };
        room.levels(json!({"users": users}));
        room.rule("public");
        for user in [FOUNDER, MOD, ALICE] {
            room.member(user, "join");
        }
        room
    }

    fn has_knocks(&self) -> bool {
        self.version.rules().authorization.knocking
    }

    fn event(&mut self, shape: Shape<'_>) -> Pdu {
        self.number += 1;
        let last = self.state.values().max_by_key(|pdu| pdu.depth()).expect("the create event");
        let prev = build(&shape, &self.place(vec![]));
        let prev =
            if last.depth() == 0 { prev.event_id().to_owned() } else { last.event_id().to_owned() };
        build(&shape, &self.place(vec![prev]))
    }

    fn place(&self, prev_events: Vec<ruma::OwnedEventId>) -> Place {
        Place {
            version: self.version,
            room_id: Some(self.create.room_id().to_string()),
            prev_events,
            auth_events: vec![],
            ts: 1,
            number: self.number,
        }
    }

    fn set(&mut self, shape: Shape<'_>) -> &mut Self {
        let pdu = self.event(shape);
        self.state.insert(pdu.key().expect("a state event"), pdu);
        self
    }

    fn levels(&mut self, content: Value) -> &mut Self {
        self.set(state(FOUNDER, "m.room.power_levels", content))
    }

    fn rule(&mut self, rule: &str) -> &mut Self {
        self.set(state(FOUNDER, "m.room.join_rules", json!({"join_rule": rule})))
    }

    /// `none` removes the member event.
    fn member(&mut self, user: &str, membership: &str) -> &mut Self {
        if membership == "none" {
            self.state.remove(&StateKey::new("m.room.member", user));
            return self;
        }
        self.set(member(user, user, membership))
    }

    #[track_caller]
    fn check(&mut self, shape: Shape<'_>, expected: Result<(), AuthError>) -> &mut Self {
        let pdu = self.event(shape);
        self.check_pdu(&pdu, expected)
    }

    #[track_caller]
    fn check_pdu(&mut self, pdu: &Pdu, expected: Result<(), AuthError>) -> &mut Self {
        let ruma = oracle::check(pdu, &self.state);
        let what = format!("version {} {pdu:?} {:?}", self.version, pdu.content());
        assert_eq!(ruma.is_ok(), expected.is_ok(), "{what}: ruma says {ruma:?}");
        self.check_apart(pdu, expected)
    }

    /// Like `check`, where ruma says otherwise.
    #[track_caller]
    fn check_unlike_ruma(
        &mut self,
        shape: Shape<'_>,
        expected: Result<(), AuthError>,
    ) -> &mut Self {
        let pdu = self.event(shape);
        let ruma = oracle::check(&pdu, &self.state);
        assert_ne!(ruma.is_ok(), expected.is_ok(), "ruma agrees by now: {ruma:?}");
        self.check_apart(&pdu, expected)
    }

    #[track_caller]
    fn check_apart(&mut self, pdu: &Pdu, expected: Result<(), AuthError>) -> &mut Self {
        let verdict = check_auth(pdu, &self.create, &self.state);
        assert_eq!(verdict, expected, "version {} {pdu:?} {:?}", self.version, pdu.content());
        self
    }
}

fn state<'a>(sender: &'a str, kind: &'a str, content: Value) -> Shape<'a> {
    Shape { sender, kind, state_key: Some(""), content }
}

fn message<'a>(sender: &'a str, kind: &'a str) -> Shape<'a> {
    Shape { sender, kind, state_key: None, content: json!({}) }
}

fn member<'a>(sender: &'a str, target: &'a str, membership: &str) -> Shape<'a> {
    let content = json!({"membership": membership});
    Shape { sender, kind: "m.room.member", state_key: Some(target), content }
}

fn rooms(ids: &[&str]) -> impl Iterator<Item = Room> {
    ids.iter().map(|id| Room::new(id)).collect::<Vec<_>>().into_iter()
}

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
        // ruma wants a join rules event. The client-server API's default is `invite`, which is
        // also what Synapse takes.
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
        for before in ["join", "ban"] {
            room.member(BOB, before).check(member(ALICE, BOB, "invite"), Err(TargetMembership));
        }
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
        for before in ["invite", "join"] {
            room.member(BOB, before).check(member(BOB, BOB, "knock"), Err(KnockMembership));
        }
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

#[test]
fn third_party_invite_events_need_the_invite_level() {
    for mut room in rooms(&ALL) {
        let event = |sender| Shape {
            state_key: Some("tok"),
            ..state(sender, "m.room.third_party_invite", json!({}))
        };
        room.check(event(ALICE), Ok(()));
        room.check(event(BOB), Err(SenderNotJoined));
        room.levels(json!({"users": {MOD: 50}, "invite": 50}));
        room.check(event(ALICE), Err(InvitePower)).check(event(MOD), Ok(()));
    }
}

#[test]
fn federation_can_be_closed() {
    for id in ALL {
        let mut room = Room::with_create(id, json!({"m.federate": false}));
        room.check(message(MOD, "m.room.message"), Ok(()));
        room.check(message(ALICE, "m.room.message"), Err(NotFederated));
        room.check(member(BOB, BOB, "join"), Err(NotFederated));
        let mut room = Room::with_create(id, json!({"m.federate": true}));
        room.check(message(ALICE, "m.room.message"), Ok(()));
    }
}

#[test]
fn aliases_belong_to_the_servers_until_version_6() {
    for (number, mut room) in (1..).zip(rooms(&ALL)) {
        let event = |state_key| Shape { state_key, ..state(BOB, "m.room.aliases", json!({})) };
        let special = number < 6;
        room.check(event(Some("three")), if special { Ok(()) } else { Err(SenderNotJoined) });
        let other = if special { AliasesOfOtherServer } else { SenderNotJoined };
        room.check(event(Some("two")), Err(other.clone())).check(event(None), Err(other));
    }
}

#[test]
fn redactions_until_version_3() {
    for (number, mut room) in (1..).zip(rooms(&ALL)) {
        let special = number < 3;
        let redact = |room: &mut Room, sender, target: &str| {
            let pdu = room.event(message(sender, "m.room.redaction"));
            let mut object = pdu.object().clone();
            object.insert("redacts".into(), target.into());
            Pdu::from_object(room.version, object).expect("well-formed")
        };
        let own = redact(&mut room, ALICE, "$x:two");
        room.check_pdu(&own, Ok(()));
        let other = redact(&mut room, ALICE, "$x:one");
        room.check_pdu(&other, if special { Err(RedactPower) } else { Ok(()) });
        let by_mod = redact(&mut room, MOD, "$x:two");
        room.check_pdu(&by_mod, Ok(()));
    }
}

#[test]
fn senders_are_joined_and_have_the_level() {
    for mut room in rooms(&ALL) {
        for before in ["none", "leave", "invite", "knock", "ban"] {
            room.member(BOB, before);
            room.check(message(BOB, "m.room.message"), Err(SenderNotJoined));
        }
        room.check(message(ALICE, "m.room.message"), Ok(()));
        room.check(state(ALICE, "m.room.topic", json!({})), Err(EventPower));
        room.check(state(MOD, "m.room.topic", json!({})), Ok(()));
        room.levels(json!({
            "users": {MOD: 50}, "users_default": 10, "state_default": 60, "events_default": 11,
            "events": {"m.room.topic": 10, "m.sticker": 51},
        }));
        room.check(state(ALICE, "m.room.topic", json!({})), Ok(()));
        room.check(state(MOD, "m.room.name", json!({})), Err(EventPower));
        room.check(message(ALICE, "m.room.message"), Err(EventPower));
        room.check(message(MOD, "m.sticker"), Err(EventPower));
    }
}

#[test]
fn state_keyed_by_users_is_theirs() {
    for mut room in rooms(&ALL) {
        room.levels(json!({"users": {MOD: 50}, "state_default": 0}));
        let event = |key| Shape { state_key: Some(key), ..state(ALICE, "x.own", json!({})) };
        room.check(event(ALICE), Ok(())).check(event("other"), Ok(()));
        room.check(event(MOD), Err(StateOfOtherUser)).check(event("@"), Err(StateOfOtherUser));
    }
}

#[test]
fn a_room_without_power_levels() {
    for mut room in rooms(&ALL) {
        room.state.remove(&StateKey::single("m.room.power_levels"));
        room.check(state(FOUNDER, "m.room.topic", json!({})), Ok(()));
        room.check(state(MOD, "m.room.topic", json!({})), Err(EventPower));
        room.check(member(ALICE, BOB, "invite"), Ok(()));
        room.check(member(FOUNDER, ALICE, "ban"), Ok(()));
        room.check(state(FOUNDER, "m.room.power_levels", json!({"users": {ALICE: 200}})), Ok(()));
    }
}

#[test]
fn shape_of_power_levels() {
    let levels = |content| state(FOUNDER, "m.room.power_levels", content);
    for (number, mut room) in (1..).zip(rooms(&ALL)) {
        let strict = number >= 10;
        let bad = |name: &str| Err(AuthError::MalformedLevel(MalformedLevel(name.into())));
        let strings = |name: &str| if strict { bad(name) } else { Ok(()) };
        room.check(levels(json!({"users": {ALICE: " +07 "}})), strings("users"));
        room.check(levels(json!({"ban": "50"})), strings("ban"));
        room.check(levels(json!({"events": {"x": "-5"}})), strings("events"));
        room.check(levels(json!({"users": {ALICE: "5a"}})), bad("users"));
        room.check(levels(json!({"users": {ALICE: []}})), bad("users"));
        room.check(levels(json!({"users": {"alice": 5}})), bad("users"));
        room.check(levels(json!({"users": []})), bad("users"));
        room.check(levels(json!({"kick": "x"})), bad("kick"));
        room.check(levels(json!({"events": 5})), bad("events"));
        if strict {
            room.check(levels(json!({"notifications": {"room": "5"}})), bad("notifications"));
        }
        if number < 6 {
            // Truncated where canonical JSON is not enforced; ruma reads no floats.
            room.check_unlike_ruma(levels(json!({"users": {ALICE: 50.57}, "ban": 1.5})), Ok(()));
        }
    }
}

#[test]
fn first_power_levels_before_version_10() {
    // By the specification only `users` is checked; ruma reads all of the event.
    for mut room in rooms(&["3", "6", "9"]) {
        room.state.remove(&StateKey::single("m.room.power_levels"));
        let odd = json!({"ban": "x", "users": {FOUNDER: 100}});
        room.check_unlike_ruma(state(FOUNDER, "m.room.power_levels", odd.clone()), Ok(()));
        // A malformed level matters to events that need it, and to no others.
        room.levels(odd);
        room.check(state(FOUNDER, "m.room.topic", json!({})), Ok(()));
        let error = MalformedLevel("ban".into());
        room.check(member(FOUNDER, BOB, "ban"), Err(error.into()));
    }
}

#[test]
fn creators_are_above_power_levels() {
    for id in ["11", "12"] {
        let privileged = id == "12";
        let mut room = Room::with_create(id, json!({"additional_creators": [ALICE]}));
        let levels = |sender, user: &str| {
            state(sender, "m.room.power_levels", json!({"users": {MOD: 50, user: 100}}))
        };
        room.levels(json!({"users": {MOD: 50}, "ban": 1_u64 << 40, "state_default": 1_u64 << 40}));
        let expected = |ok, otherwise| if privileged == ok { Ok(()) } else { Err(otherwise) };
        room.check(state(ALICE, "m.room.topic", json!({})), expected(true, EventPower));
        room.check(member(FOUNDER, BOB, "ban"), expected(true, BanPower));
        room.levels(json!({"users": {MOD: 50}, "state_default": 0, "users_default": 100}));
        room.check(member(MOD, ALICE, "leave"), Err(KickPower));
        room.check(levels(BOB, BOB), Err(SenderNotJoined));
        room.levels(json!({"state_default": 0, "users_default": 100}));
        room.check(levels(MOD, ALICE), expected(false, CreatorInUsers));
        room.check(levels(MOD, FOUNDER), expected(false, CreatorInUsers));
        if privileged {
            room.check(member(FOUNDER, ALICE, "leave"), Err(KickPower));
            room.check(member(ALICE, ALICE, "leave"), Ok(()));
        }
    }
}

#[test]
fn alteration_of_power_levels() {
    let base = || {
        json!({
            "users": {MOD: 50, ALICE: 20, BOB: 50, "@top:one": 60}, "users_default": 0,
            "events_default": 0, "state_default": 50, "ban": 50, "kick": 50, "redact": 50,
            "invite": 60, "events": {"m.room.name": 50, "m.room.topic": 60},
            "notifications": {"room": 60},
        })
    };
    let remove = |path: &str| {
        let mut content = base();
        let (map, key) = path.rsplit_once('/').expect("a path");
        content.pointer_mut(map).and_then(Value::as_object_mut).expect("a map").remove(key);
        content
    };
    let change = |path: &str, to: i64| {
        let mut content = base();
        let (map, key) = path.rsplit_once('/').expect("a path");
        content.pointer_mut(map).expect("a map")[key] = to.into();
        content
    };
    for (number, mut room) in (1..).zip(rooms(&ALL)) {
        room.levels(base());
        let mut check = |content, denied: Option<&str>| {
            let expected = denied.map_or(Ok(()), |what| Err(AlterPower(what.to_owned())));
            room.check(state(MOD, "m.room.power_levels", content), expected);
        };
        check(base(), None);
        check(change("/ban", 40), None);
        check(change("/ban", 50), None);
        check(change("/ban", 51), Some("ban"));
        check(change("/invite", 0), Some("invite"));
        check(remove("/invite"), Some("invite"));
        check(remove("/ban"), None);
        check(change("/events/m.room.name", 0), None);
        check(remove("/events/m.room.name"), None);
        check(change("/events/m.room.name", 51), Some("events m.room.name"));
        check(change("/events/m.room.topic", 0), Some("events m.room.topic"));
        check(remove("/events/m.room.topic"), Some("events m.room.topic"));
        check(change("/events/new", 50), None);
        check(change("/events/new", 51), Some("events new"));
        let limited = number >= 6;
        check(change("/notifications/room", 0), limited.then_some("notifications room"));
        check(change("/notifications/new", 51), limited.then_some("notifications new"));
        check(change(&format!("/users/{ALICE}"), 50), None);
        check(change(&format!("/users/{ALICE}"), 51), Some("users @alice:two"));
        check(remove(&format!("/users/{ALICE}")), None);
        // Those of one's own level are out of reach, oneself is not.
        check(change(&format!("/users/{BOB}"), 0), Some("users @bob:three"));
        check(remove(&format!("/users/{BOB}")), Some("users @bob:three"));
        check(change("/users/@top:one", 0), Some("users @top:one"));
        check(change(&format!("/users/{MOD}"), 0), None);
        check(remove(&format!("/users/{MOD}")), None);
        check(change(&format!("/users/{MOD}"), 51), Some("users @mod:one"));
    }
}

#[test]
fn removing_a_level_whose_default_is_out_of_reach() {
    // ruma compares defaults for absent levels. The rule speaks of the current and the new value,
    // of which there is none; Synapse skips it, and so do we.
    for mut room in rooms(&ALL) {
        room.levels(json!({"users": {MOD: 30}, "state_default": 0, "kick": 20, "ban": 20}));
        let removed = json!({"users": {MOD: 30}, "state_default": 0, "ban": 20});
        room.check_unlike_ruma(state(MOD, "m.room.power_levels", removed), Ok(()));
    }
}

#[test]
fn create_events() {
    let create = |id: &str, content: Value, room_id: Option<&str>, prev: bool| {
        let version = version(id);
        let prev_events = if prev { vec![ruma::owned_event_id!("$prev:one")] } else { vec![] };
        let place = Place {
            version,
            room_id: room_id.map(str::to_owned),
            prev_events,
            auth_events: vec![],
            ts: 1,
            number: 0,
        };
        build(&state(FOUNDER, "m.room.create", content), &place)
    };
    let check = |pdu: &Pdu, expected: Result<(), AuthError>| {
        assert_eq!(check_create(pdu), expected, "{pdu:?} {:?}", pdu.content());
        assert_eq!(check_auth(pdu, pdu, &StateMap::new()), expected);
        assert_eq!(check_auth_events(pdu, None, &[]), expected);
        let ruma = oracle::check_auth_events(pdu, |_| None);
        if expected != Err(CreateRoomVersion) {
            assert_eq!(ruma.is_ok(), expected.is_ok(), "ruma: {ruma:?}");
        }
    };
    for (number, id) in (1..).zip(ALL) {
        let room_id = (number < 12).then_some("!r:one");
        let named = json!({"creator": FOUNDER, "room_version": id});
        check(&create(id, named.clone(), room_id, false), Ok(()));
        check(&create(id, named.clone(), room_id, true), Err(CreateHasPrevEvents));
        // ruma leaves the room version to its callers.
        for odd in [json!("99"), json!(5), json!(null)] {
            let content = json!({"creator": FOUNDER, "room_version": odd});
            check(&create(id, content, room_id, false), Err(CreateRoomVersion));
        }
        let expected = if number < 11 { Err(CreateWithoutCreator) } else { Ok(()) };
        check(&create(id, json!({}), room_id, false), expected);
        if number < 12 {
            check(&create(id, named, Some("!r:two"), false), Err(CreateRoomIdServer));
        }
        for odd in [json!("@a:one"), json!(["a"]), json!([5])] {
            let content = json!({"creator": FOUNDER, "additional_creators": odd});
            let expected = if number < 12 { Ok(()) } else { Err(AdditionalCreators) };
            check(&create(id, content, room_id, false), expected);
        }
    }
}

#[test]
fn auth_events_are_the_right_ones() {
    for id in ALL {
        let mut room = Room::new(id);
        let creates = room.version.rules().event_format.allow_room_create_in_auth_events;
        let get = |room: &Room, kind: &str, key: &str| {
            AuthEvent::accepted(room.state[&StateKey::new(kind, key)].clone())
        };
        let create = get(&room, "m.room.create", "");
        let mut right =
            vec![get(&room, "m.room.power_levels", ""), get(&room, "m.room.member", ALICE)];
        let hashed = room.version.room_id_is_create_hash();
        if creates {
            right.push(create.clone());
        }
        let second = AuthEvent::accepted(room.event(member(ALICE, ALICE, "join")));
        let cite = |auth: &[AuthEvent], create: Option<&AuthEvent>| {
            let ids = auth.iter().map(|event| event.pdu.event_id().to_owned()).collect();
            let place = Place { auth_events: ids, ..room.place(vec![]) };
            let pdu = build(&message(ALICE, "m.room.message"), &place);
            let ours = check_auth_events(&pdu, create, auth);
            let theirs = oracle::check_auth_events(&pdu, |id| {
                let all = auth.iter().chain(create);
                all.into_iter()
                    .find(|e| e.pdu.event_id() == id)
                    .map(|e| (e.pdu.clone(), e.rejected))
            });
            assert_eq!(ours.is_ok(), theirs.is_ok(), "version {id}: {ours:?} {theirs:?}");
            let short = check_auth_events(&pdu, create, &auth[..auth.len().saturating_sub(1)]);
            if ours.is_ok() {
                let last = auth.last().expect("some").pdu.event_id().to_owned();
                assert_eq!(short, Err(MissingAuthEvent(last)));
            }
            ours
        };
        let name = |event: &AuthEvent| event.pdu.event_id().to_owned();
        assert_eq!(cite(&right, Some(&create)), Ok(()));
        let doubled = [&right[..], std::slice::from_ref(&second)].concat();
        assert_eq!(cite(&doubled, Some(&create)), Err(DuplicateAuthEvent(name(&second))));
        let twice = [&right[..], &right[..1]].concat();
        assert_eq!(cite(&twice, Some(&create)), Err(DuplicateAuthEvent(name(&right[0]))));
        let mut rejected = right.clone();
        rejected[1].rejected = true;
        assert_eq!(cite(&rejected, Some(&create)), Err(RejectedAuthEvent(name(&right[1]))));
        if creates {
            assert_eq!(cite(&right[..2], Some(&create)), Err(NoCreate));
        } else {
            let cited = [&right[..], std::slice::from_ref(&create)].concat();
            assert_eq!(cite(&cited, Some(&create)), Err(UnexpectedAuthEvent(name(&create))));
        }
        if hashed {
            assert_eq!(cite(&right, None), Err(NoCreate));
            let rejected = AuthEvent { rejected: true, ..create.clone() };
            assert_eq!(cite(&right, Some(&rejected)), Err(NoCreate));
            assert_eq!(cite(&right, Some(&second)), Err(NoCreate));
        }
        let others = AuthEvent::accepted({
            let place = Place { room_id: Some("!other:one".into()), ..room.place(vec![]) };
            build(&member(ALICE, ALICE, "join"), &place)
        });
        let mut foreign = right.clone();
        foreign[1] = others.clone();
        let ids = foreign.iter().map(name).collect();
        let pdu = build(&message(ALICE, "x"), &Place { auth_events: ids, ..room.place(vec![]) });
        let verdict = check_auth_events(&pdu, Some(&create), &foreign);
        assert_eq!(verdict, Err(ForeignAuthEvent(name(&others))));
        let rule = get(&room, "m.room.join_rules", "");
        let ids = vec![name(&rule)];
        let pdu = build(&message(ALICE, "x"), &Place { auth_events: ids, ..room.place(vec![]) });
        let verdict = check_auth_events(&pdu, Some(&create), &[rule.clone()]);
        assert_eq!(verdict, Err(UnexpectedAuthEvent(name(&rule))));
    }
}

#[test]
fn a_failed_lookup_is_no_verdict() {
    struct Broken(LookupError);
    impl StateLookup for Broken {
        fn get(&self, _: &StateKey) -> Result<Option<Pdu>, LookupError> {
            Err(self.0.clone())
        }
    }
    let error = LookupError::new("the disk is gone");
    for mut room in rooms(&ALL) {
        for shape in [member(BOB, BOB, "join"), member(ALICE, BOB, "ban"), message(ALICE, "x")] {
            let pdu = room.event(shape);
            let verdict = check_auth(&pdu, &room.create, &Broken(error.clone()));
            assert_eq!(verdict, Err(Lookup(error.clone())));
            assert!(verdict.is_err_and(|error| error.is_lookup()));
        }
    }
}

#[test]
fn levels_as_a_value() {
    let user = |id: &'static str| <&UserId>::try_from(id).expect("a user id");
    for room in rooms(&ALL) {
        let privileged = room.version.rules().authorization.explicitly_privilege_room_creators;
        let event = &room.state[&StateKey::single("m.room.power_levels")];
        let levels = PowerLevels::from_state(room.version, &room.create, Some(event));
        let founder = if privileged { Level::Infinite } else { Level::Finite(100) };
        assert_eq!(levels.user(user(FOUNDER)), Ok(founder));
        assert_eq!(levels.user(user(MOD)), Ok(50.into()));
        assert_eq!(levels.user(user(ALICE)), Ok(0.into()));
        assert_eq!(levels.event("m.room.topic", true), Ok(50.into()));
        assert_eq!(levels.event("m.room.message", false), Ok(0.into()));
        assert_eq!(levels.invite(), Ok(0.into()));
        assert_eq!(levels.kick(), Ok(50.into()));
        assert_eq!(levels.ban(), Ok(50.into()));
        assert_eq!(levels.redact(), Ok(50.into()));
        assert_eq!(levels.notification("room"), Ok(50.into()));
        assert!(levels.is_creator(user(FOUNDER)) && !levels.is_creator(user(MOD)));
    }
    assert!(Level::Infinite > Level::Finite(i64::MAX));
}
