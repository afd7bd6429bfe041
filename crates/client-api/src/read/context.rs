//! `GET /rooms/{roomId}/context/{eventId}`

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::views::ContextRequest;
use exeunt_users::Session;
use serde_json::json;

use super::messages::{filter, limit};
use crate::{ClientApi, body, room_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::GET, "/_matrix/client/v3/rooms/{room_id}/context/{event_id}", get)
}

/// `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}`
async fn get(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let request = ContextRequest {
        viewer: api.rooms.viewer(&session.user_id, Some(session.device_id)),
        room_id: body::id(&call, 0)?,
        event_id: body::id(&call, 1)?,
        limit: limit(&call)?,
        filter: filter(&call)?,
    };
    let context = api.rooms.context(request).await.map_err(room_error)?;
    let context = context.ok_or_else(|| MatrixError::not_found("Unknown event"))?;
    Ok(Reply::json(json!({
        "event": context.event,
        "events_before": context.before,
        "events_after": context.after,
        "state": context.state,
        "start": context.start.to_string(),
        "end": context.end.to_string(),
    })))
}
