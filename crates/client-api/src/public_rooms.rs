//! The published room directory of this server.

use exeunt_core::Object;
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::PublicRoomsRequest;
use exeunt_users::Session;
use ruma::OwnedRoomId;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{ClientApi, body, room_error};

pub(crate) fn routes(mut routes: Routes<ClientApi>) -> Routes<ClientApi> {
    for path in ["/_matrix/client/v3/publicRooms", "/_matrix/client/r0/publicRooms"] {
        routes = routes.public_raw(Method::GET, path, list).authed_raw(Method::POST, path, search);
    }
    for path in [
        "/_matrix/client/v3/directory/list/room/{room_id}",
        "/_matrix/client/r0/directory/list/room/{room_id}",
    ] {
        routes = routes.public_raw(Method::GET, path, visibility).authed_raw(
            Method::PUT,
            path,
            set_visibility,
        );
    }
    routes
}

/// `GET /_matrix/client/v3/publicRooms`
async fn list(api: ClientApi, call: RawCall) -> Result<Reply, MatrixError> {
    check_server(&api, &call)?;
    let limit = call.head.query("limit").map(|limit| limit.parse()).transpose();
    let limit = limit.map_err(|_| MatrixError::invalid_param("limit is not a number"))?;
    let since = call.head.query("since");
    page(&api, PublicRoomsRequest { limit, since, ..PublicRoomsRequest::default() }).await
}

#[derive(Deserialize)]
struct Search {
    limit: Option<usize>,
    since: Option<String>,
    filter: Option<Filter>,
}

#[derive(Deserialize)]
struct Filter {
    generic_search_term: Option<String>,
    room_types: Option<Vec<Option<String>>>,
}

/// `POST /_matrix/client/v3/publicRooms`
async fn search(api: ClientApi, _: Session, call: RawCall) -> Result<Reply, MatrixError> {
    check_server(&api, &call)?;
    let Search { limit, since, filter } = body::read(&call)?;
    let (search, room_types) =
        filter.map_or((None, None), |filter| (filter.generic_search_term, filter.room_types));
    page(&api, PublicRoomsRequest { limit, since, search, room_types }).await
}

async fn page(api: &ClientApi, request: PublicRoomsRequest) -> Result<Reply, MatrixError> {
    let page = api.rooms.public_rooms(request).await.map_err(room_error)?;
    Ok(Reply::json(json!(page)))
}

/// The directories of other servers are not asked yet.
fn check_server(api: &ClientApi, call: &RawCall) -> Result<(), MatrixError> {
    match call.head.query("server") {
        Some(server) if server != api.server_name().as_str() => Err(MatrixError::unrecognized()),
        _ => Ok(()),
    }
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
