//! What must hold once everything has been healed and nothing waits.

use std::collections::{BTreeMap, BTreeSet};

use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use exeunt_store::{records::Verdict, tables, verify};
use serde_json::Value;

use super::{Acknowledged, World, knows, resides};
use crate::Server;

/// Most differences between two servers that are told.
const MAX_DIFFERENCES: usize = 4;

impl World {
    pub(super) async fn check(&mut self) {
        let mut failures = Vec::new();
        for room in &self.rooms {
            self.states_agree(room, &mut failures);
        }
        for room in self.rooms.iter().filter(|room| !self.is_kept_apart(room)) {
            self.converged(room, &mut failures);
            self.memberships_agree(room, &mut failures);
        }
        self.nothing_acknowledged_is_lost(&mut failures);
        self.every_signature_is_journaled(&mut failures);
        self.acls_hold(&mut failures);
        self.outsiders_let_nobody_in(&mut failures).await;
        for server in &self.mesh.servers {
            let report = verify(&server.store).expect("the store reads");
            failures.extend(report.findings.iter().map(|f| format!("{}: {f:?}", server.name)));
        }
        for failure in failures {
            if !self.failures.contains(&failure) {
                self.failures.push(failure);
            }
        }
    }

    /// Servers in the room, as each has it.
    pub(super) fn residents(&self, room: &OwnedRoomId) -> Vec<OwnedServerName> {
        let servers = self.mesh.servers.iter().filter(|server| resides(server, room));
        servers.map(|server| server.name.clone()).collect()
    }

    /// The members of the room, as the first of its servers has them; `None` if nobody is left.
    pub(super) fn members(&self, room: &OwnedRoomId) -> Option<BTreeMap<OwnedUserId, String>> {
        let first = self.mesh.servers.iter().find(|server| resides(server, room))?;
        let members = self.users.iter();
        let members = members.filter_map(|u| Some((u.clone(), first.in_state(u, room)?)));
        Some(members.collect())
    }

    /// All servers in the room have the same state and the same head.
    fn converged(&self, room: &OwnedRoomId, failures: &mut Vec<String>) {
        let residents: Vec<&Server> =
            self.mesh.servers.iter().filter(|server| resides(server, room)).collect();
        let Some((first, others)) = residents.split_first() else { return };
        let told: BTreeSet<_> = first
            .graph(room, |graph| graph.joined_servers().expect("the store reads"))
            .into_iter()
            .collect();
        let mut real: BTreeSet<_> = residents.iter().map(|server| server.name.clone()).collect();
        // A join of which the answer was lost, and that an ACL keeps from being made again.
        real.extend(told.iter().filter(|server| self.is_denied(server, room)).cloned());
        if told != real {
            failures.push(format!("{room}: {} has {told:?} in it, not {real:?}", first.name));
        }
        let heads = |server: &Server| -> BTreeSet<OwnedEventId> {
            server.graph(room, |graph| graph.room.extremities.iter().cloned().collect())
        };
        for other in others {
            let (ours, theirs) = (first.state(room), other.state(room));
            let all: BTreeSet<_> = ours.iter().chain(&theirs).collect();
            let one = |entry: &&_| ours.contains(entry) != theirs.contains(entry);
            for (kind, key, id) in all.iter().copied().filter(one).take(MAX_DIFFERENCES) {
                let has = if ours.iter().any(|(.., own)| own == id) { first } else { other };
                let judged = [*first, *other]
                    .map(|server| format!("{}: {}", server.name, judged(server, id)));
                failures.push(format!(
                    "{room}: only {} has {id} as {kind} {key:?} in force ({})",
                    has.name,
                    judged.join("; ")
                ));
            }
            if heads(first) != heads(other) {
                let (a, b) = (heads(first), heads(other));
                failures.push(format!(
                    "{room}: heads of {} {a:?}, of {} {b:?}",
                    first.name, other.name
                ));
            }
        }
    }

