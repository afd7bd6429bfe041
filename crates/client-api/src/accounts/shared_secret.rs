//! Registration by a script that knows the shared secret: `/_synapse/admin/v1/register`, which
//! deployment tools of other servers speak.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::{NewAccount, NewSession, SharedSecret, SharedSecretError, SharedSecretRequest};
use serde::Deserialize;
use serde_json::json;

use crate::{ClientApi, body, users_error};

const PATH: &str = "/_synapse/admin/v1/register";

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.public_raw(Method::GET, PATH, nonce).public_raw(Method::POST, PATH, register)
}

#[derive(Deserialize)]
struct Body {
    nonce: String,
    username: String,
    password: String,
    mac: String,
    displayname: Option<String>,
    #[serde(default)]
    admin: bool,
    user_type: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
}

/// `GET /_synapse/admin/v1/register`
async fn nonce(api: ClientApi, _: RawCall) -> Result<Reply, MatrixError> {
    let nonce = secret(&api)?.nonce().map_err(users_error)?;
    Ok(Reply::json(json!({ "nonce": nonce })))
}

/// `POST /_synapse/admin/v1/register`
async fn register(api: ClientApi, call: RawCall) -> Result<Reply, MatrixError> {
    let secret = secret(&api)?;
    let body: Body = body::read(&call)?;
    let request = SharedSecretRequest {
        nonce: &body.nonce,
        username: &body.username,
        password: &body.password,
        admin: body.admin,
        user_type: body.user_type.as_deref(),
        mac: &body.mac,
    };
    secret.check(&request).map_err(refused)?;
    super::check_name(&api, &body.username, None).await?;
    let account = NewAccount {
        localpart: Some(&body.username),
        password: Some(&body.password),
        admin: body.admin,
        displayname: body.displayname.as_deref(),
        registration_token: None,
    };
    let user_id = api.users.register(account).await.map_err(users_error)?;
    tracing::info!(%user_id, admin = body.admin, "a user was registered by shared secret");
    if body.inhibit_login {
        return Ok(Reply::json(json!({ "user_id": user_id, "home_server": api.server_name() })));
    }
    let login = api.users.login(&user_id, NewSession::default()).await.map_err(users_error)?;
    Ok(super::login_reply(&login, &api))
}

fn secret(api: &ClientApi) -> Result<&SharedSecret, MatrixError> {
    let off = || MatrixError::unknown("Shared secret registration is not enabled");
    api.shared_secret().ok_or_else(off)
}

fn refused(error: SharedSecretError) -> MatrixError {
    let text = error.to_string();
    match error {
        SharedSecretError::UnknownNonce => MatrixError::unknown(text),
        SharedSecretError::Nul => MatrixError::invalid_param(text),
        SharedSecretError::WrongMac => MatrixError::forbidden(text),
    }
}
