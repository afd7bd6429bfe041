//! `POST /refresh`: a new access token for one that runs out.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use serde::Deserialize;
use serde_json::json;

use crate::{ClientApi, body, users_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.public_raw(Method::POST, "/_matrix/client/v3/refresh", refresh)
}

#[derive(Deserialize)]
struct Body {
    refresh_token: String,
}

/// `POST /_matrix/client/v3/refresh`
async fn refresh(api: ClientApi, call: RawCall) -> Result<Reply, MatrixError> {
    let Body { refresh_token } = body::read(&call)?;
    let login = api.users.refresh(&refresh_token).await.map_err(users_error)?;
    // Soft: who logs in again with the same device id keeps what the device has.
    let login = login.ok_or_else(|| MatrixError::unknown_token(true))?;
    Ok(Reply::json(json!({
        "access_token": login.access_token,
        "refresh_token": login.refresh_token,
        "expires_in_ms": login.expires_in_ms,
    })))
}
