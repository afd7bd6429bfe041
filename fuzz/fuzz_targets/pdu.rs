//! Bytes as an event of every room version: what parses stays itself when written, read again and
//! redacted.

#![no_main]

use exeunt_core::{
    Object, Pdu, RoomVersion, hash,
    pdu::MAX_PDU_BYTES,
    verify,
    wire::{self, ClientEvent, ClientForm, Unsigned},
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(object) = serde_json::from_slice::<Object>(data) else {
        assert!(Pdu::parse(RoomVersion::latest(), data).is_err());
        return;
    };
    for version in RoomVersion::all() {
        if let Ok(pdu) = Pdu::from_object(version, object.clone()) {
            check(&pdu);
        }
    }
});

fn check(pdu: &Pdu) {
    let json = pdu.canonical_json();
    assert!(json.len() <= MAX_PDU_BYTES);
    let again = Pdu::parse(pdu.version(), json.as_bytes()).expect("what we write, we read");
    assert_eq!(again.event_id(), pdu.event_id());
    assert_eq!(again.canonical_json(), json);
    assert_eq!(
        hash::content_hash_holds(again.object()),
        hash::content_hash_holds(pdu.object()),
        "servers that relay the event must not change its hash"
    );

    let redacted = pdu.redacted();
    assert_eq!(redacted.event_id(), pdu.event_id());
    assert_eq!(redacted.room_id(), pdu.room_id());
    assert_eq!(redacted.key(), pdu.key());
    assert_eq!(redacted.redacted().canonical_json(), redacted.canonical_json());

    for form in [pdu, &redacted] {
        let third_party = form.membership() == Some("invite");
        assert!(third_party || !verify::required_signers(form).is_empty());
        assert_eq!(wire::federation(form).as_object(), Some(form.object()));
        let shown = ClientEvent::new(form.clone(), Unsigned::aged(0), ClientForm::WithRoomId);
        assert_eq!(Value::from(shown)["room_id"], form.room_id().as_str());
        assert_eq!(wire::stripped(form)["sender"], form.sender().as_str());
        let _ = (form.target(), form.redacts(), form.check_reference_limits(), form.origin());
    }
}
