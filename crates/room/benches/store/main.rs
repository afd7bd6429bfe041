//! A large room on RocksDB, through the write path: what an event costs in bytes, CPU and time, and
//! what a fork costs to resolve.
//!
//! `EXEUNT_BENCH_EVENTS` says how many events follow the joins (20,000): half of them sent here, one
//! synced commit each, half received in transactions of 50. `EXEUNT_BENCH_MEMBERS` says how many
//! members there are (10,000), all but one on another server.
//!
//! With the argument `attack`: what an attack on one room costs those who talk in another.

mod attack;
mod peer;

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use exeunt_core::{Pdu, RoomVersion};
use exeunt_room::{
    Clock, Intent, NewRoom, NoWake, Options, Preset, Remote, Rooms, graph::Graph,
    inbound::Transaction,
};
use exeunt_store::{Store, tables};
use peer::Peer;
use ruma::{OwnedRoomId, OwnedUserId, ServerName, UserId};
use serde_json::{Value, json};

const START: u64 = 1_700_000_000_000;
/// Events in a transaction.
const TRANSACTION: usize = 50;
/// Of so many events one is state.
const STATE_SHARE: usize = 20;
const CONFLICTED: usize = 10;
const RUNS: usize = 21;
/// Clock ticks of `/proc/self/stat`.
const TICK: Duration = Duration::from_millis(10);

fn main() {
    if std::env::args().any(|argument| argument == "attack") {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let threads = threads.worker_threads(attack::THREADS).enable_all().build();
        return threads.expect("threads").block_on(attack::run());
    }
    let thread = tokio::runtime::Builder::new_current_thread().enable_all().build();
    thread.expect("a runtime").block_on(large_room());
}

/// A size that the environment may set.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |n| n.parse().expect("a number"))
}

async fn large_room() {
    let events = number("EXEUNT_BENCH_EVENTS", 20_000);
    let members = number("EXEUNT_BENCH_MEMBERS", 10_000);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut bench = Bench::new(dir.path(), members).await;
    println!("{:<40} {:>8} {:>11} {:>11}", "", "events", "CPU/event", "wall/event");
    bench.receive_joins().await;
    bench.receive_messages(events / 2).await;
    bench.send(events - events / 2).await;
    bench.print_sizes(dir.path());
    bench.fork().await;
}

struct Bench {
    rooms: Rooms,
    store: Store,
    room: OwnedRoomId,
    creator: OwnedUserId,
    members: usize,
    peer: Peer,
    transactions: u64,
}

impl Bench {
    async fn new(dir: &Path, members: usize) -> Self {
        let time = Arc::new(AtomicU64::new(START));
        let clock: Clock = Arc::new(move || time.fetch_add(1, Ordering::SeqCst));
        let there = peer::signer(peer::NAME);
        let (rooms, store) = server(dir, Arc::new(peer::Keys(there.clone())), clock);
        let creator = creator();
        let room = public_room(&rooms).await;
        let peer = Peer::new(&store.reader(), &room, there, START);
        Self { rooms, store, room, creator, members, peer, transactions: 0 }
    }

    async fn receive_joins(&mut self) {
        let joins = (1..self.members).map(|number| self.peer.join(number)).collect();
        self.receive("joins received, 50 at a time", joins).await;
    }

    async fn receive_messages(&mut self, count: usize) {
        let mut events = Vec::new();
        for index in 0..count {
            let number = 1 + index % (self.members - 1);
            events.push(match index % STATE_SHARE {
                0 => self.peer.rename(number, &format!("Renamed {index}")),
                _ => self.peer.say(number, &text(index)),
            });
        }
        self.receive("received, 50 at a time", events).await;
    }

    async fn receive(&mut self, what: &str, events: Vec<Pdu>) {
        let count = events.len();
        let meter = Meter::start();
        self.take(&events).await;
        meter.print(what, count);
        let shown = self
            .store
            .reader()
            .contains::<tables::Events>(&events.last().expect("some events").event_id().to_owned());
        assert!(shown.expect("the store reads"));
    }

    async fn take(&mut self, events: &[Pdu]) {
        let origin = ServerName::parse(peer::NAME).expect("a server name");
        for events in events.chunks(TRANSACTION) {
            self.transactions += 1;
            let pdus = events.iter().map(|event| Value::Object(event.object().clone())).collect();
            let transaction = Transaction { pdus, edus: Vec::new() };
            let id = self.transactions.to_string();
            let answer = self.rooms.receive_transaction(&origin, &id, transaction).await;
            let answer = answer.expect("the transaction is taken");
            assert!(answer.values().all(|one| one.get("error").is_none()), "{answer:?}");
            assert_eq!(answer.len(), events.len());
            self.rooms.inbound_idle().await;
        }
    }

