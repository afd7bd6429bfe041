//! Stored filters. They are kept as they came, so that fields ruma does not know stay.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::views;
use exeunt_users::Session;
use ruma::{OwnedUserId, api::client::filter::FilterDefinition};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::{ClientApi, body, users_error};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::POST, "/_matrix/client/v3/user/{user_id}/filter", create).authed_raw(
        Method::GET,
        "/_matrix/client/v3/user/{user_id}/filter/{filter_id}",
        get,
    )
}

/// `POST /_matrix/client/v3/user/{userId}/filter`
async fn create(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    check_owner(&session, &call)?;
    let filter = call.object()?;
    // What is stored is what `/sync` can read.
    let value = Value::Object(filter.clone());
    let bad = |error: serde_json::Error| call.misfit(&error);
    FilterDefinition::deserialize(&value).map_err(bad)?;
    views::Filter::deserialize(&value).map_err(bad)?;
    let id = api.users.create_filter(&session.user_id, filter).await.map_err(users_error)?;
    Ok(Reply::json(json!({ "filter_id": id.to_string() })))
}

/// `GET /_matrix/client/v3/user/{userId}/filter/{filterId}`
async fn get(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    check_owner(&session, &call)?;
    let unknown = || MatrixError::not_found("Unknown filter");
    let id = body::arg(&call, 1).parse().map_err(|_| unknown())?;
    let filter = api.users.filter(&session.user_id, id).await.map_err(users_error)?;
    Ok(Reply::json(filter.ok_or_else(unknown)?.into()))
}

fn check_owner(session: &Session, call: &RawCall) -> Result<(), MatrixError> {
    let user: OwnedUserId = body::id(call, 0)?;
    if user == session.user_id {
        Ok(())
    } else {
        Err(MatrixError::forbidden("The filters are another user's"))
    }
}
