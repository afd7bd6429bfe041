//! `GET event_auth`: the auth chain of one event, and of nothing else.

use ruma::EventId;
use serde_json::{Value, json};

use super::{Admitted, auth_chain::auth_chain, gate::shared_until_parting};
use crate::{RoomError, Rooms};

impl Rooms {
    /// The auth chain of an event of the room.
    pub async fn event_auth_for_server(
        &self,
        entry: &Admitted,
        event_id: &EventId,
    ) -> Result<Value, RoomError> {
        let (entry, event_id) = (entry.clone(), event_id.to_owned());
        self.store()
            .read(move |reader| {
                let graph = shared_until_parting(reader, &entry, &mut vec![event_id.clone()])?;
                let known = graph.event(&event_id)?.filter(|k| !k.record.verdict.is_rejected());
                if known.is_none() {
                    return Err(RoomError::NotFound("Unknown event".into()));
                }
                let chain = auth_chain(&graph, vec![event_id])?;
                Ok(json!({ "auth_chain": graph.wire(&chain)? }))
            })
            .await
    }
}
