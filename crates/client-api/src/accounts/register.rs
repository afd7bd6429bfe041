//! `POST /register` and `GET /register/available`.

use exeunt_core::Object;
use exeunt_http::{MatrixError, Method, RawCall, Reply, RequestHead, Routes, access_token};
use exeunt_users::{NewAccount, NewSession, Purpose};
use ruma::{
    OwnedDeviceId, UserId, api::client::account::get_username_availability::v3 as availability,
};
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
        return by_service(api, &call.head, body).await;
    }
    if let Some(username) = &body.username {
        super::check_name(&api, username, None).await?;
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
    answer(&api, &user_id, &body).await
}

/// `m.login.application_service`: the token of the service is all that is asked for. Such a user has
/// no password.
async fn by_service(api: ClientApi, head: &RequestHead, body: Body) -> Result<Reply, MatrixError> {
    access_token(head).ok_or_else(MatrixError::missing_token)?;
    let service = api.app_service(head).ok_or_else(|| MatrixError::unknown_token(false))?;
    let username = body.username.as_deref();
    let username = username.ok_or_else(|| MatrixError::missing_param("username is missing"))?;
    super::check_name(&api, username, Some(service)).await?;
    let account = NewAccount { localpart: Some(username), ..NewAccount::default() };
    let user_id = api.users.register(account).await.map_err(users_error)?;
    tracing::info!(%user_id, "an application service registered a user");
    answer(&api, &user_id, &body).await
}

async fn answer(api: &ClientApi, user_id: &UserId, body: &Body) -> Result<Reply, MatrixError> {
    if body.inhibit_login {
        return Ok(Reply::json(json!({ "user_id": user_id, "home_server": api.server_name() })));
    }
    let new = NewSession {
        device_id: body.device_id.as_deref(),
        display_name: body.initial_device_display_name.as_deref(),
        refreshable: body.refresh_token,
    };
    let login = api.users.login(user_id, new).await;
    Ok(super::login_reply(&login.map_err(users_error)?, api))
}

/// `GET /_matrix/client/v3/register/available`
async fn available(
    api: ClientApi,
    request: availability::Request,
) -> Result<availability::Response, MatrixError> {
    api.uia().check_registration(&api.users).await.map_err(users_error)?;
    super::check_name(&api, &request.username, None).await?;
    Ok(availability::Response::new(true))
}
