//! The members of a room. Specification: client-server API, "GET /rooms/{roomId}/members" and
//! "joined_members".

use std::collections::BTreeMap;

use exeunt_store::{Reader, records::Root};
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde_json::Value;

use super::{Token, Viewer, access::RoomView, visibility::allows};
use crate::{
    RoomError,
    graph::{Graph, Known},
};

#[derive(Debug, Clone)]
pub struct MembersRequest {
    pub viewer: Viewer,
    pub room_id: OwnedRoomId,
    /// Only members with this membership.
    pub membership: Option<String>,
    /// Only members without this membership.
    pub not_membership: Option<String>,
    /// As of this place; now, or the departure, by default.
    pub at: Option<Token>,
}

/// What the room's state says of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberProfile {
    pub display_name: Option<String>,
    pub avatar_url: Option<String>,
}

pub(super) fn members(
    reader: &Reader<'_>,
    request: &MembersRequest,
) -> Result<Vec<Value>, RoomError> {
    let (view, until) = RoomView::readable(reader, &request.viewer, &request.room_id)?;
    let position = match request.at {
        Some(token) => seen_at(&view, token.position(), until)?,
        None => until,
    };
    let is = |known: &Known, membership: &String| known.pdu.membership() == Some(membership);
    let mut events = Vec::new();
    for known in member_events(&view.graph, view.root_at(position)?) {
        let known = known?;
        let wanted = request.membership.as_ref().is_none_or(|m| is(&known, m));
        let unwanted = request.not_membership.as_ref().is_some_and(|m| is(&known, m));
        if wanted && !unwanted {
            events.push(view.client_event(&known)?);
        }
    }
    Ok(events)
}

/// The place whose members are told to who asks for those of another one. Nobody sees the members of
/// a time before the first join, nor of a later absence where history is not theirs to see; but
/// clients ask for it, as they ask for the members at the start of a timeline that shows the join.
fn seen_at(view: &RoomView<'_>, position: u64, until: u64) -> Result<u64, RoomError> {
    let position = position.max(view.next_join(0)?.unwrap_or(0));
    let next_join = view.next_join(position)?;
    let at = view.standpoint(view.root_at(position)?)?;
    let seen = match allows(&at, next_join.is_some()) {
        true => position,
        false => next_join.unwrap_or(until),
    };
    Ok(seen.min(until))
}

pub(super) fn joined_members(
    reader: &Reader<'_>,
    viewer: &Viewer,
    room_id: &RoomId,
) -> Result<BTreeMap<OwnedUserId, MemberProfile>, RoomError> {
    let view = RoomView::open(reader, viewer, room_id)?
        .filter(RoomView::is_joined)
        .ok_or_else(|| RoomError::Forbidden("You are not in the room".into()))?;
    let mut joined = BTreeMap::new();
    for known in member_events(&view.graph, view.graph.room.state) {
        let known = known?;
        let Some(user) = known.pdu.target() else { continue };
        if known.pdu.membership() == Some("join") {
            let text = |field| known.pdu.content_str(field).map(str::to_owned);
            let profile =
                MemberProfile { display_name: text("displayname"), avatar_url: text("avatar_url") };
            joined.insert(user.to_owned(), profile);
        }
    }
    Ok(joined)
}

fn member_events(graph: &Graph<'_>, root: Root) -> impl Iterator<Item = Result<Known, RoomError>> {
    graph.members(root).map(|member| graph.event_here(&member?.1))
}
