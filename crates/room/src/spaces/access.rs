//! To whom a room may be shown who is not in it: a user who could join or peek, and a server one
//! of whose users could.
//!
//! Specification: client-server API, "GET /rooms/{roomId}/hierarchy", field `rooms`.

use exeunt_store::{Reader, tables};
use ruma::{OwnedRoomId, RoomId, ServerName, UserId};

use crate::{
    RoomError, RoomSummary,
    describe::summarize,
    graph::{Graph, is_joined},
};

/// What a room asks of those who want to know of it.
enum Door {
    /// Anyone could join, knock or peek.
    Open,
    /// Members of these rooms could join.
    Restricted(Vec<OwnedRoomId>),
    Closed,
}

impl Door {
    /// By the room's own state. A join rule that the room's version does not know is no way in.
    fn of(graph: &Graph<'_>, summary: &RoomSummary) -> Self {
        let rules = &graph.version.rules().authorization;
        let counts = match &*summary.room.join_rule {
            "knock" => rules.knocking,
            "restricted" => rules.restricted_join_rule,
            "knock_restricted" => rules.knock_restricted_join_rule,
            _ => true,
        };
        if counts || summary.room.world_readable { Self::told(summary) } else { Self::Closed }
    }

    /// By what is told of the room.
    fn told(summary: &RoomSummary) -> Self {
        match &*summary.room.join_rule {
            _ if summary.room.world_readable => Self::Open,
            "public" | "knock" | "knock_restricted" => Self::Open,
            "restricted" => Self::Restricted(summary.allowed_room_ids.clone()),
            _ => Self::Closed,
        }
    }
}

/// Whether a room of ours may be shown to a local user, or to anyone; gives its summary.
pub(super) fn shown_to_user(
    graph: &Graph<'_>,
    user: Option<&UserId>,
) -> Result<Option<RoomSummary>, RoomError> {
    let summary = summarize(graph)?;
    let door = Door::of(graph, &summary);
    Ok(passes(graph.reader, &summary, door, user)?.then_some(summary))
}

/// The same for a room that another server described. Conditions are ours to check: the other
/// server knows our server only.
pub(super) fn may_see_told(
    reader: &Reader<'_>,
    summary: &RoomSummary,
    user: Option<&UserId>,
) -> Result<bool, RoomError> {
    passes(reader, summary, Door::told(summary), user)
}

fn passes(
    reader: &Reader<'_>,
    summary: &RoomSummary,
    door: Door,
    user: Option<&UserId>,
) -> Result<bool, RoomError> {
    let Some(user) = user else { return Ok(matches!(door, Door::Open)) };
    match membership(reader, user, &summary.room.room_id)?.as_deref() {
        Some("join" | "invite" | "knock") => return Ok(true),
        Some("ban") => return Ok(summary.room.world_readable),
        _ => {}
    }
    match door {
        Door::Open => Ok(true),
        Door::Closed => Ok(false),
        Door::Restricted(rooms) => {
            for room in rooms {
                if membership(reader, user, &room)?.as_deref() == Some("join") {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// What a room is to a local user.
pub(super) fn membership(
    reader: &Reader<'_>,
    user: &UserId,
    room_id: &RoomId,
) -> Result<Option<String>, RoomError> {
    let record = reader.get::<tables::Memberships>(&(user.to_owned(), room_id.to_owned()))?;
    Ok(record.map(|record| record.membership))
}

/// Whether a room that we reside in may be shown to another server: gives its summary.
pub(crate) fn is_shown_to_server(
    graph: &Graph<'_>,
    origin: &ServerName,
    ours: &ServerName,
) -> Result<Option<RoomSummary>, RoomError> {
    if !server_may_know(graph, origin)? {
        return Ok(None);
    }
    let (reader, summary) = (graph.reader, summarize(graph)?);
    let shown = match Door::of(graph, &summary) {
        Door::Open => true,
        _ if is_joined(reader, &graph.room_id, origin)? => true,
        Door::Restricted(rooms) if any_shared(reader, &rooms, origin, ours)? => true,
        _ => graph.has_member(graph.room.state, origin, "invite")?,
    };
    Ok(shown.then_some(summary))
}

/// Whether the room's ACL lets a server in, and its federation is not switched off.
pub(crate) fn server_may_know(graph: &Graph<'_>, origin: &ServerName) -> Result<bool, RoomError> {
    let create = graph.create()?;
    let federates = create.content().get("m.federate") != Some(&false.into());
    Ok((federates || create.sender().server_name() == origin) && graph.acl_allows(origin)?)
}

/// Whether users of the server are in one of the rooms, as far as we are in it too.
fn any_shared(
    reader: &Reader<'_>,
    rooms: &[OwnedRoomId],
    origin: &ServerName,
    ours: &ServerName,
) -> Result<bool, RoomError> {
    for room in rooms {
        if is_joined(reader, room, ours)? && is_joined(reader, room, origin)? {
            return Ok(true);
        }
    }
    Ok(false)
}
