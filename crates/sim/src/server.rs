//! One server of the mesh, and shorthands for what tests do with it.

use std::{collections::BTreeMap, sync::Arc};

use exeunt_core::{
    Object, Pdu, RoomVersion, Signer,
    ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId},
};
use exeunt_room::{
    Clock, Intent, NewRoom, NoWake, Options, Preset, RemoteError, RoomError, RoomIds, Rooms,
    graph::{Graph, Known, load_event},
    reports::{MAX_ROWS, TimelineQuery, timeline},
};
use exeunt_sender::{MAX_PDUS, Transport};
use exeunt_store::{
    Batch, Faults, Store,
    records::{MembershipRecord, OutboxItem},
    tables,
};
use exeunt_users::{NewAccount, Users};
use serde_json::{Value, json};

use crate::{
    Network, Rng, SimClock,
    life::{Alive, Life},
    remote::SimRemote,
};

/// The name of every server's key.
pub(crate) const KEY_ID: &str = "ed25519:sim";

/// A server: rooms, users and their store.
pub struct Server {
    pub name: OwnedServerName,
    pub rooms: Rooms,
    pub users: Users,
    pub store: Store,
    /// The hand on the store's disk.
    pub disk: Faults,
    /// The signing key, for events that no honest server would make.
    pub signer: Arc<Signer>,
    pub(crate) clock: SimClock,
    pub(crate) remote: Arc<SimRemote>,
    life: Option<Life>,
}

impl Server {
    pub(crate) fn new(name: &str, seed: u8, net: &Arc<Network>, clock: &SimClock) -> Self {
        let name = OwnedServerName::try_from(name).expect("a server name");
        let signer = Signer::new(name.clone(), KEY_ID, &[seed; 32]).expect("a seed");
        let signer = Arc::new(signer);
        let (store, disk) = Store::memory_with_faults();
        let remote = SimRemote { ours: name.clone(), net: Arc::downgrade(net), crashes: 0 };
        let remote = Arc::new(remote);
        let rooms = start(&store, &signer, &remote, clock);
        let users = users(&store, &name, clock);
        let clock = clock.clone();
        Self { name, rooms, users, store, signer, disk, clock, remote, life: None }
    }

    /// Rooms as they are after a start: with nothing but what the store has.
    pub(crate) fn restart(&mut self) {
        self.rooms = start(&self.store, &self.signer, &self.remote, &self.clock);
    }

    /// Begins to run by itself: queues are worked off as on a real server.
    pub(crate) async fn come_alive(&mut self, rng: &Rng) {
        let started = async {
            exeunt_store::resume_purges(&self.store).await?;
            exeunt_room::clear_unfinished_joins(&self.store).await
        };
        started.await.expect("the store works");
        let clock = told(&self.clock);
        let life =
            Life::start(&self.store, self.remote.clone(), clock.clone(), rng, self.name.clone());
        let ids = rng.clone();
        let room_ids = RoomIds(Arc::new(move |server| {
            let id = format!("!{:016x}:{server}", ids.next());
            id.try_into().expect("a room id")
        }));
        let options = Options { room_ids, ..Options::default() };
        let (store, signer) = (self.store.clone(), self.signer.clone());
        self.rooms = Rooms::new(store, signer, self.remote.clone(), life.wake(), clock, options);
        life.run(&self.rooms);
        self.rooms.resume_jobs().await.expect("the store works");
        self.life = Some(life);
    }

    /// Stops in the midst of everything. What was not committed is gone.
    pub(crate) fn crash(&mut self, net: &Arc<Network>) {
        if let Some(life) = self.life.take() {
            life.stop();
        }
        net.crashed(&self.name);
        self.store = self.disk.crash().expect("the disk is readable");
        self.users = users(&self.store, &self.name, &self.clock);
        let (ours, crashes) = (self.name.clone(), net.crashes(&self.name));
        self.remote = Arc::new(SimRemote { ours, net: Arc::downgrade(net), crashes });
    }

    pub(crate) fn is_up(&self) -> bool {
        self.life.is_some()
    }

    pub(crate) fn alive(&self) -> Option<Alive> {
        self.life.as_ref().map(Life::alive)
    }

    /// A user id of this server.
    pub fn user(&self, localpart: &str) -> OwnedUserId {
        UserId::parse(format!("@{localpart}:{}", self.name)).expect("a user id")
    }

    /// Creates an account without a password.
    pub async fn register(&self, localpart: &str) -> OwnedUserId {
        let new = NewAccount { localpart: Some(localpart), ..NewAccount::default() };
        self.users.register(new).await.expect("the account is created")
    }

