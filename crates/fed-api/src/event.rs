//! `GET /_matrix/federation/v1/event/{eventId}`

use exeunt_core::ruma::{OwnedEventId, OwnedServerName};
use exeunt_http::{MatrixError, Method, RawCall};
use serde_json::Value;

use crate::{
    FedApi, matrix_error,
    route::{FedRoutes, arg},
};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes.server(Method::GET, "/_matrix/federation/v1/event/{event_id}", event)
}

async fn event(api: FedApi, origin: OwnedServerName, call: RawCall) -> Result<Value, MatrixError> {
    let event_id: OwnedEventId = arg(&call, 0, "event id")?;
    api.rooms.event_for_server(&origin, &event_id).await.map_err(matrix_error)
}
