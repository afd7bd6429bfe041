//! `POST /rooms/{roomId}/upgrade`

use exeunt_core::RoomVersion;
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::{RoomError, Upgrade};
use exeunt_users::Session;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::json;

use crate::{ClientApi, body, profile::member_profile, room_error, users_error};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::POST, "/_matrix/client/v3/rooms/{room_id}/upgrade", post)
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
    let user = session.user_id.clone();
    let upgrade = Upgrade { user, profile, version, additional_creators };
    let replacement = api.rooms.upgrade(&room_id, upgrade).await.map_err(room_error)?;
    bring_along(&api, &session.user_id, &replacement).await;
    Ok(Reply::json(json!({ "replacement_room": replacement })))
}

/// Brings a user's tags and the like along to a room that they have joined, where it replaces
/// another one. The user is in the room whatever comes of it.
pub(crate) async fn bring_along(api: &ClientApi, user: &UserId, room_id: &RoomId) {
    let moved = async {
        let Some(old) = api.rooms.replaced_room(room_id).await.map_err(room_error)? else {
            return Ok(());
        };
        if let Some(position) = api.users.succeed(user, &old, room_id).await.map_err(users_error)? {
            api.rooms.wake_user(user, position);
        }
        Ok::<_, MatrixError>(())
    };
    if let Err(error) = moved.await {
        tracing::warn!(%user, %room_id, %error, "what follows a user to a new room stays behind");
    }
}
