//! Forks that people meet, and how they must end, in every room version but the first.

mod support;

use std::collections::BTreeMap;

use exeunt_core::{Pdu, RoomVersion, StateKey, StateMap};
use exeunt_state_res::{EventSource, LookupError, ResolveError, auth_types, resolve};
use ruma::{EventId, OwnedEventId, UserId};
use serde_json::{Value, json};
use support::{Place, Shape, build, object, version};

const FOUNDER: &str = "@founder:one";
const MOD: &str = "@mod:one";
const ALICE: &str = "@alice:two";

type State = StateMap<OwnedEventId>;

#[derive(Default)]
struct Events(BTreeMap<OwnedEventId, Pdu>);

impl EventSource for Events {
    fn event(&self, id: &EventId) -> Result<Option<Pdu>, LookupError> {
        Ok(self.0.get(id).cloned())
    }

    fn rejected(&self, _: &EventId) -> Result<bool, LookupError> {
        Ok(false)
    }
}

struct Room {
    version: RoomVersion,
    room_id: Option<String>,
    events: Events,
    base: State,
}

impl Room {
    /// A public room of a founder, a moderator (50) and Alice.
    fn new(version: RoomVersion) -> Self {
        let founds = version.room_id_is_create_hash();
        let room_id = (!founds).then(|| "!r:one".to_owned());
        let mut room = Self { version, room_id, events: Events::default(), base: State::new() };
        let mut base = State::new();
        let create = state(FOUNDER, "m.room.create", json!({"creator": FOUNDER}));
        room.send(&mut base, 1, create);
        let id = base[&StateKey::single("m.room.create")].clone();
        room.room_id = Some(room.events.0[&id].room_id().to_string());
        room.send(&mut base, 2, member(FOUNDER, FOUNDER, "join"));
        room.send(&mut base, 3, state(FOUNDER, "m.room.power_levels", room.levels(50)));
        room.send(
            &mut base,
            4,
            state(FOUNDER, "m.room.join_rules", json!({"join_rule": "public"})),
        );
        room.send(&mut base, 5, member(MOD, MOD, "join"));
        room.send(&mut base, 6, member(ALICE, ALICE, "join"));
        room.base = base;
        room
    }

    fn levels(&self, moderator: i64) -> Value {
        match self.version.room_id_is_create_hash() {
            true => json!({"users": {MOD: moderator}, "events": {"m.room.topic": 0}}),
            false => {
                json!({"users": {FOUNDER: 100, MOD: moderator}, "events": {"m.room.topic": 0}})
            }
        }
    }

    /// Sends an event on the branch with this state.
    fn send(&mut self, branch: &mut State, ts: u64, shape: Shape<'_>) -> OwnedEventId {
        let sender = <&UserId>::try_from(shape.sender).expect("a user id");
        let content = object(shape.content.clone());
        let keys = auth_types(self.version, shape.kind, sender, shape.state_key, &content);
        let place = Place {
            version: self.version,
            room_id: self.room_id.clone(),
            prev_events: vec![],
            auth_events: keys.iter().filter_map(|key| branch.get(key).cloned()).collect(),
            ts,
            number: self.events.0.len() + 1,
            depth: None,
        };
        let pdu = build(&shape, &place);
        let id = pdu.event_id().to_owned();
        branch.insert(pdu.key().expect("a state event"), id.clone());
        self.events.0.insert(id.clone(), pdu);
        id
    }

    /// Resolves in both orders of the branches.
    fn resolve(&self, one: &State, two: &State) -> State {
        let resolve = |sets: &[State]| resolve(self.version, sets, &self.events).expect("resolves");
        let forth = resolve(&[one.clone(), two.clone()]);
        assert_eq!(forth, resolve(&[two.clone(), one.clone()]));
        forth
    }

    fn membership(&self, state: &State, user: &str) -> String {
        let id = &state[&StateKey::new("m.room.member", user)];
        self.events.0[id].membership().expect("a membership").to_owned()
    }
}

fn state<'a>(sender: &'a str, kind: &'a str, content: Value) -> Shape<'a> {
    Shape { sender, kind, state_key: Some(""), content }
}

fn member<'a>(sender: &'a str, target: &'a str, membership: &str) -> Shape<'a> {
    let content = json!({"membership": membership});
    Shape { sender, kind: "m.room.member", state_key: Some(target), content }
}

