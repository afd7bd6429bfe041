//! An event as ruma-state-res wants to see it.

use exeunt_core::Pdu;
use ruma::events::TimelineEventType;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UInt, UserId};
use serde_json::value::{RawValue, to_raw_value};

/// An event as ruma wants to see it.
#[derive(Clone)]
pub struct Event {
    pdu: Pdu,
    id: OwnedEventId,
    kind: TimelineEventType,
    content: Box<RawValue>,
    redacts: Option<OwnedEventId>,
    rejected: bool,
}

impl Event {
    pub fn new(pdu: &Pdu, rejected: bool) -> Self {
        Self {
            pdu: pdu.clone(),
            id: pdu.event_id().to_owned(),
            kind: pdu.kind().into(),
            content: to_raw_value(pdu.content()).expect("an object"),
            redacts: pdu.redacts(),
            rejected,
        }
    }
}

impl ruma_state_res::Event for Event {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.id
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.pdu.object().contains_key("room_id").then(|| self.pdu.room_id())
    }

    fn sender(&self) -> &UserId {
        self.pdu.sender()
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new(self.pdu.origin_server_ts()).expect("in range"))
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }

    fn content(&self) -> &RawValue {
        &self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.pdu.state_key()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.pdu.prev_events().iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.pdu.auth_events().iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}
