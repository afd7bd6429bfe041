//! A well-formed event: canonical bytes' object plus a parsed header, immutable and cheap to clone.
//!
//! Specification: server-server API, "PDUs"; rooms/v1, v3, v4, v12, "Event format".

use std::{fmt, sync::Arc};

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Value, value::RawValue};
use thiserror::Error;

use crate::canonical::{self, CanonicalError, MAX_INT};
use crate::kept::{Header, Kept};
use crate::version::Lengths;
use crate::{Object, RoomVersion, StateKey, hash, reference};

/// Largest event in bytes: canonical JSON, with signatures, without `unsigned`.
pub const MAX_PDU_BYTES: usize = 65_536;
/// Largest type, state key, sender, room id and event id in bytes.
pub const MAX_ID_BYTES: usize = 255;
/// Most `prev_events` that an event may have.
pub const MAX_PREV_EVENTS: usize = 20;
/// Most `auth_events` that an event may have.
pub const MAX_AUTH_EVENTS: usize = 10;

/// Why bytes or an object are no event of their room version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    #[error("not a JSON object: {0}")]
    Json(String),
    #[error("not canonical JSON: {0}")]
    Canonical(#[from] CanonicalError),
    #[error("the event has {0} bytes, the limit is {MAX_PDU_BYTES}")]
    TooLarge(usize),
    #[error("{0} is longer than {MAX_ID_BYTES} bytes")]
    FieldTooLong(&'static str),
    #[error("{0} is missing or not of its type")]
    Field(&'static str),
    #[error("{0} has more entries than events may have")]
    TooManyReferences(&'static str),
}

/// A well-formed event of a known room version. Its signatures have not been looked at.
#[derive(Clone)]
pub struct Pdu(Arc<Inner>);

struct Inner {
    version: RoomVersion,
    event_id: OwnedEventId,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    kind: String,
    state_key: Option<String>,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    depth: u64,
    origin_server_ts: u64,
    body: Body,
}

/// The whole event, in federation form.
enum Body {
    Object(Object),
    Kept(Kept),
}

impl Pdu {
    /// Parses the federation form. `unsigned` is dropped: nothing in it can be trusted.
    pub fn parse(version: RoomVersion, json: &[u8]) -> Result<Pdu, FormatError> {
        let object = serde_json::from_slice(json).map_err(|e| FormatError::Json(e.to_string()))?;
        Self::from_object(version, object)
    }

    /// [`parse`](Self::parse) for the [`canonical_json`](Self::canonical_json) of an event whose id
    /// is known. What follows from that is not checked again.
    pub fn reparse(
        version: RoomVersion,
        id: &EventId,
        json: &Arc<RawValue>,
    ) -> Result<Pdu, FormatError> {
        let header = Header::read(json)?;
        let room_id = match &header.room_id {
            Some(room_id) => Some(room_id.clone()),
            None => version.room_id_of_create(id),
        };
        let [prev_events, auth_events] = header.references(version)?;
        let body = Body::Kept(header.keep(json));
        Ok(Pdu(Arc::new(Inner {
            version,
            event_id: id.to_owned(),
            room_id: room_id.ok_or(FormatError::Field("room_id"))?,
            sender: header.sender,
            kind: header.kind,
            state_key: header.state_key,
            prev_events,
            auth_events,
            depth: header.depth,
            origin_server_ts: header.origin_server_ts,
            body,
        })))
    }

    /// [`parse`](Self::parse) for an object already read.
    pub fn from_object(version: RoomVersion, mut object: Object) -> Result<Pdu, FormatError> {
        object.remove("unsigned");
        if version.rules().authorization.strict_canonical_json {
            canonical::check_object(&object)?;
        }
        let size = canonical::encode(&object).len();
        if size > MAX_PDU_BYTES {
            return Err(FormatError::TooLarge(size));
        }
        let rules = version.rules();
        let kind = limited(&object, "type", version.lengths())?.to_owned();
        let state_key = match object.get("state_key") {
            None => None,
            Some(_) => Some(limited(&object, "state_key", version.lengths())?.to_owned()),
        };
        let sender =
            UserId::parse(text(&object, "sender")?).map_err(|_| FormatError::Field("sender"))?;
        let event_id = hash::event_id(version, &object).ok_or(FormatError::Field("event_id"))?;
        let founds_room =
            kind == "m.room.create" && !rules.event_format.require_room_create_room_id;
        let room_id = if founds_room {
            if object.contains_key("room_id") {
                return Err(FormatError::Field("room_id"));
            }
            version.room_id_of_create(&event_id).ok_or(FormatError::Field("room_id"))?
        } else {
            RoomId::parse(text(&object, "room_id")?).map_err(|_| FormatError::Field("room_id"))?
        };
        for field in ["content", "hashes", "signatures"] {
            if !object.get(field).is_some_and(Value::is_object) {
                return Err(FormatError::Field(field));
            }
        }
        if rules.signatures.check_join_authorised_via_users_server && kind == "m.room.member" {
            check_authoriser(&object["content"])?;
        }
        let prev_events = references(version, &object, "prev_events")?;
        let auth_events = references(version, &object, "auth_events")?;
        let depth = natural(&object, "depth")?;
        let origin_server_ts = natural(&object, "origin_server_ts")?;
        Ok(Pdu(Arc::new(Inner {
            version,
            event_id,
            room_id,
            sender,
            kind,
            state_key,
            prev_events,
            auth_events,
            depth,
            origin_server_ts,
            body: Body::Object(object),
        })))
    }

    /// Whether the event keeps to the numbers of references that `/send` allows (20 and 10).
    /// Old events in backfill may not.
    pub fn check_reference_limits(&self) -> Result<(), FormatError> {
        if self.prev_events().len() > MAX_PREV_EVENTS {
            return Err(FormatError::TooManyReferences("prev_events"));
        }
        if self.auth_events().len() > MAX_AUTH_EVENTS {
            return Err(FormatError::TooManyReferences("auth_events"));
        }
        Ok(())
    }

    pub fn version(&self) -> RoomVersion {
        self.0.version
    }

    pub fn event_id(&self) -> &EventId {
        &self.0.event_id
    }

    /// The room id; for a create event of room version 12, the one that its hash founds.
    pub fn room_id(&self) -> &RoomId {
        &self.0.room_id
    }

    pub fn sender(&self) -> &UserId {
        &self.0.sender
    }

    /// The server of the sender, which must have signed the event.
    pub fn origin(&self) -> &ServerName {
        self.0.sender.server_name()
    }

    /// The event type.
    pub fn kind(&self) -> &str {
        &self.0.kind
    }

    pub fn state_key(&self) -> Option<&str> {
        self.0.state_key.as_deref()
    }

    /// Type and state key, for a state event.
    pub fn key(&self) -> Option<StateKey> {
        self.state_key().map(|key| StateKey::new(self.kind(), key))
    }

    /// Whether this is the state event of that type with that state key.
    pub fn is_state(&self, kind: &str, state_key: &str) -> bool {
        self.kind() == kind && self.state_key() == Some(state_key)
    }

    pub fn content(&self) -> &Object {
        match &self.0.body {
            Body::Object(object) => {
                object.get("content").and_then(Value::as_object).expect("checked by from_object")
            }
            Body::Kept(kept) => kept.content(),
        }
    }

    /// The content as text, where it is there as text.
    pub(crate) fn content_text(&self) -> Option<&str> {
        match &self.0.body {
            Body::Object(_) => None,
            Body::Kept(kept) => Some(kept.content_text()),
        }
    }

    /// A string of the content, `None` where it is absent or something else.
    pub fn content_str(&self, field: &str) -> Option<&str> {
        self.content().get(field).and_then(Value::as_str)
    }

    /// `content.membership` of a member event.
    pub fn membership(&self) -> Option<&str> {
        if self.kind() == "m.room.member" { self.content_str("membership") } else { None }
    }

    /// The user that a member event is about.
    pub fn target(&self) -> Option<&UserId> {
        if self.kind() != "m.room.member" {
            return None;
        }
        <&UserId>::try_from(self.state_key()?).ok()
    }

    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.0.prev_events
    }

    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.0.auth_events
    }

    pub fn depth(&self) -> u64 {
        self.0.depth
    }

    /// Milliseconds since the epoch, as the sender's server claims.
    pub fn origin_server_ts(&self) -> u64 {
        self.0.origin_server_ts
    }

    /// The event that a redaction names, wherever the room version puts it.
    pub fn redacts(&self) -> Option<OwnedEventId> {
        if self.kind() != "m.room.redaction" {
            return None;
        }
        let in_content = self.version().rules().redaction.content_field_redacts;
        let field = if in_content { self.content() } else { self.object() }.get("redacts");
        EventId::parse(field?.as_str()?).ok()
    }

    /// Whether the two are the same event, be one of them redacted or signed by more servers. In
    /// versions 1 and 2 an id alone does not tell: any number of events can be given the same one.
    pub fn is_same_event(&self, other: &Pdu) -> bool {
        self.version() == other.version()
            && self.event_id() == other.event_id()
            && (!self.version().id_is_claimed()
                || hash::reference_hash(self.version(), self.object())
                    == hash::reference_hash(other.version(), other.object()))
    }

    /// The event's object in federation form, without `unsigned`.
    pub fn object(&self) -> &Object {
        match &self.0.body {
            Body::Object(object) => object,
            Body::Kept(kept) => kept.object(),
        }
    }

    /// The canonical JSON of [`object`](Self::object): what is stored and sent to servers.
    pub fn canonical_json(&self) -> String {
        canonical::encode(self.object())
    }

    /// The event after redaction. Its event id does not change.
    pub fn redacted(&self) -> Pdu {
        let object = crate::redact::redact(self.version(), self.object());
        Self::from_object(self.version(), object).expect("redaction keeps an event well-formed")
    }
}

impl PartialEq for Pdu {
    fn eq(&self, other: &Self) -> bool {
        self.is_same_event(other)
    }
}

impl Eq for Pdu {}

impl fmt::Debug for Pdu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pdu({} {} by {}", self.event_id(), self.kind(), self.sender())?;
        if let Some(key) = self.state_key() {
            write!(f, " for {key:?}")?;
        }
        f.write_str(")")
    }
}

