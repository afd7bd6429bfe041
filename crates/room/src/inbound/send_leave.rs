//! `PUT send_leave`: rows SL1 to SL11.

use exeunt_core::Object;
use exeunt_membership::check_send_leave;
use ruma::EventId;

use super::Admitted;
use crate::{RoomError, Rooms};

impl Rooms {
    /// Takes a leave of another server's user into the graph and relays it. The same event again
    /// changes nothing and is no error.
    pub async fn send_leave(
        &self,
        entry: &Admitted,
        event_id: &EventId,
        body: Object,
    ) -> Result<(), RoomError> {
        self.take(entry, event_id, body, check_send_leave).await?;
        Ok(())
    }
}
