//! Content hashes, reference hashes and the event ids that follow from them.
//!
//! Specification: server-server API, "Calculating the content hash for an event" and "Calculating
//! the reference hash for an event"; rooms/v3 and v4, "Event IDs".

use ring::digest;
use ruma::{EventId, OwnedEventId, ServerName};
use serde_json::Value;

use crate::pdu::MAX_ID_BYTES;
use crate::version::EventIdFormatVersion;
use crate::{Object, RoomVersion, canonical, encoding, redact};

/// SHA-256 of the canonical form without `unsigned`, `signatures` and `hashes`.
pub fn content_hash(event: &Object) -> [u8; 32] {
    sha256_without(event, &["unsigned", "signatures", "hashes"])
}

/// SHA-256 of the canonical form of the redacted event without `signatures` and `unsigned`.
pub fn reference_hash(version: RoomVersion, event: &Object) -> [u8; 32] {
    sha256_without(&redact::redact(version, event), &["signatures", "unsigned", "age_ts"])
}

/// The event id: `$` and the reference hash. In versions 1 and 2 what the event claims, `None` if
/// that is no id with a server: its server must sign (rooms/v1), so there must be one.
pub fn event_id(version: RoomVersion, event: &Object) -> Option<OwnedEventId> {
    let hash = || reference_hash(version, event);
    let text = match version.rules().event_id_format {
        EventIdFormatVersion::V2 => encoding::to_base64(&hash()),
        EventIdFormatVersion::V3 => encoding::to_base64_url(&hash()),
        _ => {
            let claimed = EventId::parse(event.get("event_id")?.as_str()?).ok()?;
            let fits = claimed.server_name().is_some() && claimed.as_str().len() <= MAX_ID_BYTES;
            return fits.then_some(claimed);
        }
    };
    Some(EventId::parse(format!("${text}")).expect("a hash in base64 is an event id"))
}

/// The event id that we give an event of versions 1 and 2: unique, since it is the hash of the
/// event as it stands without one.
pub(crate) fn own_event_id(server: &ServerName, event: &Object) -> Option<OwnedEventId> {
    let local = encoding::to_base64_url(&sha256_without(event, &["event_id"]));
    EventId::parse(format!("${local}:{server}")).ok()
}

/// Whether `hashes.sha256` of the event is its content hash.
pub fn content_hash_holds(event: &Object) -> bool {
    event
        .get("hashes")
        .and_then(|hashes| hashes.get("sha256"))
        .and_then(Value::as_str)
        .and_then(encoding::from_base64)
        .is_some_and(|claimed| claimed == content_hash(event))
}

/// Sets `hashes.sha256`.
pub fn set_content_hash(event: &mut Object) {
    let mut hashes = Object::new();
    hashes.insert("sha256".into(), encoding::to_base64(&content_hash(event)).into());
    event.insert("hashes".into(), Value::Object(hashes));
}

fn sha256_without(event: &Object, without: &[&str]) -> [u8; 32] {
    let kept = canonical::encode_without(event, without);
    let digest = digest::digest(&digest::SHA256, kept.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
