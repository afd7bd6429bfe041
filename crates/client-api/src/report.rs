//! Reports of events, rooms and users to the administrators.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::json;

use crate::{ClientApi, body, room_error};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .authed_raw(Method::POST, "/_matrix/client/v3/rooms/{room_id}/report/{event_id}", event)
        .authed_raw(Method::POST, "/_matrix/client/v3/rooms/{room_id}/report", room)
        .authed_raw(Method::POST, "/_matrix/client/v3/users/{user_id}/report", user)
}

#[derive(Deserialize)]
struct EventBody {
    reason: Option<String>,
}

/// It may be empty, but not absent.
#[derive(Deserialize)]
struct Body {
    reason: String,
}

/// `POST /_matrix/client/v3/rooms/{roomId}/report/{eventId}`
async fn event(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let (room_id, event_id): (OwnedRoomId, OwnedEventId) =
        (body::id(&call, 0)?, body::id(&call, 1)?);
    let EventBody { reason } = body::read(&call)?;
    let reported = api.rooms.report_event(&session.user_id, &room_id, &event_id, reason).await;
    reported.map_err(room_error)?;
    Ok(Reply::json(json!({})))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/report`
async fn room(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let room_id: OwnedRoomId = body::id(&call, 0)?;
    let Body { reason } = body::read(&call)?;
    let reported = api.rooms.report_room(&session.user_id, &room_id, Some(reason)).await;
    reported.map_err(room_error)?;
    Ok(Reply::json(json!({})))
}

/// `POST /_matrix/client/v3/users/{userId}/report`
async fn user(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let user_id: OwnedUserId = body::id(&call, 0)?;
    let Body { reason } = body::read(&call)?;
    let reported = api.rooms.report_user(&session.user_id, &user_id, Some(reason)).await;
    reported.map_err(room_error)?;
    Ok(Reply::json(json!({})))
}
