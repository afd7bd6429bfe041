//! Clients that come and go, on two servers: each sees every event once and in order, by `/sync` and
//! `/messages` together. An hour of simulated use for each seed.

use std::collections::BTreeSet;

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_core::wire::ClientEvent;
use exeunt_room::{
    Preset,
    views::{Direction, EventFilter, Filter, MessagesRequest, SyncRequest, Token},
};
use exeunt_sim::{Mesh, Rng, Server};
use serde_json::Value;

const SEEDS: u64 = 6;
const HOUR_MS: u64 = 3_600_000;
/// Longest time in which nothing happens.
const LONGEST_PAUSE_MS: u64 = 60_000;
/// Most messages in a row: more than a timeline holds.
const MOST_MESSAGES: u64 = 15;
const A: &str = "a.example";
const B: &str = "b.example";

/// A client, with what it has seen.
struct Client {
    server: &'static str,
    user: OwnedUserId,
    since: Option<u64>,
    seen: Vec<String>,
}

impl Client {
    fn new(mesh: &Mesh, server: &'static str, name: &str) -> Self {
        let user = mesh.server(server).user(name);
        Self { server, user, since: None, seen: Vec::new() }
    }

    /// Reads what is new: the timeline, and what a gap before it leaves out. Any answer may be lost
    /// on the way: a page is asked for again, and a sync the next time.
    async fn connect(&mut self, mesh: &Mesh, room: &OwnedRoomId, rng: &Rng) {
        let server = mesh.server(self.server);
        loop {
            let request = SyncRequest {
                viewer: server.rooms.viewer(&self.user, None),
                since: self.since,
                filter: Filter::default(),
                full_state: false,
                use_state_after: false,
            };
            let view = server.rooms.sync(request).await.unwrap();
            if rng.percent(20) {
                return;
            }
            let mut news = Vec::new();
            if let Some(joined) = view.join.get(room) {
                // What was said before its server came is behind the first timeline, limited or not.
                if joined.timeline.limited || self.since.is_none() {
                    let since = self.since.map(Token::Stream);
                    let from = joined.timeline.prev_batch;
                    news = self.page_back(server, room, from, since, rng).await;
                }
                news.extend(joined.timeline.events.iter().map(id));
            }
            let is_quiet = view.is_empty();
            self.seen.append(&mut news);
            self.since = Some(view.next_batch);
            if is_quiet {
                return;
            }
        }
    }

    /// What lies between two tokens, oldest first.
    async fn page_back(
        &self,
        server: &Server,
        room: &OwnedRoomId,
        from: Token,
        to: Option<Token>,
        rng: &Rng,
    ) -> Vec<String> {
        let (mut newest_first, mut from) = (Vec::new(), Some(from));
        while from.is_some() {
            let request = MessagesRequest {
                viewer: server.rooms.viewer(&self.user, None),
                room_id: room.clone(),
                from,
                to,
                direction: Direction::Backward,
                limit: Some(rng.below(20) + 1),
                filter: EventFilter::default(),
            };
            let page = server.rooms.messages(request).await.unwrap();
            if rng.percent(10) {
                continue;
            }
            newest_first.extend(ids(&page.chunk));
            from = page.end;
        }
        newest_first.reverse();
        newest_first
    }
}

fn id(event: &ClientEvent) -> String {
    event.event().expect("of the graph").event_id().to_string()
}

fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

async fn hour(seed: u64) {
    let (mesh, rng) = (Mesh::new(&[A, B]), Rng::new(seed));
    let (a, b) = (mesh.server(A), mesh.server(B));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = a.room(&ann, Preset::Public, "12").await;
    b.join(&bob, &room, a).await.unwrap();
    mesh.settle().await;
    let mut clients = [(A, "ann"), (A, "ann"), (B, "bob"), (B, "bob")]
        .map(|(server, name)| Client::new(&mesh, server, name));
    // While what was said before bob's server came can be had.
    let calm = Rng::new(seed);
    for client in &mut clients {
        while client.since.is_none() {
            client.connect(&mesh, &room, &calm).await;
        }
    }

    let end = mesh.clock.now() + HOUR_MS;
    while mesh.clock.now() < end {
        mesh.clock.advance(rng.below(LONGEST_PAUSE_MS));
        if rng.percent(10) {
            mesh.isolate(B);
        } else if rng.percent(30) {
            mesh.heal(B);
        }
        for _ in 0..rng.below(MOST_MESSAGES) {
            let (server, user) = if rng.percent(50) { (a, &ann) } else { (b, &bob) };
            server.say(user, &room, "so it goes").await;
            if rng.percent(20) {
                mesh.settle().await;
            }
        }
        for client in &mut clients {
            if rng.percent(30) {
                client.connect(&mesh, &room, &rng).await;
            }
        }
    }
    mesh.heal(B);
    mesh.settle().await;
    for client in &mut clients {
        let server = mesh.server(client.server);
        let position = *server.store.position().borrow();
        while client.since.is_none_or(|since| since < position) {
            client.connect(&mesh, &room, &calm).await;
        }
        let now = Token::Stream(client.since.unwrap());
        let all = client.page_back(server, &room, now, None, &calm).await;
        assert_eq!(client.seen, all, "seed {seed}: {} on {}", client.user, client.server);
    }
    let sets = clients.map(|client| BTreeSet::from_iter(client.seen));
    assert!(sets.iter().all(|set| *set == sets[0]), "seed {seed}: the servers differ");
}

#[tokio::test]
async fn a_client_that_comes_and_goes_sees_each_event_once() {
    for seed in 0..SEEDS {
        hour(seed).await;
    }
}
