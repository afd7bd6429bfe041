//! `GET` and `POST publicRooms`: the rooms that this server publishes.

use exeunt_core::ruma::OwnedServerName;
use exeunt_http::{MatrixError, Method, RawCall};
use exeunt_room::{PublicRoomsBody, PublicRoomsRequest};
use serde_json::{Value, json};

use crate::{
    FedApi, matrix_error,
    route::{FedRoutes, body},
};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    const PATH: &str = "/_matrix/federation/v1/publicRooms";
    routes.server(Method::GET, PATH, list).server(Method::POST, PATH, search)
}

async fn list(api: FedApi, origin: OwnedServerName, call: RawCall) -> Result<Value, MatrixError> {
    let limit = call.head.query("limit").map(|limit| limit.parse()).transpose();
    let body = PublicRoomsBody {
        limit: limit.map_err(|_| MatrixError::invalid_param("limit is not a number"))?,
        since: call.head.query("since"),
        third_party_instance_id: call.head.query("third_party_instance_id"),
        ..PublicRoomsBody::default()
    };
    page(&api, &origin, body).await
}

async fn search(api: FedApi, origin: OwnedServerName, call: RawCall) -> Result<Value, MatrixError> {
    page(&api, &origin, body(&call)?).await
}

async fn page(
    api: &FedApi,
    origin: &OwnedServerName,
    body: PublicRoomsBody,
) -> Result<Value, MatrixError> {
    if !api.options.public_rooms {
        return Err(MatrixError::forbidden("This server does not show its rooms to other servers"));
    }
    let request = PublicRoomsRequest::try_from(body).map_err(matrix_error)?;
    let page = api.rooms.public_rooms_for_server(origin, request).await.map_err(matrix_error)?;
    Ok(json!(page))
}
