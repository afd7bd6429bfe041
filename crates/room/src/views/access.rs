//! How far a user may read a room: all of it, or up to the departure.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use exeunt_core::StateKey;
use exeunt_store::{
    Reader, StoreError,
    records::{MembershipRecord, Root},
    tables,
};
use ruma::{OwnedUserId, RoomId, UserId};

use super::{EventFormat, Viewer, visibility::Standpoint};
use crate::{RoomError, graph::Graph, invite_policy::ignored_users};

/// A room as one user may read it.
pub(crate) struct RoomView<'a> {
    pub graph: Graph<'a>,
    pub viewer: &'a Viewer,
    /// What the room is to the user.
    pub member: Option<MembershipRecord>,
    /// The user's last stay in the room.
    pub stay: Option<Stay>,
    /// The form of the events inside `/sync`.
    pub format: EventFormat,
    /// What the rules of visibility ask of a state, by its root.
    pub(super) standpoints: RefCell<BTreeMap<Root, Standpoint>>,
    /// Whom the user ignores.
    pub(super) ignored: OnceCell<Rc<BTreeSet<OwnedUserId>>>,
    has_relations: OnceCell<bool>,
}

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

impl<'a> RoomView<'a> {
    /// The room as the user may read it, `None` if there is no such room here. Says nothing about
    /// whether the user may read it at all.
    pub fn open(
        reader: &'a Reader<'a>,
        viewer: &'a Viewer,
        room_id: &RoomId,
    ) -> Result<Option<Self>, RoomError> {
        let Some(graph) = Graph::open(reader, room_id)? else { return Ok(None) };
        let key = (viewer.user.clone(), room_id.to_owned());
        let member = reader.get::<tables::Memberships>(&key)?;
        let stay = match member {
            Some(_) => last_stay(reader, room_id, &viewer.user)?,
            None => None,
        };
        let (format, standpoints) = Default::default();
        let (ignored, has_relations) = Default::default();
        Ok(Some(Self { graph, viewer, member, stay, format, standpoints, ignored, has_relations }))
    }

    /// As [`open`](Self::open), for a user who may read the room: one who is or was joined, or
    /// anyone if the room is world readable. Gives the stream position up to which they may.
    pub fn readable(
        reader: &'a Reader<'a>,
        viewer: &'a Viewer,
        room_id: &RoomId,
    ) -> Result<(Self, u64), RoomError> {
        let refused = || RoomError::Forbidden("You are not in the room, and never were".into());
        let view = Self::open(reader, viewer, room_id)?.ok_or_else(refused)?;
        let until = view.until()?.ok_or_else(refused)?;
        Ok((view, until))
    }

    /// The stream position up to which the user may read the room; `None`: nothing of it.
    pub fn until(&self) -> Result<Option<u64>, RoomError> {
        let now = self.graph.reader.position()?;
        if self.is_joined() {
            return Ok(Some(now));
        }
        if self.standpoint(self.graph.room.state)?.visibility.is_world_readable() {
            return Ok(Some(now));
        }
        if self.is_forgotten() {
            return Ok(None);
        }
        Ok(self.stay.and_then(|stay| stay.left))
    }

    pub fn is_joined(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.membership == "join")
    }

    /// Whether the user has left the room and wants to know no more of it.
    pub fn is_forgotten(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.forgotten)
    }

    /// Whether the user does not want to see what that one sends (`m.ignored_user_list`).
    pub fn ignores(&self, sender: &UserId) -> Result<bool, RoomError> {
        if let Some(ignored) = self.ignored.get() {
            return Ok(ignored.contains(sender));
        }
        let ignored = ignored_users(self.graph.reader, &self.viewer.user)?;
        Ok(self.ignored.get_or_init(|| ignored.into()).contains(sender))
    }

    /// Whether any event of the room relates to another one.
    pub fn has_relations(&self) -> Result<bool, RoomError> {
        if let Some(known) = self.has_relations.get() {
            return Ok(*known);
        }
        let rows = self.graph.reader.scan::<tables::Relations>(self.graph.room_id.clone());
        let any = !rows.limit(1).keys()?.is_empty();
        Ok(*self.has_relations.get_or_init(|| any))
    }

    /// Whether the user was joined at a stream position.
    pub fn was_joined(&self, position: u64) -> Result<bool, RoomError> {
        if let Some(member) = self.member.as_ref().filter(|member| member.position <= position) {
            return Ok(member.membership == "join");
        }
        let root = self.root_at(position)?;
        let event = self.graph.state_event(root, &StateKey::member(&self.viewer.user))?;
        Ok(event.is_some_and(|event| event.membership() == Some("join")))
    }

    /// The room's current state as it was at a stream position.
    pub fn root_at(&self, position: u64) -> Result<Root, RoomError> {
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

    /// Whether the room has history from before our time in it, here or elsewhere.
    pub fn begins_elsewhere(&self) -> Result<bool, RoomError> {
        let create = self.graph.event_here(&self.graph.room.create_event)?;
        Ok(create.record.order.is_none_or(|order| order <= 0))
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

/// The last time that a user was joined to a room.
fn last_stay(
    reader: &Reader<'_>,
    room_id: &RoomId,
    user: &UserId,
) -> Result<Option<Stay>, StoreError> {
    let (mut stay, mut left) = (None, None);
    let prefix = (room_id.to_owned(), user.to_owned());
    for row in reader.scan::<tables::MembershipLog>(prefix).rev().iter() {
        let ((_, _, position), line) = row?;
        match (line.membership.as_str(), &mut stay) {
            ("join", None) => stay = Some(Stay { joined: position, began: position, left }),
            ("join", Some(stay)) => stay.began = position,
            (_, None) => left = Some(position),
            (_, Some(_)) => break,
        }
    }
    Ok(stay)
}
