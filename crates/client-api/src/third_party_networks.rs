//! Networks that application services bridge to: none, for there are no application services.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;
use serde_json::json;

use crate::ClientApi;

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::GET, "/_matrix/client/v3/thirdparty/protocols", protocols)
}

/// `GET /_matrix/client/v3/thirdparty/protocols`
async fn protocols(_: ClientApi, _: Session, _: RawCall) -> Result<Reply, MatrixError> {
    Ok(Reply::json(json!({})))
}
