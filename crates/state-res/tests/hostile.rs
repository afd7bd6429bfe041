//! Graphs that honest servers do not make.

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use exeunt_core::{Pdu, RoomVersion, StateKey, StateMap};
use exeunt_state_res::{
    AuthIndex, Conflict, EventSource, LookupError, ResolveError, resolve, resolve_conflict,
};
use ruma::{EventId, OwnedEventId};
use serde_json::json;
use support::index::{Index, resolve_by_conflict};
use support::random_room::State;
use support::{Place, Rng, Shape, build, version};

const FOUNDER: &str = "@founder:one";

/// Builds events of a room of version 2, whose ids are what their servers claim.
struct Room {
    version: RoomVersion,
    events: BTreeMap<OwnedEventId, Pdu>,
    base: State,
}

impl EventSource for Room {
    fn event(&self, id: &EventId) -> Result<Option<Pdu>, LookupError> {
        Ok(self.events.get(id).cloned())
    }

    fn rejected(&self, _: &EventId) -> Result<bool, LookupError> {
        Ok(false)
    }
}

impl Room {
    fn new() -> Self {
        let mut room = Self { version: version("2"), events: BTreeMap::new(), base: State::new() };
        room.found(Shape::state(FOUNDER, "m.room.create", json!({"creator": FOUNDER})));
        room.found(Shape::member(FOUNDER, FOUNDER, "join"));
        room.found(Shape::state(FOUNDER, "m.room.power_levels", json!({"users": {FOUNDER: 100}})));
        room
    }

    fn found(&mut self, shape: Shape<'_>) {
        let cited: Vec<usize> = (0..self.base.len()).collect();
        let pdu = self.send(self.base.len(), shape, &cited);
        self.base.insert(pdu.key().expect("a state event"), pdu.event_id().to_owned());
    }

    /// An event of that number that cites those numbers.
    fn send(&mut self, number: usize, shape: Shape<'_>, cited: &[usize]) -> Pdu {
        let place = Place {
            version: self.version,
            room_id: Some("!r:one".to_owned()),
            prev_events: vec![],
            auth_events: cited.iter().map(|number| id(*number)).collect(),
            ts: number as u64,
            number,
            depth: None,
        };
        let pdu = build(&shape, &place);
        self.events.insert(pdu.event_id().to_owned(), pdu.clone());
        pdu
    }

    fn levels(&mut self, number: usize, cited: &[usize]) -> OwnedEventId {
        let content = json!({"users": {FOUNDER: 100}, "number": number});
        let shape = Shape::state(FOUNDER, "m.room.power_levels", content);
        self.send(number, shape, cited).event_id().to_owned()
    }

    fn with(&self, kind: &str, event: OwnedEventId) -> State {
        let mut state = self.base.clone();
        state.insert(StateKey::single(kind), event);
        state
    }

    /// An index of all events, in the order of their numbers.
    fn index(&self) -> Index {
        let mut events: Vec<Pdu> = self.events.values().cloned().collect();
        events.sort_by_key(Pdu::depth);
        Index::of(events)
    }

    /// By whole states, by the conflict alone, and turned around.
    fn resolve(&self, sets: [State; 2], index: &dyn AuthIndex) -> State {
        let forth = resolve(self.version, &sets, self).expect("resolves");
        let mut rng = Rng::new(7);
        let by_conflict = resolve_by_conflict(self.version, &sets, index, &mut rng);
        assert_eq!(by_conflict, Ok(forth.clone()));
        let [one, two] = sets;
        assert_eq!(resolve(self.version, &[two, one], self), Ok(forth.clone()));
        forth
    }
}

fn id(number: usize) -> OwnedEventId {
    format!("${number}:one").try_into().expect("an event id")
}

/// Knows no generation but 0, as for ids in a circle, and finds citations by looking at all.
struct Circular<'a>(&'a Room);

impl EventSource for Circular<'_> {
    fn event(&self, id: &EventId) -> Result<Option<Pdu>, LookupError> {
        self.0.event(id)
    }

    fn rejected(&self, id: &EventId) -> Result<bool, LookupError> {
        self.0.rejected(id)
    }
}

