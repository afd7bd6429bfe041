//! The forms in which events leave the server.
//!
//! Specification: client-server API, "Types of room events" and "Stripped state"; server-server
//! API, "PDUs".

use ruma::EventId;
use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeMap},
};
use serde_json::{Value, json, value::RawValue};

use crate::{Object, Pdu};

/// The form for other servers. Versions 1 and 2 carry the event id in the object itself.
pub fn federation(pdu: &Pdu) -> Value {
    Value::Object(pdu.object().clone())
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

/// An event as a client gets it. It becomes JSON only when it is sent.
#[derive(Debug, Clone)]
pub struct ClientEvent {
    source: Source,
    unsigned: Unsigned,
    form: ClientForm,
}

#[derive(Debug, Clone)]
enum Source {
    Event(Pdu),
    /// Of an event whose room version is not known.
    Fields(Object),
}

/// Which fields of an event a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientForm {
    WithRoomId,
    /// Inside `/sync`, where the room is known from the place.
    WithoutRoomId,
    /// Those that other servers get, with `event_id` and `unsigned`.
    Federation,
}

/// What this server adds to an event. Client-server API, "UnsignedData".
#[derive(Debug, Clone, Default)]
pub struct Unsigned {
    /// Milliseconds.
    pub age: u64,
    /// The reader's membership at the event (MSC4115).
    pub membership: Option<String>,
    pub transaction_id: Option<String>,
    /// The state event whose place this one took.
    pub previous: Option<Pdu>,
    pub redacted_because: Option<Box<ClientEvent>>,
    /// `m.relations`.
    pub relations: Object,
}

impl Unsigned {
    /// An `unsigned` that says only how old the event is.
    pub fn aged(age: u64) -> Self {
        Self { age, ..Self::default() }
    }
}

impl ClientEvent {
    pub fn new(event: Pdu, unsigned: Unsigned, form: ClientForm) -> Self {
        Self { source: Source::Event(event), unsigned, form }
    }

    /// An event of which there are no more than these fields.
    pub fn of_fields(fields: Object, unsigned: Unsigned) -> Self {
        Self { source: Source::Fields(fields), unsigned, form: ClientForm::WithoutRoomId }
    }

    /// The event; `None` where there are its fields alone.
    pub fn event(&self) -> Option<&Pdu> {
        match &self.source {
            Source::Event(event) => Some(event),
            Source::Fields(_) => None,
        }
    }

    pub fn has_id(&self, id: &EventId) -> bool {
        match &self.source {
            Source::Event(event) => event.event_id() == id,
            Source::Fields(fields) => fields.get("event_id").is_some_and(|own| own == id.as_str()),
        }
    }
}

impl From<ClientEvent> for Value {
    fn from(event: ClientEvent) -> Self {
        serde_json::to_value(event).expect("an event is JSON")
    }
}

impl Serialize for ClientEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { source, unsigned, form } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("unsigned", unsigned)?;
        let event = match source {
            Source::Event(event) => event,
            Source::Fields(fields) => {
                for (field, value) in fields {
                    map.serialize_entry(field, value)?;
                }
                return map.end();
            }
        };
        map.serialize_entry("event_id", event.event_id())?;
        if *form == ClientForm::Federation {
            for (field, value) in event.object().iter().filter(|(field, _)| *field != "event_id") {
                map.serialize_entry(field, value)?;
            }
            return map.end();
        }
        map.serialize_entry("type", event.kind())?;
        map.serialize_entry("sender", event.sender())?;
        map.serialize_entry("origin_server_ts", &event.origin_server_ts())?;
        map.serialize_entry("content", &Content(event))?;
        if let Some(state_key) = event.state_key() {
            map.serialize_entry("state_key", state_key)?;
        }
        // Since room version 11 the target of a redaction is in its content; at the top level older
        // clients look for it.
        if let Some(redacts) = event.redacts() {
            map.serialize_entry("redacts", &redacts)?;
        }
        if *form == ClientForm::WithRoomId {
            map.serialize_entry("room_id", event.room_id())?;
        }
        map.end()
    }
}

impl Serialize for Unsigned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("age", &self.age)?;
        if let Some(membership) = &self.membership {
            map.serialize_entry("membership", membership)?;
        }
        if let Some(transaction_id) = &self.transaction_id {
            map.serialize_entry("transaction_id", transaction_id)?;
        }
        if let Some(previous) = &self.previous {
            map.serialize_entry("prev_content", &Content(previous))?;
            map.serialize_entry("prev_sender", previous.sender())?;
            map.serialize_entry("replaces_state", previous.event_id())?;
        }
        if let Some(redaction) = &self.redacted_because {
            map.serialize_entry("redacted_because", redaction)?;
        }
        if !self.relations.is_empty() {
            map.serialize_entry("m.relations", &self.relations)?;
        }
        map.end()
    }
}

/// The content of an event, copied as text where it is there as text.
struct Content<'e>(&'e Pdu);

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.content_text() {
            Some(text) => {
                let text: &RawValue = serde_json::from_str(text).map_err(S::Error::custom)?;
                text.serialize(serializer)
            }
            None => self.0.content().serialize(serializer),
        }
    }
}
