//! Asking several servers for the template of a join: the next one when the last one is slow.

use std::{future::Future, pin::Pin, time::Duration, vec};

use exeunt_membership::{Join, MakeJoin, RemoteFailure};
use futures_util::{StreamExt, stream::FuturesUnordered};
use ruma::OwnedServerName;
use serde_json::Value;
use tokio::time::timeout;

use crate::{Call, Rooms};

/// How long a server may take before the next one is asked as well. A template commits nobody to
/// anything, and nine servers that never answer cost less than three seconds.
pub const HEDGE_AFTER: Duration = Duration::from_millis(250);

/// A server's answer to make_join.
pub(super) struct Made {
    pub server: OwnedServerName,
    pub awaiting: MakeJoin,
    pub answer: Result<Value, RemoteFailure>,
}

type Making<'a> = Pin<Box<dyn Future<Output = Made> + Send + 'a>>;

/// The servers that have yet to be asked, and those that have yet to answer.
pub(super) struct Race<'a> {
    rooms: &'a Rooms,
    join: &'a Join,
    waiting: vec::IntoIter<OwnedServerName>,
    running: FuturesUnordered<Making<'a>>,
}

impl<'a> Race<'a> {
    pub fn new(rooms: &'a Rooms, join: &'a Join, servers: Vec<OwnedServerName>) -> Self {
        Self { rooms, join, waiting: servers.into_iter(), running: FuturesUnordered::new() }
    }

    /// The next answer, in whatever order they come; `None` when there are no more.
    pub async fn next(&mut self) -> Option<Made> {
        loop {
            if self.running.is_empty() && !self.ask_another() {
                return None;
            }
            match timeout(HEDGE_AFTER, self.running.next()).await {
                Ok(made) => return made,
                Err(_) if self.ask_another() => {}
                Err(_) => return self.running.next().await,
            }
        }
    }

    /// Whether there was another server to ask.
    fn ask_another(&mut self) -> bool {
        let Some(server) = self.waiting.next() else { return false };
        let rooms = self.rooms;
        let (awaiting, request) = MakeJoin::new(self.join.clone(), server.clone());
        self.running.push(Box::pin(async move {
            let answer = rooms.call(&server, Call::Make(&request)).await;
            Made { server, awaiting, answer }
        }));
        true
    }
}
