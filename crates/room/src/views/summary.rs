//! The summary of a room in `/sync`: what clients name a room by.

use std::sync::Arc;

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

/// What a state says of the members, to whoever sees it: made once for each state.
#[derive(Debug, Default)]
struct Faces {
    /// How many are joined and invited; `None` if there are too many members.
    counts: Option<(u64, u64)>,
    /// Those joined and invited, and those who are out; the first to come first, one more of each
    /// than there are heroes, since the viewer is none.
    present: Vec<OwnedUserId>,
    absent: Vec<OwnedUserId>,
}

impl RoomView<'_> {
    /// The summary of the room's state now.
    pub fn summary(&self) -> Result<Summary, RoomError> {
        let faces = self.faces()?;
        let Some((joined, invited)) = faces.counts else {
            return Ok(Summary { joined: self.joined_count()?, ..Summary::default() });
        };
        let mut summary = Summary { joined, invited: Some(invited), heroes: Vec::new() };
        if self.is_named()? {
            return Ok(summary);
        }
        for users in [&faces.present, &faces.absent] {
            if summary.heroes.is_empty() {
                let others = users.iter().filter(|user| **user != self.viewer.user);
                summary.heroes = others.take(HEROES).cloned().collect();
            }
        }
        Ok(summary)
    }

    /// How many users are joined.
    pub fn joined_count(&self) -> Result<u64, RoomError> {
        let rows = self.graph.reader.scan::<tables::JoinedServers>(self.graph.room_id.clone());
        Ok(rows.collect()?.into_iter().map(|(_, users)| users).sum())
    }

    fn faces(&self) -> Result<Arc<Faces>, RoomError> {
        let Some((position, _)) = self.states.at(u64::MAX)? else { return Ok(Arc::default()) };
        let key = (self.graph.room_id.clone(), position);
        let reader = self.graph.reader;
        let made = reader.derived::<tables::RoomStates, _, _>(&key, |root| self.look(root))?;
        Ok(made.unwrap_or_default())
    }

    /// Reads every member event, unless there are too many.
    fn look(&self, root: Root) -> Result<Faces, RoomError> {
        let ids = self.graph.members(root).take(MAX_MEMBERS + 1);
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        if ids.len() > MAX_MEMBERS {
            return Ok(Faces::default());
        }
        let (mut joined, mut invited) = (0, 0);
        let (mut present, mut absent) = (Vec::new(), Vec::new());
        for (_, id) in ids {
            let known = self.graph.event_here(&id)?;
            let Some(user) = known.pdu.target() else { continue };
            let membership = known.pdu.membership();
            joined += u64::from(membership == Some("join"));
            invited += u64::from(membership == Some("invite"));
            match membership {
                Some("join" | "invite") => &mut present,
                _ => &mut absent,
            }
            .push((known.record.order, user.to_owned()));
        }
        let first = |mut users: Vec<(_, OwnedUserId)>| {
            users.sort();
            users.into_iter().map(|(_, user)| user).take(HEROES + 1).collect()
        };
        let counts = Some((joined, invited));
        Ok(Faces { counts, present: first(present), absent: first(absent) })
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
