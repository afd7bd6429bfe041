//! Another server: its users join, talk and change their names; all events are made beforehand.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use exeunt_core::{Draft, Object, Pdu, Reference, Signer, VerifyKey, key::KnownKey};
use exeunt_room::{Call, Remote, RemoteError, ServerKeys, graph::Graph};
use exeunt_store::{Reader, records::Root};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Value, json};

pub const NAME: &str = "there.example";

pub fn signer(name: &str) -> Arc<Signer> {
    let server = ServerName::parse(name).expect("a server name");
    Arc::new(Signer::new(server, "ed25519:1", &[7; 32]).expect("a seed"))
}

/// Answers with its key, and with nothing else.
pub struct Keys(pub Arc<Signer>);

#[async_trait]
impl Remote for Keys {
    async fn call(&self, _: &ServerName, _: Call<'_>) -> Result<Value, RemoteError> {
        Err(RemoteError::Unreachable("nothing is asked here".into()))
    }

    async fn server_keys(&self, _: &ServerName) -> Result<ServerKeys, RemoteError> {
        let key = VerifyKey::from_base64(&self.0.public())
            .map_err(|error| RemoteError::Misbehaved(error.to_string()))?;
        let current = [(self.0.key_id().to_owned(), KnownKey { key, valid_until: u64::MAX })];
        Ok(ServerKeys { current: current.into(), old: BTreeMap::new(), document: Object::new() })
    }
}

/// Where an event goes: what it follows, and the depth before it.
pub type Place = (Vec<Reference>, u64);

/// The peer's view of the room: where its next event goes.
#[derive(Clone)]
pub struct Peer {
    signer: Arc<Signer>,
    room: OwnedRoomId,
    version: exeunt_core::RoomVersion,
    levels: Reference,
    rules: Reference,
    members: BTreeMap<usize, Reference>,
    head: Vec<Reference>,
    depth: u64,
    time: u64,
}

impl Peer {
    pub fn new(reader: &Reader<'_>, room: &RoomId, signer: Arc<Signer>, time: u64) -> Self {
        let graph = Graph::of(reader, room).expect("the room is known");
        let current = |kind| {
            let event = graph.current(kind, "").expect("the state reads");
            Reference::from(&event.expect("every room has one"))
        };
        let (levels, rules) = (current("m.room.power_levels"), current("m.room.join_rules"));
        let (room, version) = (room.to_owned(), graph.version);
        let mut peer = Self {
            signer,
            room,
            version,
            levels,
            rules,
            members: BTreeMap::new(),
            head: Vec::new(),
            depth: 0,
            time,
        };
        peer.follow(reader);
        peer
    }

    /// Goes on from the room's head as it is now.
    pub fn follow(&mut self, reader: &Reader<'_>) {
        let graph = Graph::of(reader, &self.room).expect("the room is known");
        let heads = graph.room.extremities.iter();
        let reference =
            |id: &OwnedEventId| Reference::from(&graph.event_here(id).expect("it is there").pdu);
        self.head = heads.map(reference).collect();
        self.depth = graph.room.depth;
    }

    pub fn place(&self) -> Place {
        (self.head.clone(), self.depth)
    }

    pub fn go_to(&mut self, place: &Place) {
        (self.head, self.depth) = place.clone();
    }

    pub fn join(&mut self, number: usize) -> Pdu {
        let content = json!({"membership": "join", "displayname": format!("User {number}")});
        self.member(number, content)
    }

    pub fn rename(&mut self, number: usize, name: &str) -> Pdu {
        self.member(number, json!({"membership": "join", "displayname": name}))
    }

    fn member(&mut self, number: usize, content: Value) -> Pdu {
        let mut auth = vec![self.levels.clone(), self.rules.clone()];
        auth.extend(self.members.get(&number).cloned());
        let key = Some(self.user(number).to_string());
        let event = self.send(number, "m.room.member", key, content, auth);
        self.members.insert(number, Reference::from(&event));
        event
    }

    /// Power levels, which no user of a peer may set.
    pub fn seize(&mut self, number: usize) -> Pdu {
        let auth = vec![self.levels.clone(), self.members[&number].clone()];
        let key = Some(String::new());
        self.send(number, "m.room.power_levels", key, json!({ "users": {} }), auth)
    }

    /// A member event upon auth events that it has no use for.
    pub fn cite(&mut self, number: usize, auth: Vec<Reference>) -> Pdu {
        let key = Some(self.user(number).to_string());
        self.send(number, "m.room.member", key, json!({ "membership": "join" }), auth)
    }

    pub fn say(&mut self, number: usize, text: &str) -> Pdu {
        let auth = vec![self.levels.clone(), self.members[&number].clone()];
        let content = json!({"msgtype": "m.text", "body": text});
        self.send(number, "m.room.message", None, content, auth)
    }

    fn send(
        &mut self,
        number: usize,
        kind: &str,
        state_key: Option<String>,
        content: Value,
        auth_events: Vec<Reference>,
    ) -> Pdu {
        (self.depth, self.time) = (self.depth + 1, self.time + 1);
        let draft = Draft {
            version: self.version,
            room_id: Some(self.room.clone()),
            sender: self.user(number),
            kind: kind.into(),
            state_key,
            content: content.as_object().cloned().expect("an object"),
            redacts: None,
            prev_events: std::mem::take(&mut self.head),
            auth_events,
            depth: self.depth,
            origin_server_ts: self.time,
        };
        let event = draft.sign(&self.signer).expect("a well-formed event");
        self.head = vec![Reference::from(&*event)];
        (*event).clone()
    }

    fn user(&self, number: usize) -> OwnedUserId {
        UserId::parse(format!("@user{number}:{}", self.signer.server())).expect("a user id")
    }
}

/// The state after an event.
pub fn state_after(reader: &Reader<'_>, room: &RoomId, id: &OwnedEventId) -> Root {
    let graph = Graph::of(reader, room).expect("the room is known");
    let known = graph.event_here(id).expect("the event is there");
    assert!(known.record.verdict.is_accepted(), "{:?}", known.record.verdict);
    known.record.states.expect("it has a place").after
}
