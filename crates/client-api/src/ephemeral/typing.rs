//! `PUT /rooms/{roomId}/typing/{userId}`.

use std::time::Duration;

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::ephemeral::typing::DEFAULT_TYPING;
use exeunt_users::Session;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::json;

use crate::{ClientApi, body, room_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    let path = "/_matrix/client/v3/rooms/{room_id}/typing/{user_id}";
    routes.authed_raw(Method::PUT, path, typing)
}

#[derive(Deserialize)]
struct Body {
    typing: bool,
    /// Milliseconds.
    timeout: Option<u64>,
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`
async fn typing(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let room_id: OwnedRoomId = body::id(&call, 0)?;
    let user: OwnedUserId = body::id(&call, 1)?;
    if user != session.user_id {
        return Err(MatrixError::forbidden("Nobody types for another user"));
    }
    let Body { typing, timeout } = body::read(&call)?;
    let time = timeout.map_or(DEFAULT_TYPING, Duration::from_millis);
    api.rooms.set_typing(&user, &room_id, typing.then_some(time)).await.map_err(room_error)?;
    Ok(Reply::json(json!({})))
}
