//! `GET /rooms/{roomId}/threads`

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::views::ThreadsRequest;
use exeunt_users::Session;
use serde_json::json;

use super::messages::{bad, limit, token};
use crate::{ClientApi, body, room_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::GET, "/_matrix/client/v1/rooms/{room_id}/threads", get)
}

/// `GET /_matrix/client/v1/rooms/{roomId}/threads`
async fn get(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let participated_only = match call.head.query("include").as_deref() {
        None | Some("all") => false,
        Some("participated") => true,
        Some(_) => return Err(bad("include")),
    };
    let limit = limit(&call)?;
    if limit == Some(0) {
        return Err(bad("limit"));
    }
    let request = ThreadsRequest {
        viewer: api.rooms.viewer(&session.user_id, Some(session.device_id)),
        room_id: body::id(&call, 0)?,
        participated_only,
        limit,
        from: token(&call, "from")?,
    };
    let page = api.rooms.threads(request).await.map_err(room_error)?;
    let mut body = json!({ "chunk": page.chunk });
    if let Some(token) = page.next_batch {
        body["next_batch"] = token.to_string().into();
    }
    Ok(Reply::json(body))
}
