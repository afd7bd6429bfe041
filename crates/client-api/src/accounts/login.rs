//! `GET` and `POST /login`, and tokens to log in with.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::{LOGIN_TOKEN_LIFE_MS, NewSession, Purpose, Session};
use ruma::{
    OwnedDeviceId,
    api::client::session::get_login_types::v3::{
        self as flows, LoginType, PasswordLoginType, TokenLoginType,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ClientApi, body, users_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.public(flows).public_raw(Method::POST, "/_matrix/client/v3/login", login).authed_raw(
        Method::POST,
        "/_matrix/client/v1/login/get_token",
        get_token,
    )
}

/// `GET /_matrix/client/v3/login`
async fn flows(_: ClientApi, _: flows::Request) -> Result<flows::Response, MatrixError> {
    let mut token = TokenLoginType::new();
    token.get_login_token = true;
    let password = LoginType::Password(PasswordLoginType::new());
    Ok(flows::Response::new(vec![password, LoginType::Token(token)]))
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "type")]
    kind: String,
    identifier: Option<Value>,
    /// What `identifier` was before r0.4.0.
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

/// `POST /_matrix/client/v3/login`
async fn login(api: ClientApi, call: RawCall) -> Result<Reply, MatrixError> {
    let body: Body = body::read(&call)?;
    let new = NewSession {
        device_id: body.device_id.as_deref(),
        display_name: body.initial_device_display_name.as_deref(),
        refreshable: body.refresh_token,
    };
    let missing = |name| MatrixError::missing_param(format!("{name} is missing"));
    let login = match &*body.kind {
        "m.login.password" => {
            let user = match (&body.identifier, &body.user) {
                (Some(identifier), _) => named_by(identifier)?,
                (None, Some(user)) => user,
                (None, None) => return Err(missing("identifier")),
            };
            let password = body.password.as_deref().ok_or_else(|| missing("password"))?;
            super::count_guess(&api, user)?;
            api.users.login_password(user, password, new).await
        }
        "m.login.token" => {
            let token = body.token.as_deref().ok_or_else(|| missing("token"))?;
            api.users.login_by_token(token, new).await
        }
        kind => return Err(MatrixError::unknown(format!("The login type {kind:?} is not known"))),
    };
    Ok(super::login_reply(&login.map_err(users_error)?, &api))
}

/// `POST /_matrix/client/v1/login/get_token`, with user-interactive authentication.
async fn get_token(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let body = call.object()?;
    let auth = body.get("auth").and_then(Value::as_object);
    super::authorise(&api, &Purpose::Account(session.user_id.clone()), auth).await?;
    let login_token = api.users.login_token(&session.user_id).map_err(users_error)?;
    Ok(Reply::json(json!({ "login_token": login_token, "expires_in_ms": LOGIN_TOKEN_LIFE_MS })))
}

/// The user of an `m.id.user` identifier.
fn named_by(identifier: &Value) -> Result<&str, MatrixError> {
    let text = |key| identifier.get(key).and_then(Value::as_str);
    match text("type") {
        Some("m.id.user") => {
            text("user").ok_or_else(|| MatrixError::missing_param("identifier.user is missing"))
        }
        Some(_) => Err(MatrixError::unknown("Only m.id.user identifies users here")),
        None => Err(MatrixError::missing_param("identifier.type is missing")),
    }
}
