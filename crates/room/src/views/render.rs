//! Events in the forms for clients, with what this server adds to them under `unsigned`.

use exeunt_core::{Object, Pdu, wire};
use exeunt_store::tables;
use serde_json::Value;

use super::{EventFormat, access::RoomView, aggregations::Aggregate, visibility::is_erased};
use crate::{
    RoomError,
    graph::{Known, load_event},
};

/// How an event and its `unsigned` become what a client gets.
pub(super) type Form = fn(&Pdu, Object) -> Value;

impl RoomView<'_> {
    /// The form with `room_id`, with what its child events come to.
    pub fn client_event(&self, known: &Known) -> Result<Value, RoomError> {
        self.event_with(known, Aggregate::All, wire::client)
    }

    /// The form inside `/sync`.
    pub fn sync_event(&self, known: &Known) -> Result<Value, RoomError> {
        self.event_with(known, Aggregate::Nothing, self.sync_form())
    }

    /// The form inside `/sync`, with what its child events come to: for a timeline with a gap
    /// before it (client-server API, "Aggregations of child events").
    pub fn sync_event_with_children(&self, known: &Known) -> Result<Value, RoomError> {
        self.event_with(known, Aggregate::All, self.sync_form())
    }

    fn sync_form(&self) -> Form {
        match self.format {
            EventFormat::Client => wire::client_without_room_id,
            EventFormat::Federation => federation_form,
        }
    }

    pub(super) fn event_with(
        &self,
        known: &Known,
        aggregate: Aggregate,
        form: Form,
    ) -> Result<Value, RoomError> {
        let mut unsigned = self.unsigned(known)?;
        let relations = self.aggregations(known, aggregate, form)?;
        if !relations.is_empty() {
            unsigned.insert("m.relations".into(), relations.into());
        }
        Ok(form(&known.pdu, unsigned))
    }

    /// Client-server API, "UnsignedData".
    fn unsigned(&self, known: &Known) -> Result<Object, RoomError> {
        let Known { pdu, record, .. } = known;
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
            let before = match is_erased(reader, before.sender())? {
                true => self.unless_erased(self.graph.event_here(before.event_id())?)?.pdu,
                false => before,
            };
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

/// The form of other servers, with what clients need.
fn federation_form(event: &Pdu, unsigned: Object) -> Value {
    let mut form = wire::federation(event);
    form["event_id"] = event.event_id().as_str().into();
    form["unsigned"] = unsigned.into();
    form
}

/// An `unsigned` that says only how old the event is.
pub(super) fn age(sent: u64, now: u64) -> Object {
    let mut unsigned = Object::new();
    unsigned.insert("age".into(), now.saturating_sub(sent).into());
    unsigned
}
