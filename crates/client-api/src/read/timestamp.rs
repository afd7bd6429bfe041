//! `GET /rooms/{roomId}/timestamp_to_event`

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::views::TimestampRequest;
use exeunt_users::Session;
use serde_json::json;

use super::messages::{bad, direction};
use crate::{ClientApi, body, room_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    let path = "/_matrix/client/v1/rooms/{room_id}/timestamp_to_event";
    routes.authed_raw(Method::GET, path, get)
}

/// `GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event`
async fn get(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let missing = |name: &str| MatrixError::missing_param(format!("{name} is missing"));
    let ts = call.head.query("ts").ok_or_else(|| missing("ts"))?;
    let ts: i64 = ts.parse().map_err(|_| bad("ts"))?;
    call.head.query("dir").ok_or_else(|| missing("dir"))?;
    let request = TimestampRequest {
        viewer: api.rooms.viewer(&session.user_id, Some(session.device_id)),
        room_id: body::id(&call, 0)?,
        // Before the epoch there is nothing.
        ts: ts.try_into().unwrap_or(0),
        direction: direction(&call)?,
    };
    let found = api.rooms.timestamp_to_event(request).await.map_err(room_error)?;
    let found = found.ok_or_else(|| MatrixError::not_found("There is no such event"))?;
    Ok(Reply::json(json!({ "event_id": found.event_id, "origin_server_ts": found.ts })))
}
