//! `GET /rooms/{roomId}/relations/{eventId}`

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::views::RelationsRequest;
use exeunt_users::Session;
use serde_json::json;

use super::messages::{bad, direction, limit, token};
use crate::{ClientApi, body, room_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    const PATHS: [&str; 3] = [
        "/_matrix/client/v1/rooms/{room_id}/relations/{event_id}",
        "/_matrix/client/v1/rooms/{room_id}/relations/{event_id}/{rel_type}",
        "/_matrix/client/v1/rooms/{room_id}/relations/{event_id}/{rel_type}/{event_type}",
    ];
    PATHS.into_iter().fold(routes, |routes, path| routes.authed_raw(Method::GET, path, get))
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}[/{relType}[/{eventType}]]`
async fn get(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let recurse = match call.head.query("recurse").as_deref() {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(bad("recurse")),
    };
    let request = RelationsRequest {
        viewer: api.rooms.viewer(&session.user_id, Some(session.device_id)),
        room_id: body::id(&call, 0)?,
        parent: body::id(&call, 1)?,
        rel_type: call.args.get(2).cloned(),
        kind: call.args.get(3).cloned(),
        from: token(&call, "from")?,
        to: token(&call, "to")?,
        direction: direction(&call)?,
        limit: limit(&call)?,
        recurse,
    };
    let page = api.rooms.relations(request).await.map_err(room_error)?;
    let mut body = json!({ "chunk": page.chunk });
    for (name, token) in [("next_batch", page.next_batch), ("prev_batch", page.prev_batch)] {
        if let Some(token) = token {
            body[name] = token.to_string().into();
        }
    }
    if let Some(depth) = page.recursion_depth {
        body["recursion_depth"] = depth.into();
    }
    Ok(Reply::json(body))
}
