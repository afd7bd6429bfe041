//! Sending events: messages, state, redactions.

use exeunt_core::{MAX_CLOCK_LEAD_MS, Object};
use exeunt_http::{MatrixError, Routes};
use exeunt_room::{ClientTransaction, Intent};
use exeunt_users::Session;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, RoomId, TransactionId,
    api::client::{
        message::send_message_event::v3 as message, redact::redact_event::v3 as redaction,
        state::send_state_event::v3 as state,
    },
    serde::Raw,
};

use serde_json::Value;

use crate::{ClientApi, gate, room_error, send_member, upgrade::bring_along};

/// Longest transaction id in bytes.
const MAX_TXN_ID: usize = 255;

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed(message).authed(state).authed(redaction)
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}`
async fn message(
    api: ClientApi,
    session: Session,
    request: message::Request,
) -> Result<message::Response, MatrixError> {
    let kind = request.event_type.to_string();
    let path = ["send", request.room_id.as_str(), &kind];
    let transaction = transaction(&session, &path, &request.txn_id)?;
    let ts = date(&api, &session, request.timestamp)?;
    let mut intent = Intent::message(session.user_id, kind, content(&request.body)?);
    intent.transaction = Some(transaction);
    intent.ts = ts;
    let event_id = api.rooms.append(&request.room_id, intent).await.map_err(room_error)?;
    Ok(message::Response::new(event_id))
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
async fn state(
    api: ClientApi,
    session: Session,
    request: state::Request,
) -> Result<state::Response, MatrixError> {
    let content = content(&request.body)?;
    let ts = date(&api, &session, request.timestamp)?;
    let kind = request.event_type.to_string();
    let event_id = match &*kind {
        "m.room.member" => {
            let target = request.state_key.as_str().try_into().map_err(|_| {
                MatrixError::invalid_param("The state key of a member event is a user id")
            })?;
            send_member::put(&api, &session, &request.room_id, target, content).await?
        }
        _ => {
            if kind == "m.room.canonical_alias" {
                let checked = api.rooms.check_canonical_alias(&request.room_id, &content).await;
                checked.map_err(room_error)?;
            }
            let replacement = content.get("replacement_room").and_then(Value::as_str);
            let replacement = replacement.and_then(|id| RoomId::parse(id).ok());
            let replacement = replacement.filter(|_| kind == "m.room.tombstone");
            let user = session.user_id.clone();
            let intent = Intent::state(session.user_id, kind, request.state_key, content);
            let intent = Intent { ts, ..intent };
            let sent = api.rooms.append(&request.room_id, intent).await.map_err(room_error)?;
            if let Some(replacement) = replacement {
                // Who replaces a room by hand is in the new one already.
                bring_along(&api, &user, &replacement).await;
            }
            sent
        }
    };
    Ok(state::Response::new(event_id))
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}`
async fn redaction(
    api: ClientApi,
    session: Session,
    request: redaction::Request,
) -> Result<redaction::Response, MatrixError> {
    if session.suspended {
        check_own(&api, &session, &request.room_id, &request.event_id).await?;
    }
    let path = ["redact", request.room_id.as_str(), request.event_id.as_str()];
    let transaction = transaction(&session, &path, &request.txn_id)?;
    let mut content = Object::new();
    if let Some(reason) = request.reason {
        content.insert("reason".into(), reason.into());
    }
    let mut intent = Intent::message(session.user_id, "m.room.redaction", content);
    intent.redacts = Some(request.event_id);
    intent.transaction = Some(transaction);
    let event_id = api.rooms.append(&request.room_id, intent).await.map_err(room_error)?;
    Ok(redaction::Response::new(event_id))
}

/// Suspended users redact what they have sent, and nothing else.
async fn check_own(
    api: &ClientApi,
    session: &Session,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<(), MatrixError> {
    let viewer = api.rooms.viewer(&session.user_id, Some(session.device_id.clone()));
    let event = api.rooms.event(viewer, room_id, event_id).await.map_err(room_error)?;
    match event.is_some_and(|event| event["sender"] == session.user_id.as_str()) {
        true => Ok(()),
        false => Err(gate::suspended()),
    }
}

/// The date that an application service wants an event to bear (application service API, "Timestamp
/// massaging"); nobody else has a say. Other servers have no key of ours for a date far ahead.
fn date(
    api: &ClientApi,
    session: &Session,
    wanted: Option<MilliSecondsSinceUnixEpoch>,
) -> Result<Option<u64>, MatrixError> {
    let wanted = wanted.filter(|_| session.by_service.is_some()).map(|ts| u64::from(ts.get()));
    match wanted {
        Some(ts) if ts > api.now() + MAX_CLOCK_LEAD_MS => {
            Err(MatrixError::invalid_param("ts is more than an hour ahead"))
        }
        wanted => Ok(wanted),
    }
}

/// The client's transaction, scoped to its endpoint (client-server API, "Transaction
/// identifiers"). `path` holds what tells the endpoint from others.
fn transaction(
    session: &Session,
    path: &[&str],
    id: &TransactionId,
) -> Result<ClientTransaction, MatrixError> {
    if id.as_str().len() > MAX_TXN_ID {
        return Err(MatrixError::invalid_param("The transaction id is too long"));
    }
    Ok(ClientTransaction {
        device: session.device_id.clone(),
        path: path.join("/"),
        id: id.to_string(),
    })
}

fn content<T>(raw: &Raw<T>) -> Result<Object, MatrixError> {
    serde_json::from_str(raw.json().get()).map_err(|error| MatrixError::bad_json(error.to_string()))
}
