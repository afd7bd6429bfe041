//! The summary of a room in `/sync`: what clients name a room by.

use exeunt_store::{records::Root, tables};
use ruma::OwnedUserId;

use super::access::RoomView;
use crate::RoomError;

/// Users that a room without a name is named after.
const HEROES: usize = 5;
/// Largest number of member events that are read for a summary. In larger rooms it has the number
/// of joined users only, which is kept.
const MAX_MEMBERS: usize = 5_000;

/// `RoomSummary` of the client-server API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    pub heroes: Vec<OwnedUserId>,
    pub joined: u64,
    pub invited: Option<u64>,
}

impl RoomView<'_> {
    /// The summary of the room's state now.
    pub fn summary(&self) -> Result<Summary, RoomError> {
        let graph = &self.graph;
        let servers =
            graph.reader.scan::<tables::JoinedServers>(graph.room_id.clone()).collect()?;
        let joined = servers.into_iter().map(|(_, users)| users).sum();
        let mut summary = Summary { joined, ..Summary::default() };
        let members = self.members_by_age(graph.room.state)?;
        let Some(members) = members else { return Ok(summary) };
        let count = |wanted| members.iter().filter(|(_, membership)| membership == wanted).count();
        summary.invited = Some(count("invite") as u64);
        if self.is_named()? {
            return Ok(summary);
        }
        let of = |present: bool| {
            let is_present = |membership: &str| matches!(membership, "join" | "invite");
            let others = members.iter().filter(|(user, _)| *user != self.viewer.user);
            let wanted = others.filter(move |(_, membership)| is_present(membership) == present);
            wanted.map(|(user, _)| user.clone()).take(HEROES).collect::<Vec<_>>()
        };
        summary.heroes = of(true);
        if summary.heroes.is_empty() {
            summary.heroes = of(false);
        }
        Ok(summary)
    }

    /// Users and their memberships, those that came first first; `None` if there are too many.
    fn members_by_age(&self, root: Root) -> Result<Option<Vec<(OwnedUserId, String)>>, RoomError> {
        let mut ids = self.graph.state_ids(root)?;
        ids.retain(|key, _| key.kind == "m.room.member");
        if ids.len() > MAX_MEMBERS {
            return Ok(None);
        }
        let mut members = Vec::new();
        for id in ids.values() {
            let known = self.graph.event_here(id)?;
            let Some(user) = known.pdu.target() else { continue };
            let membership = known.pdu.membership().unwrap_or_default().to_owned();
            members.push((known.record.order, user.to_owned(), membership));
        }
        members.sort();
        Ok(Some(members.into_iter().map(|(_, user, membership)| (user, membership)).collect()))
    }

    /// Whether the room has a name or a canonical alias.
    fn is_named(&self) -> Result<bool, RoomError> {
        for (kind, field) in [("m.room.name", "name"), ("m.room.canonical_alias", "alias")] {
            let event = self.graph.current(kind, "")?;
            if event.is_some_and(|event| event.content_str(field).is_some_and(|t| !t.is_empty())) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