impl AuthIndex for Circular<'_> {
    fn generation(&self, id: &EventId) -> Result<Option<u64>, LookupError> {
        Ok(self.0.events.contains_key(id).then_some(0))
    }

    fn cited_by(
        &self,
        id: &EventId,
        visit: &mut dyn FnMut(&EventId) -> ControlFlow<()>,
    ) -> Result<(), LookupError> {
        for pdu in self.0.events.values() {
            if pdu.auth_events().iter().any(|cited| cited == id) && visit(pdu.event_id()).is_break()
            {
                break;
            }
        }
        Ok(())
    }
}

#[test]
fn circles_end() {
    let mut room = Room::new();
    let one = room.levels(10, &[0, 1, 11]);
    room.levels(11, &[0, 1, 12]);
    let two = room.levels(12, &[0, 1, 10]);
    let of_itself = room.levels(13, &[0, 1, 2, 13]);
    let honest = room.levels(14, &[0, 1, 2]);
    let with = |id: &OwnedEventId| room.with("m.room.power_levels", id.clone());
    let index = Circular(&room);
    // What rests on itself has no place in the power ordering and is judged with the rest, as in
    // Synapse: the founder's say is the founder's, in whatever shape.
    let key = StateKey::single("m.room.power_levels");
    assert_eq!(room.resolve([with(&one), with(&two)], &index)[&key], two);
    assert_eq!(room.resolve([with(&of_itself), with(&honest)], &index)[&key], of_itself);
    assert_eq!(room.resolve([with(&one), with(&honest)], &index)[&key], two);
}

#[test]
fn circles_below_members_end() {
    let mut room = Room::new();
    room.levels(10, &[0, 1, 11]);
    room.levels(11, &[0, 1, 10]);
    let mut topic = |number: usize, cited: &[usize]| {
        let shape = Shape::state(FOUNDER, "m.room.topic", json!({"topic": number}));
        room.send(number, shape, cited).event_id().to_owned()
    };
    let (one, two) = (topic(12, &[0, 1, 10]), topic(13, &[0, 1, 2]));
    let sets = [room.with("m.room.topic", one), room.with("m.room.topic", two.clone())];
    let state = room.resolve(sets, &Circular(&room));
    assert_eq!(state[&StateKey::single("m.room.topic")], two);
}

#[test]
fn an_event_cited_twice_counts_once() {
    let mut room = Room::new();
    let one = room.levels(10, &[0, 1, 2, 2, 1, 2]);
    let two = room.levels(11, &[0, 0, 1, 10, 10]);
    let index = room.index();
    let with = |id: &OwnedEventId| room.with("m.room.power_levels", id.clone());
    let state = room.resolve([with(&one), with(&two)], &index);
    assert_eq!(state[&StateKey::single("m.room.power_levels")], two);
}

/// CVE-2024-31208.
#[test]
fn deep_chains_take_no_stack() {
    const DEPTH: usize = 100_000;
    let mut room = Room::new();
    let mut index = Index::of((0..3).map(|number| room.events[&id(number)].clone()));
    for number in 3..DEPTH {
        let last = room.levels(number, &[0, 1, number - 1]);
        index.insert(room.events[&last].clone());
    }
    let with = |number: usize| room.with("m.room.power_levels", id(number));
    let (sets, last) = ([with(2), with(DEPTH - 1)], Ok(with(DEPTH - 1)));
    assert_eq!(resolve(room.version, &sets, &room), last);
    assert_eq!(resolve_by_conflict(room.version, &sets, &index, &mut Rng::new(1)), last);
}

