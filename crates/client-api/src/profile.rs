//! Profiles: of our users from their accounts, of others from their servers.

use exeunt_core::Object;
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::{Session, all_fields, member_fields};
use ruma::{OwnedUserId, UserId};
use serde_json::Value;

use crate::{ClientApi, body, room_error, users_error};

/// The fields of a profile that member events carry.
pub(crate) const FIELDS: [&str; 2] = ["displayname", "avatar_url"];

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    const FIELD: &str = "/_matrix/client/v3/profile/{user_id}/{field}";
    routes
        .public_raw(Method::GET, "/_matrix/client/v3/profile/{user_id}", get)
        .public_raw(Method::GET, FIELD, get_field)
        .authed_raw(Method::PUT, FIELD, set_field)
        .authed_raw(Method::DELETE, FIELD, delete_field)
}

/// `GET /_matrix/client/v3/profile/{userId}`. Also for those who are not logged in, and then too of
/// other servers' users: Complement demands it (`TestOutboundFederationProfile`).
async fn get(api: ClientApi, call: RawCall) -> Result<Reply, MatrixError> {
    let user: OwnedUserId = body::id(&call, 0)?;
    Ok(Reply::json(find(&api, &user, None).await?.into()))
}

/// `GET /_matrix/client/v3/profile/{userId}/{keyName}`. A known user who has not set one of the
/// two classic fields has an empty answer, as clients expect.
async fn get_field(api: ClientApi, call: RawCall) -> Result<Reply, MatrixError> {
    let user: OwnedUserId = body::id(&call, 0)?;
    let field = body::arg(&call, 1);
    let mut profile = find(&api, &user, Some(field)).await?;
    profile.retain(|key, _| key == field);
    if profile.is_empty() && !FIELDS.contains(&field) {
        return Err(MatrixError::not_found("The profile has no such field"));
    }
    Ok(Reply::json(profile.into()))
}

/// `PUT /_matrix/client/v3/profile/{userId}/{keyName}`
async fn set_field(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let field = body::arg(&call, 1);
    let value = call.object()?.remove(field);
    let value = value.ok_or_else(|| MatrixError::missing_param(format!("{field} is missing")))?;
    change(&api, &session, &call, Some(value)).await
}

/// `DELETE /_matrix/client/v3/profile/{userId}/{keyName}`
async fn delete_field(
    api: ClientApi,
    session: Session,
    call: RawCall,
) -> Result<Reply, MatrixError> {
    change(&api, &session, &call, None).await
}

/// Sets a field, or removes it. Rooms are told of those that member events carry.
async fn change(
    api: &ClientApi,
    session: &Session,
    call: &RawCall,
    value: Option<Value>,
) -> Result<Reply, MatrixError> {
    let user: OwnedUserId = body::id(call, 0)?;
    if user != session.user_id {
        return Err(MatrixError::forbidden("The profile is another user's"));
    }
    let profile = match body::arg(call, 1) {
        "displayname" => {
            let name = text("displayname", value)?;
            api.users.set_displayname(&user, name.as_deref()).await.map_err(users_error)?
        }
        "avatar_url" => {
            let url = text("avatar_url", value)?;
            api.users.set_avatar_url(&user, url.as_deref()).await.map_err(users_error)?
        }
        field => {
            api.users.set_profile_field(&user, field, value).await.map_err(users_error)?;
            return Ok(Reply::json(Object::new().into()));
        }
    };
    api.rooms.update_profile(&user, member_fields(&profile)).await.map_err(room_error)?;
    Ok(Reply::json(Object::new().into()))
}

/// A field that is text. Clients remove it with an empty one, or with null.
fn text(field: &str, value: Option<Value>) -> Result<Option<String>, MatrixError> {
    match value {
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(Value::Null) | None => Ok(None),
        Some(_) => Err(MatrixError::bad_json(format!("{field} is not a string"))),
    }
}

async fn find(api: &ClientApi, user: &UserId, field: Option<&str>) -> Result<Object, MatrixError> {
    if api.users.is_local(user) {
        let profile = api.users.profile(user).await.map_err(users_error)?;
        let fields = profile.as_ref().map(all_fields);
        return fields.ok_or_else(|| MatrixError::not_found("No such user"));
    }
    api.rooms.remote_profile(user, field).await.map_err(room_error)
}

/// The profile as member events carry it: nothing for other servers' users, whose server knows.
pub(crate) async fn member_profile(api: &ClientApi, user: &UserId) -> Result<Object, MatrixError> {
    if !api.users.is_local(user) {
        return Ok(Object::new());
    }
    let profile = api.users.profile(user).await.map_err(users_error)?;
    Ok(profile.as_ref().map(member_fields).unwrap_or_default())
}

/// The same of a user who is to be invited: 404 if they would be ours and there is no such user.
pub(crate) async fn invited_profile(api: &ClientApi, user: &UserId) -> Result<Object, MatrixError> {
    if api.users.is_local(user) && !api.users.exists(user).await.map_err(users_error)? {
        return Err(MatrixError::not_found(format!("There is no user {user} on this server")));
    }
    member_profile(api, user).await
}
