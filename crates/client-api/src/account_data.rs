//! Account data, global and by room. Specification: client-server API, "Client Config"; deletion as
//! MSC3391 has it.

use exeunt_core::Object;
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde_json::json;

use crate::{ClientApi, body, users_error};

/// Types that the server keeps itself.
const SERVERS_OWN: [&str; 2] = ["m.fully_read", "m.push_rules"];

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    const GLOBAL: &str = "/_matrix/client/v3/user/{user_id}/account_data/{type}";
    const ROOM: &str = "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/account_data/{type}";
    const DELETE: &str =
        "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/account_data/{type}";
    const DELETE_OF_ROOM: &str = "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/rooms/{room_id}/account_data/{type}";
    routes
        .authed_raw(Method::GET, GLOBAL, get)
        .authed_raw(Method::PUT, GLOBAL, put)
        .authed_raw(Method::GET, ROOM, get_of_room)
        .authed_raw(Method::PUT, ROOM, put_of_room)
        .authed_raw(Method::DELETE, DELETE, delete)
        .authed_raw(Method::DELETE, DELETE_OF_ROOM, delete_of_room)
}

/// `GET /_matrix/client/v3/user/{userId}/account_data/{type}`
async fn get(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    check_owner(&session, &call)?;
    find(&api, &session, None, body::arg(&call, 1)).await
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn get_of_room(
    api: ClientApi,
    session: Session,
    call: RawCall,
) -> Result<Reply, MatrixError> {
    check_owner(&session, &call)?;
    let room_id: OwnedRoomId = body::id(&call, 1)?;
    find(&api, &session, Some(&room_id), body::arg(&call, 2)).await
}

async fn find(
    api: &ClientApi,
    session: &Session,
    room_id: Option<&RoomId>,
    kind: &str,
) -> Result<Reply, MatrixError> {
    let content = api.users.account_data(&session.user_id, room_id, kind).await;
    let content = content.map_err(users_error)?;
    let absent = || MatrixError::not_found("There is no account data of this type");
    Ok(Reply::json(content.ok_or_else(absent)?.into()))
}

/// `PUT /_matrix/client/v3/user/{userId}/account_data/{type}`
async fn put(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    check_owner(&session, &call)?;
    store(&api, &session, None, body::arg(&call, 1), call.object()?).await
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn put_of_room(
    api: ClientApi,
    session: Session,
    call: RawCall,
) -> Result<Reply, MatrixError> {
    check_owner(&session, &call)?;
    let room_id: OwnedRoomId = body::id(&call, 1)?;
    store(&api, &session, Some(&room_id), body::arg(&call, 2), call.object()?).await
}

/// `DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{userId}/account_data/{type}`
async fn delete(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    check_owner(&session, &call)?;
    store(&api, &session, None, body::arg(&call, 1), Object::new()).await
}

/// `DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn delete_of_room(
    api: ClientApi,
    session: Session,
    call: RawCall,
) -> Result<Reply, MatrixError> {
    check_owner(&session, &call)?;
    let room_id: OwnedRoomId = body::id(&call, 1)?;
    store(&api, &session, Some(&room_id), body::arg(&call, 2), Object::new()).await
}

async fn store(
    api: &ClientApi,
    session: &Session,
    room_id: Option<&RoomId>,
    kind: &str,
    content: Object,
) -> Result<Reply, MatrixError> {
    if SERVERS_OWN.contains(&kind) {
        let text = format!("{kind} cannot be set here");
        return Err(MatrixError::new(405, "M_BAD_JSON", text));
    }
    let user = &session.user_id;
    let position = api.users.put_account_data(user, room_id, kind, content).await;
    api.rooms.wake_user(user, position.map_err(users_error)?);
    Ok(Reply::json(json!({})))
}

pub(crate) fn check_owner(session: &Session, call: &RawCall) -> Result<(), MatrixError> {
    let user: OwnedUserId = body::id(call, 0)?;
    if user == session.user_id {
        Ok(())
    } else {
        Err(MatrixError::forbidden("The account data is another user's"))
    }
}
