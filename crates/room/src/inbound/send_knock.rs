//! `PUT send_knock`: spec-map 4.8.

use exeunt_core::{Object, wire::federation};
use exeunt_membership::check_send_knock;
use ruma::EventId;
use serde_json::{Value, json};

use super::{Admitted, gate::resident};
use crate::{RoomError, Rooms, invite::knock_state};

impl Rooms {
    /// Takes a knock of another server's user into the graph, relays it, and answers with what the
    /// user may know of the room, as whole events (MSC4311).
    pub async fn send_knock(
        &self,
        entry: &Admitted,
        event_id: &EventId,
        body: Object,
    ) -> Result<Value, RoomError> {
        self.take(entry, event_id, body, check_send_knock).await?;
        let (room_id, ours) = (entry.room_id().to_owned(), self.server_name().to_owned());
        self.store()
            .read(move |reader| {
                let state = knock_state(&resident(reader, &room_id, &ours)?)?;
                let state: Vec<_> = state.iter().map(federation).collect();
                Ok(json!({ "knock_room_state": state }))
            })
            .await
    }
}