    /// A room of that version, with its creator joined.
    pub async fn room(&self, creator: &UserId, preset: Preset, version: &str) -> OwnedRoomId {
        self.room_with(creator, preset, version, Vec::new()).await
    }

    /// The same, with initial state: type and content, state key empty.
    pub async fn room_with(
        &self,
        creator: &UserId,
        preset: Preset,
        version: &str,
        state: Vec<(&str, Value)>,
    ) -> OwnedRoomId {
        let object = |value: Value| value.as_object().cloned().expect("an object");
        let state = state.into_iter().map(|(k, c)| (k.to_owned(), String::new(), object(c)));
        let room = NewRoom {
            initial_state: state.collect(),
            ..NewRoom::new(
                creator.to_owned(),
                RoomVersion::parse(version).expect("a version"),
                preset,
            )
        };
        self.rooms.create_room(room).await.expect("the room is created")
    }

    pub async fn invite(&self, by: &UserId, user: &UserId, room: &RoomId) -> Result<(), RoomError> {
        self.rooms.invite(by, user, room, Object::new()).await
    }

    pub async fn join(&self, user: &UserId, room: &RoomId, via: &Server) -> Result<(), RoomError> {
        self.rooms.join(user, room, std::slice::from_ref(&via.name), Object::new()).await
    }

    pub async fn leave(&self, user: &UserId, room: &RoomId) -> Result<(), RoomError> {
        self.rooms.leave(user, room, None).await
    }

    /// Sends a text message.
    pub async fn say(&self, user: &UserId, room: &RoomId, text: &str) -> OwnedEventId {
        let mut content = Object::new();
        content.insert("msgtype".into(), "m.text".into());
        content.insert("body".into(), text.into());
        let intent = Intent::message(user.to_owned(), "m.room.message", content);
        self.rooms.append(room, intent).await.expect("the message is sent")
    }

    /// Sets room state with an empty state key.
    pub async fn set(
        &self,
        user: &UserId,
        room: &RoomId,
        kind: &str,
        content: Value,
    ) -> OwnedEventId {
        let content = content.as_object().cloned().expect("an object");
        let intent = Intent::state(user.to_owned(), kind, "", content);
        self.rooms.append(room, intent).await.expect("the state is set")
    }

    /// What the room is to a user of ours.
    pub fn row(&self, user: &UserId, room: &RoomId) -> Option<MembershipRecord> {
        let key = (user.to_owned(), room.to_owned());
        self.store.reader().get::<tables::Memberships>(&key).expect("the store reads")
    }

    /// The membership of a user of ours, as they see it.
    pub fn membership(&self, user: &UserId, room: &RoomId) -> Option<String> {
        self.row(user, room).map(|row| row.membership)
    }

    /// How the user's last change in the room came, and what decided it, by the timeline.
    ///
    /// # Panics
    /// If no change of theirs is known.
    pub fn last_decision(&self, user: &UserId, room: &RoomId) -> (String, &'static str) {
        let (room_id, user_id) = (room.to_owned(), Some(user.to_owned()));
        let query = TimelineQuery { room_id, user_id, from: 0, limit: MAX_ROWS };
        let page = timeline(&self.store.reader(), &query).expect("the timeline reads");
        let last = page.rows.into_iter().last().expect("a change is known");
        (last.via, last.decided_by)
    }

    /// The membership of any user in the room's current state.
    pub fn in_state(&self, user: &UserId, room: &RoomId) -> Option<String> {
        self.graph(room, |graph| graph.membership(user).expect("the membership reads"))
    }

    /// Whether an invite of the user waits here.
    pub fn is_pending(&self, user: &UserId, room: &RoomId) -> bool {
        let key = (user.to_owned(), room.to_owned());
        self.store.reader().get::<tables::Pending>(&key).expect("the store reads").is_some()
    }

