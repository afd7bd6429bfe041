//! A random room.

use std::collections::BTreeSet;

use exeunt_core::ruma::{OwnedEventId, UserId};
use exeunt_core::{Pdu, RoomVersion, Signer, StateMap};
use exeunt_state_res::auth_types;

use crate::build::{Place, Shape, build, object, server_of};
use crate::shapes::{self, USERS, View};
use crate::{Rng, Server, State, levels};

/// Events after the first ones.
const STEPS: usize = 40;
/// Resolutions of states of any age, after the room is made.
const DISTANT: usize = 6;
/// How far back events attach to.
const WINDOW: usize = 8;
/// Events tried for a step until one is accepted; of the others one in ten stays.
const TRIES: usize = 8;
const KEPT_PERCENT: usize = 10;
const START_MS: u64 = 1_700_000_000_000;

/// States and what became of them.
pub struct Resolution {
    pub sets: Vec<State>,
    pub resolved: State,
}

pub struct Room {
    pub version: RoomVersion,
    pub seed: u64,
    pub server: Server,
    /// The events in the order in which they were made, which is topological.
    pub order: Vec<OwnedEventId>,
    /// Resolutions of states that differ.
    pub resolutions: Vec<Resolution>,
    room_id: String,
    accepted: Vec<OwnedEventId>,
    rejected: Vec<OwnedEventId>,
    rng: Rng,
    identity: Signer,
}

impl Room {
    /// # Panics
    /// If a resolution fails or depends on the order of its sets.
    pub fn generate(version: RoomVersion, seed: u64) -> Self {
        let mut room = Self::begin(version, seed);
        room.grow();
        for _ in 0..DISTANT {
            let ids: Vec<OwnedEventId> =
                (0..2 + room.rng.below(3)).map(|_| room.any_accepted()).collect();
            room.resolve(&ids);
        }
        room
    }

    /// A room with nothing but its first events, which are in a row.
    ///
    /// # Panics
    /// As [`Self::generate`].
    pub fn begin(version: RoomVersion, seed: u64) -> Self {
        let mut room = Self::found(version, seed);
        room.start();
        room
    }

    /// Adds the other events.
    ///
    /// # Panics
    /// As [`Self::generate`].
    pub fn grow(&mut self) {
        for _ in 0..STEPS {
            self.step();
        }
    }

    /// The join of a user on the last of the first events, unless the rules refuse it. Not added.
    pub fn join(&mut self, user: &'static str) -> Option<Pdu> {
        let shape = Shape::member(user, user, "join");
        let last = self.last();
        let before = self.resolve(std::slice::from_ref(&last));
        let pdu = self.build(&shape, vec![last], &before);
        self.server.judge(&pdu, &before).is_accepted().then_some(pdu)
    }

    /// Adds an event on the last one, whoever made it. All events to come are after it.
    pub fn admit(&mut self, pdu: Pdu) {
        let id = pdu.event_id().to_owned();
        self.server.receive(pdu).expect("it is on the last event");
        self.order.push(id.clone());
        self.accepted = vec![id];
    }

    fn last(&self) -> OwnedEventId {
        self.accepted[self.accepted.len() - 1].clone()
    }

    /// The events, in the order in which they were made.
    pub fn pdus(&self) -> impl Iterator<Item = &Pdu> {
        self.order.iter().filter_map(|id| self.server.get(id)).map(|event| &event.pdu)
    }

    fn found(version: RoomVersion, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let content = shapes::create(&mut rng, version);
        let room_id = (!version.room_id_is_create_hash()).then(|| "!r:one".to_owned());
        let place = Place {
            version,
            room_id,
            prev_events: vec![],
            auth_events: vec![],
            depth: 1,
            ts: START_MS,
            number: 0,
        };
        let create = build(&Shape::state(USERS[0], "m.room.create", "", content), &place);
        let id = create.event_id().to_owned();
        Self {
            version,
            seed,
            room_id: create.room_id().to_string(),
            server: Server::new(create),
            order: vec![id.clone()],
            resolutions: vec![],
            accepted: vec![id],
            rejected: vec![],
            rng,
            identity: shapes::identity(),
        }
    }

    /// The first events, in a row. Some rooms have no power levels or join rules of their own.
    fn start(&mut self) {
        let mut first = vec![Shape::member(USERS[0], USERS[0], "join")];
        if self.rng.percent(90) {
            let users = [(USERS[1], 100), (USERS[2], 50), (USERS[3], 50)];
            let count = self.rng.below(users.len() + 1);
            let additional = usize::from(self.version.room_id_is_create_hash()) * 2;
            let users = &users[additional.min(count)..count];
            let content = levels::fresh(&mut self.rng, self.version, users);
            first.push(Shape::state(USERS[0], "m.room.power_levels", "", content));
        }
        if self.rng.percent(90) {
            let rule = self.rng.pick(&["public", "public", "public", "invite", "restricted"]);
            let content = serde_json::json!({"join_rule": rule});
            first.push(Shape::state(USERS[0], "m.room.join_rules", "", content));
        }
        for user in &USERS[1..=3 + self.rng.below(2)] {
            first.push(Shape::member(USERS[0], user, "invite"));
            first.push(Shape::member(user, user, "join"));
        }
        for shape in first {
            let last = self.last();
            let before = self.resolve(std::slice::from_ref(&last));
            self.try_add(&shape, vec![last], &before, 0);
        }
    }

