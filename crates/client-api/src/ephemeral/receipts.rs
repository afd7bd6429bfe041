//! `POST /rooms/{roomId}/receipt/{receiptType}/{eventId}`, `POST /rooms/{roomId}/read_markers`.

use exeunt_core::Object;
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::{Receipt, ReceiptKind};
use exeunt_users::Session;
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ClientApi, body, room_error, users_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    let of_event = "/_matrix/client/v3/rooms/{room_id}/receipt/{receipt_type}/{event_id}";
    let markers = "/_matrix/client/v3/rooms/{room_id}/read_markers";
    routes.authed_raw(Method::POST, of_event, receipt).authed_raw(
        Method::POST,
        markers,
        read_markers,
    )
}

/// Account data of a room: up to where its user has read it in full.
const FULLY_READ: &str = "m.fully_read";

/// `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}`
async fn receipt(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let room_id: OwnedRoomId = body::id(&call, 0)?;
    let event_id: OwnedEventId = body::id(&call, 2)?;
    let thread = match call.object()?.remove("thread_id") {
        None => None,
        Some(Value::String(id)) => Some(id),
        Some(_) => return Err(MatrixError::invalid_param("thread_id is not a string")),
    };
    let kind = match body::arg(&call, 1) {
        "m.read" => ReceiptKind::Read,
        "m.read.private" => ReceiptKind::Private,
        FULLY_READ if thread.is_none() => {
            fully_read(&api, &session, &room_id, &event_id).await?;
            return Ok(Reply::json(json!({})));
        }
        FULLY_READ => return Err(MatrixError::invalid_param("m.fully_read has no thread_id")),
        _ => return Err(MatrixError::invalid_param("There is no such type of receipt")),
    };
    let receipt = Receipt { user: session.user_id, kind, event_id, thread };
    api.rooms.receipt(&room_id, receipt).await.map_err(room_error)?;
    Ok(Reply::json(json!({})))
}

#[derive(Deserialize)]
struct Markers {
    #[serde(rename = "m.fully_read")]
    fully_read: Option<OwnedEventId>,
    #[serde(rename = "m.read")]
    read: Option<OwnedEventId>,
    #[serde(rename = "m.read.private")]
    private: Option<OwnedEventId>,
}

/// `POST /_matrix/client/v3/rooms/{roomId}/read_markers`
async fn read_markers(
    api: ClientApi,
    session: Session,
    call: RawCall,
) -> Result<Reply, MatrixError> {
    let room_id: OwnedRoomId = body::id(&call, 0)?;
    let markers: Markers = body::read(&call)?;
    if let Some(event_id) = &markers.fully_read {
        fully_read(&api, &session, &room_id, event_id).await?;
    }
    let receipts = [(ReceiptKind::Read, markers.read), (ReceiptKind::Private, markers.private)];
    for (kind, event_id) in receipts {
        if let Some(event_id) = event_id {
            let receipt = Receipt { user: session.user_id.clone(), kind, event_id, thread: None };
            api.rooms.receipt(&room_id, receipt).await.map_err(room_error)?;
        }
    }
    Ok(Reply::json(json!({})))
}

async fn fully_read(
    api: &ClientApi,
    session: &Session,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<(), MatrixError> {
    let user = &session.user_id;
    api.rooms.check_read(user, room_id, event_id).await.map_err(room_error)?;
    let mut content = Object::new();
    content.insert("event_id".into(), event_id.as_str().into());
    let position = api.users.put_account_data(user, Some(room_id), FULLY_READ, content).await;
    api.rooms.wake_user(user, position.map_err(users_error)?);
    Ok(())
}