    /// Every user is to their own server what they are to the room.
    fn memberships_agree(&self, room: &OwnedRoomId, failures: &mut Vec<String>) {
        let Some(members) = self.members(room) else { return };
        for user in &self.users {
            let server = self.host(&user.server_name().to_owned());
            let own = server.membership(user, room).unwrap_or_default();
            let there = members.get(user).map_or("", String::as_str);
            let same = match (own.as_str(), there) {
                (own, there) if own == there => true,
                // Of a room that it is not in, a server hears as much as it has to.
                // Who said no to an invite that nobody else knows of.
                ("leave", "") => true,
                ("leave" | "ban" | "", "leave" | "ban" | "") => !resides(server, room),
                // Whoever could be told has left, and the servers that came later are not known.
                ("leave", "invite" | "knock") => {
                    !self.has_known_resident(user, room)
                        || self.is_denied(&server.name, room)
                        // A server that has purged the room cannot offer the leave again.
                        || !knows(server, room)
                }
                // Neither a join whose answer was lost, nor a leave, comes past an ACL.
                ("" | "leave", "join") => self.is_denied(&server.name, room),
                _ => false,
            } || self.room_has_taken_back(user, room);
            if !same {
                let first = self.mesh.servers.iter().find(|server| resides(server, room));
                let own_event = server.row(user, room).map(|row| row.event_id);
                let judged = first.zip(own_event).map(|(first, id)| {
                    format!("; {} has of {id}: {}", first.name, judged(first, &id))
                });
                failures.push(format!(
                    "{room}: {user} is {own:?} at home, {there:?} in the room{}",
                    judged.unwrap_or_default()
                ));
            }
        }
    }

    /// Whether the room has the event that the user's server goes by, and a resolution holds with
    /// another one beside it: an invite beside the user's leave, or a kick beside an invite; or with
    /// none, where the room was closed while somebody was invited. Who is invited may say no once more.
    fn room_has_taken_back(&self, user: &OwnedUserId, room: &OwnedRoomId) -> bool {
        let Some(row) = self.host(&user.server_name().to_owned()).row(user, room) else {
            return false;
        };
        let residents = self.mesh.servers.iter().filter(|server| resides(server, room));
        let mut verdicts = residents.map(|server| {
            let record = server.event(&row.event_id)?.record;
            record.states.and(Some(record.verdict.clone()))
        });
        let has_it = verdicts.clone().all(|v| v.is_some_and(|verdict| !verdict.is_rejected()));
        row.sender != *user && has_it && verdicts.any(|verdict| verdict == Some(Verdict::Accepted))
    }

    /// Whether a server is in the room that the invited user's server knows of, and has been since:
    /// the inviter's, or the one of the room's id.
    fn has_known_resident(&self, user: &OwnedUserId, room: &OwnedRoomId) -> bool {
        let residents = self.residents(room);
        let Some(first) = residents.first() else { return false };
        let invite = self.host(first).graph(room, |graph| {
            graph.current("m.room.member", user.as_str()).expect("the store reads")
        });
        let inviter = invite.map(|event| event.sender().server_name().to_owned());
        let named = room.server_name().map(ToOwned::to_owned);
        let stayed = |server: &OwnedServerName| {
            let residence = self.residence.get(&(server.clone(), room.clone()));
            residents.contains(server) && residence.is_some_and(|known| known.changes <= 1)
        };
        inviter.into_iter().chain(named).any(|server| stayed(&server))
    }

    /// The state before an event follows from the event: all servers that have it in their graphs
    /// have the same there, and those of a room that an ACL keeps apart too.
    fn states_agree(&self, room: &OwnedRoomId, failures: &mut Vec<String>) {
        let mut states = BTreeMap::new();
        for server in self.mesh.servers.iter().filter(|server| resides(server, room)) {
            let rows = server.store.reader().scan::<tables::Events>(()).collect();
            for (id, row) in rows.expect("the store reads") {
                let Some(own) = row.states.filter(|_| row.room_id == *room) else { continue };
                let (first, state) =
                    states.entry(id.clone()).or_insert_with(|| (server.name.clone(), own.before));
                if *state != own.before {
                    failures.push(format!(
                        "{room}: the state before {id} is not the same on {first} and {}",
                        server.name
                    ));
                    return;
                }
            }
        }
    }

