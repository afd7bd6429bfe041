//! `GET /rooms/{roomId}/event/{eventId}`

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;
use ruma::{OwnedEventId, OwnedRoomId};

use crate::{ClientApi, body, room_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::GET, "/_matrix/client/v3/rooms/{room_id}/event/{event_id}", get)
}

/// `GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}`
async fn get(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let room_id: OwnedRoomId = body::id(&call, 0)?;
    let event_id: OwnedEventId = body::id(&call, 1)?;
    let viewer = api.rooms.viewer(&session.user_id, Some(session.device_id));
    let event = api.rooms.event(viewer, &room_id, &event_id).await.map_err(room_error)?;
    Ok(Reply::json(event.ok_or_else(|| MatrixError::not_found("Unknown event"))?))
}
