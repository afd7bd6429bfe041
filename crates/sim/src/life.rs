//! What runs in a server by itself, from a start to the next crash.

use std::sync::Arc;

use async_trait::async_trait;
use exeunt_core::ruma::{OwnedServerName, RoomId, ServerName, UserId};
use exeunt_room::{Rooms, Wake, leave};
use exeunt_sender::{
    Clock, DepartureOptions, DepartureOutcome, DepartureRunner, Departures, Jitter, Options,
    Sender, Transport,
};
use exeunt_store::Store;
use tokio::sync::watch;

use crate::Rng;

/// Told of every server that something authentic came from.
pub(crate) type Alive = Arc<dyn Fn(&ServerName) + Send + Sync>;

/// The queues of a server, running.
pub(crate) struct Life {
    stop: watch::Sender<bool>,
    sender: Sender,
    departures: Departures,
}

impl Life {
    /// Starts the queues upon a store. Departures wait for [`Life::run`].
    pub fn start(
        store: &Store,
        transport: Arc<dyn Transport>,
        clock: Clock,
        rng: &Rng,
        name: OwnedServerName,
    ) -> Self {
        let (stop, stopping) = watch::channel(false);
        let rng = rng.clone();
        let jitter: Jitter = Arc::new(move || rng.unit());
        let departures = Departures::new(
            store.clone(),
            clock.clone(),
            jitter.clone(),
            DepartureOptions::default(),
            stopping.clone(),
        );
        let sender = Sender::start(
            store.clone(),
            transport,
            clock,
            jitter,
            name,
            Options::default(),
            stopping,
        );
        let woken = departures.clone();
        sender.on_reached(move |server| woken.alive(server));
        Self { stop, sender, departures }
    }

    pub fn wake(&self) -> Arc<dyn Wake> {
        let (sender, departures) = (self.sender.clone(), self.departures.clone());
        Arc::new(Wakers { sender, departures })
    }

    pub fn alive(&self) -> Alive {
        let (sender, departures) = (self.sender.clone(), self.departures.clone());
        Arc::new(move |server| {
            sender.alive(server);
            departures.alive(server);
        })
    }

    pub fn run(&self, rooms: &Rooms) {
        self.departures.start(Arc::new(Runner(rooms.clone())));
        rooms.start_inbound();
        rooms.start_probes();
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

struct Wakers {
    sender: Sender,
    departures: Departures,
}

impl Wake for Wakers {
    fn wake(&self, destinations: &[OwnedServerName]) {
        self.sender.wake(destinations);
    }

    fn departure_queued(&self) {
        self.departures.departure_queued();
    }
}

struct Runner(Rooms);

#[async_trait]
impl DepartureRunner for Runner {
    async fn attempt(&self, user: &UserId, room: &RoomId) -> DepartureOutcome {
        match self.0.attempt_departure(user, room).await {
            Ok(leave::DepartureOutcome::Delivered) => DepartureOutcome::Delivered,
            Ok(leave::DepartureOutcome::Ended) => DepartureOutcome::Ended,
            // The store of a server that has crashed.
            Ok(leave::DepartureOutcome::Retry) | Err(_) => DepartureOutcome::Retry,
        }
    }
}
