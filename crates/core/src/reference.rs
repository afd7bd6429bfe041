//! How events name others: by id since room version 3, before that by id and reference hash.
//!
//! Specification: rooms/v1 and v3, "Event format". In versions 1 and 2 nobody checks the hash of a
//! pair: the specification asks for no such check, and Synapse takes a pair with a wrong one, or
//! with none. Who is stricter lives in another graph than the rest of the room, so a received
//! event is held to the shape alone ([`id_of`]). Of a template that goes into an event of ours only
//! ids and SHA-256 hashes are taken ([`Reference::from_wire`]); Synapse gives no hash of events that
//! it made in the batch of a new room.

use ruma::{EventId, OwnedEventId};
use serde_json::{Value, json};

use crate::pdu::MAX_ID_BYTES;
use crate::version::EventsReferenceFormatVersion;
use crate::{Pdu, RoomVersion, encoding, hash};

const SHA256_BYTES: usize = 32;

/// An event as a later one of ours names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    id: OwnedEventId,
    /// Unpadded base64, where the id does not say it.
    sha256: Option<String>,
}

impl Reference {
    pub fn id(&self) -> &EventId {
        &self.id
    }

    /// Reads an entry of a template's `prev_events` or `auth_events`. `None` unless it is
    /// well-formed. In versions 1 and 2 a SHA-256 may be absent, and all other hashes are dropped.
    pub fn from_wire(version: RoomVersion, entry: &Value) -> Option<Self> {
        let id = id_of(version, entry)?;
        if !as_pairs(version) {
            return Some(Self { id, sha256: None });
        }
        id.server_name().filter(|_| id.as_str().len() <= MAX_ID_BYTES)?;
        let sha256 = match entry.get(1)?.get("sha256") {
            None => None,
            Some(text) => {
                let bytes = encoding::from_base64(text.as_str()?)?;
                Some(encoding::to_base64(<&[u8; SHA256_BYTES]>::try_from(&*bytes).ok()?))
            }
        };
        Some(Self { id, sha256 })
    }

    /// The entry as events of the version hold it.
    fn to_wire(&self, version: RoomVersion) -> Value {
        let id = self.id.as_str();
        match &self.sha256 {
            _ if !as_pairs(version) => id.into(),
            None => json!([id, {}]),
            Some(sha256) => json!([id, { "sha256": sha256 }]),
        }
    }
}

impl From<&Pdu> for Reference {
    fn from(event: &Pdu) -> Self {
        let (version, id) = (event.version(), event.event_id().to_owned());
        let sha256 = as_pairs(version)
            .then(|| encoding::to_base64(&hash::reference_hash(version, event.object())));
        Self { id, sha256 }
    }
}

/// An id alone: all there is to say since version 3, and without the hash before.
impl From<OwnedEventId> for Reference {
    fn from(id: OwnedEventId) -> Self {
        Self { id, sha256: None }
    }
}

/// The id in an entry of a received event; of a pair the hashes are looked at for their shape only.
pub(crate) fn id_of(version: RoomVersion, entry: &Value) -> Option<OwnedEventId> {
    let id = if as_pairs(version) {
        let [id, hashes] = entry.as_array()?.as_slice() else { return None };
        hashes.as_object().filter(|hashes| hashes.values().all(Value::is_string))?;
        id
    } else {
        entry
    };
    EventId::parse(id.as_str()?).ok()
}

/// The entries as events of the version hold them.
pub(crate) fn to_wire(version: RoomVersion, references: &[Reference]) -> Value {
    references.iter().map(|reference| reference.to_wire(version)).collect()
}

/// Whether the version names events by id and hashes.
pub(crate) fn as_pairs(version: RoomVersion) -> bool {
    version.rules().events_reference_format == EventsReferenceFormatVersion::V1
}
