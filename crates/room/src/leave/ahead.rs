//! A leave on its way to a server as an event of the room. Who comes in again through that server
//! waits for it: a join beside the leave, not after it, may lose against it, and the user would be
//! in at home and out in the room.

use std::time::Duration;

use exeunt_membership::{MakeRequest, RemoteFailure};
use exeunt_store::{StoreError, records::OutboxItem, tables};
use ruma::ServerName;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::last_line;
use crate::{Call, Rooms};

/// How long a server that is asked for a way in may take for the leave before.
pub const LEAVE_TAKEN_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Rooms {
    /// Asks a server for the template of a join or knock, once it has the user's last leave.
    pub(crate) async fn ask_for_entry(
        &self,
        server: &ServerName,
        request: &MakeRequest,
    ) -> Result<Value, RemoteFailure> {
        let began = Instant::now();
        while self.has_leave_ahead(server, request).await.map_err(|error| {
            tracing::error!(%server, %error, "the outbox cannot be read");
            RemoteFailure::Unreachable(error.to_string())
        })? {
            if began.elapsed() >= LEAVE_TAKEN_WITHIN {
                let why = "it has yet to take the user's leave";
                return Err(RemoteFailure::Unreachable(why.into()));
            }
            sleep(LOOK_EVERY).await;
        }
        self.call(server, Call::Make(request)).await
    }

    async fn has_leave_ahead(
        &self,
        server: &ServerName,
        request: &MakeRequest,
    ) -> Result<bool, StoreError> {
        let server = server.to_owned();
        let (room_id, user_id) = (request.room_id.clone(), request.user_id.clone());
        let read = self.store().read(move |reader| {
            let last = last_line(reader, &user_id, &room_id)?;
            let Some((position, last)) = last else { return Ok(false) };
            // The rows of the outbox have the position of the batch that the line came with.
            let waits = reader.get::<tables::Outbox>(&(server, position))?;
            Ok(last.membership == "leave" && waits == Some(OutboxItem::Pdu(last.event_id)))
        });
        read.await
    }
}
