//! Closing one's account.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::{Purpose, Session};
use serde_json::{Value, json};

use crate::{ClientApi, room_error, users_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::POST, "/_matrix/client/v3/account/deactivate", deactivate)
}

/// `POST /_matrix/client/v3/account/deactivate`, with user-interactive authentication. The tokens
/// are gone when this answers; rooms, invites and knocks go after that, by a job that survives a
/// restart. What is not in rooms is deleted with or without `erase`.
async fn deactivate(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let body = call.object()?;
    let auth = body.get("auth").and_then(Value::as_object);
    let erase = match body.get("erase") {
        None => false,
        Some(erase) => erase
            .as_bool()
            .ok_or_else(|| MatrixError::bad_json("erase is neither true nor false"))?,
    };
    let user = session.user_id;
    super::authorise(&api, &Purpose::Account(user.clone()), auth).await?;
    api.users.deactivate(&user, erase).await.map_err(users_error)?;
    api.rooms.depart_all(&user).await.map_err(room_error)?;
    tracing::info!(%user, "an account was closed by its owner");
    Ok(Reply::json(json!({ "id_server_unbind_result": "no-support" })))
}
