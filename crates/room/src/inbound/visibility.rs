//! What a server may see of history: as much as its users could.
//!
//! Specification: client-server API, "Room History Visibility"; server-server API, "Backfilling
//! and retrieving missing events".

use std::cell::OnceCell;

use exeunt_core::{Pdu, StateKey};
use exeunt_store::records::{Root, States};
use ruma::{OwnedUserId, ServerName, UserId};

use crate::{
    RoomError,
    graph::{Graph, Known},
    views::visibility::is_erased,
};

/// Answers for one server that has users in the room now.
pub(super) struct Visibility<'g> {
    graph: &'g Graph<'g>,
    origin: &'g ServerName,
    users: OnceCell<Vec<OwnedUserId>>,
}

impl<'g> Visibility<'g> {
    pub fn new(graph: &'g Graph<'g>, origin: &'g ServerName) -> Self {
        Self { graph, origin, users: OnceCell::new() }
    }

    /// Whether the server may see an event with its content.
    pub fn may_see(&self, event: &Known) -> Result<bool, RoomError> {
        let Some(States { before, after, .. }) = event.record.states else {
            // State of before our own join: it was handed out with every join since.
            return Ok(event.pdu.state_key().is_some());
        };
        Ok(self.at(after)? || (before != after && self.at(before)?))
    }

    /// The event as the server may see it: without its content where it may not, and where that
    /// is erased and no user of the server was in the room when the event came.
    pub fn shown(&self, event: &Known) -> Result<Pdu, RoomError> {
        let is_whole = self.may_see(event)? && !self.is_erased(event)?;
        Ok(if is_whole { event.pdu.clone() } else { event.pdu.redacted() })
    }

    fn is_erased(&self, event: &Known) -> Result<bool, RoomError> {
        if !is_erased(self.graph.reader, event.pdu.sender())? {
            return Ok(false);
        }
        let Some(States { before, after, .. }) = event.record.states else { return Ok(false) };
        Ok(!self.had(&["join"], before)? && !self.had(&["join"], after)?)
    }

    fn at(&self, root: Root) -> Result<bool, RoomError> {
        let key = StateKey::single("m.room.history_visibility");
        let event = self.graph.state_event(root, &key)?;
        match event.as_ref().and_then(|e| e.content_str("history_visibility")) {
            Some("joined") => self.had(&["join"], root),
            Some("invited") => self.had(&["join", "invite"], root),
            // `shared` and `world_readable`; anything else reads as the default, `shared`.
            _ => Ok(true),
        }
    }

    /// Whether a user of the server had one of these memberships.
    fn had(&self, enough: &[&str], root: Root) -> Result<bool, RoomError> {
        for user in self.users()? {
            let member = self.graph.state_event(root, &StateKey::member(user))?;
            if member.as_ref().and_then(Pdu::membership).is_some_and(|m| enough.contains(&m)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Users of the server whom the room has known.
    fn users(&self) -> Result<&[OwnedUserId], RoomError> {
        if let Some(users) = self.users.get() {
            return Ok(users);
        }
        let mut users = Vec::new();
        for member in self.graph.members(self.graph.room.state) {
            let user = UserId::parse(member?.0).ok();
            users.extend(user.filter(|user| user.server_name() == self.origin));
        }
        Ok(self.users.get_or_init(|| users))
    }
}
