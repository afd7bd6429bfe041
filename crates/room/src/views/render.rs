//! Events in the forms for clients, with what this server adds to them under `unsigned`.

use exeunt_core::{Object, wire};
use exeunt_store::tables;
use serde_json::Value;

use super::{EventFormat, access::RoomView};
use crate::{
    RoomError,
    graph::{Known, load_event},
};

impl RoomView<'_> {
    /// The form with `room_id`.
    pub fn client_event(&self, known: &Known) -> Result<Value, RoomError> {
        Ok(wire::client(&known.pdu, self.unsigned(known)?))
    }

    /// The form inside `/sync`.
    pub fn sync_event(&self, known: &Known) -> Result<Value, RoomError> {
        let unsigned = self.unsigned(known)?;
        if self.format == EventFormat::Client {
            return Ok(wire::client_without_room_id(&known.pdu, unsigned));
        }
        let mut event = wire::federation(&known.pdu);
        event["event_id"] = known.pdu.event_id().as_str().into();
        event["unsigned"] = unsigned.into();
        Ok(event)
    }

    /// Client-server API, "UnsignedData".
    fn unsigned(&self, known: &Known) -> Result<Object, RoomError> {
        let Known { pdu, record } = known;
        let reader = self.graph.reader;
        let mut unsigned = age(pdu.origin_server_ts(), self.viewer.now);
        if let Some(device) =
            self.viewer.device.as_ref().filter(|_| pdu.sender() == self.viewer.user)
            && let Some((sent_by, txn_id)) =
                reader.get::<tables::EventTransactions>(&pdu.event_id().to_owned())?
            && sent_by == *device
        {
            unsigned.insert("transaction_id".into(), txn_id.into());
        }
        if let Some(because) = &record.redacted_because
            && let Some(redaction) = load_event(reader, because)?
        {
            let age = age(redaction.pdu.origin_server_ts(), self.viewer.now);
            unsigned.insert("redacted_because".into(), wire::client(&redaction.pdu, age));
        }
        let Some(states) = record.states else { return Ok(unsigned) };
        if let Some(key) = pdu.key()
            && let Some(before) = self.graph.state_event(states.before, &key)?
        {
            unsigned.insert("prev_content".into(), before.content().clone().into());
            unsigned.insert("prev_sender".into(), before.sender().as_str().into());
            unsigned.insert("replaces_state".into(), before.event_id().as_str().into());
        }
        // MSC4115: the reader's membership at the event.
        let membership = self.standpoint(states.after)?.membership;
        unsigned.insert("membership".into(), membership.into());
        Ok(unsigned)
    }
}

/// An `unsigned` that says only how old the event is.
pub(super) fn age(sent: u64, now: u64) -> Object {
    let mut unsigned = Object::new();
    unsigned.insert("age".into(), now.saturating_sub(sent).into());
    unsigned
}
