//! Registration tokens: whether one is valid, and how administrators give them out, by the API that
//! Synapse documents and administration tools speak.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::{RegistrationToken, TokenTerms};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::{ClientApi, admin::AdminRoutes, body, users_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    const VALIDITY: &str = "/_matrix/client/v1/register/m.login.registration_token/validity";
    routes.public_raw(Method::GET, VALIDITY, validity)
}

/// What administrators do with tokens.
pub(crate) fn registration_tokens(routes: AdminRoutes) -> AdminRoutes {
    const ALL: &str = "/_synapse/admin/v1/registration_tokens";
    const NEW: &str = "/_synapse/admin/v1/registration_tokens/new";
    const ONE: &str = "/_synapse/admin/v1/registration_tokens/{token}";
    routes
        .on(Method::GET, ALL, list)
        .on(Method::POST, NEW, create)
        .on(Method::GET, ONE, get)
        .on(Method::PUT, ONE, change)
        .on(Method::DELETE, ONE, delete)
}

/// `GET /_matrix/client/v1/register/m.login.registration_token/validity?token=`
async fn validity(api: ClientApi, call: RawCall) -> Result<Reply, MatrixError> {
    let token = call.head.query("token");
    let token = token.ok_or_else(|| MatrixError::missing_param("token is missing"))?;
    api.uia().check_registration(&api.users).await.map_err(users_error)?;
    let valid = api.uia().token_is_valid(&api.users, &token).await.map_err(users_error)?;
    Ok(Reply::json(json!({ "valid": valid })))
}

/// `GET registration_tokens?valid=`
async fn list(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let valid = match call.head.query("valid").as_deref() {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(MatrixError::invalid_param("valid is neither true nor false")),
    };
    let tokens = api.users.registration_tokens().await.map_err(users_error)?;
    let wanted = tokens.iter().filter(|token| valid.is_none_or(|valid| valid == token.usable));
    Ok(json!({ "registration_tokens": wanted.map(described).collect::<Vec<_>>() }))
}

#[derive(Deserialize)]
struct New {
    token: Option<String>,
    uses_allowed: Option<u64>,
    expiry_time: Option<u64>,
}

/// `POST registration_tokens/new`
async fn create(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let New { token, uses_allowed, expiry_time } = body::read(&call)?;
    let terms = TokenTerms { uses_allowed, expires_at: expiry_time };
    let made = api.users.create_registration_token(token.as_deref(), terms).await;
    Ok(described(&made.map_err(users_error)?))
}

/// `GET registration_tokens/{token}`
async fn get(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let token = api.users.registration_token(body::arg(&call, 0)).await.map_err(users_error)?;
    Ok(described(&token.ok_or_else(unknown)?))
}

#[derive(Deserialize)]
struct Change {
    #[serde(default, deserialize_with = "given")]
    uses_allowed: Option<Option<u64>>,
    #[serde(default, deserialize_with = "given")]
    expiry_time: Option<Option<u64>>,
}

/// A field that is there, be it null.
fn given<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(field).map(Some)
}

/// `PUT registration_tokens/{token}`: what is not named stays.
async fn change(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let Change { uses_allowed, expiry_time } = body::read(&call)?;
    let change = |terms: &mut TokenTerms| {
        terms.uses_allowed = uses_allowed.unwrap_or(terms.uses_allowed);
        terms.expires_at = expiry_time.unwrap_or(terms.expires_at);
    };
    let changed = api.users.change_registration_token(body::arg(&call, 0), change).await;
    Ok(described(&changed.map_err(users_error)?.ok_or_else(unknown)?))
}

/// `DELETE registration_tokens/{token}`
async fn delete(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    match api.users.delete_registration_token(body::arg(&call, 0)).await.map_err(users_error)? {
        true => Ok(json!({})),
        false => Err(unknown()),
    }
}

fn unknown() -> MatrixError {
    MatrixError::not_found("No such registration token")
}

/// A use is counted when its account is made, so that none is ever pending.
fn described(token: &RegistrationToken) -> Value {
    json!({
        "token": token.token,
        "uses_allowed": token.uses_allowed,
        "pending": 0,
        "completed": token.completed,
        "expiry_time": token.expires_at,
    })
}
