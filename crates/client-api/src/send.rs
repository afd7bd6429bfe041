//! Sending events: messages, state, redactions.

use exeunt_core::Object;
use exeunt_http::{MatrixError, Routes};
use exeunt_room::{ClientTransaction, Intent};
use exeunt_users::Session;
use ruma::{
    RoomId, TransactionId,
    api::client::{
        message::send_message_event::v3 as message, redact::redact_event::v3 as redaction,
        state::send_state_event::v3 as state,
    },
    serde::Raw,
};

use crate::{ClientApi, room_error, send_member};

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
    let mut intent = Intent::message(session.user_id, kind, content(&request.body)?);
    intent.transaction = Some(transaction);
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
                check_aliases(&api, &request.room_id, &content).await?;
            }
            let intent = Intent::state(session.user_id, kind, request.state_key, content);
            api.rooms.append(&request.room_id, intent).await.map_err(room_error)?
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

/// An alias of ours in `m.room.canonical_alias` has to lead to the room (client-server API,
/// "PUT state", `M_BAD_ALIAS`); what other servers' aliases mean is their business.
async fn check_aliases(
    api: &ClientApi,
    room_id: &RoomId,
    content: &Object,
) -> Result<(), MatrixError> {
    for alias in named_aliases(content)? {
        let alias = ruma::RoomAliasId::parse(alias)
            .map_err(|_| MatrixError::invalid_param(format!("{alias:?} is not a room alias")))?;
        if alias.server_name() != api.server_name() {
            continue;
        }
        let found = api.rooms.local_alias(&alias).await.map_err(room_error)?;
        if found.is_none_or(|(room, _)| room != room_id) {
            let text = format!("{alias} does not lead to this room");
            return Err(MatrixError::new(400, "M_BAD_ALIAS", text));
        }
    }
    Ok(())
}

fn named_aliases(content: &Object) -> Result<Vec<&str>, MatrixError> {
    use serde_json::Value::{Array, Null, String};
    let invalid = |key| MatrixError::invalid_param(format!("{key} has the wrong type"));
    let mut named = match content.get("alias") {
        // Old clients remove the alias with an empty text.
        None | Some(Null) => Vec::new(),
        Some(String(alias)) if alias.is_empty() => Vec::new(),
        Some(String(alias)) => vec![alias.as_str()],
        Some(_) => return Err(invalid("alias")),
    };
    match content.get("alt_aliases") {
        None | Some(Null) => {}
        Some(Array(others)) => {
            for other in others {
                named.push(other.as_str().ok_or_else(|| invalid("alt_aliases"))?);
            }
        }
        Some(_) => return Err(invalid("alt_aliases")),
    }
    Ok(named)
}