fn each(test: impl Fn(Room)) {
    for version in RoomVersion::all().skip(1) {
        test(Room::new(version));
    }
}

#[test]
fn a_ban_beats_a_rejoin() {
    each(|mut room| {
        let (mut one, mut two) = (room.base.clone(), room.base.clone());
        let ban = room.send(&mut one, 10, member(MOD, ALICE, "ban"));
        room.send(&mut two, 20, member(ALICE, ALICE, "leave"));
        room.send(&mut two, 30, member(ALICE, ALICE, "join"));
        let end = room.resolve(&one, &two);
        assert_eq!(end[&StateKey::new("m.room.member", ALICE)], ban, "{}", room.version);
    });
}

#[test]
fn a_kick_and_a_leave_end_in_leave() {
    each(|mut room| {
        let (mut one, mut two) = (room.base.clone(), room.base.clone());
        room.send(&mut one, 20, member(MOD, ALICE, "leave"));
        room.send(&mut two, 10, member(ALICE, ALICE, "leave"));
        let end = room.resolve(&one, &two);
        assert_eq!(room.membership(&end, ALICE), "leave", "{}", room.version);
    });
}

#[test]
fn a_demotion_undoes_what_was_done_meanwhile() {
    each(|mut room| {
        let (mut one, mut two) = (room.base.clone(), room.base.clone());
        let demotion = room.levels(0);
        let demotion = room.send(&mut one, 20, state(FOUNDER, "m.room.power_levels", demotion));
        room.send(&mut two, 10, member(MOD, ALICE, "ban"));
        room.send(&mut two, 11, state(MOD, "m.room.name", json!({"name": "mine"})));
        let end = room.resolve(&one, &two);
        assert_eq!(end[&StateKey::single("m.room.power_levels")], demotion, "{}", room.version);
        assert_eq!(room.membership(&end, ALICE), "join", "{}", room.version);
        assert!(!end.contains_key(&StateKey::single("m.room.name")), "{}", room.version);
    });
}

#[test]
fn the_later_topic_wins_and_then_the_greater_id() {
    each(|mut room| {
        let (mut one, mut two) = (room.base.clone(), room.base.clone());
        let key = StateKey::single("m.room.topic");
        room.send(&mut one, 10, state(ALICE, "m.room.topic", json!({"topic": "a"})));
        let later = room.send(&mut two, 11, state(MOD, "m.room.topic", json!({"topic": "b"})));
        assert_eq!(room.resolve(&one, &two)[&key], later, "{}", room.version);
        let same = room.send(&mut one, 11, state(ALICE, "m.room.topic", json!({"topic": "c"})));
        let greater = same.clone().max(later);
        assert_eq!(room.resolve(&one, &two)[&key], greater, "{}", room.version);
    });
}

#[test]
fn invites_of_the_banned_do_not_return() {
    each(|mut room| {
        let (mut one, mut two) = (room.base.clone(), room.base.clone());
        room.send(&mut one, 10, member(ALICE, ALICE, "leave"));
        room.send(&mut two, 11, member(MOD, ALICE, "ban"));
        room.send(&mut one, 12, member(MOD, ALICE, "invite"));
        let end = room.resolve(&one, &two);
        assert_eq!(room.membership(&end, ALICE), "ban", "{}", room.version);
    });
}

#[test]
fn events_of_another_room_are_refused() {
    let mut room = Room::new(version("11"));
    let mut other = room.base.clone();
    room.room_id = Some("!other:one".to_owned());
    let id = room.send(&mut other, 10, state(MOD, "m.room.topic", json!({})));
    let result = resolve(room.version, &[room.base.clone(), other], &room.events);
    assert_eq!(result, Err(ResolveError::ForeignEvent(id)));
}

#[test]
fn long_chains_take_no_stack() {
    const LENGTH: u64 = 5_000;
    let mut room = Room::new(version("12"));
    let (mut one, two) = (room.base.clone(), room.base.clone());
    for n in 0..LENGTH {
        let levels = json!({"users": {MOD: 50}, "ban": n % 50});
        room.send(&mut one, 10 + n, state(FOUNDER, "m.room.power_levels", levels));
    }
    assert_eq!(room.resolve(&one, &two), one);
}
