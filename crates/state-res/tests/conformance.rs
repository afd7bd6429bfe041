//! Examples of the proposals and of the specification, as data: see `tests/data`.
//!
//! An event is a row: name, sender, type, state key, content, names of auth events, and maybe `ts`,
//! `depth` (else the row's number) or `rejected`. Every room is founded by Alice; the create event
//! is cited, and Alice has level 100, where the room version wants that. States are the common events
//! with those listed over them; what is expected is what they agree on and what is listed. The steps
//! of the trace are compared if the case names them.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use exeunt_core::{Pdu, RoomVersion, StateMap};
use exeunt_state_res::{Conflict, Recorder, resolve, resolve_conflict};
use ruma::OwnedEventId;
use serde_json::{Value, json};
use support::index::{Index, conflict_of, resolve_by_conflict};
use support::{Place, Rng, Shape, build, oracle, version};

const ALICE: &str = "@alice:one";

struct Room {
    version: RoomVersion,
    room_id: Option<String>,
    index: Index,
    names: BTreeMap<String, OwnedEventId>,
}

impl Room {
    fn new(version: RoomVersion, data: &Value) -> Self {
        let room_id = (!version.room_id_is_create_hash()).then(|| "!r:one".to_owned());
        let mut room = Self { version, room_id, index: Index::default(), names: BTreeMap::new() };
        let content = json!({"creator": ALICE, "room_version": version.as_str()});
        let create = room.add(&json!(["create", ALICE, "m.room.create", "", content, []]));
        room.room_id = Some(create.room_id().to_string());
        for row in list(&data["events"]) {
            room.add(row);
        }
        room
    }

    fn add(&mut self, row: &Value) -> Pdu {
        let number = self.names.len();
        let kind = text(&row[2]);
        let mut content = row[4].clone();
        if kind == "m.room.power_levels" && !self.version.room_id_is_create_hash() {
            content["users"][ALICE] = 100.into();
        }
        let cites_create = kind != "m.room.create"
            && self.version.rules().event_format.allow_room_create_in_auth_events;
        let create = cites_create.then(|| self.names["create"].clone());
        let cited = list(&row[5]).iter().map(|name| self.names[text(name)].clone());
        let place = Place {
            version: self.version,
            room_id: self.room_id.clone(),
            prev_events: vec![],
            auth_events: create.into_iter().chain(cited).collect(),
            ts: row[6]["ts"].as_u64().unwrap_or(number as u64),
            depth: row[6]["depth"].as_u64(),
            number,
        };
        let shape = Shape { sender: text(&row[1]), kind, state_key: Some(text(&row[3])), content };
        let pdu = build(&shape, &place);
        let id = pdu.event_id().to_owned();
        self.index.insert(pdu.clone());
        self.index.events.get_mut(&id).expect("there").1 = row[6]["rejected"] == true;
        self.names.insert(text(&row[0]).to_owned(), id);
        pdu
    }

    fn state(&self, common: &Value, over: &Value) -> StateMap<OwnedEventId> {
        let named = list(common).iter().chain(list(over)).map(text);
        let ids = ["create"].into_iter().chain(named).map(|name| self.names[name].clone());
        ids.map(|id| (self.index.events[&id].0.key().expect("a state event"), id)).collect()
    }

    fn name(&self, id: &OwnedEventId) -> &str {
        self.names.iter().find(|(_, other)| *other == id).expect("a named event").0
    }

    fn named(&self, ids: &[OwnedEventId]) -> Vec<&str> {
        ids.iter().map(|id| self.name(id)).collect()
    }

    fn check(&self, common: &Value, case: &Value) {
        let sets: Vec<_> =
            list(&case["states"]).iter().map(|over| self.state(common, over)).collect();
        let resolved = resolve(self.version, &sets, &self.index).expect("resolves");
        let (keys, agreed) = conflict_of(&sets);
        let mut expected = agreed.state.clone();
        for name in list(&case["expected"]).iter().map(text) {
            let id = self.names[name].clone();
            expected.insert(self.index.events[&id].0.key().expect("a state event"), id);
        }
        assert_eq!(self.names_of(&resolved), self.names_of(&expected));
        if self.version.rules().state_res.v2_rules().is_some() {
            assert_eq!(oracle::resolve(self.version, &sets, &self.index.events), expected);
        }
        let mut rng = Rng::new(1);
        let by_conflict = resolve_by_conflict(self.version, &sets, &self.index, &mut rng);
        assert_eq!(by_conflict, Ok(expected));
        let mut trace = Recorder::new();
        let conflict = Conflict { keys, agreed: &agreed };
        resolve_conflict(self.version, &conflict, &self.index, &mut trace).expect("resolves");
        self.check_trace(case, &trace);
    }

    fn names_of(&self, state: &StateMap<OwnedEventId>) -> Vec<&str> {
        state.values().map(|id| self.name(id)).collect()
    }

    /// Compares what the case says of the way.
    fn check_trace(&self, case: &Value, trace: &Recorder) {
        let refused = trace.checks.iter().filter(|check| check.refused.is_some());
        let refused: BTreeSet<&str> = refused.map(|check| self.name(&check.event_id)).collect();
        let full: BTreeSet<&str> = self.named(&trace.full_conflicted_set).into_iter().collect();
        let told = [
            ("refused", refused.into_iter().collect()),
            ("full_conflicted_set", full.into_iter().collect()),
            ("power_order", self.named(&trace.power_order)),
            ("mainline", self.named(&trace.mainline)),
            ("rest_order", self.named(&trace.rest_order)),
        ];
        for (what, told) in told {
            if let Some(expected) = case.get(what) {
                assert_eq!(json!(told), *expected, "{what}");
            }
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// The room versions of an algorithm, as the files name it.
fn versions(algorithm: &str) -> &'static [&'static str] {
    match algorithm {
        "1" => &["1"],
        "2.0" => &["2", "3", "4", "5", "6", "7", "8", "9", "10", "11"],
        "2.1" => &["12"],
        other => panic!("no algorithm {other}"),
    }
}

fn check(file: &str) {
    let rooms: Value = serde_json::from_str(file).expect("JSON");
    for data in list(&rooms) {
        for case in list(&data["cases"]) {
            for id in list(&case["algorithms"]).iter().flat_map(|name| versions(text(name))) {
                eprintln!("{}: {} (room version {id})", data["about"], case["about"]);
                Room::new(version(id), data).check(&data["common"], case);
            }
        }
    }
}

#[test]
fn msc1442() {
    check(include_str!("data/msc1442.json"));
}

/// CVE-2025-49090.
#[test]
fn msc4297() {
    check(include_str!("data/msc4297.json"));
}

#[test]
fn rooms_v1() {
    check(include_str!("data/rooms_v1.json"));
}
