//! `GET` and `PUT /presence/{userId}/status`.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::Presence;
use exeunt_users::Session;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::json;

use crate::{ClientApi, body, room_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    let path = "/_matrix/client/v3/presence/{user_id}/status";
    routes.authed_raw(Method::GET, path, get).authed_raw(Method::PUT, path, put)
}

/// `GET /_matrix/client/v3/presence/{userId}/status`
async fn get(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let user: OwnedUserId = body::id(&call, 0)?;
    let content = api.rooms.presence(&session.user_id, &user).await.map_err(room_error)?;
    Ok(Reply::json(content.into()))
}

#[derive(Deserialize)]
struct Body {
    presence: String,
    status_msg: Option<String>,
}

/// `PUT /_matrix/client/v3/presence/{userId}/status`
async fn put(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let user: OwnedUserId = body::id(&call, 0)?;
    if user != session.user_id {
        return Err(MatrixError::forbidden("The presence is another user's"));
    }
    let Body { presence, status_msg } = body::read(&call)?;
    let unknown = || MatrixError::invalid_param("There is no such presence");
    let presence = Presence::parse(&presence).ok_or_else(unknown)?;
    let set = api.rooms.set_presence(&user, &session.device_id, presence, status_msg);
    set.await.map_err(room_error)?;
    Ok(Reply::json(json!({})))
}
