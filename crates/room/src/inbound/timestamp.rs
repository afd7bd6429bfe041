//! `GET timestamp_to_event`: the event closest to a time.

use serde_json::{Value, json};

use super::{Admitted, gate::shared, visibility::Visibility};
use crate::{
    RoomError, Rooms,
    views::{Direction, closest},
};

impl Rooms {
    /// The event of the room that is closest to a time, and that the server may see
    /// (GHSA-r66v-qhwx-8rg4).
    pub async fn timestamp_for_server(
        &self,
        entry: &Admitted,
        ts: u64,
        direction: Direction,
    ) -> Result<Value, RoomError> {
        let (entry, ours) = (entry.clone(), self.server_name().to_owned());
        self.store()
            .read(move |reader| {
                let graph = shared(reader, &entry, &ours)?;
                let visibility = Visibility::new(&graph, entry.origin());
                // What has no place in the graph here cannot be given out with what is before it.
                let found = closest(&graph, ts, direction, |known, _| {
                    Ok(known.record.states.is_some() && visibility.may_see(known)?)
                })?;
                let found =
                    found.ok_or_else(|| RoomError::NotFound("There is no such event".into()))?;
                Ok(json!({ "event_id": found.event_id, "origin_server_ts": found.ts }))
            })
            .await
    }
}
