//! What a resolution reads follows the conflict, not the size of the room.

mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

use exeunt_core::{Pdu, RoomVersion, StateKey};
use exeunt_state_res::{
    AuthIndex, Conflict, EventSource, LookupError, Recorder, auth_types, resolve_conflict,
};
use ruma::{EventId, OwnedEventId, UserId};
use serde_json::json;
use support::index::{Index, conflict_of};
use support::random_room::State;
use support::{Place, Shape, build, object, version};

const FOUNDER: &str = "@founder:one";
/// How many joins there are to each change of power levels.
const EPOCH: usize = 50;

struct Room {
    version: RoomVersion,
    room_id: Option<String>,
    index: Index,
}

impl Room {
    fn send(&mut self, state: &mut State, shape: Shape<'_>) {
        let sender = <&UserId>::try_from(shape.sender).expect("a user id");
        let content = object(shape.content.clone());
        let keys = auth_types(self.version, shape.kind, sender, shape.state_key, &content);
        let number = self.index.events.len();
        let place = Place {
            version: self.version,
            room_id: self.room_id.clone(),
            prev_events: vec![],
            auth_events: keys.iter().filter_map(|key| state.get(key).cloned()).collect(),
            ts: number as u64,
            number,
            depth: None,
        };
        let pdu = build(&shape, &place);
        self.room_id.get_or_insert_with(|| pdu.room_id().to_string());
        state.insert(pdu.key().expect("a state event"), pdu.event_id().to_owned());
        self.index.insert(pdu);
    }

    fn levels(&mut self, state: &mut State, number: usize) {
        let mut levels = json!({"users": {"@mod:two": 50}, "number": number});
        if !self.version.room_id_is_create_hash() {
            levels["users"][FOUNDER] = 100.into();
        }
        self.send(state, Shape::state(FOUNDER, "m.room.power_levels", levels));
    }
}

/// Notes what is read.
struct Counting<'a> {
    index: &'a Index,
    read: RefCell<BTreeSet<OwnedEventId>>,
}

impl EventSource for Counting<'_> {
    fn event(&self, id: &EventId) -> Result<Option<Pdu>, LookupError> {
        self.read.borrow_mut().insert(id.to_owned());
        self.index.event(id)
    }

    fn rejected(&self, id: &EventId) -> Result<bool, LookupError> {
        self.index.rejected(id)
    }
}

impl AuthIndex for Counting<'_> {
    fn generation(&self, id: &EventId) -> Result<Option<u64>, LookupError> {
        self.index.generation(id)
    }

    fn cited_by(
        &self,
        id: &EventId,
        visit: &mut dyn FnMut(&EventId) -> ControlFlow<()>,
    ) -> Result<(), LookupError> {
        self.index.cited_by(id, visit)
    }
}

/// How many events are read to resolve a small fork of a room with that many members, about the one
/// who joined as the given.
fn reads(version_id: &str, members: usize, about: usize) -> usize {
    let version = version(version_id);
    let room_id = (!version.room_id_is_create_hash()).then(|| "!r:one".to_owned());
    let mut room = Room { version, room_id, index: Index::default() };
    let mut state = State::new();
    room.send(&mut state, Shape::state(FOUNDER, "m.room.create", json!({"creator": FOUNDER})));
    room.send(&mut state, Shape::member(FOUNDER, FOUNDER, "join"));
    let public = json!({"join_rule": "public"});
    room.send(&mut state, Shape::state(FOUNDER, "m.room.join_rules", public));
    for number in 0..members {
        if number % EPOCH == 0 {
            room.levels(&mut state, number);
        }
        let user = format!("@user{number}:two");
        room.send(&mut state, Shape::member(&user, &user, "join"));
    }
    let (mut one, mut two) = (state.clone(), state);
    let about = &*format!("@user{about}:two");
    room.levels(&mut one, members + 1);
    room.send(&mut one, Shape::member(FOUNDER, about, "ban"));
    room.send(&mut two, Shape::member("@new:two", "@new:two", "join"));
    room.send(&mut two, Shape::member(about, about, "leave"));
    room.send(&mut two, Shape::state(FOUNDER, "m.room.topic", json!({"topic": "two"})));

    let (keys, agreed) = conflict_of(&[one.clone(), two]);
    let banned = one[&StateKey::new("m.room.member", about)].clone();
    let conflict = Conflict { keys, agreed: &agreed };
    let index = Counting { index: &room.index, read: RefCell::default() };
    let mut trace = Recorder::new();
    let resolved = resolve_conflict(version, &conflict, &index, &mut trace).expect("resolves");
    assert_eq!(resolved[&StateKey::new("m.room.member", about)], banned);
    // Power levels and a membership on each side, a join and a topic; what is below is shared, but
    // since version 12 what lies between those counts, too: the join under the membership.
    let full = trace.full_conflicted_set;
    assert!((6..=7).contains(&full.len()), "{full:?}");
    index.read.into_inner().len()
}

#[test]
fn reads_follow_the_conflict() {
    for version in ["10", "12"] {
        let [small, large] = [100, 1_000].map(|members| reads(version, members, members - 3));
        assert!(small < 30, "{small} events in version {version}");
        // The mainline, too, is walked as far as it matters.
        assert_eq!(large, small, "in version {version}");
        // What an old member's join rests on is shared: the power levels since then lead there.
        let [small, large] = [100, 1_000].map(|members| reads(version, members, 3));
        let more_levels = (1_000 - 100) / EPOCH;
        assert!(large <= small + more_levels, "{small} and {large} in version {version}");
    }
}