/// CVE-2024-31208.
#[test]
fn wide_graphs_are_searched_once() {
    const WIDTH: usize = 20_000;
    const TOPICS: usize = 50;
    let mut room = Room::new();
    let mut index = Index::of((0..3).map(|number| room.events[&id(number)].clone()));
    // Old power levels that many events cite, none of which any state has.
    let old = room.levels(3, &[0, 1, 2]);
    index.insert(room.events[&old].clone());
    for number in 10..10 + WIDTH {
        let shape = Shape::state(FOUNDER, "m.room.name", json!({"name": number}));
        index.insert(room.send(number, shape, &[0, 1, 3]));
    }
    let (mut one, two) = (room.base.clone(), room.base.clone());
    for number in 0..TOPICS {
        let key = format!("{number}");
        let shape = Shape { state_key: Some(&key), ..Shape::state(FOUNDER, "x.topic", json!({})) };
        let pdu = room.send(20 + WIDTH + number, shape, &[0, 1, 3]);
        one.insert(StateKey::new("x.topic", key.as_str()), pdu.event_id().to_owned());
        index.insert(pdu);
    }
    let state = room.resolve([one.clone(), two], &index);
    assert_eq!(state, one);
}

#[test]
fn a_search_without_end_is_cut_off() {
    struct Endless<'a>(&'a Room);
    impl EventSource for Endless<'_> {
        fn event(&self, id: &EventId) -> Result<Option<Pdu>, LookupError> {
            let known = self.0.events.get(id);
            Ok(known.or_else(|| self.0.events.values().last()).cloned())
        }
        fn rejected(&self, _: &EventId) -> Result<bool, LookupError> {
            Ok(false)
        }
    }
    impl AuthIndex for Endless<'_> {
        fn generation(&self, id: &EventId) -> Result<Option<u64>, LookupError> {
            Circular(self.0).generation(id)
        }
        fn cited_by(
            &self,
            _: &EventId,
            visit: &mut dyn FnMut(&EventId) -> ControlFlow<()>,
        ) -> Result<(), LookupError> {
            (100..).map(id).find(|id| visit(id).is_break());
            Ok(())
        }
    }
    let mut room = Room::new();
    let levels = room.levels(3, &[0, 1, 2]);
    let keys = vec![(StateKey::single("m.room.power_levels"), vec![Some(levels), Some(id(2))])];
    let agreed = StateMap::new();
    let conflict = Conflict { keys, agreed: &agreed };
    let result = resolve_conflict(room.version, &conflict, &Endless(&room), &mut ());
    assert_eq!(result, Err(ResolveError::TooLarge));
}

#[test]
fn what_the_conflict_needs_must_be_there() {
    let mut room = Room::new();
    let one = room.levels(10, &[0, 1, 2]);
    let two = room.levels(11, &[0, 1, 10]);
    let sets = [room.with("m.room.power_levels", one), room.with("m.room.power_levels", two)];
    let mut index = room.index();
    let whole = room.resolve(sets.clone(), &index);
    let mut missing = 0;
    for id in room.events.keys() {
        let kept = index.events.remove(id).expect("there");
        match resolve_by_conflict(room.version, &sets, &index, &mut Rng::new(1)) {
            Ok(state) => assert_eq!(state, whole),
            Err(error) => {
                assert_eq!(error, ResolveError::Missing(id.clone()));
                missing += 1;
            }
        }
        index.events.insert(id.clone(), kept);
    }
    assert!(missing >= 2, "at least the conflicted events");
}

#[test]
fn an_event_of_another_room_below_is_refused() {
    let mut room = Room::new();
    let one = room.levels(10, &[0, 1, 2]);
    let place = Place {
        version: room.version,
        room_id: Some("!other:one".to_owned()),
        prev_events: vec![],
        auth_events: vec![id(0)],
        ts: 1,
        number: 9,
        depth: None,
    };
    let foreign = build(&Shape::member(FOUNDER, FOUNDER, "join"), &place);
    room.events.insert(foreign.event_id().to_owned(), foreign.clone());
    let two = room.levels(11, &[0, 2, 9]);
    let sets = [room.with("m.room.power_levels", one), room.with("m.room.power_levels", two)];
    let refused = Err(ResolveError::ForeignEvent(foreign.event_id().to_owned()));
    assert_eq!(resolve(room.version, &sets, &room), refused);
    let index = Circular(&room);
    assert_eq!(resolve_by_conflict(room.version, &sets, &index, &mut Rng::new(1)), refused);
}
