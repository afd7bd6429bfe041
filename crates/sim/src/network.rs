//! The fake network: which links are up, what goes wrong, what was asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use exeunt_core::Object;
use exeunt_core::ruma::{OwnedServerName, ServerName};
use exeunt_room::{Call, RemoteError, Rooms};
use serde_json::Value;

use crate::{Rng, Server, Weather, life::Alive, weather::Trip};

/// Something that goes wrong with one request.
#[derive(Clone)]
pub enum Fault {
    /// The request does not arrive; this is the answer.
    Answer(RemoteError),
    /// The request arrives and is worked off, and the answer is lost.
    AnswerLost,
    /// The answer is changed on its way: a hostile server.
    Tampered(Arc<dyn Fn(&mut Value) + Send + Sync>),
    /// The request is not worked off; this is the answer, whatever was asked: a hostile server.
    Forged(Value),
    /// Something else happens between the request's being worked off and its answer.
    Meanwhile(Arc<dyn Fn() -> Happening + Send + Sync>),
}

/// Something that happens.
pub type Happening = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Fault {
    /// A refusal with a Matrix error.
    pub fn refused(status: u16, errcode: &str) -> Self {
        let (errcode, message) = (errcode.into(), "a fault".into());
        Self::Answer(RemoteError::Refused { status, errcode, message })
    }

    pub fn tampered(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        Self::Tampered(Arc::new(change))
    }

    pub fn meanwhile(happens: impl Fn() -> Happening + Send + Sync + 'static) -> Self {
        Self::Meanwhile(Arc::new(happens))
    }
}

/// What a scripted server does with a request.
pub enum Scripted {
    /// It is honest.
    Honest,
    Answer(Result<Value, RemoteError>),
    /// It never answers: the request ends when its time is over ([`Call::wire`]).
    Silent,
}

impl Scripted {
    /// A refusal with a Matrix error.
    pub fn refused(status: u16, errcode: &str) -> Self {
        let (errcode, message) = (errcode.into(), "scripted".into());
        Self::Answer(Err(RemoteError::Refused { status, errcode, message }))
    }
}

type Script = Arc<dyn Fn(&Call<'_>) -> Scripted + Send + Sync>;

/// One request: from, to, endpoint.
pub type Request = (OwnedServerName, OwnedServerName, &'static str);

/// A server that can be reached.
#[derive(Clone)]
pub(crate) struct Host {
    pub rooms: Rooms,
    /// Told whose requests came.
    pub alive: Option<Alive>,
}

#[derive(Default)]
struct State {
    servers: BTreeMap<OwnedServerName, Host>,
    /// The last of each, for its keys.
    known: BTreeMap<OwnedServerName, Rooms>,
    /// How often each has crashed.
    crashes: BTreeMap<OwnedServerName, u64>,
    weather: Option<(Weather, Rng)>,
    cut: BTreeSet<(OwnedServerName, OwnedServerName)>,
    faults: Vec<(OwnedServerName, &'static str, Fault)>,
    requests: Vec<Request>,
    transactions: u64,
    scripts: BTreeMap<OwnedServerName, Script>,
    keyless: BTreeSet<OwnedServerName>,
}

/// Links between servers.
#[derive(Default)]
pub struct Network(Mutex<State>);

impl Network {
    /// The server can be reached: one of the mesh when it starts, or one of another mesh.
    pub fn attach(&self, server: &Server) {
        let host = Host { rooms: server.rooms.clone(), alive: server.alive() };
        let mut state = self.state();
        state.known.insert(server.name.clone(), host.rooms.clone());
        state.servers.insert(server.name.clone(), host);
    }

    /// The server has crashed: it cannot be reached, and what it did goes no further.
    pub(crate) fn crashed(&self, server: &ServerName) {
        let mut state = self.state();
        state.servers.remove(server);
        *state.crashes.entry(server.to_owned()).or_default() += 1;
    }

    pub(crate) fn crashes(&self, server: &ServerName) -> u64 {
        self.state().crashes.get(server).copied().unwrap_or(0)
    }

    /// From now on chance has a hand in it.
    pub fn set_weather(&self, weather: Weather, rng: &Rng) {
        self.state().weather = Some((weather, rng.clone()));
    }

    /// The keys of a server, where chance has a hand in the rest: they can always be had. A run
    /// would be about keys only otherwise, for here nobody knows any beforehand.
    pub(crate) fn keys_of(&self, server: &ServerName) -> Option<Object> {
        let state = self.state();
        state.weather.as_ref()?;
        state.known.get(server).map(|rooms| rooms.key_document(0))
    }

    pub(crate) fn trip(&self) -> Trip {
        let state = self.state();
        state.weather.as_ref().map(|(weather, rng)| weather.trip(rng)).unwrap_or_default()
    }

    pub(crate) fn is_cut(&self, from: &ServerName, to: &ServerName) -> bool {
        self.state().cut.contains(&(from.to_owned(), to.to_owned()))
    }

    /// Requests of `from` no longer reach `to`.
    pub fn cut(&self, from: &ServerName, to: &ServerName) {
        self.state().cut.insert((from.to_owned(), to.to_owned()));
    }

    pub fn restore(&self, from: &ServerName, to: &ServerName) {
        self.state().cut.remove(&(from.to_owned(), to.to_owned()));
    }

    /// The next request to that endpoint of `to` goes wrong. Faults of one endpoint queue up.
    pub fn fail_next(&self, to: &ServerName, endpoint: &'static str, fault: Fault) {
        self.state().faults.push((to.to_owned(), endpoint, fault));
    }

    /// Requests to `to` are answered by a script, for as long as the network is there.
    pub fn script(
        &self,
        to: &ServerName,
        script: impl Fn(&Call<'_>) -> Scripted + Send + Sync + 'static,
    ) {
        self.state().scripts.insert(to.to_owned(), Arc::new(script));
    }

    /// Requests for the keys of a server are never answered.
    pub fn hide_keys(&self, of: &ServerName) {
        self.state().keyless.insert(of.to_owned());
    }

    pub(crate) fn hides_keys(&self, of: &ServerName) -> bool {
        self.state().keyless.contains(of)
    }

    pub(crate) fn scripted(&self, to: &ServerName, call: &Call<'_>) -> Scripted {
        let script = self.state().scripts.get(to).cloned();
        script.map_or(Scripted::Honest, |script| script(call))
    }

    /// The requests since the last call, in order.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state().requests)
    }

    /// The server that a request reaches, and what goes wrong with it.
    pub(crate) fn route(
        &self,
        from: &ServerName,
        to: &ServerName,
        endpoint: &'static str,
    ) -> Result<(Host, Option<Fault>), RemoteError> {
        let mut state = self.state();
        state.requests.push((from.to_owned(), to.to_owned(), endpoint));
        let unreachable = || RemoteError::Unreachable(format!("no link to {to}"));
        if state.cut.contains(&(from.to_owned(), to.to_owned())) {
            return Err(unreachable());
        }
        let index = state.faults.iter().position(|(at, e, _)| *at == to && *e == endpoint);
        let fault = index.map(|index| state.faults.remove(index).2);
        if let Some(Fault::Answer(error)) = fault {
            return Err(error);
        }
        Ok((state.servers.get(to).cloned().ok_or_else(unreachable)?, fault))
    }

    pub(crate) fn next_transaction(&self) -> String {
        let mut state = self.state();
        state.transactions += 1;
        state.transactions.to_string()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
