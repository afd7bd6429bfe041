//! Templates of member events for other servers' users. Nothing is stored and nothing is signed.

use exeunt_core::{Object, Pdu};
use ruma::UserId;
use serde_json::{Value, json};

use crate::{Intent, RoomError, append::draft_on_head, graph::Graph, place::check};

/// `{room_version, event}` for a member event by `user` on the room's head, which the rules allow.
pub(super) fn member_template(
    graph: &Graph<'_>,
    user: &UserId,
    content: Object,
    now: u64,
) -> Result<Value, RoomError> {
    let intent = Intent::state(user.to_owned(), "m.room.member", user.as_str(), content);
    let draft = draft_on_head(graph, intent, now)?;
    let mut event = json!({
        "room_id": graph.room_id,
        "sender": draft.sender,
        "type": draft.kind,
        "state_key": draft.state_key,
        "content": draft.content,
        "prev_events": draft.prev_events,
        "auth_events": draft.auth_events,
        "depth": draft.depth,
        "origin": user.server_name(),
        "origin_server_ts": draft.origin_server_ts,
    });
    let answer = json!({ "room_version": graph.version.as_str(), "event": &event });
    // What the user's server adds plays no part in authorisation.
    event["hashes"] = json!({});
    event["signatures"] = json!({});
    let object = event.as_object().cloned().unwrap_or_default();
    check(graph, &Pdu::from_object(graph.version, object)?)?;
    Ok(answer)
}

/// A template is made for users of the server that asks, and nobody else (row ML2).
pub(super) fn check_user(origin: &ruma::ServerName, user: &UserId) -> Result<(), RoomError> {
    if user.server_name() != origin {
        return Err(RoomError::Forbidden("The user is not of the asking server".into()));
    }
    Ok(())
}
