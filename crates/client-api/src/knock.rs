//! `POST /knock/{roomIdOrAlias}`.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;
use ruma::{OwnedRoomOrAliasId, RoomId};
use serde::Deserialize;
use serde_json::json;

use crate::{
    ClientApi, body,
    membership::{by_alias, via, with_reason},
    profile::member_profile,
    room_error,
};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::POST, "/_matrix/client/v3/knock/{room_id_or_alias}", knock)
}

#[derive(Deserialize)]
struct Body {
    reason: Option<String>,
}

/// `POST /_matrix/client/v3/knock/{roomIdOrAlias}`
async fn knock(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let id: OwnedRoomOrAliasId = body::id(&call, 0)?;
    let Body { reason } = body::read(&call)?;
    let via = via(&call)?;
    let (room_id, via) = match <&RoomId>::try_from(&*id) {
        Ok(room_id) => (room_id.to_owned(), via),
        Err(alias) => by_alias(&api, alias, via).await?,
    };
    let content = with_reason(member_profile(&api, &session.user_id).await?, reason);
    api.rooms.knock(&session.user_id, &room_id, &via, content).await.map_err(room_error)?;
    Ok(Reply::json(json!({ "room_id": room_id })))
}
