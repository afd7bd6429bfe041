//! `GET event_auth`: the auth chain of one event, and of nothing else.

use ruma::EventId;

use super::{
    Admitted, LongAnswer, auth_chain::auth_chain, gate::shared_until_parting, long_answer::Field,
};
use crate::{RoomError, Rooms};

impl Rooms {
    /// The auth chain of an event of the room.
    pub async fn event_auth_for_server(
        &self,
        entry: &Admitted,
        event_id: &EventId,
    ) -> Result<LongAnswer, RoomError> {
        let turn = self.long_turn(entry.origin()).await?;
        let (gate, event_id) = (entry.clone(), event_id.to_owned());
        self.long_answer(turn, entry.room_id(), move |reader| {
            let graph = shared_until_parting(reader, &gate, &mut vec![event_id.clone()])?;
            let known = graph.event(&event_id)?.filter(|k| !k.record.verdict.is_rejected());
            if known.is_none() {
                return Err(RoomError::NotFound("Unknown event".into()));
            }
            let chain = auth_chain(&graph, vec![event_id])?;
            Ok(vec![("auth_chain", Field::Events(chain))])
        })
        .await
    }
}
