//! Inviting, joining, leaving, kicking and banning.

use exeunt_core::Object;
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;
use ruma::{
    OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName, RoomAliasId, RoomId, ServerName,
    api::client::membership::{
        ban_user::v3 as ban,
        forget_room::v3 as forget,
        invite_user::v3::{self as invite, InvitationRecipient},
        joined_rooms::v3 as joined_rooms,
        kick_user::v3 as kick,
        leave_room::v3 as leave,
        unban_user::v3 as unban,
    },
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ClientApi, body,
    notices::check_leave,
    profile::{self, invited_profile, member_profile},
    room_error,
    upgrade::bring_along,
};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .authed(invite)
        .authed_raw(Method::POST, "/_matrix/client/v3/rooms/{room_id}/join", join)
        .authed_raw(Method::POST, "/_matrix/client/v3/join/{room_id_or_alias}", join_any)
        .authed(leave)
        .authed(forget)
        .authed(kick)
        .authed(ban)
        .authed(unban)
        .authed(joined_rooms)
}

/// `POST /_matrix/client/v3/rooms/{roomId}/invite`
async fn invite(
    api: ClientApi,
    session: Session,
    request: invite::Request,
) -> Result<invite::Response, MatrixError> {
    let InvitationRecipient::UserId(target) = request.recipient else {
        return Err(no_third_party());
    };
    let content = with_reason(invited_profile(&api, &target.user_id).await?, target.reason);
    api.rooms
        .invite(&session.user_id, &target.user_id, &request.room_id, content)
        .await
        .map_err(room_error)?;
    Ok(invite::Response::new())
}

/// There is no identity server to ask who an email address or phone number is.
pub(crate) fn no_third_party() -> MatrixError {
    let text = "Inviting by email address or phone number is not supported";
    MatrixError::new(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", text)
}

/// Fields of a join's body that are not the client's to put into the member event.
const NOT_CUSTOM: [&str; 5] =
    ["membership", "join_authorised_via_users_server", "third_party_invite", "via", "server_name"];

/// The body of both ways to join. What the specification does not name is custom content of the
/// member event.
#[derive(Deserialize)]
struct JoinBody {
    reason: Option<String>,
    /// For third-party invites, which there are none of.
    #[serde(rename = "third_party_signed")]
    _third_party_signed: Option<Value>,
    #[serde(flatten)]
    custom: Object,
}

/// `POST /_matrix/client/v3/rooms/{roomId}/join`
async fn join(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let room_id: OwnedRoomId = body::id(&call, 0)?;
    enter(&api, &session, &room_id, &[], &call).await
}

/// `POST /_matrix/client/v3/join/{roomIdOrAlias}`
async fn join_any(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let id: OwnedRoomOrAliasId = body::id(&call, 0)?;
    let via = via(&call)?;
    let (room_id, via) = match <&RoomId>::try_from(&*id) {
        Ok(room_id) => (room_id.to_owned(), via),
        Err(alias) => by_alias(&api, alias, via).await?,
    };
    enter(&api, &session, &room_id, &via, &call).await
}

/// The servers that the client names: `via`, or the older `server_name`.
pub(crate) fn via(call: &RawCall) -> Result<Vec<OwnedServerName>, MatrixError> {
    servers(call, &["via", "server_name"])
}

/// The servers of the first of these parameters that is there.
pub(crate) fn servers(
    call: &RawCall,
    parameters: &[&str],
) -> Result<Vec<OwnedServerName>, MatrixError> {
    let named = parameters.iter().map(|parameter| call.head.query_all(parameter));
    let names = named.into_iter().find(|names| !names.is_empty()).unwrap_or_default();
    let parse = |name: &String| {
        ServerName::parse(name)
            .map_err(|_| MatrixError::invalid_param(format!("{name:?} is not a server name")))
    };
    names.iter().map(parse).collect()
}

/// The room of an alias. The servers that go with it are asked after those the client names.
pub(crate) async fn by_alias(
    api: &ClientApi,
    alias: &RoomAliasId,
    mut via: Vec<OwnedServerName>,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), MatrixError> {
    let (room_id, servers) = api.rooms.resolve_alias(alias).await.map_err(room_error)?;
    via.extend(servers);
    Ok((room_id, via))
}

async fn enter(
    api: &ClientApi,
    session: &Session,
    room_id: &RoomId,
    via: &[OwnedServerName],
    call: &RawCall,
) -> Result<Reply, MatrixError> {
    let JoinBody { reason, custom: mut content, .. } = body::read(call)?;
    content.retain(|key, _| !NOT_CUSTOM.contains(&&**key) && !profile::FIELDS.contains(&&**key));
    content.extend(member_profile(api, &session.user_id).await?);
    let content = with_reason(content, reason);
    api.rooms.join(&session.user_id, room_id, via, content).await.map_err(room_error)?;
    bring_along(api, &session.user_id, room_id).await;
    Ok(Reply::json(json!({ "room_id": room_id })))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/leave`
async fn leave(
    api: ClientApi,
    session: Session,
    request: leave::Request,
) -> Result<leave::Response, MatrixError> {
    let leave::Request { room_id, reason, .. } = request;
    check_leave(&api, &session.user_id, &room_id).await?;
    api.rooms.leave(&session.user_id, &room_id, reason).await.map_err(room_error)?;
    Ok(leave::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/forget`
async fn forget(
    api: ClientApi,
    session: Session,
    request: forget::Request,
) -> Result<forget::Response, MatrixError> {
    api.rooms.forget(&session.user_id, &request.room_id).await.map_err(room_error)?;
    Ok(forget::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/kick`
async fn kick(
    api: ClientApi,
    session: Session,
    request: kick::Request,
) -> Result<kick::Response, MatrixError> {
    let kick::Request { room_id, user_id, reason, .. } = request;
    api.rooms.kick(&session.user_id, &user_id, &room_id, reason).await.map_err(room_error)?;
    Ok(kick::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/ban`
async fn ban(
    api: ClientApi,
    session: Session,
    request: ban::Request,
) -> Result<ban::Response, MatrixError> {
    let ban::Request { room_id, user_id, reason, .. } = request;
    api.rooms.ban(&session.user_id, &user_id, &room_id, reason).await.map_err(room_error)?;
    Ok(ban::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/unban`
async fn unban(
    api: ClientApi,
    session: Session,
    request: unban::Request,
) -> Result<unban::Response, MatrixError> {
    let unban::Request { room_id, user_id, reason, .. } = request;
    api.rooms.unban(&session.user_id, &user_id, &room_id, reason).await.map_err(room_error)?;
    Ok(unban::Response::new())
}

/// `GET /_matrix/client/v3/joined_rooms`
async fn joined_rooms(
    api: ClientApi,
    session: Session,
    _: joined_rooms::Request,
) -> Result<joined_rooms::Response, MatrixError> {
    let rooms = api.rooms.joined_rooms(&session.user_id).await.map_err(room_error)?;
    Ok(joined_rooms::Response::new(rooms))
}

pub(crate) fn with_reason(mut content: Object, reason: Option<String>) -> Object {
    if let Some(reason) = reason {
        content.insert("reason".into(), reason.into());
    }
    content
}
