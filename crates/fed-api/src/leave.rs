//! `GET make_leave`, `PUT send_leave` (v2, and v1 with its wrapped answer).

use exeunt_core::ruma::{OwnedEventId, OwnedUserId};
use exeunt_http::{MatrixError, Method, RawCall};
use exeunt_room::inbound::Admitted;
use serde_json::{Value, json};

use crate::{
    FedApi, matrix_error,
    route::{FedRoutes, arg},
};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes
        .room(Method::GET, "/_matrix/federation/v1/make_leave/{room_id}/{user_id}", make)
        .room(Method::PUT, "/_matrix/federation/v2/send_leave/{room_id}/{event_id}", send)
        .room(Method::PUT, "/_matrix/federation/v1/send_leave/{room_id}/{event_id}", send_v1)
}

async fn make(api: FedApi, entry: Admitted, call: RawCall) -> Result<Value, MatrixError> {
    let user: OwnedUserId = arg(&call, 1, "user id")?;
    api.rooms.make_leave(&entry, &user).await.map_err(matrix_error)
}

async fn send(api: FedApi, entry: Admitted, call: RawCall) -> Result<Value, MatrixError> {
    let event_id: OwnedEventId = arg(&call, 1, "event id")?;
    api.rooms.send_leave(&entry, &event_id, call.object()?).await.map_err(matrix_error)?;
    Ok(json!({}))
}

async fn send_v1(api: FedApi, entry: Admitted, call: RawCall) -> Result<Value, MatrixError> {
    Ok(json!([200, send(api, entry, call).await?]))
}
