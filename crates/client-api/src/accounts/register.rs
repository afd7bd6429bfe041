//! `POST /register` and `GET /register/available`.

use exeunt_core::Object;
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::{NewAccount, NewSession, Purpose};
use ruma::{OwnedDeviceId, api::client::account::get_username_availability::v3 as availability};
use serde::Deserialize;
use serde_json::json;

use crate::{ClientApi, body, users_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.public_raw(Method::POST, "/_matrix/client/v3/register", register).public(available)
}

#[derive(Deserialize)]
struct Body {
    auth: Option<Object>,
    #[serde(rename = "type")]
    kind: Option<String>,
    username: Option<String>,
    password: Option<String>,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
    #[serde(default)]
    refresh_token: bool,
}

/// `POST /_matrix/client/v3/register`. A name that cannot be had is refused before the stages of
/// user-interactive authentication, and again after them.
async fn register(api: ClientApi, call: RawCall) -> Result<Reply, MatrixError> {
    let body: Body = body::read(&call)?;
    match call.head.query("kind").as_deref() {
        None | Some("user") => {}
        Some("guest") => {
            let text = "There are no guest accounts here";
            return Err(MatrixError::new(403, "M_GUEST_ACCESS_FORBIDDEN", text));
        }
        Some(_) => return Err(MatrixError::invalid_param("kind is neither user nor guest")),
    }
    if body.kind.as_deref() == Some("m.login.application_service") {
        return Err(MatrixError::forbidden("There are no application services here"));
    }
    if let Some(username) = &body.username {
        super::check_reserved(&api, username)?;
        api.users.check_available(username).await.map_err(users_error)?;
    }
    let token = super::authorise(&api, &Purpose::Register, body.auth.as_ref()).await?;
    let password = body.password.as_deref();
    let password = password.ok_or_else(|| MatrixError::missing_param("A password is needed"))?;
    let account = NewAccount {
        localpart: body.username.as_deref(),
        password: Some(password),
        registration_token: token.as_deref(),
        ..NewAccount::default()
    };
    let user_id = api.users.register(account).await.map_err(users_error)?;
    tracing::info!(%user_id, "a user registered");
    if body.inhibit_login {
        return Ok(Reply::json(json!({ "user_id": user_id, "home_server": api.server_name() })));
    }
    let new = NewSession {
        device_id: body.device_id.as_deref(),
        display_name: body.initial_device_display_name.as_deref(),
        refreshable: body.refresh_token,
    };
    let login = api.users.login(&user_id, new).await;
    Ok(super::login_reply(&login.map_err(users_error)?, &api))
}

/// `GET /_matrix/client/v3/register/available`
async fn available(
    api: ClientApi,
    request: availability::Request,
) -> Result<availability::Response, MatrixError> {
    api.uia().check_registration(&api.users).await.map_err(users_error)?;
    super::check_reserved(&api, &request.username)?;
    api.users.check_available(&request.username).await.map_err(users_error)?;
    Ok(availability::Response::new(true))
}
