//! Accounts: registering, logging in and out, devices.

mod deactivate;
mod devices;
mod login;
mod password;
mod refresh;
mod register;
mod registration_token;
mod session;
mod shared_secret;
mod third_party_ids;

use exeunt_core::Object;
use exeunt_http::{MatrixError, Reply, Routes};
use exeunt_users::{AppService, Challenge, Login, Purpose, UiaOutcome};
use ruma::OwnedUserId;
use serde_json::{Value, json};

pub(crate) use registration_token::registration_tokens;

use crate::{ClientApi, limits::Class, users_error};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    let routes = register::routes(routes);
    let routes = registration_token::routes(routes);
    let routes = shared_secret::routes(routes);
    let routes = login::routes(routes);
    let routes = refresh::routes(routes);
    let routes = password::routes(routes);
    let routes = session::routes(routes);
    let routes = devices::routes(routes);
    let routes = third_party_ids::routes(routes);
    deactivate::routes(routes)
}

/// The answer to a registration or login.
fn login_reply(login: &Login, api: &ClientApi) -> Reply {
    let mut answer = json!({
        "user_id": login.user_id,
        "access_token": login.access_token,
        "device_id": login.device_id,
        // Deprecated, and still read by some clients.
        "home_server": api.server_name(),
    });
    if let Some(refresh_token) = &login.refresh_token {
        answer["refresh_token"] = refresh_token.as_str().into();
        answer["expires_in_ms"] = login.expires_in_ms.into();
    }
    Reply::json(answer)
}

/// The user id for a new account, if its name is free. Refuses the name by which the server speaks,
/// and those that are kept for an application service other than the one that asks.
async fn check_name(
    api: &ClientApi,
    localpart: &str,
    service: Option<&AppService>,
) -> Result<OwnedUserId, MatrixError> {
    let exclusive = |text| Err(MatrixError::new(400, "M_EXCLUSIVE", text));
    if api.options().notices.localpart.eq_ignore_ascii_case(localpart) {
        return exclusive("The name is the server's own");
    }
    let user = api.users.user_id(localpart).map_err(users_error)?;
    if api.options().app_services.keep_user(&user, service) {
        return exclusive("The name is kept for an application service");
    }
    if service.is_some_and(|service| !service.has_user(&user)) {
        return exclusive("The name is outside the namespaces of the application service");
    }
    api.users.check_available(localpart).await.map_err(users_error)
}

/// Takes user-interactive authentication a step further; anything but its end is an answer. Returns
/// the registration token that is to be used up, if one was shown.
async fn authorise(
    api: &ClientApi,
    purpose: &Purpose,
    auth: Option<&Object>,
) -> Result<Option<String>, MatrixError> {
    if let Purpose::Account(user) = purpose
        && auth.is_some_and(|auth| auth.contains_key("password"))
    {
        count_guess(api, user.as_str())?;
    }
    match api.uia().advance(&api.users, purpose, auth).await.map_err(users_error)? {
        UiaOutcome::Done { registration_token } => Ok(registration_token),
        UiaOutcome::More(challenge) => Err(unauthorised(&challenge)),
    }
}

/// Whoever guesses at the password of an account is slowed down, from wherever it comes.
fn count_guess(api: &ClientApi, user: &str) -> Result<(), MatrixError> {
    let localpart = user.strip_prefix('@').and_then(|user| user.split(':').next()).unwrap_or(user);
    api.limits().take(Class::Login, &format!("@{}", localpart.to_lowercase()), 1)
}

fn unauthorised(challenge: &Challenge) -> MatrixError {
    match challenge.body() {
        Value::Object(body) => MatrixError::interactive_auth(body),
        _ => MatrixError::interactive_auth(Object::new()),
    }
}
