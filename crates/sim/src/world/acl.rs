//! Server ACLs: what they say, and that they hold.

use std::collections::BTreeMap;

use exeunt_core::ruma::{OwnedRoomId, OwnedServerName};
use exeunt_room::graph::Graph;
use exeunt_store::{records::Root, tables};
use serde_json::{Value, json};

use super::{Acknowledged, World, resides};
use crate::Server;

/// Content of an ACL that denies one server, or none.
pub(super) fn content(denied: Option<&OwnedServerName>) -> Value {
    let denied: Vec<_> = denied.into_iter().collect();
    json!({ "allow": ["*"], "allow_ip_literals": true, "deny": denied })
}

impl World {
    /// Servers that a server in the room denies.
    pub(super) fn denied_by(
        &self,
        by: &OwnedServerName,
        room: &OwnedRoomId,
    ) -> Vec<OwnedServerName> {
        self.host(by).graph(room, |graph| {
            let servers = self.mesh.servers.iter().map(|server| server.name.clone());
            let denied = |name: &OwnedServerName| !graph.acl_allows(name).expect("the store reads");
            servers.filter(denied).collect()
        })
    }

    /// Whether a server in the room denies that one: nobody was left who may lift the ACL.
    pub(super) fn is_denied(&self, server: &OwnedServerName, room: &OwnedRoomId) -> bool {
        self.residents(room).iter().any(|by| self.denied_by(by, room).contains(server))
    }

    /// Whether servers in the room do not hear each other: the ACL denies one, or one never let the
    /// other in, or neither has the other in the room.
    pub(super) fn is_kept_apart(&self, room: &OwnedRoomId) -> bool {
        let residents = self.residents(room);
        residents.iter().any(|server| {
            self.is_denied(server, room)
                || residents.iter().any(|by| {
                    !self.has_let_in(by, server, room)
                        || (!self.has_joined(by, server, room)
                            && !self.has_joined(server, by, room))
                })
        })
    }

    /// Whether the server refused the event by its ACL.
    pub(super) fn was_denied(&self, told: &Acknowledged, server: &OwnedServerName) -> bool {
        let reader = self.host(&told.by).store.clone();
        let rows = reader.reader().scan::<tables::SetAside>(server.clone()).collect();
        rows.expect("the store reads").iter().any(|(_, row)| {
            row.event_id.as_ref() == Some(&told.event) && row.why.contains("banned from the room")
        })
    }

    /// Whether the room denied the other server when the event was told of: that could not even fill
    /// a gap before the denial.
    pub(super) fn denied_when_told(&self, told: &Acknowledged, server: &OwnedServerName) -> bool {
        let by = self.host(&told.by);
        let states = by.event(&told.event).and_then(|event| event.record.states);
        states.is_some_and(|states| {
            let allows = |graph: &Graph<'_>| graph.acl_allows_at(states.after, server);
            !by.graph(&told.room, allows).expect("the store reads")
        })
    }

    /// Whether each of two servers has the other in the room, and denies it not.
    pub(super) fn hear_each_other(
        &self,
        one: &OwnedServerName,
        other: &OwnedServerName,
        room: &OwnedRoomId,
    ) -> bool {
        [(one, other), (other, one)].into_iter().all(|(by, server)| {
            resides(self.host(by), room)
                && !self.denied_by(by, room).contains(server)
                && self.has_joined(by, server, room)
        })
    }

    fn has_joined(
        &self,
        by: &OwnedServerName,
        server: &OwnedServerName,
        room: &OwnedRoomId,
    ) -> bool {
        let joined = |graph: &Graph<'_>| graph.joined_servers().expect("the store reads");
        self.host(by).graph(room, joined).contains(server)
    }

    /// Whether `by` has a server in the room, or has let in one of its users who are in it. It owes
    /// nothing to one that others let in where it was closed: not the reason either, for the way in
    /// may be made up (decision 0017).
    fn has_let_in(
        &self,
        by: &OwnedServerName,
        server: &OwnedServerName,
        room: &OwnedRoomId,
    ) -> bool {
        let (there, its) = (self.host(by), self.host(server));
        let users = self.users.iter().filter(|user| user.server_name() == server);
        let mut joins = users.filter_map(|user| {
            its.graph(room, |graph| graph.current("m.room.member", user.as_str()))
                .expect("the store reads")
                .filter(|event| event.membership() == Some("join"))
        });
        self.has_joined(by, server, room)
            || joins.any(|join| {
                let known = there.event(&join.event_id().to_owned());
                known.is_some_and(|known| known.record.verdict.is_accepted())
            })
    }

    /// No server has taken anything by users of a server that the ACL denied as it had it at the
    /// time.
    pub(super) fn acls_hold(&self, failures: &mut Vec<String>) {
        for server in &self.mesh.servers {
            for room in self.rooms.iter().filter(|room| super::knows(server, room)) {
                self.acl_holds(server, room, failures);
            }
        }
    }

    fn acl_holds(&self, server: &Server, room: &OwnedRoomId, failures: &mut Vec<String>) {
        let reader = server.store.reader();
        let states = reader.scan::<tables::RoomStates>(room.clone()).collect();
        let states: BTreeMap<u64, Root> = states
            .expect("the store reads")
            .into_iter()
            .map(|((_, at), root)| (at, root))
            .collect();
        for id in server.timeline(room) {
            let Some(known) = server.event(&id) else { continue };
            let order = known.record.order.and_then(|order| u64::try_from(order).ok());
            // What has no order from here on is history; who joins takes what is said of the room.
            let Some(order) = order.filter(|_| *known.pdu.origin() != *server.name) else {
                continue;
            };
            let Some((_, root)) = states.range(..order).next_back() else { continue };
            let sender = known.pdu.origin();
            let allows = |graph: &Graph<'_>| graph.acl_allows_at(*root, sender);
            if !server.graph(room, allows).expect("the store reads") {
                failures.push(format!("{}: took {id} of {sender}, which is denied", server.name));
            }
        }
    }
}
