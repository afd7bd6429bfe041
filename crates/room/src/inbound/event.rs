//! `GET event`: one event by its id. The only read that gives out soft-failed events.

use exeunt_core::wire::federation;
use ruma::{EventId, ServerName};
use serde_json::{Value, json};

use super::{
    gate::{shared_until, was_here},
    visibility::Visibility,
};
use crate::{
    RoomError, Rooms,
    graph::{Graph, load_event},
};

impl Rooms {
    /// An event, for a server that is or was in its room and may see it (decision 0017). No path names the room, so there is no
    /// ACL to ask; whoever was never in the room learns nothing.
    pub async fn event_for_server(
        &self,
        origin: &ServerName,
        event_id: &EventId,
    ) -> Result<Value, RoomError> {
        let (origin, event_id) = (origin.to_owned(), event_id.to_owned());
        let (ours, now) = (self.server_name().to_owned(), self.now());
        self.store()
            .read(move |reader| {
                let unknown = || RoomError::NotFound("Unknown event".into());
                let known = load_event(reader, &event_id)?.ok_or_else(unknown)?;
                let room_id = known.pdu.room_id();
                let until = shared_until(reader, room_id, &origin)?.ok_or_else(unknown)?;
                if !was_here(&known, until) {
                    return Err(unknown());
                }
                let graph = Graph::of(reader, room_id)?;
                let visibility = Visibility::new(&graph, &origin);
                if known.record.verdict.is_rejected() || !visibility.may_see(&known)? {
                    return Err(unknown());
                }
                let pdus = [federation(&visibility.shown(&known)?)];
                Ok(json!({ "origin": ours, "origin_server_ts": now, "pdus": pdus }))
            })
            .await
    }
}
