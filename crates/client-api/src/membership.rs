//! Inviting, joining, leaving, kicking and banning.

use exeunt_core::Object;
use exeunt_http::{MatrixError, Routes};
use exeunt_users::Session;
use ruma::{
    OwnedRoomId, OwnedServerName, RoomAliasId, RoomId,
    api::client::membership::{
        ban_user::v3 as ban,
        invite_user::v3::{self as invite, InvitationRecipient},
        join_room_by_id::v3 as join,
        join_room_by_id_or_alias::v3 as join_any,
        joined_rooms::v3 as joined_rooms,
        kick_user::v3 as kick,
        leave_room::v3 as leave,
        unban_user::v3 as unban,
    },
};

use crate::{ClientApi, profile::member_profile, room_error};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .authed(invite)
        .authed(join)
        .authed(join_any)
        .authed(leave)
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
    let content = with_reason(member_profile(&api, &target.user_id).await?, target.reason);
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

/// `POST /_matrix/client/v3/rooms/{roomId}/join`
async fn join(
    api: ClientApi,
    session: Session,
    request: join::Request,
) -> Result<join::Response, MatrixError> {
    enter(&api, &session, &request.room_id, &[], request.reason).await?;
    Ok(join::Response::new(request.room_id))
}

/// `POST /_matrix/client/v3/join/{roomIdOrAlias}`
async fn join_any(
    api: ClientApi,
    session: Session,
    request: join_any::Request,
) -> Result<join_any::Response, MatrixError> {
    let (room_id, via) = match <&RoomId>::try_from(&*request.room_id_or_alias) {
        Ok(room_id) => (room_id.to_owned(), request.via),
        Err(alias) => by_alias(&api, alias, request.via).await?,
    };
    enter(&api, &session, &room_id, &via, request.reason).await?;
    Ok(join_any::Response::new(room_id))
}

/// The room of an alias. The servers that go with it are asked after those the client names.
async fn by_alias(
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
    reason: Option<String>,
) -> Result<(), MatrixError> {
    let content = with_reason(member_profile(api, &session.user_id).await?, reason);
    api.rooms.join(&session.user_id, room_id, via, content).await.map_err(room_error)
}

/// `POST /_matrix/client/v3/rooms/{roomId}/leave`
async fn leave(
    api: ClientApi,
    session: Session,
    request: leave::Request,
) -> Result<leave::Response, MatrixError> {
    let leave::Request { room_id, reason, .. } = request;
    api.rooms.leave(&session.user_id, &room_id, reason).await.map_err(room_error)?;
    Ok(leave::Response::new())
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

fn with_reason(mut content: Object, reason: Option<String>) -> Object {
    if let Some(reason) = reason {
        content.insert("reason".into(), reason.into());
    }
    content
}
