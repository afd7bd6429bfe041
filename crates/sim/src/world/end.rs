//! The end of a run: everything is healed, and time goes by until nothing is left to do.

use std::time::Duration;

use exeunt_core::ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use exeunt_room::graph::Graph;
use exeunt_store::tables;

use super::{World, acl, knows, resides, step::Ask, step::Step, waiting};
use crate::Weather;

/// Looks, a minute apart, then ten minutes apart: three days, longer than any back-off.
const LOOKS_A_MINUTE_APART: usize = 30;
const LOOKS: usize = LOOKS_A_MINUTE_APART + 3 * 24 * 6;
/// Rounds of messages that make heads meet.
const ROUNDS: usize = 2;

impl World {
    pub(super) async fn end(&mut self) {
        self.heal_everything().await;
        self.quiet().await;
        self.lift_acls().await;
        self.talk().await;
        self.tie_loose_ends().await;
        self.talk().await;
        self.check().await;
        // Whoever is still invited, or knocks, says no: that ends everywhere too.
        self.say_no().await;
        self.talk().await;
        self.check().await;
        let pending = self.pending();
        if !pending.is_empty() {
            self.failures.push(format!("invites or knocks that cannot be ended: {pending:?}"));
        }
        self.farewell().await;
    }

    /// Whoever is invited, or knocks, ends that.
    pub(super) async fn say_no(&mut self) {
        for (user, room) in self.pending() {
            self.take(Step::Client { user, asks: Ask::Leave { room } }).await;
            self.pass(Duration::from_secs(5)).await;
        }
        self.quiet().await;
    }

    async fn heal_everything(&mut self) {
        self.take(Step::Weather(Weather::CALM)).await;
        let names: Vec<OwnedServerName> =
            self.mesh.servers.iter().map(|server| server.name.clone()).collect();
        for server in names.clone() {
            self.take(Step::Heal { server }).await;
        }
        for server in std::mem::take(&mut self.doomed) {
            if self.host(&server).is_up() {
                self.take(Step::Crash { server }).await;
            }
        }
        for server in names {
            if !self.host(&server).is_up() {
                self.take(Step::Start { server }).await;
            }
        }
    }

    /// Waits until nothing waits.
    pub(super) async fn quiet(&mut self) {
        for look in 0..LOOKS {
            let minutes = if look < LOOKS_A_MINUTE_APART { 1 } else { 10 };
            self.pass(Duration::from_secs(60 * minutes)).await;
            let net = &self.mesh.net;
            self.underway.retain(|_, done| net.crashes(&done.server) == done.crashes);
            let idle = self.mesh.servers.iter().all(|server| waiting(server).is_empty());
            if idle && self.underway.is_empty() {
                return;
            }
        }
        for server in &self.mesh.servers {
            // A departure waits for as long as the room's ACL denies its server.
            let denied = self.rooms.iter().filter(|room| self.is_denied(&server.name, room));
            let denied: Vec<_> = denied.map(|room| format!("from {room}")).collect();
            let waiting = waiting(server).into_iter();
            self.failures
                .extend(waiting.filter(|row| !denied.iter().any(|room| row.contains(room))));
        }
        for underway in self.underway.values() {
            self.failures.push(format!("never ended: {}", underway.step));
        }
    }

    /// A message of each server in each room, or a member event where the room was closed, so that all
    /// heads meet: what only some let pass, for
    /// it came late (a soft failure), becomes history for all.
    async fn talk(&mut self) {
        for _ in 0..ROUNDS {
            for room in self.rooms.clone() {
                for user in self.speakers(&room) {
                    let asks = if self.may_say(&user, &room) {
                        Ask::Say { room: room.clone(), text: "the end".into() }
                    } else {
                        Ask::Rename { name: format!("{}", self.next) }
                    };
                    self.take(Step::Client { user, asks }).await;
                    self.pass(Duration::from_secs(5)).await;
                }
            }
            self.quiet().await;
        }
    }

