//! Random rooms, as a server that has all events sees them. Every verdict and every resolution on the
//! way is compared with ruma's, and ours with ourselves.
//!
//! Where ruma and we differ on purpose (see `check_unlike_ruma`), the rooms steer clear: power levels
//! always have all fields, and nobody joins where there is no join rule.

use std::collections::{BTreeMap, BTreeSet};

use exeunt_core::{Pdu, RoomVersion, StateKey, StateMap};
use exeunt_state_res::{AuthEvent, auth_types, check_auth, check_auth_events, resolve};
use ruma::{OwnedEventId, UserId};
use serde_json::{Value, json};

use super::index::{Index, resolve_by_conflict};
use super::{Place, Rng, Shape, build, object, oracle, oracle_v1};

pub const USERS: [&str; 6] = ["@a:one", "@b:one", "@c:two", "@d:two", "@e:three", "@f:three"];
const RESOLUTIONS: usize = 6;

pub type State = StateMap<OwnedEventId>;

pub struct Room {
    pub version: RoomVersion,
    rng: Rng,
    room_id: String,
    create: Pdu,
    pub index: Index,
    pub after: BTreeMap<OwnedEventId, State>,
    pub accepted: Vec<OwnedEventId>,
}

impl Room {
    pub fn new(version: RoomVersion, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let founds = version.room_id_is_create_hash();
        let mut content = json!({"room_version": version.as_str(), "seed": rng.below(1000)});
        if !version.rules().authorization.use_room_create_sender {
            content["creator"] = USERS[0].into();
        }
        if founds && rng.percent(50) {
            content["additional_creators"] = json!([USERS[1]]);
        }
        let shape = Shape { sender: USERS[0], kind: "m.room.create", state_key: Some(""), content };
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
        let id = create.event_id().to_owned();
        let after = State::from([(StateKey::single("m.room.create"), id.clone())]);
        let mut room = Self {
            version,
            rng,
            room_id: create.room_id().to_string(),
            index: Index::of([create.clone()]),
            after: BTreeMap::from([(id.clone(), after)]),
            accepted: vec![id],
            create,
        };
        room.start();
        room
    }

    /// The events before the first fork.
    fn start(&mut self) {
        let levels = self.levels(&[]);
        let rule = *self.rng.pick(&["public", "public", "invite"]);
        let shapes = [
            Shape::member(USERS[0], USERS[0], "join"),
            Shape::state(USERS[0], "m.room.power_levels", levels),
            Shape::state(USERS[0], "m.room.join_rules", json!({"join_rule": rule})),
            Shape::member(USERS[0], USERS[1], "invite"),
            Shape::member(USERS[1], USERS[1], "join"),
        ];
        for shape in shapes {
            let last = self.accepted.last().expect("at least the create event").clone();
            let before = self.after[&last].clone();
            assert!(self.add(&shape, vec![last], &before, &before), "the prefix is allowed");
        }
    }

    /// Power levels with all fields, and `users` beside the creator's entry.
    fn levels(&mut self, users: &[(&str, i64)]) -> Value {
        let text = self.rng.percent(20) && !self.version.rules().authorization.integer_power_levels;
        let level = |n: i64| if text { json!(format!(" {n} ")) } else { json!(n) };
        let mut map = object(json!({}));
        if !self.version.room_id_is_create_hash() {
            map.insert(USERS[0].into(), level(100));
        }
        map.extend(users.iter().map(|(user, n)| ((*user).to_owned(), level(*n))));
        let mut any = |usual: i64| {
            let other = *self.rng.pick(&[0, 25, 50, 75]);
            if self.rng.percent(70) { level(usual) } else { level(other) }
        };
        json!({
            "users": map, "users_default": any(0), "events_default": any(0),
            "state_default": any(50), "ban": any(50), "kick": any(50), "invite": any(0),
            "redact": any(50), "events": {"m.room.topic": any(0), "m.room.join_rules": any(50)},
            "notifications": {"room": any(50)},
        })
    }

    fn random_levels(&mut self) -> Value {
        let mut users = BTreeMap::new();
        for _ in 0..self.rng.below(5) {
            let level = *self.rng.pick(&[0, 10, 50, 50, 75, 100]);
            let first = usize::from(!self.rng.percent(10));
            users.insert(USERS[first + self.rng.below(USERS.len() - first)], level);
        }
        let users: Vec<(&str, i64)> = users.into_iter().collect();
        self.levels(&users)
    }