    /// Runs a function on the room's graph.
    ///
    /// # Panics
    /// If the room is not known here.
    pub fn graph<R>(&self, room: &RoomId, f: impl FnOnce(&Graph<'_>) -> R) -> R {
        let reader = self.store.reader();
        let graph = Graph::of(&reader, room).expect("the room is known");
        f(&graph)
    }

    /// A stored event.
    pub fn event(&self, id: &OwnedEventId) -> Option<Known> {
        load_event(&self.store.reader(), id).expect("the event reads")
    }

    /// The shown events of the room, in order.
    pub fn timeline(&self, room: &RoomId) -> Vec<OwnedEventId> {
        let reader = self.store.reader();
        let rows = reader.scan::<tables::Timeline>(room.to_owned()).collect();
        rows.expect("the timeline reads").into_iter().map(|(_, id)| id).collect()
    }

    /// Bodies of the messages that are shown, in order.
    pub fn messages(&self, room: &RoomId) -> Vec<String> {
        let events = self.timeline(room).into_iter().filter_map(|id| self.event(&id));
        let body = |event: Known| event.pdu.content_str("body").map(str::to_owned);
        events.filter_map(body).collect()
    }

    /// The room's current state: keys and event ids.
    pub fn state(&self, room: &RoomId) -> Vec<(String, String, OwnedEventId)> {
        self.graph(room, |graph| {
            let state = graph.state_ids(graph.room.state).expect("the state reads");
            state.into_iter().map(|(key, id)| (key.kind, key.key, id)).collect()
        })
    }

    /// Purposes of the signatures made on an event.
    pub fn signed_as(&self, event: &Pdu) -> Vec<String> {
        let rows = self.store.reader().scan::<tables::SigningJournal>(()).collect();
        let rows = rows.expect("the journal reads").into_iter();
        rows.filter(|(_, r)| r.event_id == event.event_id()).map(|(_, r)| r.purpose).collect()
    }

    /// Ids of the events that wait for a server.
    pub fn outbox(&self, destination: &Server) -> Vec<OwnedEventId> {
        let rows = self.store.reader().scan::<tables::Outbox>(destination.name.clone()).collect();
        let rows = rows.expect("the outbox reads").into_iter();
        rows.filter_map(|(_, item)| match item {
            OutboxItem::Pdu(id) => Some(id),
            OutboxItem::Edu(_) => None,
        })
        .collect()
    }

    /// Loses what waits for a server.
    pub async fn forget_outbox(&self, destination: &Server) {
        let rows = self.store.reader().scan::<tables::Outbox>(destination.name.clone()).keys();
        let mut batch = Batch::default();
        for key in rows.expect("the outbox reads") {
            batch.delete::<tables::Outbox>(&key);
        }
        self.store.commit(batch).await.expect("the store writes");
    }

    /// Sends what waits, a transaction for each server. Whether anything was taken.
    pub(crate) async fn deliver_outbox(&self, net: &Network) -> bool {
        let rows = self.store.reader().scan::<tables::Outbox>(()).collect();
        let mut waiting: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((server, position), item) in rows.expect("the outbox reads") {
            waiting.entry(server).or_default().push((position, item));
        }
        let mut moved = false;
        for (server, mut items) in waiting {
            items.truncate(MAX_PDUS);
            let (mut pdus, mut edus) = (Vec::new(), Vec::new());
            for (_, item) in &items {
                match item {
                    OutboxItem::Pdu(id) => {
                        let known = self.event(id).expect("an event of the outbox");
                        pdus.push(exeunt_core::wire::federation(&known.pdu));
                    }
                    OutboxItem::Edu(edu) => edus.push(Value::Object(edu.clone())),
                }
            }
            let body = json!({ "origin": self.name, "pdus": pdus, "edus": edus });
            let sent = self.remote.send_transaction(&server, &net.next_transaction(), body).await;
            if sent.is_ok() {
                let mut batch = Batch::default();
                for (position, _) in items {
                    batch.delete::<tables::Outbox>(&(server.clone(), position));
                }
                self.store.commit(batch).await.expect("the store writes");
                moved = true;
            }
        }
        moved
    }

    /// Tries every departure once. Whether one ended.
    pub(crate) async fn deliver_departures(&self) -> bool {
        let keys = self.store.reader().scan::<tables::Departures>(()).keys();
        let mut moved = false;
        for (user, room) in keys.expect("the departures read") {
            let outcome = self.rooms.attempt_departure(&user, &room).await;
            let outcome = outcome.expect("the store works");
            moved |= outcome != exeunt_room::leave::DepartureOutcome::Retry;
        }
        moved
    }
}

fn start(store: &Store, signer: &Arc<Signer>, remote: &Arc<SimRemote>, clock: &SimClock) -> Rooms {
    let (wake, options) = (Arc::new(NoWake), Options::default());
    Rooms::new(store.clone(), signer.clone(), remote.clone(), wake, told(clock), options)
}

fn users(store: &Store, name: &OwnedServerName, clock: &SimClock) -> Users {
    Users::new(store.clone(), name.clone(), told(clock), ring::rand::SystemRandom::new())
}

fn told(clock: &SimClock) -> Clock {
    let clock = clock.clone();
    Arc::new(move || clock.now())
}

/// Status and errcode that another server would see.
pub fn status(error: RoomError) -> (u16, String) {
    let error = exeunt_fed_api::matrix_error(error);
    (error.status, error.errcode)
}

/// Status and errcode of a refusal.
pub fn refusal(error: &RemoteError) -> Option<(u16, &str)> {
    match error {
        RemoteError::Refused { status, errcode, .. } => Some((*status, errcode)),
        _ => None,
    }
}
