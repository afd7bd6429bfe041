//! An event as a row of the store.

use std::sync::Arc;

use exeunt_core::Pdu;
use exeunt_store::records::{EventRecord, Replaced, States, Verdict};
use ruma::OwnedServerName;
use serde_json::value::RawValue;

pub(crate) fn event_record(
    event: &Pdu,
    verdict: Verdict,
    states: Option<States>,
    received_from: Option<&OwnedServerName>,
) -> EventRecord {
    EventRecord {
        json: raw_json(event),
        room_id: event.room_id().to_owned(),
        room_version: event.version().as_str().into(),
        verdict,
        generation: 0,
        states,
        replaces: Replaced::default(),
        order: None,
        redacted_because: None,
        received_from: received_from.cloned(),
    }
}

pub(crate) fn raw_json(event: &Pdu) -> Arc<RawValue> {
    RawValue::from_string(event.canonical_json()).expect("canonical JSON is JSON").into()
}
