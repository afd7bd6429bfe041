//! `GET state` and `GET state_ids`: the state before an event.

use exeunt_store::{Reader, records::Verdict};
use ruma::{EventId, OwnedEventId};
use serde_json::{Value, json};

use super::{Admitted, auth_chain::auth_chain, gate::shared_until_parting};
use crate::{RoomError, Rooms, graph::Graph};

impl Rooms {
    /// The state before an event, and its auth chain, in full.
    pub async fn state_for_server(
        &self,
        entry: &Admitted,
        event_id: &EventId,
    ) -> Result<Value, RoomError> {
        self.state_before(entry, event_id, |graph, state, chain| {
            Ok(json!({ "pdus": graph.wire(&state)?, "auth_chain": graph.wire(&chain)? }))
        })
        .await
    }

    /// The same, as ids.
    pub async fn state_ids_for_server(
        &self,
        entry: &Admitted,
        event_id: &EventId,
    ) -> Result<Value, RoomError> {
        self.state_before(entry, event_id, |_, state, chain| {
            Ok(json!({ "pdu_ids": state, "auth_chain_ids": chain }))
        })
        .await
    }

    async fn state_before(
        &self,
        entry: &Admitted,
        event_id: &EventId,
        answer: Answer,
    ) -> Result<Value, RoomError> {
        let (entry, event_id) = (entry.clone(), event_id.to_owned());
        self.store()
            .read(move |reader| {
                let (graph, state) = read_state(reader, &entry, &event_id)?;
                let chain = auth_chain(&graph, state.clone())?;
                answer(&graph, state, chain)
            })
            .await
    }
}

/// Writes a state and its auth chain.
type Answer = fn(&Graph<'_>, Vec<OwnedEventId>, Vec<OwnedEventId>) -> Result<Value, RoomError>;

/// The state before an event of that room which has a place and was accepted.
fn read_state<'a>(
    reader: &'a Reader<'a>,
    entry: &Admitted,
    event_id: &EventId,
) -> Result<(Graph<'a>, Vec<OwnedEventId>), RoomError> {
    let graph = shared_until_parting(reader, entry, &mut vec![event_id.to_owned()])?;
    let known = graph.event(event_id)?.filter(|known| known.record.verdict == Verdict::Accepted);
    let states = known.and_then(|known| known.record.states);
    let states = states.ok_or_else(|| RoomError::NotFound("Unknown event".into()))?;
    let state = graph.state_ids(states.before)?.into_values().collect();
    Ok((graph, state))
}
