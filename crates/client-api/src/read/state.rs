//! `GET /rooms/{roomId}/state` and `/state/{eventType}/{stateKey}`

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;
use ruma::OwnedRoomId;

use crate::{ClientApi, body, room_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    const ONE: [&str; 3] = [
        "/_matrix/client/v3/rooms/{room_id}/state/{event_type}",
        "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/",
        "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/{state_key}",
    ];
    let routes = routes.authed_raw(Method::GET, "/_matrix/client/v3/rooms/{room_id}/state", whole);
    ONE.into_iter().fold(routes, |routes, path| routes.authed_raw(Method::GET, path, one))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state`
async fn whole(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let room_id: OwnedRoomId = body::id(&call, 0)?;
    let viewer = api.rooms.viewer(&session.user_id, Some(session.device_id));
    let state = api.rooms.state(viewer, &room_id).await.map_err(room_error)?;
    Ok(Reply::json(state.into()))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`: the content, or with
/// `format=event` the event.
async fn one(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let room_id: OwnedRoomId = body::id(&call, 0)?;
    let (kind, key) = (body::arg(&call, 1), body::arg(&call, 2));
    let whole = match call.head.query("format").as_deref() {
        Some("event") => true,
        Some("content") | None => false,
        Some(_) => return Err(MatrixError::invalid_param("format is not valid")),
    };
    let viewer = api.rooms.viewer(&session.user_id, Some(session.device_id));
    let event = api.rooms.state_event(viewer, &room_id, kind, key).await.map_err(room_error)?;
    let mut event = event.ok_or_else(|| MatrixError::not_found("No such state event"))?;
    Ok(Reply::json(if whole { event } else { event["content"].take() }))
}
