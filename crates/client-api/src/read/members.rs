//! `GET /rooms/{roomId}/members` and `/joined_members`

use exeunt_core::Object;
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::views::{MembersRequest, Token};
use exeunt_users::Session;
use ruma::OwnedRoomId;
use serde_json::json;

use crate::{ClientApi, body, room_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .authed_raw(Method::GET, "/_matrix/client/v3/rooms/{room_id}/members", members)
        .authed_raw(Method::GET, "/_matrix/client/v3/rooms/{room_id}/joined_members", joined)
}

/// `GET /_matrix/client/v3/rooms/{roomId}/members`
async fn members(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let at = match call.head.query("at") {
        Some(token) => Some(token.parse::<Token>().map_err(room_error)?),
        None => None,
    };
    let request = MembersRequest {
        viewer: api.rooms.viewer(&session.user_id, Some(session.device_id)),
        room_id: body::id::<OwnedRoomId>(&call, 0)?,
        membership: call.head.query("membership"),
        not_membership: call.head.query("not_membership"),
        at,
    };
    let chunk = api.rooms.members(request).await.map_err(room_error)?;
    Ok(Reply::json(json!({ "chunk": chunk })))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/joined_members`
async fn joined(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let room_id: OwnedRoomId = body::id(&call, 0)?;
    let viewer = api.rooms.viewer(&session.user_id, Some(session.device_id));
    let members = api.rooms.joined_members(viewer, &room_id).await.map_err(room_error)?;
    let joined: Object = members
        .into_iter()
        .map(|(user, profile)| {
            // Present even where nothing is set, as clients have come to expect.
            let profile =
                json!({ "display_name": profile.display_name, "avatar_url": profile.avatar_url });
            (user.to_string(), profile)
        })
        .collect();
    Ok(Reply::json(json!({ "joined": joined })))
}
