//! How far a user may read a room: all of it, or up to the departure.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use exeunt_store::{
    Reader,
    records::{MembershipRecord, Root},
    tables,
};
use ruma::{OwnedUserId, RoomId, UserId};

use super::{
    EventFormat, Viewer,
    past::{Changes, States, Stay},
    visibility::Standpoint,
};
use crate::{RoomError, graph::Graph, invite_policy::ignored_users};

/// A room as one user may read it.
pub(crate) struct RoomView<'a> {
    pub graph: Graph<'a>,
    pub viewer: &'a Viewer,
    /// What the room is to the user.
    pub member: Option<MembershipRecord>,
    /// The user's last stay in the room.
    pub stay: Option<Stay>,
    pub(super) changes: Changes,
    pub(super) states: States<'a>,
    /// The form of the events inside `/sync`.
    pub format: EventFormat,
    /// What the rules of visibility ask of a state, by its root.
    pub(super) standpoints: RefCell<BTreeMap<Root, Standpoint>>,
    /// Whom the user ignores.
    pub(super) ignored: OnceCell<Arc<BTreeSet<OwnedUserId>>>,
}

impl<'a> RoomView<'a> {
    /// The room as the user may read it, `None` if there is no such room here. Says nothing about
    /// whether the user may read it at all.
    pub fn open(
        reader: &'a Reader<'a>,
        viewer: &'a Viewer,
        room_id: &RoomId,
    ) -> Result<Option<Self>, RoomError> {
        let key = (viewer.user.clone(), room_id.to_owned());
        let member = reader.get::<tables::Memberships>(&key)?;
        Self::open_as(reader, viewer, room_id, member)
    }

    /// As [`open`](Self::open), where it is known what the room is to the user.
    pub fn open_as(
        reader: &'a Reader<'a>,
        viewer: &'a Viewer,
        room_id: &RoomId,
        member: Option<MembershipRecord>,
    ) -> Result<Option<Self>, RoomError> {
        let Some(graph) = Graph::open(reader, room_id)? else { return Ok(None) };
        let (stay, changes) = match member {
            Some(_) => Changes::of(reader, room_id, &viewer.user)?,
            None => Default::default(),
        };
        let states = States::of(&graph);
        Ok(Some(Self {
            graph,
            viewer,
            member,
            stay,
            changes,
            states,
            format: EventFormat::default(),
            standpoints: RefCell::default(),
            ignored: OnceCell::new(),
        }))
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

    /// Whether the room has history from before our time in it, here or elsewhere.
    pub fn begins_elsewhere(&self) -> Result<bool, RoomError> {
        let create = self.graph.event_here(&self.graph.room.create_event)?;
        Ok(create.record.order.is_none_or(|order| order <= 0))
    }
}