    /// Adds an event that continues recent branches, merges some, or forks off one.
    fn step(&mut self) {
        let mut prev = BTreeSet::new();
        for _ in 0..1 + self.rng.below(3) {
            let recent = self.accepted.len().min(WINDOW);
            let back = if self.rng.percent(92) { recent } else { self.accepted.len() };
            prev.insert(self.accepted[self.accepted.len() - 1 - self.rng.below(back)].clone());
        }
        if !self.rejected.is_empty() && self.rng.percent(4) {
            prev.insert(self.rejected[self.rng.below(self.rejected.len())].clone());
        }
        let mut prev: Vec<OwnedEventId> = prev.into_iter().collect();
        self.rng.shuffle(&mut prev);
        let before = self.resolve(&prev);
        let state: StateMap<Pdu> =
            before.iter().map(|(key, id)| (key.clone(), self.pdu(id).clone())).collect();
        for _ in 0..TRIES {
            let view = View {
                version: self.version,
                state: &state,
                recent: &self.accepted,
                identity: &self.identity,
            };
            let shape = shapes::random(&mut self.rng, &view);
            if self.try_add(&shape, prev.clone(), &before, KEPT_PERCENT) {
                return;
            }
        }
    }

    /// Adds the event if it is accepted; if not, with the chance `kept`. Whether it was added.
    fn try_add(
        &mut self,
        shape: &Shape,
        prev: Vec<OwnedEventId>,
        before: &State,
        kept: usize,
    ) -> bool {
        if self.is_unlike_synapse(shape) {
            return false;
        }
        let pdu = self.build(shape, prev, before);
        let id = pdu.event_id().to_owned();
        let verdict = self.server.judge(&pdu, before);
        let accepted = verdict.is_accepted();
        if self.server.contains(&id) || !(accepted || self.rng.percent(kept)) {
            return false;
        }
        self.server.insert(pdu, before.clone(), verdict);
        self.order.push(id.clone());
        if accepted {
            self.accepted.push(id)
        } else {
            self.rejected.push(id)
        }
        true
    }

    fn build(&mut self, shape: &Shape, prev: Vec<OwnedEventId>, before: &State) -> Pdu {
        let auth_events = self.auth_events(shape, before);
        let number = self.order.len();
        let highest = prev.iter().map(|id| self.pdu(id).depth()).max().unwrap_or(0);
        let lies = self.rng.percent(4);
        let place = Place {
            version: self.version,
            room_id: Some(self.room_id.clone()),
            prev_events: prev,
            auth_events,
            depth: if lies { 1 + self.rng.below(2 * number) as u64 } else { highest + 1 },
            // Clocks differ, and often agree to the millisecond.
            ts: START_MS + (number + 5 - self.rng.below(6)) as u64 / 2,
            number,
        };
        build(shape, &place)
    }

    /// Where Synapse and we differ on purpose (tests/oracle/README.md): a member event about a user
    /// of another server in a room that is not federated.
    fn is_unlike_synapse(&self, shape: &Shape) -> bool {
        let create = self.pdu(&self.order[0]);
        let closed = create.content().get("m.federate") == Some(&false.into());
        let target = shape.state_key.as_deref().filter(|_| shape.kind == "m.room.member");
        closed && target.is_some_and(|user| server_of(user) != create.origin())
    }

    /// Most often what the state before has; now and then state of another branch, or something
    /// that does not belong there.
    fn auth_events(&mut self, shape: &Shape, before: &State) -> Vec<OwnedEventId> {
        let sender = <&UserId>::try_from(shape.sender).expect("a user id");
        let content = object(shape.content.clone());
        let key = shape.state_key.as_deref();
        let keys = auth_types(self.version, shape.kind, sender, key, &content);
        let elsewhere = self.rng.percent(12).then(|| self.any_accepted());
        let cited = elsewhere.and_then(|id| self.server.get(&id)).map_or(before, |e| &e.after);
        let mut ids: Vec<OwnedEventId> =
            keys.iter().filter_map(|key| cited.get(key).cloned()).collect();
        if self.order.len() > WINDOW && self.rng.percent(4) {
            self.spoil(&mut ids, before);
        }
        self.rng.shuffle(&mut ids);
        ids
    }

    fn spoil(&mut self, ids: &mut Vec<OwnedEventId>, before: &State) {
        let is_state = |id: &&OwnedEventId| self.pdu(id).state_key().is_some();
        let rejected: Vec<&OwnedEventId> = self.rejected.iter().filter(is_state).collect();
        let extra = match self.rng.below(4) {
            0 if !ids.is_empty() => {
                ids.remove(self.rng.below(ids.len()));
                return;
            }
            1 => ids.first(),
            2 if !rejected.is_empty() => Some(rejected[self.rng.below(rejected.len())]),
            _ => before.values().nth(self.rng.below(before.len())),
        };
        // Synapse cannot read events that cite a create event that the room id names.
        let names_create = self.version.room_id_is_create_hash();
        let extra = extra.filter(|id| !names_create || **id != self.order[0]).cloned();
        ids.extend(extra);
    }

    /// The states after these events, resolved, in two orders.
    fn resolve(&mut self, ids: &[OwnedEventId]) -> State {
        let sets = self.server.sets(ids).expect("events of the room");
        let resolved = self.server.resolve(&sets).expect("resolves");
        let mut shuffled = sets.clone();
        shuffled.push(sets[self.rng.below(sets.len())].clone());
        self.rng.shuffle(&mut shuffled);
        let again = self.server.resolve(&shuffled).expect("resolves");
        assert_eq!(resolved, again, "seed {}: the order of the sets matters", self.seed);
        if sets.iter().any(|set| *set != sets[0]) {
            self.resolutions.push(Resolution { sets, resolved: resolved.clone() });
        }
        resolved
    }

    fn any_accepted(&mut self) -> OwnedEventId {
        self.accepted[self.rng.below(self.accepted.len())].clone()
    }

    fn pdu(&self, id: &OwnedEventId) -> &Pdu {
        &self.server.get(id).expect("an event of the room").pdu
    }
}
