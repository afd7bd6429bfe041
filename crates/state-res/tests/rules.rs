//! Rules for all events. One table per rule. Every verdict is compared with ruma's too, but for the cases where we
//! differ on purpose, which say why.

mod support;

use exeunt_core::{Pdu, StateKey, StateMap};
use exeunt_state_res::AuthError::{self, *};
use exeunt_state_res::{
    AuthEvent, LookupError, StateLookup, check_auth, check_auth_events, check_create,
};
use serde_json::{Value, json};
use support::room::{ALICE, ALL, BOB, FOUNDER, MOD, Room, member, message, rooms, state};
use support::{Place, Shape, build, oracle, version};

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
fn state_keyed_by_users_is_theirs() {
    for mut room in rooms(&ALL) {
        room.levels(json!({"users": {MOD: 50}, "state_default": 0}));
        let event = |key| Shape { state_key: Some(key), ..state(ALICE, "x.own", json!({})) };
        room.check(event(ALICE), Ok(())).check(event("other"), Ok(()));
        room.check(event(MOD), Err(StateOfOtherUser)).check(event("@"), Err(StateOfOtherUser));
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
            depth: None,
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
        let verdict = check_auth_events(&pdu, Some(&create), std::slice::from_ref(&rule));
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
