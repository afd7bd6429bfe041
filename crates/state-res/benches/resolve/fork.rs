//! A large room with a fork, and our side of the benchmark.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::rc::Rc;

use exeunt_core::{Pdu, RoomVersion, StateKey, StateMap, hash};
use exeunt_state_res::{
    Agreed, AuthIndex, Conflict, EventSource, LookupError, auth_types, resolve_conflict,
};
use ruma::{EventId, OwnedEventId, UserId};
use serde_json::{Value, json};

const FOUNDER: &str = "@founder:one";
const ADMIN: &str = "@admin:two";
/// How many changes of power levels there are among the joins, however many these are.
const CHANGES: usize = 20;

/// A state: what it shares with others, and its own changes.
#[derive(Clone)]
pub struct Branch {
    base: Rc<StateMap<OwnedEventId>>,
    changes: StateMap<OwnedEventId>,
}

impl Branch {
    pub fn get(&self, key: &StateKey) -> Option<&OwnedEventId> {
        self.changes.get(key).or_else(|| self.base.get(key))
    }

    /// The whole state.
    pub fn entries(&self) -> impl Iterator<Item = (&StateKey, &OwnedEventId)> {
        let unchanged = self.base.iter().filter(|(key, _)| !self.changes.contains_key(key));
        unchanged.chain(&self.changes)
    }
}

impl Agreed for Branch {
    fn get(&self, key: &StateKey) -> Result<Option<OwnedEventId>, LookupError> {
        Ok(Branch::get(self, key).cloned())
    }
}

pub struct Entry {
    pub pdu: Pdu,
    pub generation: u64,
    cited_by: Vec<OwnedEventId>,
}

#[derive(Default)]
pub struct Room(pub HashMap<OwnedEventId, Entry>);

impl EventSource for Room {
    fn event(&self, id: &EventId) -> Result<Option<Pdu>, LookupError> {
        Ok(self.0.get(id).map(|entry| entry.pdu.clone()))
    }

    fn rejected(&self, _: &EventId) -> Result<bool, LookupError> {
        Ok(false)
    }
}

impl AuthIndex for Room {
    fn generation(&self, id: &EventId) -> Result<Option<u64>, LookupError> {
        Ok(self.0.get(id).map(|entry| entry.generation))
    }

    fn cited_by(
        &self,
        id: &EventId,
        visit: &mut dyn FnMut(&EventId) -> ControlFlow<()>,
    ) -> Result<(), LookupError> {
        for upper in self.0.get(id).into_iter().flat_map(|entry| &entry.cited_by) {
            if visit(upper).is_break() {
                break;
            }
        }
        Ok(())
    }
}

pub struct Fork {
    pub version: RoomVersion,
    pub members: usize,
    pub keys: usize,
    pub room: Room,
    pub branches: [Branch; 2],
    /// `None` for a create event whose hash founds the room.
    room_id: Option<String>,
    time: u64,
}

impl Fork {
    /// A room of that many members, and two branches that differ at that many keys: power levels,
    /// join rules and the topic, and else members who came, left or changed their names on one side
    /// or on both.
    pub fn new(version: &str, members: usize, keys: usize) -> Self {
        let version = RoomVersion::parse(version).expect("a known version");
        let empty = Branch { base: Rc::default(), changes: StateMap::new() };
        let branches = [empty.clone(), empty.clone()];
        let founds = version.room_id_is_create_hash();
        let room_id = (!founds).then(|| "!room:one".to_owned());
        let room = Room::default();
        let mut fork = Self { version, members, keys, room, branches, room_id, time: 0 };
        let mut state = empty;
        let mut create = json!({"room_version": version.as_str()});
        if !version.rules().authorization.use_room_create_sender {
            create["creator"] = FOUNDER.into();
        }
        fork.send(&mut state, FOUNDER, "m.room.create", "", create);
        if founds {
            let create = state.changes.values().next().expect("sent above");
            fork.room_id = Some(fork.room.0[create].pdu.room_id().to_string());
        }
        fork.member(&mut state, FOUNDER, "join", "");
        fork.levels(&mut state, FOUNDER, 0);
        fork.send(&mut state, FOUNDER, "m.room.join_rules", "", json!({"join_rule": "public"}));
        fork.member(&mut state, ADMIN, "join", "");
        fork.send(&mut state, FOUNDER, "m.room.topic", "", json!({"topic": "of old"}));
        for number in 0..members {
            if (number + 1).is_multiple_of(members / CHANGES) {
                fork.levels(&mut state, FOUNDER, number);
            }
            fork.member(&mut state, &user(number), "join", "");
        }
        let base = Rc::new(state.changes);
        let branch = Branch { base, changes: StateMap::new() };
        fork.branches = [fork.diverge(branch.clone(), 0), fork.diverge(branch, 1)];
        assert_eq!(fork.conflict().keys.len(), keys);
        fork
    }

