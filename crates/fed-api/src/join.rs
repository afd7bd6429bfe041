//! `GET make_join`, `PUT send_join` (v2, and v1 with its wrapped answer).

use exeunt_core::ruma::{OwnedEventId, OwnedUserId};
use exeunt_http::{MatrixError, Method, RawCall, Reply};
use exeunt_room::inbound::{Admitted, LongAnswer};
use serde_json::Value;

use crate::{
    FedApi, matrix_error,
    route::{FedRoutes, arg},
    state::streamed,
};

/// Callers that name no room version know this one (server-server API, "make_join").
pub(crate) const DEFAULT_VERSION: &str = "1";

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes
        .room(Method::GET, "/_matrix/federation/v1/make_join/{room_id}/{user_id}", make)
        .room(Method::PUT, "/_matrix/federation/v2/send_join/{room_id}/{event_id}", send)
        .room(Method::PUT, "/_matrix/federation/v1/send_join/{room_id}/{event_id}", send_v1)
}

async fn make(api: FedApi, entry: Admitted, call: RawCall) -> Result<Value, MatrixError> {
    let user: OwnedUserId = arg(&call, 1, "user id")?;
    let mut versions = call.head.query_all("ver");
    if versions.is_empty() {
        versions.push(DEFAULT_VERSION.into());
    }
    api.rooms.make_join(&entry, &user, &versions).await.map_err(matrix_error)
}

async fn send(api: FedApi, entry: Admitted, call: RawCall) -> Result<Reply, MatrixError> {
    let omit_members = call.head.query("omit_members").is_some_and(|omit| omit == "true");
    take(api, entry, call, omit_members).await.map(streamed)
}

async fn send_v1(api: FedApi, entry: Admitted, call: RawCall) -> Result<Reply, MatrixError> {
    take(api, entry, call, false).await.map(LongAnswer::after_status).map(streamed)
}

async fn take(
    api: FedApi,
    entry: Admitted,
    call: RawCall,
    omit_members: bool,
) -> Result<LongAnswer, MatrixError> {
    let event_id: OwnedEventId = arg(&call, 1, "event id")?;
    let joined = api.rooms.send_join(&entry, &event_id, call.object()?, omit_members).await;
    joined.map_err(matrix_error)
}
