//! One server with a calm room in which people talk, half of them here, and for each attack a room
//! that is attacked by the only other server in it. Latencies of the calm one, in quiet and under
//! attack, in turn, and by how much the process's memory grew under it. Further arguments name the
//! attacks that are wanted; `EXEUNT_BENCH_HEADS` says how many extremities are sent (10,000).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use exeunt_core::{Pdu, Reference};
use exeunt_room::{Call, Clock, Remote, RemoteError, Rooms, ServerKeys, inbound::Transaction};
use exeunt_store::Store;
use ruma::{OwnedEventId, OwnedRoomId, ServerName};
use serde_json::{Value, json};
use tokio::time::sleep_until;

use super::{
    START, TRANSACTION, cpu, creator, message,
    peer::{self, Keys, Peer, signer},
    public_room, server,
};

/// Threads of the server's runtime.
pub const THREADS: usize = 2;
const FRIEND: &str = "friend.example";
/// Users of the attacker.
const USERS: usize = 200;
/// Messages of the calm room that are measured in quiet, and at least under attack.
const MESSAGES: usize = 600;
/// From one message to the next.
const PACE: Duration = Duration::from_millis(5);
/// Events of the attacks that consist of many.
const MANY: usize = 10_000;
/// Auth graphs, and events of each.
const GRAPHS: usize = 20;
const GRAPH: usize = 1_000;
/// Most auth events of an event.
const WIDTH: usize = 10;

pub async fn run() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let start = Instant::now();
    let clock: Clock = Arc::new(move || START + start.elapsed().as_millis() as u64);
    let hostile = Arc::new(Hostile { keys: Keys(signer(peer::NAME)), chains: Mutex::default() });
    let (rooms, store) = server(dir.path(), hostile.clone(), clock);
    let calm = public_room(&rooms).await;
    let mut friend = peer_of(&rooms, &store, &calm, FRIEND, 1).await;
    println!(
        "{:<34} {:>8} {:>7} {:>5} {:>8} {:>17} {:>17} {:>17} {:>17}",
        "",
        "events",
        "time",
        "CPU",
        "memory",
        "sent p50",
        "sent p99",
        "received p50",
        "received p99"
    );
    let named = std::env::args().skip_while(|a| a != "attack").skip(1);
    // Cargo adds `--bench`.
    let wanted: Vec<String> = named.filter(|a| !a.starts_with("--")).collect();
    let is_wanted = |what: &str| wanted.is_empty() || wanted.iter().any(|w| what.contains(&**w));
    for (what, attack) in ATTACKS.into_iter().filter(|(what, _)| is_wanted(what)) {
        let attacked = public_room(&rooms).await;
        let mut mallory = peer_of(&rooms, &store, &attacked, peer::NAME, USERS).await;
        friend.follow(&store.reader());
        let events = attack(&mut mallory, &hostile);
        let quiet = talk(&rooms, &calm, &mut friend, || false).await;
        let memory = Memory::now();
        let (count, started, used) = (events.len(), Instant::now(), cpu());
        let attacker = rooms.clone();
        let under_way = tokio::spawn(async move { assail(&attacker, events).await });
        let busy = talk(&rooms, &calm, &mut friend, || !under_way.is_finished()).await;
        let took = under_way.await.expect("the attack ends").saturating_duration_since(started);
        let load = (cpu() - used).as_secs_f64() / started.elapsed().as_secs_f64();
        let took = took.as_secs_f64();
        let grown = memory.grown();
        print!("{what:<34} {count:>8} {took:>6.1}s {load:>5.2} {grown:>5.1} MB");
        for (quiet, busy) in quiet.percentiles().into_iter().zip(busy.percentiles()) {
            print!(" {quiet:>6.2} {busy:>6.2} ms");
        }
        println!();
    }
}

type Attack = fn(&mut Peer, &Hostile) -> Vec<Pdu>;

const ATTACKS: [(&str, Attack); 7] = [
    ("nothing", |_, _| Vec::new()),
    // No attack: what a room that is merely busy does to another, to compare with.
    ("messages", |peer, _| (0..MANY).map(|n| peer.say(1 + n % USERS, "hello")).collect()),
    ("rejected events", |peer, _| (0..MANY).map(|n| peer.seize(1 + n % USERS)).collect()),
    ("missing events", |peer, _| {
        let lost_and_sent =
            (0..MANY / 5).map(|n| (peer.say(1 + n % USERS, "lost"), peer.say(1, "sent")));
        lost_and_sent.map(|(_, sent)| sent).collect()
    }),
    ("deep auth graphs of 1,000 events", deep),
    ("wide auth graphs of 1,000 events", wide),
    ("extremities", |peer, _| {
        let place = peer.place();
        let fork = |n: usize| {
            peer.go_to(&place);
            peer.rename(1 + n % USERS, &n.to_string())
        };
        (0..super::number("EXEUNT_BENCH_HEADS", MANY)).map(fork).collect()
    }),
];

/// Messages that rest on a name changed a thousand times.
fn deep(peer: &mut Peer, hostile: &Hostile) -> Vec<Pdu> {
    let mut events = Vec::new();
    for number in 1..=GRAPHS {
        let place = peer.place();
        let chain = (0..GRAPH).map(|n| peer.rename(number, &n.to_string())).collect();
        peer.go_to(&place);
        events.push(hostile.hide(chain, peer.say(number, "deep")));
    }
    events
}

