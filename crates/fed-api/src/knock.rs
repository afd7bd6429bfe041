//! `GET make_knock`, `PUT send_knock`.

use exeunt_core::ruma::{OwnedEventId, OwnedUserId};
use exeunt_http::{MatrixError, Method, RawCall};
use exeunt_room::inbound::Admitted;
use serde_json::Value;

use crate::{
    FedApi,
    join::DEFAULT_VERSION,
    matrix_error,
    route::{FedRoutes, arg},
};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes.room(Method::GET, "/_matrix/federation/v1/make_knock/{room_id}/{user_id}", make).room(
        Method::PUT,
        "/_matrix/federation/v1/send_knock/{room_id}/{event_id}",
        send,
    )
}

async fn make(api: FedApi, entry: Admitted, call: RawCall) -> Result<Value, MatrixError> {
    let user: OwnedUserId = arg(&call, 1, "user id")?;
    let mut versions = call.head.query_all("ver");
    if versions.is_empty() {
        versions.push(DEFAULT_VERSION.into());
    }
    api.rooms.make_knock(&entry, &user, &versions).await.map_err(matrix_error)
}

async fn send(api: FedApi, entry: Admitted, call: RawCall) -> Result<Value, MatrixError> {
    let event_id: OwnedEventId = arg(&call, 1, "event id")?;
    api.rooms.send_knock(&entry, &event_id, call.object()?).await.map_err(matrix_error)
}