/// The authorising user of a join must be a user id: their server's signature is demanded, and an
/// id that names no server must not read as no demand (rooms/v8).
fn check_authoriser(content: &Value) -> Result<(), FormatError> {
    const FIELD: &str = "join_authorised_via_users_server";
    match content.get(FIELD) {
        Some(user) if content.get("membership").and_then(Value::as_str) == Some("join") => {
            let user = user.as_str().and_then(|user| <&UserId>::try_from(user).ok());
            user.map(|_| ()).ok_or(FormatError::Field(FIELD))
        }
        _ => Ok(()),
    }
}

fn text<'a>(object: &'a Object, field: &'static str) -> Result<&'a str, FormatError> {
    limited(object, field, Lengths::Bytes)
}

fn limited<'a>(
    object: &'a Object,
    field: &'static str,
    lengths: Lengths,
) -> Result<&'a str, FormatError> {
    let text = object.get(field).and_then(Value::as_str).ok_or(FormatError::Field(field))?;
    let length = match lengths {
        Lengths::Bytes => text.len(),
        Lengths::CodePoints => text.chars().count(),
    };
    if length > MAX_ID_BYTES { Err(FormatError::FieldTooLong(field)) } else { Ok(text) }
}

/// A non-negative integer that canonical JSON can carry; also in versions that are lax elsewhere,
/// because peers refuse the rest (CVE-2025-30355).
fn natural(object: &Object, field: &'static str) -> Result<u64, FormatError> {
    object
        .get(field)
        .and_then(Value::as_u64)
        .filter(|n| *n <= MAX_INT as u64)
        .ok_or(FormatError::Field(field))
}

fn references(
    version: RoomVersion,
    object: &Object,
    field: &'static str,
) -> Result<Vec<OwnedEventId>, FormatError> {
    let bad = || FormatError::Field(field);
    let entries = object.get(field).and_then(Value::as_array).ok_or_else(bad)?;
    entries.iter().map(|entry| reference::id_of(version, entry).ok_or_else(bad)).collect()
}