/// Events that each rest on ten, which rest on ten.
fn wide(peer: &mut Peer, hostile: &Hostile) -> Vec<Pdu> {
    let mut events = Vec::new();
    for number in 1..=GRAPHS {
        let place = peer.place();
        let (mut layer, mut chain): (Vec<Reference>, Vec<_>) = Default::default();
        while chain.len() < GRAPH {
            let next: Vec<_> = (1..=WIDTH).map(|n| peer.cite(n, layer.clone())).collect();
            layer = next.iter().map(Reference::from).collect();
            chain.extend(next);
        }
        peer.go_to(&place);
        events.push(hostile.hide(chain, peer.cite(number, layer)));
    }
    events
}

/// Sends all of it as fast as it is taken, and waits until nobody works on it any more.
async fn assail(rooms: &Rooms, events: Vec<Pdu>) -> Instant {
    let first = events.first().map(|event| event.event_id().to_string()).unwrap_or_default();
    for (number, events) in events.chunks(TRANSACTION).enumerate() {
        push(rooms, peer::NAME, &format!("{first}{number}"), events).await;
    }
    rooms.inbound_idle().await;
    Instant::now()
}

/// People talk, one after the other, here and there, for so many messages and as long as `more`.
async fn talk(
    rooms: &Rooms,
    room: &OwnedRoomId,
    friend: &mut Peer,
    more: impl Fn() -> bool,
) -> Latencies {
    let mut latencies = Latencies::default();
    let mut next = tokio::time::Instant::now();
    for index in 0.. {
        if index >= MESSAGES && !more() {
            break;
        }
        sleep_until(next).await;
        next = tokio::time::Instant::now() + PACE;
        let start = Instant::now();
        let sent = rooms.append(room, message(creator(), index)).await;
        sent.expect("the message is sent");
        latencies.sent.push(start.elapsed());
        let event = friend.say(1, "hello");
        let start = Instant::now();
        push(rooms, FRIEND, event.event_id().as_str(), std::slice::from_ref(&event)).await;
        latencies.received.push(start.elapsed());
    }
    latencies
}

async fn push(rooms: &Rooms, from: &str, id: &str, events: &[Pdu]) {
    let pdus = events.iter().map(|event| Value::Object(event.object().clone())).collect();
    let transaction = Transaction { pdus, edus: Vec::new() };
    let origin = ServerName::parse(from).expect("a server name");
    rooms.receive_transaction(&origin, id, transaction).await.expect("the transaction is taken");
}

/// A server whose users have joined a room.
async fn peer_of(
    rooms: &Rooms,
    store: &Store,
    room: &OwnedRoomId,
    name: &str,
    users: usize,
) -> Peer {
    let mut peer = Peer::new(&store.reader(), room, signer(name), START);
    let joins: Vec<_> = (1..=users).map(|number| peer.join(number)).collect();
    for joins in joins.chunks(TRANSACTION) {
        push(rooms, name, joins[0].event_id().as_str(), joins).await;
    }
    peer
}

/// Resident memory of the process, in MB; its highest is counted anew from here on.
struct Memory(f64);

impl Memory {
    fn now() -> Self {
        std::fs::write("/proc/self/clear_refs", "5").expect("the kernel counts anew");
        Self(Self::read("VmRSS:"))
    }

    /// By how much the highest since then is above what it was.
    fn grown(&self) -> f64 {
        Self::read("VmHWM:") - self.0
    }

    fn read(name: &str) -> f64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("the kernel counts");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kilobytes.expect("a figure in kB") / 1e3
    }
}

#[derive(Default)]
struct Latencies {
    sent: Vec<Duration>,
    received: Vec<Duration>,
}

impl Latencies {
    /// Median and 99th percentile of what was sent and of what was received, in milliseconds.
    fn percentiles(mut self) -> [f64; 4] {
        let of = |times: &mut Vec<Duration>, percent: usize| {
            times.sort_unstable();
            times[times.len() * percent / 100].as_secs_f64() * 1e3
        };
        let Self { sent, received } = &mut self;
        [of(sent, 50), of(sent, 99), of(received, 50), of(received, 99)]
    }
}

/// The attacker, when it is asked: it has the auth chains of its events, and nothing else.
struct Hostile {
    keys: Keys,
    chains: Mutex<BTreeMap<OwnedEventId, Value>>,
}

impl Hostile {
    /// Keeps what an event rests on until it is asked for.
    fn hide(&self, chain: Vec<Pdu>, event: Pdu) -> Pdu {
        let chain: Vec<_> = chain.iter().map(|pdu| Value::Object(pdu.object().clone())).collect();
        let mut chains = self.chains.lock().unwrap_or_else(|e| e.into_inner());
        chains.insert(event.event_id().to_owned(), json!({ "auth_chain": chain }));
        event
    }
}

#[async_trait]
impl Remote for Hostile {
    async fn call(&self, server: &ServerName, call: Call<'_>) -> Result<Value, RemoteError> {
        match call {
            Call::EventAuth { event, .. } => {
                let chains = self.chains.lock().unwrap_or_else(|e| e.into_inner());
                let unknown = || RemoteError::Misbehaved("no such event".into());
                chains.get(event).cloned().ok_or_else(unknown)
            }
            Call::MissingEvents { .. } => Ok(json!({ "events": [] })),
            other => self.keys.call(server, other).await,
        }
    }

    async fn server_keys(&self, server: &ServerName) -> Result<ServerKeys, RemoteError> {
        self.keys.server_keys(server).await
    }
}
