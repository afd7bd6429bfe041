//! A clock that follows tokio's, a transport that does as the test says, rows to send.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use exeunt_core::ruma::{
    EventId, OwnedEventId, OwnedServerName, RoomId, ServerName, room_id, server_name,
};
use exeunt_sender::{
    Backoff, Clock, Jitter, Options, SendError, Sender, TransactionAnswer, Transport,
};
use exeunt_store::records::{DestinationRecord, EventRecord, OutboxItem, SetAsideRecord, Verdict};
use exeunt_store::tables::{Destinations, Events, Outbox, SetAside};
use exeunt_store::{Batch, Store};
use serde_json::{Value, json, value::RawValue};
use tokio::sync::watch;
use tokio::time::Instant;

pub fn peer() -> OwnedServerName {
    server_name!("peer.org").to_owned()
}

pub fn origin() -> OwnedServerName {
    server_name!("example.org").to_owned()
}

/// Wall time that passes as tokio's time does.
pub fn clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || 1_000_000 + u64::try_from(start.elapsed().as_millis()).unwrap())
}

/// No jitter: every back-off is its full length.
pub fn jitter() -> Jitter {
    Arc::new(|| 1.0)
}

pub fn options() -> Options {
    Options {
        backoff: Backoff { first: Duration::from_secs(1), last: Duration::from_secs(60) },
        start_spread: Duration::ZERO,
        send_timeout: Duration::from_secs(30),
    }
}

/// What the peer does with a transaction.
pub enum Reply {
    Take,
    Answer(TransactionAnswer),
    Fail(SendError),
    /// Never answers.
    Hang,
}

/// A transaction as the peer saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    pub at: Duration,
    pub server: OwnedServerName,
    pub txn_id: String,
    pub pdus: Vec<OwnedEventId>,
    pub edus: Vec<u64>,
    pub body: Value,
    pub taken: bool,
}

type Script = Box<dyn FnMut(&Sent) -> Reply + Send>;

pub struct Fake {
    start: Instant,
    script: Mutex<Script>,
    sent: watch::Sender<Vec<Sent>>,
}

impl Fake {
    pub fn new(script: impl FnMut(&Sent) -> Reply + Send + 'static) -> Arc<Self> {
        let (sent, _) = watch::channel(Vec::new());
        Arc::new(Self { start: Instant::now(), script: Mutex::new(Box::new(script)), sent })
    }

    pub fn sent(&self) -> Vec<Sent> {
        self.sent.borrow().clone()
    }

    /// What was taken, in order.
    pub fn pdus_taken(&self) -> Vec<OwnedEventId> {
        let taken = self.sent().into_iter().filter(|sent| sent.taken);
        taken.flat_map(|sent| sent.pdus).collect()
    }

    pub async fn until(&self, condition: impl FnMut(&Vec<Sent>) -> bool) -> Vec<Sent> {
        self.sent.subscribe().wait_for(condition).await.unwrap().clone()
    }

    pub fn refused() -> SendError {
        SendError::Refused { status: 400, message: "M_BAD_JSON".to_owned() }
    }

    pub fn unreachable() -> SendError {
        SendError::Unreachable("no route".to_owned())
    }
}

#[async_trait]
impl Transport for Fake {
    async fn send_transaction(
        &self,
        destination: &ServerName,
        txn_id: &str,
        body: Value,
    ) -> Result<TransactionAnswer, SendError> {
        let list = |key: &str| body[key].as_array().unwrap().clone();
        let pdus = list("pdus").iter().map(|p| event_id(p["n"].as_u64().unwrap())).collect();
        let edus = list("edus").iter().map(|e| e["content"]["n"].as_u64().unwrap()).collect();
        let mut sent = Sent {
            at: self.start.elapsed(),
            server: destination.to_owned(),
            txn_id: txn_id.to_owned(),
            pdus,
            edus,
            body,
            taken: false,
        };
        let reply = (self.script.lock().unwrap())(&sent);
        sent.taken = matches!(reply, Reply::Take | Reply::Answer(_));
        self.sent.send_modify(|all| all.push(sent));
        match reply {
            Reply::Take => Ok(TransactionAnswer::default()),
            Reply::Answer(answer) => Ok(answer),
            Reply::Fail(error) => Err(error),
            Reply::Hang => std::future::pending().await,
        }
    }
}

