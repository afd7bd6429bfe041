//! Whole servers that run by themselves, in the runtime's (paused) time, at the mercy of a seed.
//!
//! Everything that happens follows from the seed: one thread, stores in memory, time and chance
//! passed in. docs/simulation.md says how to run it.

mod acl;
mod choose;
mod end;
mod forgotten;
mod properties;
mod step;
mod third_party;
mod trace;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId};
use exeunt_room::{
    graph::is_joined,
    reports::{self, Invite},
};
use exeunt_store::{Fault as DiskFault, tables};
use tokio::{sync::mpsc, task::LocalSet, time::Instant};

use crate::{Mesh, Network, Rng, Server, SimClock, Weather};
use forgotten::Forgotten;
use step::{Ask, Done, Outcome, Step};
use trace::Trace;

/// Steps of a run, before all is healed.
pub const STEPS: usize = 60;
/// Users on each server.
const USERS: usize = 2;
/// Most that a server's clock is ahead.
const MAX_SKEW_MS: u64 = 3_000;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// In which a leave has its answer, whatever others do: the deadline, and a wait for the room.
const LEAVE_WITHIN: Duration = Duration::from_millis(2_100);

/// How a run went.
#[derive(Debug)]
pub struct Run {
    pub seed: u64,
    /// What was done and what came of it, in order, with the time.
    pub steps: Vec<String>,
    /// Of the steps and of every request.
    pub hash: u64,
    /// What does not hold that must hold.
    pub failures: Vec<String>,
}

impl Run {
    /// What one has to know of a run that failed.
    pub fn report(&self) -> String {
        format!(
            "seed {} fails:\n  {}\nafter:\n  {}\nreplay: EXEUNT_SIM_SEED={} cargo test --workspace --test seeds",
            self.seed,
            self.failures.join("\n  "),
            self.steps.join("\n  "),
            self.seed
        )
    }
}

/// Runs a seed: random steps, then everything is healed, and what must hold is checked. Needs a
/// runtime with one thread, whose time is paused.
pub async fn simulate(seed: u64) -> Run {
    let run = async {
        let mut world = World::new(seed).await;
        for _ in 0..STEPS {
            world.step().await;
        }
        world.end().await;
        world
    };
    let world = LocalSet::new().run_until(run).await;
    let Trace { lines, hash } = world.trace;
    Run { seed, steps: lines, hash, failures: world.failures }
}

/// Servers that run by themselves.
pub struct World {
    mesh: Mesh,
    rng: Rng,
    /// For what the servers do by chance.
    fate: Rng,
    trace: Trace,
    rooms: Vec<OwnedRoomId>,
    users: Vec<OwnedUserId>,
    done: (mpsc::UnboundedSender<Done>, mpsc::UnboundedReceiver<Done>),
    underway: BTreeMap<u64, Underway>,
    next: u64,
    /// Servers whose disk fails: they will crash.
    doomed: Vec<OwnedServerName>,
    residence: BTreeMap<(OwnedServerName, OwnedRoomId), Residence>,
    acknowledged: Vec<Acknowledged>,
    /// Who asked when to forget which room.
    forgotten: Vec<Forgotten>,
    /// Whose invites to which rooms were answered with success, and have not been left since.
    invites: BTreeSet<(OwnedUserId, OwnedRoomId)>,
    failures: Vec<String>,
}

struct Underway {
    step: Step,
    server: OwnedServerName,
    /// How often the server had crashed: what a crashed server did never ends.
    crashes: u64,
    began: Instant,
    /// Who the witnesses in each room were.
    witnesses: BTreeMap<OwnedRoomId, Vec<Witness>>,
}

/// Whether a server is in a room, and how often that has changed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Residence {
    joined: bool,
    changes: u64,
}

type Witness = (OwnedServerName, Residence);

/// An event that a client was told of.
struct Acknowledged {
    event: OwnedEventId,
    room: OwnedRoomId,
    by: OwnedServerName,
    /// When the client asked for it.
    asked: Instant,
    /// Servers in the room at the time, as they and the sending server had it.
    witnesses: Vec<Witness>,
}

impl World {
    pub async fn new(seed: u64) -> Self {
        let rng = Rng::new(seed);
        let (fate, weather) = (rng.fork(), rng.fork());
        let clock = SimClock::of_runtime();
        let net = Arc::new(Network::default());
        net.set_weather(Weather::of(&rng), &weather);
        let names = ["a.example", "b.example", "c.example", "d.example", "e.example"];
        let mut servers = Vec::new();
        for (index, name) in names.iter().take(3 + rng.below(3) as usize).enumerate() {
            let clock = clock.ahead_by(rng.below(MAX_SKEW_MS));
            let mut server = Server::new(name, index as u8 + 1, &net, &clock);
            server.come_alive(&fate.fork()).await;
            net.attach(&server);
            servers.push(server);
        }
        let users = servers.iter().flat_map(|s| (0..USERS).map(|n| s.user(&format!("u{n}"))));
        Self {
            users: users.collect(),
            mesh: Mesh { net, clock, servers },
            rng,
            fate,
            trace: Trace::default(),
            rooms: Vec::new(),
            done: mpsc::unbounded_channel(),
            underway: BTreeMap::new(),
            next: 0,
            doomed: Vec::new(),
            residence: BTreeMap::new(),
            acknowledged: Vec::new(),
            forgotten: Vec::new(),
            invites: BTreeSet::new(),
            failures: Vec::new(),
        }
    }

