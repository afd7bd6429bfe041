//! `POST /account/password`.

use exeunt_core::Object;
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::{Purpose, Session};
use serde::Deserialize;
use serde_json::json;

use crate::{ClientApi, body, users_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::POST, "/_matrix/client/v3/account/password", change)
}

#[derive(Deserialize)]
struct Body {
    auth: Option<Object>,
    new_password: String,
    #[serde(default = "yes")]
    logout_devices: bool,
}

fn yes() -> bool {
    true
}

/// `POST /_matrix/client/v3/account/password`, with user-interactive authentication by the old one.
/// The session that asks stays. There is no way without a session: it would take an email address.
async fn change(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let Body { auth, new_password, logout_devices } = body::read(&call)?;
    let Session { user_id, device_id, .. } = session;
    super::authorise(&api, &Purpose::Account(user_id.clone()), auth.as_ref()).await?;
    let logout_but = logout_devices.then_some(Some(&*device_id));
    let changed = api.users.change_password(&user_id, &new_password, logout_but).await;
    changed.map_err(users_error)?;
    tracing::info!(%user_id, logout_devices, "a user changed the password");
    Ok(Reply::json(json!({})))
}