    fn nothing_acknowledged_is_lost(&self, failures: &mut Vec<String>) {
        for told in &self.acknowledged {
            if self.host(&told.by).event(&told.event).is_none() && !self.was_forgotten(told) {
                failures.push(format!("{} of {} is lost at home", told.event, told.by));
            }
            for (name, then) in &told.witnesses {
                let now = self.residence.get(&(name.clone(), told.room.clone()));
                let is_owed = then.joined && now == Some(then);
                if is_owed && !self.has_heard_of(told, name) {
                    let (event, by) = (&told.event, &told.by);
                    failures.push(format!("{event} of {by} never came to {name}"));
                }
            }
        }
    }

    /// Whether the server has what a client was told of, or need not: the room keeps the two apart;
    /// its ACL denied one of the two when it was told or came, and there may be no later event that
    /// leads there; or it is a leave, which that server refused and which came to the room as another.
    fn has_heard_of(&self, told: &Acknowledged, server: &OwnedServerName) -> bool {
        let (there, room) = (self.host(server), &told.room);
        let left_otherwise = || {
            let pdu = self.host(&told.by).event(&told.event).map(|event| event.pdu);
            let leave = pdu.filter(|pdu| {
                pdu.membership() == Some("leave") && pdu.state_key() == Some(pdu.sender().as_str())
            });
            leave.is_some_and(|pdu| there.in_state(pdu.sender(), room).as_deref() == Some("leave"))
        };
        there.event(&told.event).is_some()
            || self.was_denied(told, server)
            || self.denied_when_told(told, server)
            || (self.is_kept_apart(room) && !self.hear_each_other(server, &told.by, room))
            || left_otherwise()
    }

    /// No event that a server has signed is missing in its journal.
    fn every_signature_is_journaled(&self, failures: &mut Vec<String>) {
        let mut journals = BTreeMap::new();
        for server in &self.mesh.servers {
            let rows = server.store.reader().scan::<tables::SigningJournal>(()).collect();
            let rows = rows.expect("the store reads").into_iter();
            let ids: BTreeSet<_> = rows.map(|(_, row)| row.event_id).collect();
            journals.insert(server.name.to_string(), ids);
        }
        let mut seen = BTreeSet::new();
        for server in &self.mesh.servers {
            let rows = server.store.reader().scan::<tables::Events>(()).collect();
            for (id, row) in rows.expect("the store reads") {
                if !seen.insert(id.clone()) {
                    continue;
                }
                let event: Value = serde_json::from_str(row.json.get()).expect("an event");
                let signatures = event.get("signatures").and_then(Value::as_object);
                for signer in signatures.into_iter().flatten().map(|(name, _)| name) {
                    if journals.get(signer).is_some_and(|journal| !journal.contains(&id)) {
                        failures.push(format!(
                            "{signer} signed {id} ({} {}) outside its journal",
                            event["type"], event["content"]
                        ));
                    }
                }
            }
        }
    }

    /// Whether the user is invited by somebody of their own server, which is not in the room.
    pub(super) fn is_invited_from_outside(&self, user: &OwnedUserId, room: &OwnedRoomId) -> bool {
        let server = self.host(&user.server_name().to_owned());
        let row = server.row(user, room);
        !resides(server, room) && row.is_some_and(|row| row.sender.server_name() == server.name)
    }

    /// Whether an invite of the user to the room was answered with success.
    pub(super) fn was_acknowledged(&self, user: &OwnedUserId, room: &OwnedRoomId) -> bool {
        self.invites.contains(&(user.clone(), room.clone()))
    }
}

/// What a server makes of an event.
fn judged(server: &Server, id: &OwnedEventId) -> String {
    let Some(known) = server.event(id) else { return "not there".into() };
    let (pdu, record) = (&known.pdu, &known.record);
    let place = if record.states.is_some() { "" } else { ", no place" };
    let content = serde_json::Value::Object(pdu.content().clone());
    format!("{} by {}, {:?}{place}", content, pdu.sender(), record.verdict)
}