    /// One thing, and some time.
    async fn step(&mut self) {
        if !self.doomed.is_empty() && self.rng.percent(50) {
            let server = self.doomed.remove(0);
            self.take(Step::Crash { server }).await;
        }
        let down: Vec<_> = self.mesh.servers.iter().filter(|s| !s.is_up()).collect();
        if let Some(server) = self.rng.pick(&down).map(|s| s.name.clone())
            && self.rng.percent(40)
        {
            self.take(Step::Start { server }).await;
        }
        let step = self.choose();
        self.take(step).await;
        let wait = match self.rng.below(100) {
            0..40 => self.rng.below(50),
            40..80 => 50 + self.rng.below(2_000),
            80..96 => 2_000 + self.rng.below(58_000),
            96..99 => 60_000 + self.rng.below(3_600_000),
            // In which a room that was forgotten no longer waits for others.
            _ if self.rng.percent(20) => 8 * DAY_MS,
            _ => 60_000 + self.rng.below(3_600_000),
        };
        self.pass(Duration::from_millis(wait)).await;
    }

    /// Lets time go by, and sees what came of what is under way.
    async fn pass(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
        while let Ok(done) = self.done.1.try_recv() {
            self.came_of(done);
        }
        self.watch();
        for (from, to, endpoint) in self.mesh.net.take_requests() {
            self.trace.note(&format!("{from} {to} {endpoint}"));
        }
    }

    async fn take(&mut self, step: Step) {
        self.trace.line(self.mesh.clock.now(), &format!("{step}"));
        match &step {
            Step::Cut { from, to } => self.mesh.net.cut(from, to),
            Step::Restore { from, to } => self.mesh.net.restore(from, to),
            Step::Isolate { server } => self.mesh.isolate(server.as_str()),
            Step::Heal { server } => self.mesh.heal(server.as_str()),
            Step::Crash { server } => {
                self.doomed.retain(|doomed| doomed != server);
                let net = Arc::clone(&self.mesh.net);
                self.host_mut(server).crash(&net);
            }
            Step::Torn { server, keep } => {
                let fault = if *keep { DiskFault::Keep } else { DiskFault::Lose };
                self.host_mut(server).disk.fail_next_write(fault);
                self.doomed.push(server.clone());
            }
            Step::Start { server } => {
                let fate = self.fate.fork();
                let net = Arc::clone(&self.mesh.net);
                let host = self.host_mut(server);
                host.come_alive(&fate).await;
                net.attach(host);
            }
            Step::Sweep { server } => {
                let rooms = self.host(server).rooms.clone();
                // An error is that of a server which has crashed.
                tokio::task::spawn_local(async move { drop(rooms.sweep_forgotten().await) });
            }
            Step::Weather(weather) => {
                let rng = self.fate.fork();
                self.mesh.net.set_weather(*weather, &rng);
            }
            Step::Client { user, .. } => self.begin(user.server_name().to_owned(), step),
        }
    }

    fn host(&self, name: &OwnedServerName) -> &Server {
        self.mesh.server(name.as_str())
    }

    fn host_mut(&mut self, name: &OwnedServerName) -> &mut Server {
        let found = self.mesh.servers.iter_mut().find(|server| server.name == *name);
        found.expect("a server of this world")
    }

    /// Does what a client asks for, beside everything else.
    fn begin(&mut self, server: OwnedServerName, step: Step) {
        let Step::Client { user, asks } = &step else { return };
        let number = self.next;
        self.next += 1;
        self.note_forgotten(user, asks);
        let (rooms, user, asks) = (self.host(&server).rooms.clone(), user.clone(), asks.clone());
        let remote = Arc::clone(&self.host(&server).remote);
        let done = self.done.0.clone();
        // Not every future of the rooms can be shown to be `Send`, and here none has to be.
        tokio::task::spawn_local(async move {
            let outcome = asks.ask(&rooms, &remote, &user).await;
            // Nobody listens once the run is over.
            drop(done.send(Done { number, outcome, at: Instant::now() }));
        });
        let crashes = self.mesh.net.crashes(&server);
        self.watch();
        let began = Instant::now();
        let rooms = self.rooms.iter().map(|room| (room.clone(), self.witnesses(&server, room)));
        let witnesses = rooms.collect();
        self.underway.insert(number, Underway { step, server, crashes, began, witnesses });
    }