    /// A joined user of each server in the room; one whom all servers have in it, if there is one:
    /// what the others say may be soft-failed.
    fn speakers(&self, room: &OwnedRoomId) -> Vec<OwnedUserId> {
        let mut speakers = Vec::new();
        let residents = || self.mesh.servers.iter().filter(|server| resides(server, room));
        for server in residents() {
            let joined = self.users.iter().filter(|user| {
                *user.server_name() == server.name
                    && server.membership(user, room).as_deref() == Some("join")
            });
            let known = |user: &&OwnedUserId| {
                residents().all(|by| by.in_state(user, room).as_deref() == Some("join"))
            };
            speakers.extend(joined.clone().find(known).or_else(|| joined.clone().next()).cloned());
        }
        speakers
    }

    /// Whether a user has the power to send messages, as all servers have it: who has not can still
    /// send member events of their own.
    fn may_say(&self, user: &OwnedUserId, room: &OwnedRoomId) -> bool {
        let may = |graph: &Graph<'_>| {
            let levels = graph.power_levels(graph.room.state).expect("the store reads");
            let needed = levels.event("m.room.message", false);
            levels.user(user).is_ok_and(|has| needed.is_ok_and(|needed| has >= needed))
        };
        self.residents(room).iter().all(|server| self.host(server).graph(room, may))
    }

    /// Everybody who is invited or knocks, as their servers have them.
    fn pending(&self) -> Vec<(OwnedUserId, OwnedRoomId)> {
        let mut pending = Vec::new();
        for server in &self.mesh.servers {
            let rows = server.store.reader().scan::<tables::Memberships>(()).collect();
            for (key, row) in rows.expect("the store reads") {
                if matches!(row.membership.as_str(), "invite" | "knock") {
                    pending.push(key);
                }
            }
        }
        pending
    }

    /// Whoever can lets all servers in again: what was kept apart meets.
    async fn lift_acls(&mut self) {
        for room in self.rooms.clone() {
            for user in self.speakers(&room) {
                if self.denied_by(&user.server_name().to_owned(), &room).is_empty() {
                    continue;
                }
                let (kind, content) = ("m.room.server_acl", acl::content(None));
                let asks = Ask::Set { room: room.clone(), kind, content };
                self.take(Step::Client { user, asks }).await;
                self.pass(Duration::from_secs(5)).await;
            }
        }
        self.quiet().await;
    }

    /// What was cut off halfway, and what the client was told has failed: it tries again. A server
    /// that joined a user and lost the answer does so; a user whose inviter crashed between the
    /// signature of the other server and its own log has an invite of which nobody else knows, as
    /// has one whose inviter, of the same server, the room had expelled without their knowing.
    async fn tie_loose_ends(&mut self) {
        for room in self.rooms.clone() {
            let Some(state) = self.members(&room) else { continue };
            for user in self.users.clone() {
                let server = self.host(&user.server_name().to_owned());
                let own = server.membership(&user, &room).unwrap_or_default();
                let there = state.get(&user).map_or("", String::as_str);
                let asks = match (own.as_str(), there) {
                    // Who has left is out everywhere, as long as their server has the room.
                    ("leave", "join") if knows(server, &room) => continue,
                    (own, "join") if own != "join" && !resides(server, &room) => {
                        let via = self.residents(&room);
                        Ask::Join { room: room.clone(), via }
                    }
                    ("invite", there)
                        if there != "invite"
                            && (!self.was_acknowledged(&user, &room)
                                || self.is_invited_from_outside(&user, &room)) =>
                    {
                        Ask::Leave { room: room.clone() }
                    }
                    (own, "knock") if own != "knock" && !resides(server, &room) => {
                        let via = self.residents(&room);
                        Ask::Knock { room: room.clone(), via }
                    }
                    _ => continue,
                };
                self.take(Step::Client { user, asks }).await;
                self.pass(Duration::from_secs(30)).await;
            }
        }
    }
}
