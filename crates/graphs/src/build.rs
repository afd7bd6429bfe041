//! Events from their parts. They are well-formed and have true hashes, but no signatures.

use exeunt_core::ruma::OwnedEventId;
use exeunt_core::{Object, Pdu, RoomVersion, hash};
use serde_json::{Value, json};

/// What an event says.
pub struct Shape {
    pub sender: &'static str,
    pub kind: &'static str,
    pub state_key: Option<String>,
    pub content: Value,
    pub redacts: Option<OwnedEventId>,
}

impl Shape {
    pub fn state(sender: &'static str, kind: &'static str, key: &str, content: Value) -> Self {
        Self { sender, kind, state_key: Some(key.to_owned()), content, redacts: None }
    }

    pub fn member(sender: &'static str, target: &str, membership: &str) -> Self {
        Self::state(sender, "m.room.member", target, json!({"membership": membership}))
    }

    pub fn message(sender: &'static str, kind: &'static str, content: Value) -> Self {
        Self { sender, kind, state_key: None, content, redacts: None }
    }
}

/// Where an event stands.
pub struct Place {
    pub version: RoomVersion,
    /// `None` for a create event whose hash founds the room.
    pub room_id: Option<String>,
    pub prev_events: Vec<OwnedEventId>,
    pub auth_events: Vec<OwnedEventId>,
    pub depth: u64,
    pub ts: u64,
    /// Of event ids that are not hashes.
    pub number: usize,
}

pub fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => panic!("not an object: {other}"),
    }
}

/// The event. It is an error of the generator if it is not well-formed.
pub fn build(shape: &Shape, place: &Place) -> Pdu {
    let rules = place.version.rules();
    let in_pairs = rules.event_format.require_event_id;
    let references = |ids: &[OwnedEventId]| -> Value {
        ids.iter().map(|id| if in_pairs { json!([id, {}]) } else { json!(id) }).collect()
    };
    let mut event = object(json!({
        "type": shape.kind,
        "sender": shape.sender,
        "content": shape.content,
        "prev_events": references(&place.prev_events),
        "auth_events": references(&place.auth_events),
        "depth": place.depth,
        "origin_server_ts": place.ts,
        "signatures": {},
    }));
    if let Some(key) = &shape.state_key {
        event.insert("state_key".into(), key.as_str().into());
    }
    if let Some(room_id) = &place.room_id {
        event.insert("room_id".into(), room_id.as_str().into());
    }
    if let Some(redacts) = &shape.redacts {
        if rules.redaction.content_field_redacts {
            event["content"]["redacts"] = redacts.as_str().into();
        } else {
            event.insert("redacts".into(), redacts.as_str().into());
        }
    }
    if in_pairs {
        let server = server_of(shape.sender);
        event.insert("event_id".into(), format!("${}:{server}", place.number).into());
    }
    hash::set_content_hash(&mut event);
    Pdu::from_object(place.version, event).expect("a well-formed event")
}

pub fn server_of(user: &str) -> &str {
    user.split_once(':').expect("a user id").1
}
