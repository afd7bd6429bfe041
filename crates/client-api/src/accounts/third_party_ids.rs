//! Email addresses and phone numbers of an account: there are none, for nothing here makes use of one.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;
use serde_json::json;

use crate::ClientApi;

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::GET, "/_matrix/client/v3/account/3pid", list)
}

/// `GET /_matrix/client/v3/account/3pid`. Clients ask for it when they show the settings.
async fn list(_: ClientApi, _: Session, _: RawCall) -> Result<Reply, MatrixError> {
    Ok(Reply::json(json!({ "threepids": [] })))
}
