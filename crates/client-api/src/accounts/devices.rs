//! The devices of the caller.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::{Device, Purpose, Session, UsersError};
use ruma::OwnedDeviceId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ClientApi, body, users_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    const ONE: &str = "/_matrix/client/v3/devices/{device_id}";
    routes
        .authed_raw(Method::GET, "/_matrix/client/v3/devices", list)
        .authed_raw(Method::GET, ONE, get)
        .authed_raw(Method::PUT, ONE, rename)
        .authed_raw(Method::DELETE, ONE, delete)
        .authed_raw(Method::POST, "/_matrix/client/v3/delete_devices", delete_several)
}

/// `GET /_matrix/client/v3/devices`
async fn list(api: ClientApi, session: Session, _: RawCall) -> Result<Reply, MatrixError> {
    let devices = api.users.devices(&session.user_id).await.map_err(users_error)?;
    let devices: Vec<_> = devices.iter().map(described).collect();
    Ok(Reply::json(json!({ "devices": devices })))
}

/// `GET /_matrix/client/v3/devices/{deviceId}`
async fn get(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let device = device_of(&call);
    let device = api.users.device(&session.user_id, &device).await.map_err(users_error)?;
    let device = device.ok_or_else(|| users_error(UsersError::UnknownDevice))?;
    Ok(Reply::json(described(&device)))
}

#[derive(Deserialize)]
struct Rename {
    display_name: Option<String>,
}

/// `PUT /_matrix/client/v3/devices/{deviceId}`
async fn rename(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let Rename { display_name } = body::read(&call)?;
    let device = device_of(&call);
    match display_name {
        Some(name) => api.users.rename_device(&session.user_id, &device, Some(&name)).await,
        // Nothing to change; whether the device is there counts all the same.
        None => match api.users.device(&session.user_id, &device).await {
            Ok(found) => found.map(drop).ok_or(UsersError::UnknownDevice),
            Err(error) => Err(error),
        },
    }
    .map_err(users_error)?;
    Ok(Reply::json(json!({})))
}

/// `DELETE /_matrix/client/v3/devices/{deviceId}`, with user-interactive authentication.
async fn delete(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let device = device_of(&call);
    remove(&api, &session, &call, &[device]).await
}

#[derive(Deserialize)]
struct Several {
    devices: Vec<OwnedDeviceId>,
}

/// `POST /_matrix/client/v3/delete_devices`, with user-interactive authentication.
async fn delete_several(
    api: ClientApi,
    session: Session,
    call: RawCall,
) -> Result<Reply, MatrixError> {
    let Several { devices } = body::read(&call)?;
    remove(&api, &session, &call, &devices).await
}

async fn remove(
    api: &ClientApi,
    session: &Session,
    call: &RawCall,
    devices: &[OwnedDeviceId],
) -> Result<Reply, MatrixError> {
    let body = call.object()?;
    let auth = body.get("auth").and_then(Value::as_object);
    super::authorise(api, &Purpose::Account(session.user_id.clone()), auth).await?;
    api.users.delete_devices(&session.user_id, devices).await.map_err(users_error)?;
    Ok(Reply::json(json!({})))
}

fn device_of(call: &RawCall) -> OwnedDeviceId {
    body::arg(call, 0).into()
}

fn described(device: &Device) -> Value {
    let mut out = json!({ "device_id": device.device_id });
    if let Some(name) = &device.display_name {
        out["display_name"] = name.as_str().into();
    }
    if let Some(seen) = &device.seen {
        out["last_seen_ts"] = seen.at.into();
        if let Some(ip) = &seen.ip {
            out["last_seen_ip"] = ip.as_str().into();
        }
    }
    out
}
