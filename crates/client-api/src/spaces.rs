//! The tree of a space, and the summary of a room.

use exeunt_http::{Authenticator, MatrixError, Method, RawCall, Reply, Routes, access_token};
use exeunt_room::spaces::HierarchyRequest;
use exeunt_users::Session;
use ruma::{OwnedRoomOrAliasId, RoomId};
use serde_json::json;

use crate::{
    ClientApi, body,
    membership::{by_alias, servers, via},
    room_error,
};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    /// MSC3266 had two more, and clients ask them first.
    const SUMMARY: [&str; 3] = [
        "/_matrix/client/v1/room_summary/{room_id_or_alias}",
        "/_matrix/client/unstable/im.nheko.summary/summary/{room_id_or_alias}",
        "/_matrix/client/unstable/im.nheko.summary/rooms/{room_id_or_alias}/summary",
    ];
    const HIERARCHY: &str = "/_matrix/client/v1/rooms/{room_id}/hierarchy";
    let routes = routes.authed_raw(Method::GET, HIERARCHY, hierarchy);
    SUMMARY.into_iter().fold(routes, |routes, path| routes.public_raw(Method::GET, path, summary))
}

/// `GET /_matrix/client/v1/rooms/{roomId}/hierarchy`
async fn hierarchy(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let request = HierarchyRequest {
        user: session.user_id,
        room_id: body::id(&call, 0)?,
        via: servers(&call, &["via", "org.matrix.msc4235.via"])?,
        suggested_only: parameter(&call, "suggested_only")?,
        limit: parameter(&call, "limit")?,
        max_depth: parameter(&call, "max_depth")?,
        from: call.head.query("from"),
    };
    if request.limit == Some(0) {
        return Err(MatrixError::invalid_param("limit is greater than zero"));
    }
    let page = api.rooms.hierarchy(request).await.map_err(room_error)?;
    Ok(Reply::json(json!(page)))
}

/// `GET /_matrix/client/v1/room_summary/{roomIdOrAlias}`, also for those who are not logged in.
async fn summary(api: ClientApi, call: RawCall) -> Result<Reply, MatrixError> {
    let session = match access_token(&call.head) {
        Some(_) => Some(api.authenticate(&call.head, &call.body).await?),
        None => None,
    };
    let id: OwnedRoomOrAliasId = body::id(&call, 0)?;
    let via = via(&call)?;
    let (room_id, via) = match <&RoomId>::try_from(&*id) {
        Ok(room_id) => (room_id.to_owned(), via),
        // Nobody makes us ask others but our users.
        Err(alias) if session.is_none() && alias.server_name() != api.server_name() => {
            return Err(MatrixError::missing_token());
        }
        Err(alias) => by_alias(&api, alias, via).await?,
    };
    let user = session.as_ref().map(|session| &*session.user_id);
    let found = api.rooms.room_summary(user, &room_id, &via).await;
    let (summary, membership) = found.map_err(room_error)?;
    let mut answer = json!(summary);
    if let Some(membership) = membership {
        answer["membership"] = membership.into();
    }
    Ok(Reply::json(answer))
}

/// A parameter of the query, if it is there.
fn parameter<T: std::str::FromStr>(call: &RawCall, name: &str) -> Result<Option<T>, MatrixError> {
    let text = call.head.query(name);
    let value = text.map(|text| text.parse()).transpose();
    value.map_err(|_| MatrixError::invalid_param(format!("{name} is malformed")))
}
