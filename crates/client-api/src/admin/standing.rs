//! Locking and suspending accounts, and who uses one from where: the endpoints of the specification
//! for administrators ("Server Administration").

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::{AccountInfo, Session};
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AdminRoutes, is_admin};
use crate::{ClientApi, body, users_error};

pub(super) fn routes(routes: AdminRoutes) -> AdminRoutes {
    const LOCK: &str = "/_matrix/client/v1/admin/lock/{user_id}";
    const SUSPEND: &str = "/_matrix/client/v1/admin/suspend/{user_id}";
    routes
        .on(Method::GET, LOCK, is_locked)
        .on(Method::PUT, LOCK, lock)
        .on(Method::GET, SUSPEND, is_suspended)
        .on(Method::PUT, SUSPEND, suspend)
}

pub(super) fn whois_routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::GET, "/_matrix/client/v3/admin/whois/{user_id}", whois)
}

/// `GET /_matrix/client/v1/admin/lock/{userId}`
async fn is_locked(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let (_, account) = target(&api, &call).await?;
    Ok(json!({ "locked": account.locked }))
}

#[derive(Deserialize)]
struct Lock {
    locked: bool,
}

/// `PUT /_matrix/client/v1/admin/lock/{userId}`
async fn lock(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let (user, _) = target(&api, &call).await?;
    let Lock { locked } = body::read(&call)?;
    api.users.set_locked(&user, locked).await.map_err(users_error)?;
    tracing::info!(%user, locked, "an administrator changed the lock of an account");
    Ok(json!({ "locked": locked }))
}

/// `GET /_matrix/client/v1/admin/suspend/{userId}`
async fn is_suspended(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let (_, account) = target(&api, &call).await?;
    Ok(json!({ "suspended": account.suspended }))
}

#[derive(Deserialize)]
struct Suspend {
    suspended: bool,
}

/// `PUT /_matrix/client/v1/admin/suspend/{userId}`
async fn suspend(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let (user, _) = target(&api, &call).await?;
    let Suspend { suspended } = body::read(&call)?;
    api.users.set_suspended(&user, suspended).await.map_err(users_error)?;
    tracing::info!(%user, suspended, "an administrator changed the suspension of an account");
    Ok(json!({ "suspended": suspended }))
}

/// The local user of the path, who must be no administrator: so nobody shuts oneself out.
async fn target(
    api: &ClientApi,
    call: &RawCall,
) -> Result<(OwnedUserId, AccountInfo), MatrixError> {
    let (user, account) = local_account(api, call).await?;
    if account.deactivated {
        return Err(no_such_user());
    }
    if account.admin {
        return Err(MatrixError::forbidden("The user is an administrator"));
    }
    Ok((user, account))
}

async fn local_account(
    api: &ClientApi,
    call: &RawCall,
) -> Result<(OwnedUserId, AccountInfo), MatrixError> {
    let user: OwnedUserId = body::id(call, 0)?;
    if !api.users.is_local(&user) {
        return Err(MatrixError::invalid_param("The user does not belong to this server"));
    }
    let account = api.users.account(&user).await.map_err(users_error)?;
    Ok((user, account.ok_or_else(no_such_user)?))
}

fn no_such_user() -> MatrixError {
    MatrixError::not_found("No such user")
}

/// `GET /_matrix/client/v3/admin/whois/{userId}`: of oneself, or by an administrator.
async fn whois(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let asked: OwnedUserId = body::id(&call, 0)?;
    if asked != session.user_id && !is_admin(&api, &session).await? {
        return Err(MatrixError::forbidden("You are not an administrator"));
    }
    let (user, _) = local_account(&api, &call).await?;
    let devices = api.users.devices(&user).await.map_err(users_error)?;
    let devices = devices.into_iter().map(|device| {
        let connections: Vec<_> = device
            .seen
            .map(|seen| {
                json!({ "ip": seen.ip, "last_seen": seen.at, "user_agent": seen.user_agent })
            })
            .into_iter()
            .collect();
        let sessions = json!({ "sessions": [{ "connections": connections }] });
        (device.device_id.to_string(), sessions)
    });
    let devices: exeunt_core::Object = devices.collect();
    Ok(Reply::json(json!({ "user_id": user, "devices": devices })))
}
