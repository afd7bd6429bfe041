//! Published room directories: of this server, and of others by asking them.

use exeunt_core::Object;
use exeunt_http::{Authenticator, MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::{PublicRoomsBody, PublicRoomsRequest};
use exeunt_users::Session;
use ruma::{OwnedRoomId, OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{ClientApi, body, room_error};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    const ROOMS: &str = "/_matrix/client/v3/publicRooms";
    const VISIBILITY: &str = "/_matrix/client/v3/directory/list/room/{room_id}";
    routes
        .public_raw(Method::GET, ROOMS, list)
        .authed_raw(Method::POST, ROOMS, search)
        .public_raw(Method::GET, VISIBILITY, visibility)
        .authed_raw(Method::PUT, VISIBILITY, set_visibility)
}

/// `GET /_matrix/client/v3/publicRooms`
async fn list(api: ClientApi, call: RawCall) -> Result<Reply, MatrixError> {
    let server = other_server(&api, &call)?;
    if server.is_some() {
        // Nobody makes us ask others but our users.
        api.authenticate(&call.head, &call.body).await?;
    }
    let limit = call.head.query("limit").map(|limit| limit.parse()).transpose();
    let body = PublicRoomsBody {
        limit: limit.map_err(|_| MatrixError::invalid_param("limit is not a number"))?,
        since: call.head.query("since"),
        third_party_instance_id: call.head.query("third_party_instance_id"),
        ..PublicRoomsBody::default()
    };
    page(&api, server, body).await
}

/// `POST /_matrix/client/v3/publicRooms`
async fn search(api: ClientApi, _: Session, call: RawCall) -> Result<Reply, MatrixError> {
    page(&api, other_server(&api, &call)?, body::read(&call)?).await
}

async fn page(
    api: &ClientApi,
    server: Option<OwnedServerName>,
    body: PublicRoomsBody,
) -> Result<Reply, MatrixError> {
    let request = PublicRoomsRequest::try_from(body).map_err(room_error)?;
    let page = match server {
        Some(server) => api.rooms.public_rooms_of(&server, request).await,
        None => api.rooms.public_rooms(request).await,
    };
    Ok(Reply::json(json!(page.map_err(room_error)?)))
}

/// The server whose directory is asked for, unless it is this one.
fn other_server(api: &ClientApi, call: &RawCall) -> Result<Option<OwnedServerName>, MatrixError> {
    let Some(name) = call.head.query("server") else { return Ok(None) };
    let server = ServerName::parse(&name)
        .map_err(|_| MatrixError::invalid_param(format!("{name:?} is not a server name")))?;
    Ok(Some(server).filter(|server| server != api.server_name()))
}

#[derive(Deserialize, Serialize, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Visibility {
    #[default]
    Public,
    Private,
}

#[derive(Deserialize)]
struct VisibilityBody {
    #[serde(default)]
    visibility: Visibility,
}

/// `GET /_matrix/client/v3/directory/list/room/{roomId}`
async fn visibility(api: ClientApi, call: RawCall) -> Result<Reply, MatrixError> {
    let room_id: OwnedRoomId = body::id(&call, 0)?;
    let visibility = match api.rooms.is_published(&room_id).await.map_err(room_error)? {
        true => Visibility::Public,
        false => Visibility::Private,
    };
    Ok(Reply::json(json!({ "visibility": visibility })))
}

/// `PUT /_matrix/client/v3/directory/list/room/{roomId}`
async fn set_visibility(
    api: ClientApi,
    session: Session,
    call: RawCall,
) -> Result<Reply, MatrixError> {
    let room_id: OwnedRoomId = body::id(&call, 0)?;
    let VisibilityBody { visibility } = body::read(&call)?;
    let published = visibility == Visibility::Public;
    let set = api.rooms.set_published(&room_id, &session.user_id, published).await;
    set.map_err(room_error)?;
    Ok(Reply::json(Object::new().into()))
}
