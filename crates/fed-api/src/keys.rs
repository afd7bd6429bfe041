//! `GET /_matrix/key/v2/server`

use exeunt_http::{MatrixError, Method, RawCall};
use serde_json::Value;

use crate::{FedApi, route::FedRoutes};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes.public(Method::GET, "/_matrix/key/v2/server", own_keys)
}

async fn own_keys(api: FedApi, _: RawCall) -> Result<Value, MatrixError> {
    Ok(Value::Object(api.rooms.key_document(api.now())))
}
