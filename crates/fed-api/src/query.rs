//! `GET query/directory`, `GET query/profile`.

use exeunt_core::ruma::{OwnedRoomAliasId, OwnedServerName, OwnedUserId};
use exeunt_http::{MatrixError, Method, RawCall};
use exeunt_users::all_fields;
use serde_json::{Value, json};

use crate::{
    FedApi, matrix_error,
    route::{FedRoutes, query},
};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes.server(Method::GET, "/_matrix/federation/v1/query/directory", directory).server(
        Method::GET,
        "/_matrix/federation/v1/query/profile",
        profile,
    )
}

async fn directory(api: FedApi, _: OwnedServerName, call: RawCall) -> Result<Value, MatrixError> {
    let alias: OwnedRoomAliasId = query(&call, "room_alias")?;
    let (room_id, servers) = api.rooms.query_directory(&alias).await.map_err(matrix_error)?;
    Ok(json!({ "room_id": room_id, "servers": servers }))
}

async fn profile(api: FedApi, _: OwnedServerName, call: RawCall) -> Result<Value, MatrixError> {
    let unknown = || MatrixError::not_found("Unknown user");
    let user: OwnedUserId = query(&call, "user_id")?;
    if !api.users.is_local(&user) {
        return Err(unknown());
    }
    let profile = api.users.profile(&user).await;
    let profile = profile.map_err(|error| MatrixError::internal(&error))?.ok_or_else(unknown)?;
    let mut fields = all_fields(&profile);
    if let Some(field) = call.head.query("field") {
        fields.retain(|name, _| *name == field);
    }
    Ok(fields.into())
}
