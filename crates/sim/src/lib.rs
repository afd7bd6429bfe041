//! Several servers in one process over a fake network, for tests.
//!
//! Everything is real but the network and the clock: requests go straight to the other server's
//! inbound methods, and answers become what HTTP would have made of them. Stores are in memory.
//!
//! In a [`Mesh`] nothing happens by itself: outboxes and departures move when [`Mesh::settle`] is
//! called. In a [`World`] servers run as they do in earnest, in a time of their own and at the mercy
//! of a seed ([`simulate`]).

mod clock;
mod life;
mod network;
mod remote;
mod rng;
mod server;
mod weather;
mod world;

pub mod events;

use std::sync::Arc;

use exeunt_core::ruma::ServerName;

pub use clock::SimClock;
pub use network::{Fault, Network, Scripted};
pub use rng::Rng;
pub use server::{Server, refusal, status};
pub use weather::Weather;
pub use world::{Run, World, simulate};

/// Rounds after which [`Mesh::settle`] gives up: something runs in circles.
const MAX_ROUNDS: usize = 50;

/// Servers that know each other.
pub struct Mesh {
    pub net: Arc<Network>,
    pub clock: SimClock,
    servers: Vec<Server>,
}

impl Mesh {
    /// Servers by these names, all links up.
    pub fn new(names: &[&str]) -> Self {
        let (net, clock) = (Arc::new(Network::default()), SimClock::default());
        let mut servers = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let server = Server::new(name, index as u8 + 1, &net, &clock);
            net.attach(&server);
            servers.push(server);
        }
        Self { net, clock, servers }
    }

    pub fn server(&self, name: &str) -> &Server {
        let found = self.servers.iter().find(|server| server.name.as_str() == name);
        found.unwrap_or_else(|| panic!("no server {name}"))
    }

    /// Stops a server and starts it anew upon its store. What it did at the time must have come to
    /// its end: the old one is not torn from its work.
    pub fn restart(&mut self, name: &str) {
        let found = self.servers.iter_mut().find(|server| server.name.as_str() == name);
        let server = found.unwrap_or_else(|| panic!("no server {name}"));
        server.restart();
        self.net.attach(server);
    }

    /// Kills a server, and starts it anew upon what its disk has.
    pub fn crash(&mut self, name: &str) {
        let found = self.servers.iter_mut().find(|server| server.name.as_str() == name);
        let server = found.unwrap_or_else(|| panic!("no server {name}"));
        server.crash(&self.net);
        server.restart();
        self.net.attach(server);
    }

    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Delivers everything that waits and can be delivered: outboxes in order, then departures.
    ///
    /// # Panics
    /// If that does not come to an end.
    pub async fn settle(&self) {
        for _ in 0..MAX_ROUNDS {
            let mut moved = false;
            for server in &self.servers {
                moved |= server.deliver_outbox(&self.net).await;
                for server in &self.servers {
                    server.rooms.mending_idle().await;
                    server.rooms.inbound_idle().await;
                }
                moved |= server.deliver_departures().await;
            }
            if !moved {
                return;
            }
        }
        panic!("the mesh does not settle");
    }

    /// Cuts a server off, both ways.
    pub fn isolate(&self, name: &str) {
        self.each_link(name, |net, a, b| net.cut(a, b));
    }

    /// Brings a server back, both ways.
    pub fn heal(&self, name: &str) {
        self.each_link(name, |net, a, b| net.restore(a, b));
    }

    fn each_link(&self, name: &str, change: impl Fn(&Network, &ServerName, &ServerName)) {
        let one = &self.server(name).name;
        for other in self.servers.iter().filter(|other| other.name != *one) {
            change(&self.net, one, &other.name);
            change(&self.net, &other.name, one);
        }
    }
}
