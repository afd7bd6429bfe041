//! A room whose state a test sets as it likes, judged by us and by ruma.

use exeunt_core::{Pdu, RoomVersion, StateKey, StateMap};
use exeunt_state_res::{AuthError, check_auth};
use serde_json::{Value, json};

use super::{Place, Shape, build, oracle, version};

pub const ALL: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];
pub const FOUNDER: &str = "@founder:one";
pub const MOD: &str = "@mod:one";
pub const ALICE: &str = "@alice:two";
pub const BOB: &str = "@bob:three";

/// A public room with a founder (level 100, or a creator), a moderator (50) and Alice.
pub struct Room {
    pub version: RoomVersion,
    pub create: Pdu,
    pub state: StateMap<Pdu>,
    pub number: usize,
}

impl Room {
    pub fn new(id: &str) -> Self {
        Self::with_create(id, json!({}))
    }

    pub fn with_create(id: &str, mut content: Value) -> Self {
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
            depth: None,
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

    pub fn has_knocks(&self) -> bool {
        self.version.rules().authorization.knocking
    }

    pub fn event(&mut self, shape: Shape<'_>) -> Pdu {
        self.number += 1;
        let last = self.state.values().max_by_key(|pdu| pdu.depth()).expect("the create event");
        let prev = build(&shape, &self.place(vec![]));
        let prev =
            if last.depth() == 0 { prev.event_id().to_owned() } else { last.event_id().to_owned() };
        build(&shape, &self.place(vec![prev]))
    }

    pub fn place(&self, prev_events: Vec<ruma::OwnedEventId>) -> Place {
        Place {
            version: self.version,
            room_id: Some(self.create.room_id().to_string()),
            prev_events,
            auth_events: vec![],
            ts: 1,
            number: self.number,
            depth: None,
        }
    }

    pub fn set(&mut self, shape: Shape<'_>) -> &mut Self {
        let pdu = self.event(shape);
        self.state.insert(pdu.key().expect("a state event"), pdu);
        self
    }

    pub fn levels(&mut self, content: Value) -> &mut Self {
        self.set(state(FOUNDER, "m.room.power_levels", content))
    }

    pub fn rule(&mut self, rule: &str) -> &mut Self {
        self.set(state(FOUNDER, "m.room.join_rules", json!({"join_rule": rule})))
    }

    /// `none` removes the member event.
    pub fn member(&mut self, user: &str, membership: &str) -> &mut Self {
        if membership == "none" {
            self.state.remove(&StateKey::new("m.room.member", user));
            return self;
        }
        self.set(member(user, user, membership))
    }

    #[track_caller]
    pub fn check(&mut self, shape: Shape<'_>, expected: Result<(), AuthError>) -> &mut Self {
        let pdu = self.event(shape);
        self.check_pdu(&pdu, expected)
    }

    #[track_caller]
    pub fn check_pdu(&mut self, pdu: &Pdu, expected: Result<(), AuthError>) -> &mut Self {
        let ruma = oracle::check(pdu, &self.state);
        let what = format!("version {} {pdu:?} {:?}", self.version, pdu.content());
        assert_eq!(ruma.is_ok(), expected.is_ok(), "{what}: ruma says {ruma:?}");
        self.check_apart(pdu, expected)
    }

    /// Like `check`, where ruma says otherwise.
    #[track_caller]
    pub fn check_unlike_ruma(
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
    pub fn check_apart(&mut self, pdu: &Pdu, expected: Result<(), AuthError>) -> &mut Self {
        let verdict = check_auth(pdu, &self.create, &self.state);
        assert_eq!(verdict, expected, "version {} {pdu:?} {:?}", self.version, pdu.content());
        self
    }
}

pub fn state<'a>(sender: &'a str, kind: &'a str, content: Value) -> Shape<'a> {
    Shape { sender, kind, state_key: Some(""), content }
}

pub fn message<'a>(sender: &'a str, kind: &'a str) -> Shape<'a> {
    Shape { sender, kind, state_key: None, content: json!({}) }
}

pub fn member<'a>(sender: &'a str, target: &'a str, membership: &str) -> Shape<'a> {
    let content = json!({"membership": membership});
    Shape { sender, kind: "m.room.member", state_key: Some(target), content }
}

pub fn rooms(ids: &[&str]) -> impl Iterator<Item = Room> {
    ids.iter().map(|id| Room::new(id)).collect::<Vec<_>>().into_iter()
}
