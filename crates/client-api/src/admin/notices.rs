//! Notices of the server to a user, also at the path that tools for Synapse know.

use exeunt_http::{MatrixError, Method, RawCall};
use exeunt_users::Session;
use serde_json::Value;

use super::AdminRoutes;
use crate::{ClientApi, body, notices};

pub(super) fn routes(mut routes: AdminRoutes) -> AdminRoutes {
    for path in ["/_exeunt/admin/v1/notices", "/_synapse/admin/v1/send_server_notice"] {
        routes = routes.by(Method::POST, path, send);
    }
    for path in
        ["/_exeunt/admin/v1/notices/{txn_id}", "/_synapse/admin/v1/send_server_notice/{txn_id}"]
    {
        routes = routes.by(Method::PUT, path, send_once);
    }
    routes
}

/// `POST notices`: `user_id`, `content`, and perhaps `type` and `state_key`. Answers the event id.
async fn send(api: ClientApi, admin: Option<Session>, call: RawCall) -> Result<Value, MatrixError> {
    notices::send(&api, admin, None, &call).await
}

/// `PUT notices/{txnId}`
async fn send_once(
    api: ClientApi,
    admin: Option<Session>,
    call: RawCall,
) -> Result<Value, MatrixError> {
    notices::send(&api, admin, Some(body::arg(&call, 0)), &call).await
}
