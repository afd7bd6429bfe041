//! One event by its id. Specification: client-server API, "GET /rooms/{roomId}/event/{eventId}".

use exeunt_store::{Reader, snapshot};
use ruma::{EventId, RoomId};
use serde_json::Value;

use super::{Viewer, access::RoomView};
use crate::{RoomError, graph::Known};

/// What the viewer may not see is as good as not there.
pub(super) fn event(
    reader: &Reader<'_>,
    viewer: &Viewer,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<Option<Value>, RoomError> {
    let Some(view) = RoomView::open(reader, viewer, room_id)? else { return Ok(None) };
    let known = visible(&view, event_id)?;
    known.map(|known| view.client_event(&known)).transpose()
}

/// The event, if the viewer may see it.
pub(super) fn visible(view: &RoomView<'_>, event_id: &EventId) -> Result<Option<Known>, RoomError> {
    let Some(known) = view.graph.event(event_id)? else { return Ok(None) };
    if view.is_forgotten() {
        return Ok(None);
    }
    let seen = match known.record.order {
        Some(order) => view.sees(&known, order)?,
        None => is_known_state(view, &known)?,
    };
    seen.then(|| view.unless_erased(known)).transpose()
}

/// State that came with the room, without a place in the timeline.
fn is_known_state(view: &RoomView<'_>, known: &Known) -> Result<bool, RoomError> {
    let Some(key) = known.pdu.key().filter(|_| view.is_joined()) else { return Ok(false) };
    let current = snapshot::get(view.graph.reader, view.graph.room.state, &key)?;
    Ok(current.is_some_and(|id| id == known.pdu.event_id()))
}
