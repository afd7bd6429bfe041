//! `POST /user/{userId}/openid/request_token`: proving to somebody else who one is.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::{OPENID_TOKEN_LIFE_MS, Session};
use ruma::OwnedUserId;
use serde_json::json;

use crate::{ClientApi, body, users_error};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    const PATH: &str = "/_matrix/client/v3/user/{user_id}/openid/request_token";
    routes.authed_raw(Method::POST, PATH, request)
}

/// `POST /_matrix/client/v3/user/{userId}/openid/request_token`
async fn request(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let user: OwnedUserId = body::id(&call, 0)?;
    if user != session.user_id {
        return Err(MatrixError::forbidden("You are another user"));
    }
    let token = api.users.openid_token(&user).map_err(users_error)?;
    Ok(Reply::json(json!({
        "access_token": token,
        "token_type": "Bearer",
        "matrix_server_name": api.server_name(),
        "expires_in": OPENID_TOKEN_LIFE_MS / 1000,
    })))
}
