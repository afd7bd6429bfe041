//! `PUT send_join`: spec-map 4.9.

use exeunt_core::Object;
use exeunt_core::wire::federation;
use exeunt_membership::check_send_join;
use ruma::EventId;
use serde_json::{Value, json};

use super::{Admitted, auth_chain::auth_chain, gate::resident};
use crate::{RoomError, Rooms};

impl Rooms {
    /// Takes a join of another server's user into the graph, relays it, and answers with the state
    /// before it and all that the state rests on.
    pub async fn send_join(
        &self,
        entry: &Admitted,
        event_id: &EventId,
        body: Object,
    ) -> Result<Value, RoomError> {
        let event = self.take(entry, event_id, body, check_send_join).await?;
        let (room_id, ours) = (entry.room_id().to_owned(), self.server_name().to_owned());
        self.store()
            .read(move |reader| {
                let graph = resident(reader, &room_id, &ours)?;
                let placed = graph.event_here(event.event_id())?.record.states;
                let before =
                    placed.ok_or_else(|| crate::graph::missing_in_store(event.event_id()))?.before;
                let state: Vec<_> = graph.state_ids(before)?.into_values().collect();
                let mut seeds = state.clone();
                seeds.push(event.event_id().to_owned());
                let chain = auth_chain(&graph, seeds)?;
                let mut servers = graph.joined_servers()?;
                servers.retain(|server| server != event.origin());
                Ok(json!({
                    "origin": ours,
                    "event": federation(&event),
                    "state": graph.wire(&state)?,
                    "auth_chain": graph.wire(&chain)?,
                    "members_omitted": false,
                    "servers_in_room": servers,
                }))
            })
            .await
    }
}