    fn came_of(&mut self, done: Done) {
        let Some(underway) = self.underway.remove(&done.number) else { return };
        if self.mesh.net.crashes(&underway.server) != underway.crashes {
            // Nobody was there any more to be told.
            return;
        }
        let Done { outcome, at, .. } = done;
        let step = &underway.step;
        self.trace.line(self.mesh.clock.now(), &format!("  {step} -> {outcome}"));
        let took = at - underway.began;
        if step.is_leave() && took > LEAVE_WITHIN {
            self.failures.push(format!("{step} took {took:?}"));
        }
        match outcome {
            Outcome::Room(room) => self.rooms.push(room),
            Outcome::Event(room, event) => {
                self.watch();
                let mut witnesses = self.witnesses(&underway.server, &room);
                let before = underway.witnesses.get(&room);
                witnesses.retain(|now| before.is_some_and(|before| before.contains(now)));
                self.acknowledged.push(Acknowledged {
                    event,
                    room,
                    by: underway.server,
                    asked: underway.began,
                    witnesses,
                });
            }
            Outcome::Fine => {
                let Step::Client { user, asks } = &underway.step else { return };
                match asks {
                    Ask::Invite { target, room } => {
                        self.invites.insert((target.clone(), room.clone()));
                    }
                    Ask::Redeem(redeem) => {
                        self.invites.insert((user.clone(), redeem.room.clone()));
                    }
                    Ask::Leave { room } => {
                        self.invites.remove(&(user.clone(), room.clone()));
                    }
                    Ask::DepartAll => self.invites.retain(|(invited, _)| invited != user),
                    _ => {}
                }
            }
            Outcome::Refused(_) => {}
        }
    }

    /// Notes which servers are in which rooms.
    fn watch(&mut self) {
        for server in &self.mesh.servers {
            for room in &self.rooms {
                let joined = resides(server, room);
                let key = (server.name.clone(), room.clone());
                let known = self.residence.entry(key).or_default();
                if known.joined != joined {
                    *known = Residence { joined, changes: known.changes + 1 };
                }
            }
        }
    }

    fn witnesses(&self, by: &OwnedServerName, room: &OwnedRoomId) -> Vec<Witness> {
        let sender = self.host(by).store.clone();
        let reader = sender.reader();
        let told = |server: &Server| {
            is_joined(&reader, room, &server.name).expect("the store reads")
                && resides(server, room)
        };
        let servers = self.mesh.servers.iter().filter(|server| told(server));
        let residence = |server: &Server| {
            let key = (server.name.clone(), room.clone());
            let known = self.residence.get(&key).copied().unwrap_or_default();
            (server.name.clone(), known)
        };
        servers.map(residence).collect()
    }
}

/// Whether the server is in the room, as it has it.
fn resides(server: &Server, room: &RoomId) -> bool {
    is_joined(&server.store.reader(), room, &server.name).expect("the store reads")
}

/// Rows that wait for something: other servers, or their turn.
fn waiting(server: &Server) -> Vec<String> {
    let reader = server.store.reader();
    let name = &server.name;
    let mut waiting = Vec::new();
    for ((to, _), item) in reader.scan::<tables::Outbox>(()).collect().expect("the store reads") {
        waiting.push(format!("{name}: outbox to {to}: {item:?}"));
    }
    let departures = reader.scan::<tables::Departures>(()).collect();
    for ((user, room), row) in departures.expect("the store reads") {
        let last: Vec<_> =
            row.last.iter().map(|a| format!("{}: {}", a.server, a.outcome)).collect();
        waiting.push(format!("{name}: departure of {user} from {room}, last {last:?}"));
    }
    for (user, job) in reader.scan::<tables::DepartureJobs>(()).collect().expect("the store reads")
    {
        if job.finished_at.is_none() {
            waiting.push(format!("{name}: departure of {user} from everywhere: {job:?}"));
        }
    }
    let inbound = reader.scan::<tables::InboundQueue>(()).keys();
    for (room, position, _) in inbound.expect("the store reads") {
        waiting.push(format!("{name}: inbound event of {room} from position {position}"));
    }
    let invites = reports::invites(&reader, None, server.clock.now()).expect("the store reads");
    for Invite { user_id, room_id, .. } in invites.iter().filter(|i| i.doubted_since.is_some()) {
        waiting.push(format!("{name}: doubt about the invite of {user_id} from {room_id}"));
    }
    waiting
}

/// Whether the server has, or once had, the room.
fn knows(server: &Server, room: &OwnedRoomId) -> bool {
    let row = server.store.reader().get::<tables::Rooms>(room);
    row.expect("the store reads").is_some()
}
