//! `GET state`, `GET state_ids`, `GET event_auth`.

use exeunt_core::ruma::OwnedEventId;
use exeunt_http::{MatrixError, Method, RawCall, Reply};
use exeunt_room::inbound::{Admitted, LongAnswer};

use crate::{
    FedApi, matrix_error,
    route::{FedRoutes, arg, query},
};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes
        .room(Method::GET, "/_matrix/federation/v1/state/{room_id}", state)
        .room(Method::GET, "/_matrix/federation/v1/state_ids/{room_id}", state_ids)
        .room(Method::GET, "/_matrix/federation/v1/event_auth/{room_id}/{event_id}", event_auth)
}

async fn state(api: FedApi, entry: Admitted, call: RawCall) -> Result<Reply, MatrixError> {
    let event_id: OwnedEventId = query(&call, "event_id")?;
    api.rooms.state_for_server(&entry, &event_id).await.map(streamed).map_err(matrix_error)
}

async fn state_ids(api: FedApi, entry: Admitted, call: RawCall) -> Result<Reply, MatrixError> {
    let event_id: OwnedEventId = query(&call, "event_id")?;
    api.rooms.state_ids_for_server(&entry, &event_id).await.map(streamed).map_err(matrix_error)
}

async fn event_auth(api: FedApi, entry: Admitted, call: RawCall) -> Result<Reply, MatrixError> {
    let event_id: OwnedEventId = arg(&call, 1, "event id")?;
    api.rooms.event_auth_for_server(&entry, &event_id).await.map(streamed).map_err(matrix_error)
}

/// An answer that is read while it is sent.
pub(crate) fn streamed(answer: LongAnswer) -> Reply {
    Reply::json_stream(answer.into_stream())
}
