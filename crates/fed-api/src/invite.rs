//! `PUT invite` (v2, and v1 for room versions 1 and 2).

use exeunt_core::{
    Object,
    ruma::{OwnedEventId, UserId},
    wire::federation,
};
use exeunt_http::{MatrixError, Method, RawCall};
use exeunt_room::inbound::{Admitted, InboundInvite};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    FedApi, matrix_error,
    route::{FedRoutes, arg, body},
};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes.room(Method::PUT, "/_matrix/federation/v2/invite/{room_id}/{event_id}", invite).room(
        Method::PUT,
        "/_matrix/federation/v1/invite/{room_id}/{event_id}",
        invite_v1,
    )
}

#[derive(Deserialize)]
struct Body {
    room_version: String,
    event: Object,
    #[serde(default)]
    invite_room_state: Value,
}

async fn invite(api: FedApi, entry: Admitted, call: RawCall) -> Result<Value, MatrixError> {
    let Body { room_version, event, invite_room_state } = body(&call)?;
    receive(api, entry, &call, InboundInvite { room_version, event, invite_room_state }).await
}

/// The body is the event itself, the answer is wrapped.
async fn invite_v1(api: FedApi, entry: Admitted, call: RawCall) -> Result<Value, MatrixError> {
    let invite = InboundInvite::v1(call.object()?).map_err(matrix_error)?;
    Ok(json!([200, receive(api, entry, &call, invite).await?]))
}

async fn receive(
    api: FedApi,
    entry: Admitted,
    call: &RawCall,
    invite: InboundInvite,
) -> Result<Value, MatrixError> {
    let event_id: OwnedEventId = arg(call, 1, "event id")?;
    check_account(&api, &invite.event).await?;
    let signed = api.rooms.receive_invite(&entry, &event_id, invite).await;
    let signed = signed.map_err(matrix_error)?;
    Ok(json!({ "event": federation(&signed) }))
}

/// Only accounts that are there and active are invited (row IN13). What is not a user of ours at
/// all is refused by the checks on the event.
async fn check_account(api: &FedApi, event: &Object) -> Result<(), MatrixError> {
    let target = event.get("state_key").and_then(Value::as_str);
    let Some(user) = target.and_then(|user| <&UserId>::try_from(user).ok()) else { return Ok(()) };
    if !api.users.is_local(user) {
        return Ok(());
    }
    let profile = api.users.profile(user).await;
    match profile.map_err(|error| MatrixError::internal(&error))? {
        Some(_) => Ok(()),
        None => Err(MatrixError::forbidden("The user cannot be invited")),
    }
}