    fn random_shape(&mut self) -> Shape<'static> {
        let sender = match self.rng.percent(35) {
            true => USERS[0],
            false => *self.rng.pick(&USERS),
        };
        let other = *self.rng.pick(&USERS);
        match self.rng.below(100) {
            0..18 => {
                let mut join = Shape::member(sender, sender, "join");
                if self.rng.percent(40) {
                    join.content["join_authorised_via_users_server"] =
                        (*self.rng.pick(&USERS[..3])).into();
                }
                join
            }
            18..26 => Shape::member(sender, sender, "leave"),
            26..38 => Shape::member(sender, other, "invite"),
            38..48 => Shape::member(sender, other, "leave"),
            48..57 => Shape::member(sender, other, "ban"),
            57..61 => Shape::member(sender, sender, "knock"),
            61..75 => {
                let levels = self.random_levels();
                Shape::state(sender, "m.room.power_levels", levels)
            }
            75..82 => {
                let rules =
                    ["public", "invite", "knock", "restricted", "knock_restricted", "private"];
                let rule = *self.rng.pick(&rules);
                Shape::state(sender, "m.room.join_rules", json!({"join_rule": rule}))
            }
            82..90 => {
                Shape::state(sender, "m.room.topic", json!({"topic": self.rng.below(1 << 20)}))
            }
            90..93 => Shape { state_key: Some(other), ..Shape::state(sender, "x.own", json!({})) },
            93..95 => Shape {
                state_key: Some(sender.split_once(':').expect("a user id").1),
                ..Shape::state(sender, "m.room.aliases", json!({"aliases": []}))
            },
            95..97 => Shape {
                state_key: Some("token"),
                ..Shape::state(sender, "m.room.third_party_invite", json!({}))
            },
            _ => Shape { state_key: None, ..Shape::state(sender, "m.room.message", json!({})) },
        }
    }

    /// Adds an event that may be anywhere in the room's recent past, or fork off it.
    pub fn step(&mut self) {
        let recent = self.accepted.len().saturating_sub(8).max(6) - 1;
        let mut prev = BTreeSet::new();
        for _ in 0..1 + self.rng.below(3) {
            let at = recent + self.rng.below(self.accepted.len() - recent);
            prev.insert(self.accepted[at].clone());
        }
        let prev: Vec<OwnedEventId> = prev.into_iter().collect();
        let sets: Vec<State> = prev.iter().map(|id| self.after[id].clone()).collect();
        let before = self.compare(&sets);
        let shape = self.random_shape();
        // Now and then a server cites state of another branch.
        let mut cited = before.clone();
        if self.rng.percent(20) {
            let at = 5 + self.rng.below(self.accepted.len() - 5);
            cited = self.after[&self.accepted[at]].clone();
        }
        self.add(&shape, prev, &before, &cited);
    }

    /// Adds an event if the rules allow it, and compares every verdict.
    fn add(
        &mut self,
        shape: &Shape<'_>,
        prev: Vec<OwnedEventId>,
        before: &State,
        cited: &State,
    ) -> bool {
        let sender = <&UserId>::try_from(shape.sender).expect("a user id");
        let content = object(shape.content.clone());
        let keys = auth_types(self.version, shape.kind, sender, shape.state_key, &content);
        let rule = StateKey::single("m.room.join_rules");
        // A resolution can leave a room without join rules, where ruma and we differ.
        let ruled = before.contains_key(&rule) && cited.contains_key(&rule);
        if self.accepted.len() > 5 && keys.contains(&rule) && !ruled {
            return false;
        }
        let mut auth: Vec<OwnedEventId> =
            keys.iter().filter_map(|key| cited.get(key).cloned()).collect();
        if self.accepted.len() > 5 && self.rng.percent(3) {
            let extra = cited.values().nth(self.rng.below(cited.len())).expect("in range");
            auth.push(extra.clone());
        }
        let number = self.index.events.len();
        let ts = (number + 5 - self.rng.below(6)) as u64 / 2;
        let place = Place {
            version: self.version,
            room_id: Some(self.room_id.clone()),
            prev_events: prev,
            auth_events: auth,
            ts,
            number,
            depth: None,
        };
        let pdu = build(shape, &place);
        let id = pdu.event_id().to_owned();
        let cited: State = keys
            .into_iter()
            .chain([StateKey::single("m.room.create")])
            .filter_map(|key| cited.get(&key).map(|id| (key, id.clone())))
            .collect();
        let allowed =
            self.independent(&pdu) && self.verdict(&pdu, &cited) && self.verdict(&pdu, before);
        if allowed && !self.index.events.contains_key(&id) {
            let mut after = before.clone();
            after.extend(pdu.key().map(|key| (key, id.clone())));
            self.after.insert(id.clone(), after);
            self.accepted.push(id.clone());
            self.index.insert(pdu);
        }
        allowed
    }

    fn independent(&self, pdu: &Pdu) -> bool {
        let create = AuthEvent::accepted(self.create.clone());
        let cited: Vec<AuthEvent> = pdu
            .auth_events()
            .iter()
            .map(|id| AuthEvent::accepted(self.index.events[id].0.clone()))
            .collect();
        let ours = check_auth_events(pdu, Some(&create), &cited);
        let theirs = oracle::check_auth_events(pdu, |id| self.index.events.get(id).cloned());
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{pdu:?}: {ours:?}, ruma: {theirs:?}");
        ours.is_ok()
    }

    fn verdict(&self, pdu: &Pdu, state: &State) -> bool {
        let state: StateMap<Pdu> =
            state.iter().map(|(key, id)| (key.clone(), self.index.events[id].0.clone())).collect();
        let ours = check_auth(pdu, &self.create, &state);
        let theirs = oracle::check(pdu, &state);
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{pdu:?}: {ours:?}, ruma: {theirs:?}");
        ours.is_ok()
    }

    /// Resolves with both, by whole maps and by the conflict alone, and again in another order.
    fn compare(&mut self, sets: &[State]) -> State {
        let ours = resolve(self.version, sets, &self.index).expect("resolves");
        let theirs = match self.version.rules().state_res.v2_rules() {
            Some(_) => oracle::resolve(self.version, sets, &self.index.events),
            None => oracle_v1::resolve(sets, &self.index.events),
        };
        assert_eq!(ours, theirs);
        let by_conflict = resolve_by_conflict(self.version, sets, &self.index, &mut self.rng);
        assert_eq!(by_conflict, Ok(ours.clone()), "by the conflict alone");
        let mut shuffled = sets.to_vec();
        shuffled.push(sets[self.rng.below(sets.len())].clone());
        self.rng.shuffle(&mut shuffled);
        let again = resolve(self.version, &shuffled, &self.index);
        assert_eq!(again, Ok(ours.clone()), "shuffled");
        let again = resolve_by_conflict(self.version, &shuffled, &self.index, &mut self.rng);
        assert_eq!(again, Ok(ours.clone()), "shuffled, by the conflict alone");
        ours
    }

    /// Resolves states of any age, some events rejected for reasons of their own. Returns how many
    /// of the resolutions had conflicts.
    pub fn compare_distant(&mut self) -> usize {
        let mut conflicts = 0;
        for round in 0..RESOLUTIONS {
            let sets: Vec<State> = (0..2 + self.rng.below(3))
                .map(|_| self.rng.below(self.accepted.len()))
                .map(|at| self.after[&self.accepted[at]].clone())
                .collect();
            conflicts += usize::from(sets.iter().any(|set| *set != sets[0]));
            if round >= RESOLUTIONS / 2 {
                for (pdu, rejected) in self.index.events.values_mut() {
                    // Not join rules: without any, ruma allows no join, we those of the invited.
                    let spared = matches!(pdu.kind(), "m.room.create" | "m.room.join_rules");
                    *rejected = !spared && self.rng.percent(10);
                }
            }
            self.compare(&sets);
        }
        conflicts
    }
}

impl<'a> Shape<'a> {
    pub fn state(sender: &'a str, kind: &'a str, content: Value) -> Self {
        Self { sender, kind, state_key: Some(""), content }
    }

    pub fn member(sender: &'a str, target: &'a str, membership: &str) -> Self {
        let content = json!({"membership": membership});
        Self { sender, kind: "m.room.member", state_key: Some(target), content }
    }
}
