//! A room and a user in it as they were at a stream position.

use std::{cell::RefCell, iter};

use exeunt_core::StateKey;
use exeunt_store::{Reader, StoreError, records::Root, tables};
use ruma::{RoomId, UserId};

use super::access::RoomView;
use crate::{RoomError, graph::Graph};

/// Most states of a room that are read one after the other.
const MAX_STATES: usize = 500;
/// Most changes of a membership that are kept.
const MAX_CHANGES: usize = 50;

/// A time in which a user was joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stay {
    /// Stream position of the last join event, and of the one that began the stay: those after it
    /// only change the profile.
    pub joined: u64,
    pub began: u64,
    /// Stream position of the departure.
    pub left: Option<u64>,
}

/// The newest changes of the user's membership, with their stream positions.
#[derive(Default)]
pub(super) struct Changes {
    /// Newest first.
    lines: Vec<(u64, String)>,
    /// Whether there are no others.
    are_all: bool,
}

impl Changes {
    /// The changes, and the last time that the user was joined.
    pub fn of(
        reader: &Reader<'_>,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<(Option<Stay>, Self), StoreError> {
        let (mut stay, mut left, mut ended) = (None, None, false);
        let mut changes = Self { lines: Vec::new(), are_all: true };
        let prefix = (room_id.to_owned(), user.to_owned());
        for row in reader.scan::<tables::MembershipLog>(prefix).iter_back() {
            let ((_, _, position), line) = row?;
            match (line.membership.as_str(), &mut stay) {
                ("join", None) => stay = Some(Stay { joined: position, began: position, left }),
                ("join", Some(stay)) if !ended => stay.began = position,
                (_, None) => left = Some(position),
                (_, Some(_)) => ended = true,
            }
            changes.are_all = changes.lines.len() < MAX_CHANGES;
            if changes.are_all {
                changes.lines.push((position, line.membership));
            } else if ended {
                break;
            }
        }
        Ok((stay, changes))
    }

    /// The user's membership at a stream position; `None`: these changes do not tell.
    fn at(&self, position: u64) -> Option<&str> {
        match self.lines.iter().find(|(at, _)| *at <= position) {
            Some((_, membership)) => Some(membership),
            None => self.are_all.then_some("leave"),
        }
    }
}

/// The room's states, newest first, read as far back as somebody looks.
pub(super) struct States<'a>(RefCell<Read<'a>>);

struct Read<'a> {
    rows: Vec<(u64, Root)>,
    others: Box<dyn Iterator<Item = Result<(u64, Root), StoreError>> + 'a>,
}

impl<'a> States<'a> {
    pub fn of(graph: &Graph<'a>) -> Self {
        let (room_id, room) = (&graph.room_id, &graph.room);
        let scan = graph.reader.scan::<tables::RoomStates>(room_id.clone()).rev().limit(MAX_STATES);
        let (rows, scan) = match room.state_since {
            0 => (Vec::new(), scan),
            since => (vec![(since, room.state)], scan.before((room_id.clone(), since))),
        };
        let others = iter::once_with(|| scan.iter()).flatten();
        let others = others.map(|row| row.map(|((_, position), root)| (position, root)));
        Self(RefCell::new(Read { rows, others: Box::new(others) }))
    }

    /// The newest state that the room had at a stream position, with its own; `None` if that lies
    /// too far back.
    pub fn at(&self, position: u64) -> Result<Option<(u64, Root)>, StoreError> {
        let mut read = self.0.borrow_mut();
        while read.rows.last().is_none_or(|(at, _)| *at > position) {
            match read.others.next() {
                Some(row) => {
                    let row = row?;
                    read.rows.push(row);
                }
                None => return Ok(None),
            }
        }
        Ok(read.rows.iter().find(|(at, _)| *at <= position).copied())
    }
}

impl RoomView<'_> {
    /// Whether the user was joined at a stream position.
    pub fn was_joined(&self, position: u64) -> Result<bool, RoomError> {
        if let Some(member) = self.member.as_ref().filter(|member| member.position <= position) {
            return Ok(member.membership == "join");
        }
        let root = self.root_at(position)?;
        let event = self.graph.state_event(root, &StateKey::member(&self.viewer.user))?;
        Ok(event.is_some_and(|event| event.membership() == Some("join")))
    }

    /// The user's membership in the state that the room was in from that stream position on; `None`
    /// if the room was in another one, or that lies too far back.
    pub fn membership_at(&self, position: u64, root: Root) -> Result<Option<&str>, RoomError> {
        let is_it = self.states.at(position)? == Some((position, root));
        Ok(is_it.then(|| self.changes.at(position)).flatten())
    }

    /// The room's current state as it was at a stream position.
    pub fn root_at(&self, position: u64) -> Result<Root, RoomError> {
        if let Some((_, root)) = self.states.at(position)? {
            return Ok(root);
        }
        let room_id = &self.graph.room_id;
        let rows = self.graph.reader.scan::<tables::RoomStates>(room_id.clone());
        let row = rows.before((room_id.clone(), position.saturating_add(1))).rev().first()?;
        Ok(row.map_or(Root::EMPTY, |(_, root)| root))
    }

    /// The first state of the room that we know.
    pub fn first_root(&self) -> Result<Root, RoomError> {
        let row =
            self.graph.reader.scan::<tables::RoomStates>(self.graph.room_id.clone()).first()?;
        Ok(row.map_or(Root::EMPTY, |(_, root)| root))
    }

    /// The first stream position after that one at which the user joins.
    pub fn next_join(&self, after: u64) -> Result<Option<u64>, RoomError> {
        let prefix = (self.graph.room_id.clone(), self.viewer.user.clone());
        let rows = self.graph.reader.scan::<tables::MembershipLog>(prefix.clone());
        for row in rows.after((prefix.0, prefix.1, after)).iter() {
            let ((_, _, position), line) = row?;
            if line.membership == "join" {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }
}
