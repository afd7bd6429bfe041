//! Tags of rooms: account data of type `m.tag`, changed one by one. Specification: client-server
//! API, "Room Tagging".

use exeunt_core::Object;
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;
use ruma::{OwnedRoomId, RoomId, UserId};
use serde_json::{Value, json};

use crate::{ClientApi, account_data::check_owner, body, users_error};

const KIND: &str = "m.tag";
/// Longest name of a tag in bytes.
const MAX_TAG: usize = 255;

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    const ALL: &str = "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/tags";
    const ONE: &str = "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/tags/{tag}";
    routes.authed_raw(Method::GET, ALL, list).authed_raw(Method::PUT, ONE, put).authed_raw(
        Method::DELETE,
        ONE,
        delete,
    )
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags`
async fn list(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let room_id = of_room(&session, &call)?;
    let content = api.users.account_data(&session.user_id, Some(&room_id), KIND).await;
    let mut content = content.map_err(users_error)?.unwrap_or_default();
    Ok(Reply::json(json!({ "tags": tags(&mut content) })))
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
async fn put(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let tag = call.object()?;
    check_order(&tag)?;
    let name = body::arg(&call, 2);
    if name.len() > MAX_TAG {
        return Err(MatrixError::invalid_param(format!("A tag has at most {MAX_TAG} bytes")));
    }
    let (user, room_id) = (&session.user_id, of_room(&session, &call)?);
    change(&api, user, &room_id, |tags| drop(tags.insert(name.to_owned(), tag.into()))).await?;
    Ok(Reply::json(json!({})))
}

/// `DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
async fn delete(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let (user, room_id) = (&session.user_id, of_room(&session, &call)?);
    change(&api, user, &room_id, |tags| drop(tags.remove(body::arg(&call, 2)))).await?;
    Ok(Reply::json(json!({})))
}

/// The room of a request about the caller's own tags.
fn of_room(session: &Session, call: &RawCall) -> Result<OwnedRoomId, MatrixError> {
    check_owner(session, call)?;
    body::id(call, 1)
}

/// Changes the tags of a user's room.
pub(crate) async fn change(
    api: &ClientApi,
    user: &UserId,
    room_id: &RoomId,
    change: impl FnOnce(&mut Object),
) -> Result<(), MatrixError> {
    let changed = api.users.change_account_data(user, Some(room_id), KIND, |content| {
        change(tags(content));
    });
    api.rooms.wake_user(user, changed.await.map_err(users_error)?);
    Ok(())
}

/// The tags in the account data. A client may have put anything there; what is no object gives way.
fn tags(content: &mut Object) -> &mut Object {
    let tags = content.entry("tags").or_insert_with(|| Object::new().into());
    if !tags.is_object() {
        *tags = Object::new().into();
    }
    tags.as_object_mut().expect("made an object above")
}

fn check_order(tag: &Object) -> Result<(), MatrixError> {
    match tag.get("order") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Number(order)) => match order.as_f64() {
            Some(order) if (0.0..=1.0).contains(&order) => Ok(()),
            _ => Err(MatrixError::invalid_param("order is not between 0 and 1")),
        },
        Some(_) => Err(MatrixError::bad_json("order is not a number")),
    }
}
