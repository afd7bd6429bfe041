//! A room's state, whole or by key: as of now, or of the departure.

use exeunt_core::StateKey;
use exeunt_store::{Reader, snapshot};
use ruma::RoomId;
use serde_json::Value;

use super::{Viewer, access::RoomView};
use crate::RoomError;

pub(super) fn state(
    reader: &Reader<'_>,
    viewer: &Viewer,
    room_id: &RoomId,
) -> Result<Vec<Value>, RoomError> {
    let (view, until) = RoomView::readable(reader, viewer, room_id)?;
    state_at(&view, until)
}

/// The state as of a stream position.
pub(super) fn state_at(view: &RoomView<'_>, position: u64) -> Result<Vec<Value>, RoomError> {
    let ids = view.graph.state_ids(view.root_at(position)?)?;
    ids.values().map(|id| view.client_event(&view.graph.event_here(id)?)).collect()
}

pub(super) fn state_event(
    reader: &Reader<'_>,
    viewer: &Viewer,
    room_id: &RoomId,
    key: &StateKey,
) -> Result<Option<Value>, RoomError> {
    let (view, until) = RoomView::readable(reader, viewer, room_id)?;
    let id = snapshot::get(reader, view.root_at(until)?, key)?;
    id.map(|id| view.client_event(&view.graph.event_here(&id)?)).transpose()
}