    async fn send(&mut self, count: usize) {
        let meter = Meter::start();
        for index in 0..count {
            let content = |value: Value| value.as_object().cloned().expect("an object");
            let sender = self.creator.clone();
            let intent = match index % STATE_SHARE {
                0 => {
                    let topic = content(json!({ "topic": text(index) }));
                    Intent::state(sender, "m.room.topic", "", topic)
                }
                _ => message(sender, index),
            };
            self.rooms.append(&self.room, intent).await.expect("the event is sent");
        }
        meter.print("sent here, one at a time", count);
    }

    fn print_sizes(&self, dir: &Path) {
        let reader = self.store.reader();
        let events = reader.scan::<tables::Events>(()).keys().expect("the events read").len();
        let nodes = reader.scan::<tables::StateNodes>(()).keys().expect("the nodes read").len();
        let json: usize = reader
            .scan::<tables::Events>(())
            .iter()
            .map(|row| row.expect("the events read").1.json.get().len())
            .sum();
        drop(reader);
        self.store.compact().expect("the store compacts");
        let bytes = tables_bytes(dir);
        println!(
            "{events} events, {nodes} state nodes, {:.1} MB in tables after compaction: {} bytes an \
             event, whose JSON has {}",
            bytes as f64 / 1e6,
            bytes / events as u64,
            json / events,
        );
    }

    /// Both sides change the names of the same members.
    async fn fork(&mut self) {
        self.peer.follow(&self.store.reader());
        let mut roots = Vec::new();
        for side in ["this", "that"] {
            let mut peer = self.peer.clone();
            let spread = self.members / CONFLICTED;
            let renamed = (0..CONFLICTED).map(|n| peer.rename(1 + n * spread, side));
            let events: Vec<_> = renamed.collect();
            self.take(&events).await;
            let last = events.last().expect("some events").event_id().to_owned();
            roots.push(peer::state_after(&self.store.reader(), &self.room, &last));
        }
        let reader = self.store.reader();
        let graph = Graph::of(&reader, &self.room).expect("the room is known");
        let differ = graph.diff(roots[0], roots[1]).expect("the states read").len();
        assert_eq!(differ, CONFLICTED);
        let mut times: Vec<Duration> = (0..RUNS)
            .map(|_| {
                let graph = Graph::of(&reader, &self.room).expect("the room is known");
                let start = Instant::now();
                black_box(graph.resolve(roots.clone()).expect("the states resolve"));
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!(
            "a fork of {CONFLICTED} keys: resolved in {:.2?} (median of {RUNS}; {:.2?} the first time)",
            times[RUNS / 2],
            times[RUNS - 1],
        );
    }
}

/// This server, on RocksDB.
fn server(dir: &Path, remote: Arc<dyn Remote>, clock: Clock) -> (Rooms, Store) {
    let store = Store::open(dir).expect("the store opens");
    let (signer, wake) = (peer::signer("here.example"), Arc::new(NoWake));
    let rooms = Rooms::new(store.clone(), signer, remote, wake, clock, Options::default());
    (rooms, store)
}

fn creator() -> OwnedUserId {
    UserId::parse("@creator:here.example").expect("a user id")
}

async fn public_room(rooms: &Rooms) -> OwnedRoomId {
    let room = NewRoom::new(creator(), RoomVersion::latest(), Preset::Public);
    rooms.create_room(room).await.expect("the room is made")
}

fn message(sender: OwnedUserId, index: usize) -> Intent {
    let content = json!({ "msgtype": "m.text", "body": text(index) });
    let content = content.as_object().cloned().expect("an object");
    Intent::message(sender, "m.room.message", content)
}

fn text(index: usize) -> String {
    format!("Message {index}: as long as most of those that people write to each other.")
}

/// Bytes of the sorted tables: without the log, which is as long as it is told to be.
fn tables_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("the folder reads");
    let entries = entries.map(|entry| entry.expect("the folder reads"));
    let tables = entries.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "sst"));
    tables.map(|entry| entry.metadata().expect("the file is there").len()).sum()
}

struct Meter {
    wall: Instant,
    cpu: Duration,
}

impl Meter {
    fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu() }
    }

    fn print(self, what: &str, count: usize) {
        let per_event = |time: Duration| time.as_micros() / count as u128;
        let (cpu, wall) = (per_event(cpu() - self.cpu), per_event(self.wall.elapsed()));
        println!("{what:<40} {count:>8} {cpu:>8} µs {wall:>8} µs");
    }
}

/// User and system time of this process so far.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    // Fields 14 and 15; the second one, the name, is in parentheses.
    let fields = stat.rsplit(')').next().expect("a line").split_whitespace().skip(11).take(2);
    let ticks: u32 = fields.map(|field| field.parse::<u32>().expect("a number")).sum();
    TICK * ticks
}
