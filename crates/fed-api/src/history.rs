//! `GET backfill`, `POST get_missing_events`, `GET timestamp_to_event`.

use exeunt_core::ruma::{EventId, OwnedEventId};
use exeunt_http::{MatrixError, Method, RawCall};
use exeunt_room::inbound::{Admitted, MissingEvents};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    FedApi, matrix_error,
    route::{FedRoutes, body},
};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes
        .room(Method::GET, "/_matrix/federation/v1/backfill/{room_id}", backfill)
        .room(Method::POST, "/_matrix/federation/v1/get_missing_events/{room_id}", missing_events)
        .room(Method::GET, "/_matrix/federation/v1/timestamp_to_event/{room_id}", timestamp)
}

async fn backfill(api: FedApi, entry: Admitted, call: RawCall) -> Result<Value, MatrixError> {
    let from: Result<Vec<_>, _> = call.head.query_all("v").iter().map(EventId::parse).collect();
    let from = from.map_err(|_| MatrixError::invalid_param("v is not an event id"))?;
    if from.is_empty() {
        return Err(MatrixError::missing_param("v is missing"));
    }
    let limit = call.head.query("limit");
    let limit = limit.ok_or_else(|| MatrixError::missing_param("limit is missing"))?;
    let limit = limit.parse().map_err(|_| MatrixError::invalid_param("limit is not a number"))?;
    api.rooms.backfill_for_server(&entry, &from, limit).await.map_err(matrix_error)
}

#[derive(Deserialize)]
struct Body {
    earliest_events: Vec<OwnedEventId>,
    latest_events: Vec<OwnedEventId>,
    limit: Option<usize>,
    /// Some servers send what is below 0.
    min_depth: Option<i64>,
}

async fn missing_events(api: FedApi, entry: Admitted, call: RawCall) -> Result<Value, MatrixError> {
    let Body { earliest_events, latest_events, limit, min_depth } = body(&call)?;
    let wanted = MissingEvents {
        earliest: earliest_events,
        latest: latest_events,
        limit,
        min_depth: min_depth.and_then(|depth| depth.try_into().ok()).unwrap_or(0),
    };
    api.rooms.missing_events_for_server(&entry, wanted).await.map_err(matrix_error)
}

async fn timestamp(api: FedApi, entry: Admitted, call: RawCall) -> Result<Value, MatrixError> {
    let ts = call.head.query("ts").ok_or_else(|| MatrixError::missing_param("ts is missing"))?;
    let ts: i64 = ts.parse().map_err(|_| MatrixError::invalid_param("ts is not a number"))?;
    let direction = call.head.query("dir");
    let direction = direction.ok_or_else(|| MatrixError::missing_param("dir is missing"))?;
    let direction = direction.parse().map_err(matrix_error)?;
    // Before the epoch there is nothing.
    let ts = ts.try_into().unwrap_or(0);
    api.rooms.timestamp_for_server(&entry, ts, direction).await.map_err(matrix_error)
}