pub fn event_id(n: u64) -> OwnedEventId {
    EventId::parse(format!("$event{n}")).unwrap()
}

pub fn event_ids(range: impl IntoIterator<Item = u64>) -> Vec<OwnedEventId> {
    range.into_iter().map(event_id).collect()
}

/// Queues event `n` for a server, as a room does: in the batch of the event.
pub async fn queue_pdu(store: &Store, server: &ServerName, n: u64) {
    queue_judged(store, server, n, Verdict::Accepted).await;
}

/// The row of an event with this JSON.
pub fn event_record(room: &RoomId, json: &Value) -> EventRecord {
    EventRecord {
        json: RawValue::from_string(json.to_string()).unwrap().into(),
        room_id: room.to_owned(),
        room_version: "12".to_owned(),
        verdict: Verdict::Accepted,
        generation: 0,
        states: None,
        replaces: Default::default(),
        order: None,
        redacted_because: None,
        received_from: None,
    }
}

pub async fn queue_judged(store: &Store, server: &ServerName, n: u64, verdict: Verdict) {
    let record =
        EventRecord { verdict, ..event_record(room_id!("!r:example.org"), &json!({ "n": n })) };
    let mut batch = Batch::default();
    batch.put::<Events>(&event_id(n), &record);
    queue_item(store, server, OutboxItem::Pdu(event_id(n)), batch).await;
}

pub async fn queue_edu(store: &Store, server: &ServerName, n: u64) {
    let edu = json!({ "edu_type": "m.typing", "content": { "n": n } });
    let edu = edu.as_object().unwrap().clone();
    queue_item(store, server, OutboxItem::Edu(edu), Batch::default()).await;
}

pub async fn queue_item(store: &Store, server: &ServerName, item: OutboxItem, mut batch: Batch) {
    let server = server.to_owned();
    batch.at_position(move |position, batch| batch.put::<Outbox>(&(server, position), &item));
    store.commit(batch).await.unwrap();
}

pub fn queued(store: &Store) -> usize {
    store.reader().scan::<Outbox>(()).keys().unwrap().len()
}

pub fn destination(store: &Store, server: &OwnedServerName) -> DestinationRecord {
    store.reader().get::<Destinations>(server).unwrap().unwrap_or_default()
}

/// What was set aside, of all servers.
pub fn set_aside(store: &Store) -> Vec<((OwnedServerName, u64), SetAsideRecord)> {
    store.reader().scan::<SetAside>(()).collect().unwrap()
}

/// A sender that can be killed.
pub struct Running {
    pub sender: Sender,
    stop: watch::Sender<bool>,
}

impl Running {
    pub fn start(store: &Store, fake: &Arc<Fake>) -> Self {
        Self::start_with(store, fake, clock())
    }

    pub fn start_with(store: &Store, fake: &Arc<Fake>, clock: Clock) -> Self {
        let (stop, shutdown) = watch::channel(false);
        let transport: Arc<dyn Transport> = fake.clone();
        let sender =
            Sender::start(store.clone(), transport, clock, jitter(), origin(), options(), shutdown);
        Self { sender, stop }
    }

    /// Drops every task where it stands.
    pub async fn kill(self) {
        self.stop.send_replace(true);
        while !self.sender.busy().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until nothing is left to send.
    pub async fn idle(&self, store: &Store) {
        while queued(store) > 0 || !self.sender.busy().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub fn answer(outcomes: &[(u64, Result<(), &str>)]) -> TransactionAnswer {
    let outcomes = outcomes.iter().map(|(n, o)| (event_id(*n), o.map_err(str::to_owned)));
    TransactionAnswer { pdus: outcomes.collect::<BTreeMap<_, _>>() }
}
