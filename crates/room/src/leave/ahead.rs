//! A leave on its way to a server as an event of the room. Who comes in again through that server
//! waits for it: a join beside the leave, not after it, may lose against it, and the user would be
//! in at home and out in the room.

use std::time::Duration;

use exeunt_membership::{MakeRequest, RemoteFailure};
use exeunt_store::{Reader, StoreError, records::OutboxItem, tables};
use ruma::{OwnedServerName, ServerName};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::last_line;
use crate::{Call, Rooms};

/// How long a server that is asked for a way in may take for what goes before: the leave, or the join
/// that lets the user in.
pub const LEAVE_TAKEN_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Rooms {
    /// Asks a server for the template of a join or knock, once it has the user's last leave.
    pub(crate) async fn ask_for_entry(
        &self,
        server: &ServerName,
        request: &MakeRequest,
    ) -> Result<Value, RemoteFailure> {
        let (to, of) = (server.to_owned(), request.clone());
        let taken = self.once_taken(move |reader| has_leave_ahead(reader, &to, &of)).await;
        let taken = taken.map_err(|error| {
            tracing::error!(%server, %error, "the outbox cannot be read");
            RemoteFailure::Unreachable(error.to_string())
        })?;
        if !taken {
            let why = "it has yet to take the user's leave";
            return Err(RemoteFailure::Unreachable(why.into()));
        }
        self.call(server, Call::Make(request)).await
    }

    /// Waits until nothing of that kind waits for a server any more. `false` if it takes too long.
    pub(crate) async fn once_taken(
        &self,
        waits: impl Fn(&Reader<'_>) -> Result<bool, StoreError> + Clone + Send + 'static,
    ) -> Result<bool, StoreError> {
        let began = Instant::now();
        while self.store().read(waits.clone()).await? {
            if began.elapsed() >= LEAVE_TAKEN_WITHIN {
                return Ok(false);
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(true)
    }
}

fn has_leave_ahead(
    reader: &Reader<'_>,
    server: &OwnedServerName,
    request: &MakeRequest,
) -> Result<bool, StoreError> {
    let last = last_line(reader, &request.user_id, &request.room_id)?;
    let Some((position, last)) = last else { return Ok(false) };
    // The rows of the outbox have the position of the batch that the line came with.
    let waits = reader.get::<tables::Outbox>(&(server.clone(), position))?;
    Ok(last.membership == "leave" && waits == Some(OutboxItem::Pdu(last.event_id)))
}
