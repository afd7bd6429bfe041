//! Departures on a large scale: closing accounts, deleting rooms, turning down invites, and giving
//! up what nobody takes.

use std::time::Duration;

use exeunt_http::{MatrixError, Method, RawCall};
use exeunt_room::{
    farewell::Farewell,
    triage::{TriageFilter, TriageMode},
};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::AdminRoutes;
use crate::{ClientApi, body, room_error, users_error};

/// Longest wait for other servers before a room is deleted.
const MAX_DEADLINE: Duration = Duration::from_secs(60);
const DEFAULT_DEADLINE_MS: u64 = 10_000;

pub(super) fn routes(routes: AdminRoutes) -> AdminRoutes {
    const ABANDON: &str = "/_exeunt/admin/v1/departures/{user_id}/{room_id}";
    const JOB: &str = "/_exeunt/admin/v1/users/{user_id}/departure";
    const LEAVE: &str = "/_exeunt/admin/v1/rooms/{room_id}/leave/{user_id}";
    routes
        .on(Method::POST, "/_exeunt/admin/v1/users/{user_id}/deactivate", deactivate)
        .on(Method::GET, JOB, departure_job)
        .on(Method::POST, LEAVE, leave)
        .on(Method::POST, "/_exeunt/admin/v1/rooms/{room_id}/delete", delete_room)
        .on(Method::POST, "/_exeunt/admin/v1/invites/triage", triage)
        .on(Method::DELETE, ABANDON, abandon)
}

#[derive(Deserialize)]
struct Deactivate {
    #[serde(default)]
    erase: bool,
}

/// `POST users/{userId}/deactivate`: closes the account and starts its departure from everywhere.
/// `erase` is that of the client's endpoint.
async fn deactivate(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let user: OwnedUserId = body::id(&call, 0)?;
    let Deactivate { erase } = body::read(&call)?;
    api.users.deactivate(&user, erase).await.map_err(users_error)?;
    Ok(json!(api.rooms.depart_all(&user).await.map_err(room_error)?))
}

/// `GET users/{userId}/departure`: how far it is, room by room.
async fn departure_job(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let user: OwnedUserId = body::id(&call, 0)?;
    let job = api.rooms.departure_job(&user).await.map_err(room_error)?;
    let job = job.ok_or_else(|| MatrixError::not_found("No departure from everywhere"))?;
    Ok(json!(job))
}

#[derive(Deserialize)]
struct Leave {
    reason: Option<String>,
}

/// `POST rooms/{roomId}/leave/{userId}`: takes one local user out of one room, or turns the user's
/// invite or knock down, broken rooms included (pains C9).
async fn leave(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let (room, user): (OwnedRoomId, OwnedUserId) = (body::id(&call, 0)?, body::id(&call, 1)?);
    let Leave { reason } = body::read(&call)?;
    api.rooms.leave(&user, &room, reason).await.map_err(room_error)?;
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(default)]
struct Delete {
    reason: Option<String>,
    deadline_ms: u64,
}

impl Default for Delete {
    fn default() -> Self {
        Self { reason: None, deadline_ms: DEFAULT_DEADLINE_MS }
    }
}

/// `POST rooms/{roomId}/delete`
async fn delete_room(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let room: OwnedRoomId = body::id(&call, 0)?;
    let Delete { reason, deadline_ms } = body::read(&call)?;
    let deadline = Duration::from_millis(deadline_ms).min(MAX_DEADLINE);
    let report = api.rooms.delete_room(&room, Farewell { reason, deadline }).await;
    Ok(json!(report.map_err(room_error)?))
}

#[derive(Deserialize)]
struct Triage {
    #[serde(flatten)]
    filter: TriageFilter,
    #[serde(default)]
    mode: TriageMode,
}

/// `POST invites/triage`: a dry run unless the mode says otherwise.
async fn triage(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let Triage { filter, mode } = body::read(&call)?;
    Ok(json!(api.rooms.triage(filter, mode).await.map_err(room_error)?))
}

/// `DELETE departures/{userId}/{roomId}`: the room is not told any more. Answers what each server
/// had said.
async fn abandon(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let (user, room): (OwnedUserId, OwnedRoomId) = (body::id(&call, 0)?, body::id(&call, 1)?);
    let departure = api.rooms.abandon_departure(&user, &room).await.map_err(room_error)?;
    Ok(json!({ "attempts": departure.attempts, "last": departure.last }))
}
