//! Events in the forms for clients, with what this server adds to them under `unsigned`.

use exeunt_core::wire::{ClientEvent, ClientForm, Unsigned};
use exeunt_store::{
    records::{Replaced, Root},
    tables,
};
use serde_json::Value;

use super::{EventFormat, access::RoomView, aggregations::Aggregate, visibility::is_erased};
use crate::{
    RoomError,
    graph::{Known, load_event},
};

impl RoomView<'_> {
    /// The form with `room_id`, with what its child events come to.
    pub fn client_event(&self, known: &Known) -> Result<Value, RoomError> {
        Ok(self.event_with(known, Aggregate::All, ClientForm::WithRoomId)?.into())
    }

    /// The form inside `/sync`.
    pub fn sync_event(&self, known: &Known) -> Result<ClientEvent, RoomError> {
        self.event_with(known, Aggregate::Nothing, self.sync_form())
    }

    /// The form inside `/sync`, with what its child events come to: for a timeline with a gap
    /// before it (client-server API, "Aggregations of child events").
    pub fn sync_event_with_children(&self, known: &Known) -> Result<ClientEvent, RoomError> {
        self.event_with(known, Aggregate::All, self.sync_form())
    }

    fn sync_form(&self) -> ClientForm {
        match self.format {
            EventFormat::Client => ClientForm::WithoutRoomId,
            EventFormat::Federation => ClientForm::Federation,
        }
    }

    pub(super) fn event_with(
        &self,
        known: &Known,
        aggregate: Aggregate,
        form: ClientForm,
    ) -> Result<ClientEvent, RoomError> {
        let mut unsigned = self.unsigned(known)?;
        unsigned.relations = self.aggregations(known, aggregate, form)?;
        Ok(ClientEvent::new(known.pdu.clone(), unsigned, form))
    }

    /// Client-server API, "UnsignedData".
    fn unsigned(&self, known: &Known) -> Result<Unsigned, RoomError> {
        let Known { pdu, record, .. } = known;
        let reader = self.graph.reader;
        let mut unsigned = age(pdu.origin_server_ts(), self.viewer.now);
        if let Some(device) =
            self.viewer.device.as_ref().filter(|_| pdu.sender() == self.viewer.user)
            && let Some((sent_by, txn_id)) =
                reader.get::<tables::EventTransactions>(&pdu.event_id().to_owned())?
            && sent_by == *device
        {
            unsigned.transaction_id = Some(txn_id);
        }
        if let Some(because) = &record.redacted_because
            && let Some(redaction) = load_event(reader, because)?
        {
            let age = age(redaction.pdu.origin_server_ts(), self.viewer.now);
            let redaction = ClientEvent::new(redaction.pdu, age, ClientForm::WithRoomId);
            unsigned.redacted_because = Some(redaction.into());
        }
        let Some(states) = record.states else { return Ok(unsigned) };
        if let Some(before) = self.replaced(known, states.before)? {
            unsigned.previous = Some(match is_erased(reader, before.pdu.sender())? {
                true => self.unless_erased(before)?.pdu,
                false => before.pdu,
            });
        }
        unsigned.membership = Some(self.membership_after(known, states.after)?);
        Ok(unsigned)
    }

    /// The state event whose place another one took in the state `before` it.
    fn replaced(&self, known: &Known, before: Root) -> Result<Option<Known>, RoomError> {
        let Some(key) = known.pdu.key() else { return Ok(None) };
        let id = match &known.record.replaces {
            Replaced::Nothing => None,
            Replaced::Event(id) => Some(id.clone()),
            Replaced::Unknown => self.graph.state_id(before, &key)?,
        };
        id.map(|id| self.graph.event_here(&id)).transpose()
    }

    /// The reader's membership in the state after an event (MSC4115). Where the room's own past tells
    /// it, that state is not read.
    fn membership_after(&self, known: &Known, after: Root) -> Result<String, RoomError> {
        let position = known.record.order.and_then(|order| u64::try_from(order).ok());
        if let Some(position) = position.filter(|_| known.pdu.state_key().is_some())
            && let Some(membership) = self.membership_at(position, after)?
        {
            debug_assert_eq!(membership, self.standpoint(after)?.membership);
            return Ok(membership.to_owned());
        }
        Ok(self.standpoint(after)?.membership)
    }
}

/// An `unsigned` that says only how old the event is.
pub(super) fn age(sent: u64, now: u64) -> Unsigned {
    Unsigned::aged(now.saturating_sub(sent))
}
