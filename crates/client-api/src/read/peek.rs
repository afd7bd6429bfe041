//! Room previews: `GET /rooms/{roomId}/initialSync` and `GET /events` of one room.

use std::time::Duration;

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::views::InitialSyncRequest;
use exeunt_users::Session;
use ruma::{OwnedRoomId, RoomId};
use serde_json::json;

use super::messages::{bad, limit, token};
use crate::{ClientApi, body, room_error, sync::MAX_TIMEOUT, users_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .authed_raw(Method::GET, "/_matrix/client/v3/rooms/{room_id}/initialSync", initial_sync)
        .authed_raw(Method::GET, "/_matrix/client/v3/events", events)
}

/// `GET /_matrix/client/v3/rooms/{roomId}/initialSync`, with the `limit` that clients send.
async fn initial_sync(
    api: ClientApi,
    session: Session,
    call: RawCall,
) -> Result<Reply, MatrixError> {
    let room_id: OwnedRoomId = body::id(&call, 0)?;
    let viewer = api.rooms.viewer(&session.user_id, Some(session.device_id));
    let request = InitialSyncRequest { viewer, room_id: room_id.clone(), limit: limit(&call)? };
    let room = api.rooms.initial_sync(request).await.map_err(room_error)?;
    let is_public = api.rooms.is_published(&room_id).await.map_err(room_error)?;
    let data = api.users.account_data_since(&session.user_id, 0, u64::MAX).await;
    let of_room = data.map_err(users_error)?.into_iter();
    let of_room = of_room.filter(|data| data.room_id.as_ref() == Some(&room_id));
    let account_data: Vec<_> =
        of_room.map(|data| json!({ "type": data.kind, "content": data.content })).collect();
    let mut answer = json!({
        "room_id": room_id,
        "messages": { "chunk": room.chunk, "end": room.end.to_string() },
        "state": room.state,
        "visibility": if is_public { "public" } else { "private" },
        "account_data": account_data,
    });
    if let Some(start) = room.start {
        answer["messages"]["start"] = start.to_string().into();
    }
    if let Some(membership) = room.membership {
        answer["membership"] = membership.into();
    }
    Ok(Reply::json(answer))
}

/// `GET /_matrix/client/v3/events?room_id=`: what comes in a room, at once or as soon as something
/// does. Without a room it is the old stream of everything, which `/sync` replaced.
async fn events(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let room_id = call.head.query("room_id");
    let room_id = room_id.ok_or_else(|| MatrixError::missing_param("room_id is missing"))?;
    let room_id = RoomId::parse(room_id).map_err(|_| bad("room_id"))?;
    let timeout = match call.head.query("timeout") {
        Some(text) => Duration::from_millis(text.parse().map_err(|_| bad("timeout"))?),
        None => Duration::ZERO,
    };
    let from = token(&call, "from")?;
    let viewer = api.rooms.viewer(&session.user_id, Some(session.device_id));
    let page = api.rooms.events_after(viewer, &room_id, from, timeout.min(MAX_TIMEOUT)).await;
    let page = page.map_err(room_error)?;
    let (start, end) = (page.start.to_string(), page.end.to_string());
    Ok(Reply::json(json!({ "start": start, "end": end, "chunk": page.chunk })))
}
