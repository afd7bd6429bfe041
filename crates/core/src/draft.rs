//! Events that we build: a draft is made field by field by us, then hashed and signed.
//!
//! Nothing that a remote server sent is ever signed as it stands (CVE-2026-24471): of a template
//! only the graph position enters a draft.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, ServerName};
use serde_json::Value;

use crate::pdu::MAX_ID_BYTES;
use crate::{
    CheckedPdu, FormatError, Object, Pdu, Reference, RoomVersion, Signer, hash, reference,
};

/// How far a server's clock may be ahead of ours, in milliseconds, for us to follow it.
pub const MAX_CLOCK_LEAD_MS: u64 = 60 * 60 * 1000;

/// The date of an event that follows others of these dates: now, or just after them where their
/// servers' clocks are ahead. State resolution takes events that are side by side by their dates,
/// and a leave from before its invite would come to nothing.
pub fn date_after(now_ms: u64, follows: impl IntoIterator<Item = u64>) -> u64 {
    let near = follows.into_iter().filter(|date| *date <= now_ms + MAX_CLOCK_LEAD_MS);
    near.map(|date| date + 1).fold(now_ms, u64::max)
}

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
    pub prev_events: Vec<Reference>,
    pub auth_events: Vec<Reference>,
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
    pub fn sign(self, signer: &Signer) -> Result<CheckedPdu, FormatError> {
        assert_eq!(self.sender.server_name(), signer.server(), "we sign for our own users only");
        let version = self.version;
        let mut object = self.into_object()?;
        set_own_event_id(version, signer.server(), &mut object)?;
        hash::set_content_hash(&mut object);
        let signature = signer.signature_of(&crate::redact::redact(version, &object));
        signer.add_signature(&mut object, signature);
        Pdu::from_object(version, object).map(CheckedPdu::trusted)
    }

    /// The event that the user's server would make of the draft, to be judged before it is offered
    /// as a template: without hashes and signatures, which play no part in authorisation.
    pub fn unsigned(self) -> Result<Pdu, FormatError> {
        let (version, server) = (self.version, self.sender.server_name().to_owned());
        let mut object = self.into_object()?;
        set_own_event_id(version, &server, &mut object)?;
        object.insert("hashes".into(), Object::new().into());
        object.insert("signatures".into(), Object::new().into());
        Pdu::from_object(version, object)
    }

    fn into_object(mut self) -> Result<Object, FormatError> {
        let version = self.version;
        // Other servers count bytes in every version.
        for (field, text) in [("type", Some(&self.kind)), ("state_key", self.state_key.as_ref())] {
            if text.is_some_and(|text| text.len() > MAX_ID_BYTES) {
                return Err(FormatError::FieldTooLong(field));
            }
        }
        let mut object = Object::new();
        if let Some(redacts) = self.redacts.take() {
            if version.rules().redaction.content_field_redacts {
                self.content.insert("redacts".into(), redacts.as_str().into());
            } else {
                object.insert("redacts".into(), redacts.as_str().into());
            }
        }
        let founds_room = self.kind == "m.room.create" && version.room_id_is_create_hash();
        if !founds_room {
            let room_id = self.room_id.ok_or(FormatError::Field("room_id"))?;
            object.insert("room_id".into(), room_id.as_str().into());
        }
        if let Some(state_key) = self.state_key {
            object.insert("state_key".into(), state_key.into());
        }
        if version.rules().redaction.keep_origin_membership_prev_state {
            object.insert("origin".into(), self.sender.server_name().as_str().into());
        }
        for (field, references) in
            [("prev_events", self.prev_events), ("auth_events", self.auth_events)]
        {
            object.insert(field.into(), reference::to_wire(version, &references));
        }
        object.insert("type".into(), self.kind.into());
        object.insert("sender".into(), self.sender.as_str().into());
        object.insert("content".into(), Value::Object(self.content));
        object.insert("depth".into(), self.depth.into());
        object.insert("origin_server_ts".into(), self.origin_server_ts.into());
        Ok(object)
    }
}

/// In versions 1 and 2, where events carry their ids.
fn set_own_event_id(
    version: RoomVersion,
    server: &ServerName,
    object: &mut Object,
) -> Result<(), FormatError> {
    if version.id_is_claimed() {
        let id = hash::own_event_id(server, object).ok_or(FormatError::Field("event_id"))?;
        object.insert("event_id".into(), id.as_str().into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_dated_after_what_it_follows() {
        let now = 1_700_000_000_000;
        assert_eq!(date_after(now, []), now);
        assert_eq!(date_after(now, [now - 5, now - 1]), now);
        assert_eq!(date_after(now, [now + 7, now + 3]), now + 8);
        // Nobody takes our clock along into the far future.
        assert_eq!(date_after(now, [now + MAX_CLOCK_LEAD_MS + 1, now + 3, u64::MAX]), now + 4);
    }
}
