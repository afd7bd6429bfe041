//! `rooms.invite` and `rooms.knock`: rooms that the user is not in yet.

use exeunt_core::{Object, Pdu, wire};
use exeunt_store::{Reader, tables};
use ruma::RoomId;
use serde_json::{Value, json};

use super::{PendingRoom, SyncRequest};
use crate::{RoomError, graph::Graph, invite::invite_state, leave::pending_event};

const CREATE: &str = "m.room.create";

/// Stripped state, and the user's own member event last.
pub(super) fn pending(
    reader: &Reader<'_>,
    request: &SyncRequest,
    room_id: &RoomId,
) -> Result<PendingRoom, RoomError> {
    let user = &request.viewer.user;
    let key = (user.clone(), room_id.to_owned());
    let mut state: Vec<Value> = Vec::new();
    if let Some(pending) = reader.get::<tables::Pending>(&key)? {
        let own = pending_event(&pending)?;
        state.extend(pending.stripped_state.iter().filter_map(strip));
        state.push(wire::stripped(&own));
    } else if let Some(graph) = Graph::open(reader, room_id)?
        && let Some(own) = graph.current("m.room.member", user.as_str())?
    {
        state.extend(invite_state(&graph, own.sender())?.iter().map(stripped));
        state.push(wire::stripped(&own));
    }
    // The user's own event once, and as we have it.
    let is_own =
        |event: &Value| event["type"] == "m.room.member" && event["state_key"] == user.as_str();
    if let Some(own) = state.pop() {
        state.retain(|event| !is_own(event));
        state.push(own);
    }
    Ok(PendingRoom { state })
}

/// Stripped state; of a create event also when it was made, which clients that follow MSC4311 look
/// for.
fn stripped(event: &Pdu) -> Value {
    let mut stripped = wire::stripped(event);
    if event.kind() == CREATE {
        stripped["origin_server_ts"] = event.origin_server_ts().into();
    }
    stripped
}

/// The same of what another server gave us; an entry that lacks one of the four fields is left out.
fn strip(event: &Object) -> Option<Value> {
    let text = |field: &str| event.get(field).filter(|value| value.is_string());
    let content = event.get("content").filter(|value| value.is_object());
    let mut stripped = json!({
        "type": text("type")?,
        "sender": text("sender")?,
        "state_key": text("state_key")?,
        "content": content?,
    });
    if let Some(at) = event.get("origin_server_ts").filter(|_| stripped["type"] == CREATE) {
        stripped["origin_server_ts"] = at.clone();
    }
    Some(stripped)
}
