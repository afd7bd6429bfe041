//! `GET /.well-known/matrix/server`

use exeunt_http::{MatrixError, Method, RawCall};
use serde_json::{Value, json};

use crate::{FedApi, route::FedRoutes};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes.public(Method::GET, "/.well-known/matrix/server", server)
}

async fn server(api: FedApi, _: RawCall) -> Result<Value, MatrixError> {
    match &api.options.well_known_server {
        Some(server) => Ok(json!({ "m.server": server })),
        None => Err(MatrixError::not_found("Not served here")),
    }
}
