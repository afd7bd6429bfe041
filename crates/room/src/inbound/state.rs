//! `GET state` and `GET state_ids`: the state before an event.

use exeunt_store::{Reader, records::Verdict};
use ruma::{EventId, OwnedEventId};

use super::{
    Admitted, LongAnswer,
    auth_chain::auth_chain,
    gate::shared_until_parting,
    long_answer::{Field, Fields},
};
use crate::{RoomError, Rooms, graph::Graph};

impl Rooms {
    /// The state before an event, and its auth chain, in full.
    pub async fn state_for_server(
        &self,
        entry: &Admitted,
        event_id: &EventId,
    ) -> Result<LongAnswer, RoomError> {
        self.state_before(entry, event_id, |state, chain| {
            vec![("pdus", Field::Events(state)), ("auth_chain", Field::Events(chain))]
        })
        .await
    }

    /// The same, as ids.
    pub async fn state_ids_for_server(
        &self,
        entry: &Admitted,
        event_id: &EventId,
    ) -> Result<LongAnswer, RoomError> {
        self.state_before(entry, event_id, |state, chain| {
            vec![("pdu_ids", Field::Ids(state)), ("auth_chain_ids", Field::Ids(chain))]
        })
        .await
    }

    async fn state_before(
        &self,
        entry: &Admitted,
        event_id: &EventId,
        fields: fn(Vec<OwnedEventId>, Vec<OwnedEventId>) -> Fields,
    ) -> Result<LongAnswer, RoomError> {
        let turn = self.long_turn(entry.origin()).await?;
        let (gate, event_id) = (entry.clone(), event_id.to_owned());
        self.long_answer(turn, entry.room_id(), move |reader| {
            let (graph, state) = read_state(reader, &gate, &event_id)?;
            let chain = auth_chain(&graph, state.clone())?;
            Ok(fields(state, chain))
        })
        .await
    }
}

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
    let state = graph.state_entries(states.before).map(|entry| Ok(entry?.1));
    let state = state.collect::<Result<_, RoomError>>()?;
    Ok((graph, state))
}
