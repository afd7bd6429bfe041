//! `PUT exchange_third_party_invite`.

use exeunt_http::{MatrixError, Method, RawCall};
use exeunt_room::inbound::Admitted;
use serde_json::{Value, json};

use crate::{FedApi, matrix_error, route::FedRoutes};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    let path = "/_matrix/federation/v1/exchange_third_party_invite/{room_id}";
    routes.room(Method::PUT, path, exchange)
}

async fn exchange(api: FedApi, entry: Admitted, call: RawCall) -> Result<Value, MatrixError> {
    let body = call.object()?;
    api.rooms.exchange_third_party_invite(&entry, &body).await.map_err(matrix_error)?;
    Ok(json!({}))
}
