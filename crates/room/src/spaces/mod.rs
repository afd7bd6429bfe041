//! Spaces: rooms whose state names other rooms, walked as a tree, and what may be shown of a room
//! to those outside.
//!
//! Specification: client-server API, "Spaces"; server-server API, "Spaces"; MSC3266 for summaries.

mod access;
mod ask;
mod children;
mod summary;
mod walk;

use exeunt_core::Object;
use serde::Serialize;

pub(crate) use access::{is_shown_to_server, server_may_know};
pub(crate) use ask::Answers;
pub(crate) use children::children_of;
pub(crate) use walk::Walks;
pub use {
    ask::{ANSWER_LIFE_MS, MAX_SERVERS_ASKED},
    children::MAX_CHILDREN,
    walk::{HierarchyPage, HierarchyRequest, MAX_DEPTH, MAX_PAGE, WALK_LIFE_MS},
};

use crate::RoomSummary;

/// A room of the tree (`SpaceHierarchyRoomsChunk` of the client-server API).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HierarchyRoom {
    #[serde(flatten)]
    pub summary: RoomSummary,
    /// Stripped `m.space.child` events; none of a room that is no space.
    pub children_state: Vec<Object>,
}
