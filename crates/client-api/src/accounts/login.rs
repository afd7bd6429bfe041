//! `GET` and `POST /login`.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use ruma::{
    OwnedDeviceId,
    api::client::session::get_login_types::v3::{self as flows, LoginType, PasswordLoginType},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{ClientApi, body, users_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.public(flows).public_raw(Method::POST, "/_matrix/client/v3/login", login).public_raw(
        Method::POST,
        "/_matrix/client/r0/login",
        login,
    )
}

/// `GET /_matrix/client/v3/login`
async fn flows(_: ClientApi, _: flows::Request) -> Result<flows::Response, MatrixError> {
    Ok(flows::Response::new(vec![LoginType::Password(PasswordLoginType::new())]))
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "type")]
    kind: String,
    identifier: Option<Value>,
    /// What `identifier` was before r0.4.0.
    user: Option<String>,
    password: Option<String>,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
}

/// `POST /_matrix/client/v3/login`
async fn login(api: ClientApi, call: RawCall) -> Result<Reply, MatrixError> {
    let body: Body = body::read(&call)?;
    if body.kind != "m.login.password" {
        return Err(MatrixError::unknown(format!("The login type {:?} is not known", body.kind)));
    }
    let user = match (&body.identifier, &body.user) {
        (Some(identifier), _) => named_by(identifier)?,
        (None, Some(user)) => user,
        (None, None) => return Err(MatrixError::missing_param("identifier is missing")),
    };
    let password = body.password.as_deref();
    let password = password.ok_or_else(|| MatrixError::missing_param("password is missing"))?;
    let device_name = body.initial_device_display_name.as_deref();
    let login =
        api.users.login_password(user, password, body.device_id.as_deref(), device_name).await;
    Ok(super::login_reply(&login.map_err(users_error)?, &api))
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
