//! Restricted joins: whether a condition of the join rule lets a user in, and who vouches for it.
//!
//! Specification: client-server API, "Restricted rooms"; rooms/v8; server-server API, "Joining
//! Rooms", "Restricted rooms".

use exeunt_store::{Reader, tables};
use ruma::{OwnedUserId, RoomId, ServerName, UserId};
use serde_json::Value;

use crate::{
    RoomError,
    graph::{Graph, is_joined},
};

/// Most conditions of a join rule that are looked at.
const MAX_CONDITIONS: usize = 50;

/// The user of ours who vouches for the join; `None` where nobody has to. An error where the user
/// may not come in, or where we cannot tell.
pub(super) fn authoriser(
    graph: &Graph<'_>,
    user: &UserId,
    ours: &ServerName,
) -> Result<Option<OwnedUserId>, RoomError> {
    let Some(conditions) = conditions(graph)? else { return Ok(None) };
    if matches!(graph.membership(user)?.as_deref(), Some("join" | "invite")) {
        return Ok(None);
    }
    if !meets_any(graph, &conditions, user, ours)? {
        return Err(RoomError::Forbidden("You meet none of the room's conditions".into()));
    }
    let levels = graph.power_levels(graph.room.state)?;
    let needed = levels.invite().ok();
    for user in local_joined(graph.reader, &graph.room_id)? {
        if let (Some(needed), Ok(level)) = (needed, levels.user(&user))
            && level >= needed
        {
            return Ok(Some(user));
        }
    }
    Err(RoomError::Forbidden("Nobody here may let you in; ask another server".into()))
}

/// Whether we may vouch for the join: a condition is met now.
pub(super) fn may_vouch(
    graph: &Graph<'_>,
    user: &UserId,
    ours: &ServerName,
) -> Result<bool, RoomError> {
    match conditions(graph)? {
        Some(conditions) => meets_any(graph, &conditions, user, ours),
        None => Ok(false),
    }
}

/// The rooms of which membership lets one in; `None` where the join rule is no restricted one.
fn conditions(graph: &Graph<'_>) -> Result<Option<Vec<Value>>, RoomError> {
    if !graph.version.rules().authorization.restricted_join_rule {
        return Ok(None);
    }
    let rules = graph.current("m.room.join_rules", "")?;
    let rules = rules.filter(|rules| {
        matches!(rules.content_str("join_rule"), Some("restricted" | "knock_restricted"))
    });
    let Some(rules) = rules else { return Ok(None) };
    let allow = rules.content().get("allow").and_then(Value::as_array);
    Ok(Some(
        allow.map(|all| all.iter().take(MAX_CONDITIONS).cloned().collect()).unwrap_or_default(),
    ))
}

fn meets_any(
    graph: &Graph<'_>,
    conditions: &[Value],
    user: &UserId,
    ours: &ServerName,
) -> Result<bool, RoomError> {
    for condition in conditions {
        let field = |name| condition.get(name).and_then(Value::as_str);
        let Some(room) = field("room_id").and_then(|id| <&RoomId>::try_from(id).ok()) else {
            continue;
        };
        // Of a room that we are not in we know nothing certain.
        if field("type") == Some("m.room_membership")
            && is_joined(graph.reader, room, ours)?
            && Graph::of(graph.reader, room)?.membership(user)?.as_deref() == Some("join")
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn local_joined(reader: &Reader<'_>, room_id: &RoomId) -> Result<Vec<OwnedUserId>, RoomError> {
    let rows = reader.scan::<tables::LocalMembers>(room_id.to_owned()).collect()?;
    Ok(rows.into_iter().filter(|(_, m)| m == "join").map(|((_, user), _)| user).collect())
}
