//! Events that we build: a draft is made field by field by us, then hashed and signed.
//!
//! Nothing that a remote server sent is ever signed as it stands (CVE-2026-24471): of a template
//! only the graph position enters a draft.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::Value;

use crate::{CheckedPdu, FormatError, Object, Pdu, RoomVersion, Signer, hash};

/// An event before hashes and signatures.
#[derive(Debug, Clone)]
pub struct Draft {
    pub version: RoomVersion,
    /// Ignored for a create event whose hash founds the room id (room version 12).
    pub room_id: Option<OwnedRoomId>,
    pub sender: OwnedUserId,
    pub kind: String,
    pub state_key: Option<String>,
    pub content: Object,
    /// Of a redaction; placed where the room version wants it.
    pub redacts: Option<OwnedEventId>,
    pub prev_events: Vec<OwnedEventId>,
    pub auth_events: Vec<OwnedEventId>,
    pub depth: u64,
    /// Milliseconds since the epoch.
    pub origin_server_ts: u64,
}

impl Draft {
    /// Hashes and signs the draft. Fails where the result would not be a valid event, for example
    /// because it is too large.
    ///
    /// # Panics
    /// If the sender is not a user of the signer's server: signing for others is a bug.
    pub fn sign(mut self, signer: &Signer) -> Result<CheckedPdu, FormatError> {
        assert_eq!(self.sender.server_name(), signer.server(), "we sign for our own users only");
        if self.version.rules().event_format.require_event_id {
            return Err(FormatError::Field("event_id"));
        }
        let mut object = Object::new();
        if let Some(redacts) = self.redacts.take() {
            if self.version.rules().redaction.content_field_redacts {
                self.content.insert("redacts".into(), redacts.as_str().into());
            } else {
                object.insert("redacts".into(), redacts.as_str().into());
            }
        }
        let founds_room = self.kind == "m.room.create" && self.version.room_id_is_create_hash();
        if !founds_room {
            let room_id = self.room_id.ok_or(FormatError::Field("room_id"))?;
            object.insert("room_id".into(), room_id.as_str().into());
        }
        if let Some(state_key) = self.state_key {
            object.insert("state_key".into(), state_key.into());
        }
        if self.version.rules().redaction.keep_origin_membership_prev_state {
            object.insert("origin".into(), signer.server().as_str().into());
        }
        let ids = |ids: &[OwnedEventId]| -> Value { ids.iter().map(|id| id.as_str()).collect() };
        object.insert("type".into(), self.kind.into());
        object.insert("sender".into(), self.sender.as_str().into());
        object.insert("content".into(), Value::Object(self.content));
        object.insert("prev_events".into(), ids(&self.prev_events));
        object.insert("auth_events".into(), ids(&self.auth_events));
        object.insert("depth".into(), self.depth.into());
        object.insert("origin_server_ts".into(), self.origin_server_ts.into());
        hash::set_content_hash(&mut object);
        let signature = signer.signature_of(&crate::redact::redact(self.version, &object));
        signer.add_signature(&mut object, signature);
        Pdu::from_object(self.version, object).map(CheckedPdu::trusted)
    }
}
