//! `GET /_matrix/federation/v1/version`

use exeunt_http::{MatrixError, Method, RawCall};
use serde_json::{Value, json};

use crate::{FedApi, route::FedRoutes};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes.public(Method::GET, "/_matrix/federation/v1/version", version)
}

async fn version(api: FedApi, _: RawCall) -> Result<Value, MatrixError> {
    Ok(json!({ "server": { "name": "Exeunt", "version": api.options.server_version } }))
}
