//! The forms in which events leave the server.
//!
//! Specification: client-server API, "Types of room events" and "Stripped state"; server-server
//! API, "PDUs".

use serde_json::{Value, json};

use crate::{Object, Pdu};

/// The form for other servers. Versions 1 and 2 carry the event id in the object itself.
pub fn federation(pdu: &Pdu) -> Value {
    Value::Object(pdu.object().clone())
}

/// The form for clients, with `room_id`. Since room version 11 a redaction's target is repeated
/// at the top level for older clients.
pub fn client(pdu: &Pdu, unsigned: Object) -> Value {
    let mut event = client_without_room_id(pdu, unsigned);
    event["room_id"] = pdu.room_id().as_str().into();
    event
}

/// The form inside `/sync`, where the room is known from the place.
pub fn client_without_room_id(pdu: &Pdu, unsigned: Object) -> Value {
    let mut event = json!({
        "event_id": pdu.event_id(),
        "type": pdu.kind(),
        "sender": pdu.sender(),
        "origin_server_ts": pdu.origin_server_ts(),
    });
    event["content"] = pdu.content().clone().into();
    if let Some(state_key) = pdu.state_key() {
        event["state_key"] = state_key.into();
    }
    if let Some(redacts) = pdu.redacts() {
        event["redacts"] = redacts.as_str().into();
    }
    if !unsigned.is_empty() {
        event["unsigned"] = Value::Object(unsigned);
    }
    event
}

/// Stripped state: sender, type, state key and content.
pub fn stripped(pdu: &Pdu) -> Value {
    json!({
        "sender": pdu.sender(),
        "type": pdu.kind(),
        "state_key": pdu.state_key().unwrap_or_default(),
        "content": pdu.content(),
    })
}