    fn diverge(&mut self, mut branch: Branch, side: usize) -> Branch {
        let by = [FOUNDER, ADMIN][side];
        self.levels(&mut branch, by, self.members + 1 + side);
        for topic in ["one", "another"] {
            self.send(&mut branch, by, "m.room.topic", "", json!({"topic": topic, "by": by}));
        }
        let rule = ["invite", "public"][side];
        self.send(
            &mut branch,
            ADMIN,
            "m.room.join_rules",
            "",
            json!({"join_rule": rule, "by": by}),
        );
        self.levels(&mut branch, by, self.members + 3 + side);
        for number in 0..self.keys - 3 {
            // Spread over the room's history; one in six comes anew, on the public side.
            let old = user(number * (self.members / self.keys));
            match (number % 6, side) {
                (0, 1) => self.member(&mut branch, &user(self.members + number), "join", ""),
                (1, 0) => self.member(&mut branch, &old, "leave", ""),
                (2, 1) => self.member(&mut branch, &old, "join", "other name"),
                (3, _) => self.member(&mut branch, &old, "join", ["this", "that"][side]),
                (4, 0) => self.send_member(&mut branch, ADMIN, &old, "ban", ""),
                (4, 1) => self.member(&mut branch, &old, "leave", ""),
                (5, 0) => self.send_member(&mut branch, FOUNDER, &old, "leave", ""),
                _ => {}
            }
        }
        branch
    }

    fn levels(&mut self, branch: &mut Branch, sender: &str, number: usize) {
        let mut content = json!({
            "users": {ADMIN: 100, "@some:one": number % 50},
            "events": {"m.room.topic": 50, "m.room.name": 50}, "number": number,
        });
        if !self.version.rules().authorization.explicitly_privilege_room_creators {
            content["users"][FOUNDER] = 100.into();
        }
        self.send(branch, sender, "m.room.power_levels", "", content);
    }

    fn member(&mut self, branch: &mut Branch, user: &str, membership: &str, name: &str) {
        self.send_member(branch, user, user, membership, name);
    }

    fn send_member(&mut self, at: &mut Branch, by: &str, user: &str, membership: &str, name: &str) {
        let content = json!({"membership": membership, "displayname": name});
        self.send(at, by, "m.room.member", user, content);
    }

    fn send(&mut self, at: &mut Branch, sender: &str, kind: &str, state_key: &str, content: Value) {
        self.time += 1;
        let user = <&UserId>::try_from(sender).expect("a user id");
        let object = content.as_object().expect("an object");
        let keys = auth_types(self.version, kind, user, Some(state_key), object);
        let auth: Vec<&OwnedEventId> = keys.iter().filter_map(|key| at.get(key)).collect();
        let mut event = json!({
            "type": kind, "sender": sender, "state_key": state_key, "content": content,
            "prev_events": [], "auth_events": auth,
            "depth": self.time, "origin_server_ts": self.time, "signatures": {},
        });
        let event = event.as_object_mut().expect("an object");
        event.extend(self.room_id.iter().map(|id| ("room_id".to_owned(), id.as_str().into())));
        hash::set_content_hash(event);
        let pdu = Pdu::from_object(self.version, event.clone()).expect("a well-formed event");
        let id = pdu.event_id().to_owned();
        let mut generation = 0;
        for cited in pdu.auth_events() {
            let cited = self.room.0.get_mut(cited).expect("sent before");
            generation = generation.max(cited.generation + 1);
            cited.cited_by.push(id.clone());
        }
        at.changes.insert(StateKey::new(kind, state_key), id.clone());
        self.room.0.insert(id, Entry { pdu, generation, cited_by: Vec::new() });
    }

    /// The structural difference: only what was changed is looked at.
    fn conflict(&self) -> Conflict<'_> {
        let [one, two] = &self.branches;
        let changed: BTreeSet<&StateKey> = one.changes.keys().chain(two.changes.keys()).collect();
        let rows = changed.into_iter().map(|key| (key, one.get(key), two.get(key)));
        let keys = rows
            .filter(|(_, one, two)| one != two)
            .map(|(key, one, two)| (key.clone(), vec![one.cloned(), two.cloned()]))
            .collect();
        Conflict { keys, agreed: one }
    }

    /// What is timed.
    pub fn resolve(&self) -> StateMap<OwnedEventId> {
        resolve_conflict(self.version, &self.conflict(), &self.room, &mut ()).expect("resolves")
    }

    /// The whole resolved state, to compare.
    pub fn resolve_whole(&self) -> StateMap<OwnedEventId> {
        let [one, two] = &self.branches;
        let agreed = one.entries().filter(|(key, id)| two.get(key) == Some(id));
        let agreed: StateMap<OwnedEventId> =
            agreed.map(|(key, id)| (key.clone(), id.clone())).collect();
        let mut state = self.resolve();
        assert!(state.keys().all(|key| !agreed.contains_key(key)));
        state.extend(agreed);
        state
    }
}

fn user(number: usize) -> String {
    format!("@user{number}:server{}", number % 97)
}
