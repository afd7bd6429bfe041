//! `GET hierarchy`.

use exeunt_http::{MatrixError, Method, RawCall};
use exeunt_room::inbound::Admitted;
use serde_json::Value;

use crate::{FedApi, matrix_error, route::FedRoutes};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes.room(Method::GET, "/_matrix/federation/v1/hierarchy/{room_id}", hierarchy)
}

async fn hierarchy(api: FedApi, entry: Admitted, call: RawCall) -> Result<Value, MatrixError> {
    let suggested_only = match call.head.query("suggested_only").as_deref() {
        Some("true") => true,
        Some("false") | None => false,
        Some(_) => return Err(MatrixError::invalid_param("suggested_only is true or false")),
    };
    api.rooms.hierarchy_for_server(&entry, suggested_only).await.map_err(matrix_error)
}
