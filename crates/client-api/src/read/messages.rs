//! `GET /rooms/{roomId}/messages`

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::views::{Direction, EventFilter, MessagesRequest, Token};
use exeunt_users::Session;
use ruma::OwnedRoomId;
use serde_json::json;

use crate::{ClientApi, body, room_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::GET, "/_matrix/client/v3/rooms/{room_id}/messages", get)
}

/// `GET /_matrix/client/v3/rooms/{roomId}/messages`
async fn get(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let request = MessagesRequest {
        viewer: api.rooms.viewer(&session.user_id, Some(session.device_id)),
        room_id: body::id::<OwnedRoomId>(&call, 0)?,
        from: token(&call, "from")?,
        to: token(&call, "to")?,
        direction: direction(&call)?,
        limit: limit(&call)?,
        filter: filter(&call)?,
    };
    let page = api.rooms.messages(request).await.map_err(room_error)?;
    let mut body = json!({ "chunk": page.chunk, "start": page.start.to_string() });
    if let Some(end) = page.end {
        body["end"] = end.to_string().into();
    }
    if !page.state.is_empty() {
        body["state"] = page.state.into();
    }
    Ok(Reply::json(body))
}

/// The specification demands it for `/messages`; clients that page leave it out backwards.
pub(super) fn direction(call: &RawCall) -> Result<Direction, MatrixError> {
    match call.head.query("dir") {
        Some(text) => text.parse().map_err(room_error),
        None => Ok(Direction::Backward),
    }
}

pub(super) fn token(call: &RawCall, name: &str) -> Result<Option<Token>, MatrixError> {
    match call.head.query(name).filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map(Some).map_err(room_error),
        None => Ok(None),
    }
}

pub(super) fn limit(call: &RawCall) -> Result<Option<u64>, MatrixError> {
    call.head.query("limit").map(|limit| limit.parse().map_err(|_| bad("limit"))).transpose()
}

pub(super) fn filter(call: &RawCall) -> Result<EventFilter, MatrixError> {
    match call.head.query("filter").filter(|text| !text.is_empty()) {
        Some(text) => serde_json::from_str(&text).map_err(|_| bad("filter")),
        None => Ok(EventFilter::default()),
    }
}

pub(super) fn bad(name: &str) -> MatrixError {
    MatrixError::invalid_param(format!("{name} is not valid"))
}
