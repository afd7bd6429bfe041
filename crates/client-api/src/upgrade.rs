//! `POST /rooms/{roomId}/upgrade`

use exeunt_core::RoomVersion;
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::{RoomError, Upgrade};
use exeunt_users::Session;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::json;

use crate::{ClientApi, body, profile::member_profile, room_error};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::POST, "/_matrix/client/v3/rooms/{room_id}/upgrade", post).authed_raw(
        Method::POST,
        "/_matrix/client/r0/rooms/{room_id}/upgrade",
        post,
    )
}

#[derive(Deserialize)]
struct Body {
    new_version: String,
    #[serde(default)]
    additional_creators: Vec<OwnedUserId>,
}

/// `POST /_matrix/client/v3/rooms/{roomId}/upgrade`
async fn post(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let room_id: OwnedRoomId = body::id(&call, 0)?;
    let Body { new_version, additional_creators } = body::read(&call)?;
    let version = RoomVersion::parse(&new_version)
        .map_err(|error| room_error(RoomError::UnsupportedVersion(error.0)))?;
    let profile = member_profile(&api, &session.user_id).await?;
    let upgrade = Upgrade { user: session.user_id, profile, version, additional_creators };
    let replacement = api.rooms.upgrade(&room_id, upgrade).await.map_err(room_error)?;
    Ok(Reply::json(json!({ "replacement_room": replacement })))
}
