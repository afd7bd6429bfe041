//! A server in memory: it judges events by the rules, in the order in which they come.

use std::collections::{BTreeMap, BTreeSet};

use exeunt_core::ruma::{EventId, OwnedEventId};
use exeunt_core::{Pdu, RoomVersion, StateKey, StateMap};
use exeunt_state_res::{
    AuthError, AuthEvent, EventSource, LookupError, ResolveError, check_auth, check_auth_events,
    resolve,
};

pub type State = StateMap<OwnedEventId>;

/// The checks on receipt (server-server API, 3 to 5), each made whatever the others said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The rules that do not depend on state.
    pub auth_events: Result<(), AuthError>,
    /// By the state that the auth events are.
    pub cited: Result<(), AuthError>,
    /// By the state before the event.
    pub before: Result<(), AuthError>,
}

impl Verdict {
    /// The first rule that is broken.
    pub fn rule(&self) -> Option<&AuthError> {
        [&self.auth_events, &self.cited, &self.before].into_iter().find_map(|r| r.as_ref().err())
    }

    pub fn is_accepted(&self) -> bool {
        self.rule().is_none()
    }
}

/// An event in the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub pdu: Pdu,
    pub verdict: Verdict,
    pub before: State,
    pub after: State,
}

/// One room on one server.
pub struct Server {
    version: RoomVersion,
    create: Pdu,
    events: BTreeMap<OwnedEventId, Received>,
    extremities: BTreeSet<OwnedEventId>,
}

impl EventSource for Server {
    fn event(&self, id: &EventId) -> Result<Option<Pdu>, LookupError> {
        Ok(self.events.get(id).map(|event| event.pdu.clone()))
    }

    fn rejected(&self, id: &EventId) -> Result<bool, LookupError> {
        Ok(self.events.get(id).is_some_and(|event| !event.verdict.is_accepted()))
    }
}

impl Server {
    /// A server that has the create event alone.
    pub fn new(create: Pdu) -> Self {
        let mut server = Self {
            version: create.version(),
            create: create.clone(),
            events: BTreeMap::new(),
            extremities: BTreeSet::new(),
        };
        let verdict = server.judge(&create, &State::new());
        server.insert(create, State::new(), verdict);
        server
    }

    pub fn get(&self, id: &EventId) -> Option<&Received> {
        self.events.get(id)
    }

    pub fn contains(&self, id: &EventId) -> bool {
        self.events.contains_key(id)
    }

    /// Judges an event whose predecessors are here, and adds it to the graph.
    pub fn receive(&mut self, pdu: Pdu) -> Result<(), ResolveError> {
        let before = self.resolve(&self.sets(pdu.prev_events())?)?;
        let verdict = self.judge(&pdu, &before);
        self.insert(pdu, before, verdict);
        Ok(())
    }

    /// The states after these events.
    pub fn sets(&self, ids: &[OwnedEventId]) -> Result<Vec<State>, ResolveError> {
        let after = |id: &OwnedEventId| match self.events.get(id) {
            Some(event) => Ok(event.after.clone()),
            None => Err(ResolveError::Missing(id.clone())),
        };
        ids.iter().map(after).collect()
    }

    pub fn resolve(&self, sets: &[State]) -> Result<State, ResolveError> {
        resolve(self.version, sets, self)
    }

    /// The state after the forward extremities.
    pub fn current_state(&self) -> Result<State, ResolveError> {
        let ids: Vec<OwnedEventId> = self.extremities.iter().cloned().collect();
        self.resolve(&self.sets(&ids)?)
    }

    pub fn judge(&self, pdu: &Pdu, before: &State) -> Verdict {
        let cited = self.cited(pdu);
        let create = AuthEvent::accepted(self.create.clone());
        let auth_state = self.with_create(
            cited.iter().filter_map(|event| Some((event.pdu.key()?, event.pdu.clone()))).collect(),
        );
        let before = before.iter().map(|(key, id)| (key.clone(), self.events[id].pdu.clone()));
        Verdict {
            auth_events: check_auth_events(pdu, Some(&create), &cited),
            cited: check_auth(pdu, &self.create, &auth_state),
            before: check_auth(pdu, &self.create, &before.collect::<StateMap<Pdu>>()),
        }
    }

    pub fn insert(&mut self, pdu: Pdu, before: State, verdict: Verdict) {
        let id = pdu.event_id().to_owned();
        let mut after = before.clone();
        if verdict.is_accepted() {
            after.extend(pdu.key().map(|key| (key, id.clone())));
            for prev in pdu.prev_events() {
                self.extremities.remove(prev);
            }
            self.extremities.insert(id.clone());
        }
        self.events.insert(id, Received { pdu, verdict, before, after });
    }

    fn cited(&self, pdu: &Pdu) -> Vec<AuthEvent> {
        let event = |id| {
            let event: &Received = self.events.get(id)?;
            Some(AuthEvent { pdu: event.pdu.clone(), rejected: !event.verdict.is_accepted() })
        };
        pdu.auth_events().iter().filter_map(event).collect()
    }

    /// Room versions whose events do not cite the create event have it in their auth state still.
    fn with_create(&self, mut state: StateMap<Pdu>) -> StateMap<Pdu> {
        if self.version.room_id_is_create_hash() {
            state.insert(StateKey::single("m.room.create"), self.create.clone());
        }
        state
    }
}
