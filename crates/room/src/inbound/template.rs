//! Templates of member events for other servers' users. Nothing is stored and nothing is signed.

use exeunt_core::Object;
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
    let draft = draft_on_head(graph, intent, now)?.unsigned()?;
    check(graph, &draft)?;
    let mut event = draft.object().clone();
    // These are for the user's server to make.
    for field in ["event_id", "hashes", "signatures"] {
        event.remove(field);
    }
    event.insert("origin".into(), user.server_name().as_str().into());
    Ok(json!({ "room_version": graph.version.as_str(), "event": event }))
}

/// A template is made for users of the server that asks, and nobody else (row ML2).
pub(super) fn check_user(origin: &ruma::ServerName, user: &UserId) -> Result<(), RoomError> {
    if user.server_name() != origin {
        return Err(RoomError::Forbidden("The user is not of the asking server".into()));
    }
    Ok(())
}
