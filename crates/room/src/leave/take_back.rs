//! Joins and knocks that failed, as far as the user knows, and that a server may have taken all the
//! same: its answer was lost, or is of no use. The room would show for ever one who is not there.

use exeunt_core::{CheckedPdu, PendingMembership};
use exeunt_store::{Batch, tables};
use ruma::OwnedServerName;

use super::departure;
use crate::{RoomError, Rooms, graph::is_joined, place::Placement};

/// How long a join is not taken back yet: its user is likely to try again.
pub const REJOIN_WITHIN_MS: u64 = 60_000;

impl Rooms {
    /// Takes a join or knock of a user of ours back, as soon as the server can be reached that may
    /// have it. Not so where another knock or an invite is held, or where we are in the room.
    pub(crate) async fn take_back(
        &self,
        event: CheckedPdu,
        server: OwnedServerName,
    ) -> Result<(), RoomError> {
        let guard = self.inner.locks.lock(event.room_id()).await;
        let key = (event.sender().to_owned(), event.room_id().to_owned());
        let (row, ours) = (key.clone(), self.server_name().to_owned());
        let stays = self.store().read(move |reader| {
            Ok(is_joined(reader, &row.1, &ours)? || reader.contains::<tables::Pending>(&row)?)
        });
        let stays: Result<bool, RoomError> = stays.await;
        if stays? {
            return Ok(());
        }
        tracing::info!(user = %key.0, room_id = %key.1, %server, "what it may have is taken back");
        let wait = if event.membership() == Some("join") { REJOIN_WITHIN_MS } else { 0 };
        let now = self.now();
        let sent = sent_to(&event, server, now);
        let mut batch = Batch::default();
        let row = departure(sent, None, self.server_name(), now, wait);
        batch.put::<tables::Departures>(&key, &row);
        self.commit(&guard, Placement::only(batch)).await?;
        self.inner.wake.departure_queued();
        Ok(())
    }
}

/// A member event of a user of ours as something that we wait for the end of.
pub(crate) fn sent_to(event: &CheckedPdu, server: OwnedServerName, now: u64) -> PendingMembership {
    let sent = PendingMembership::of(event.sender(), event, now);
    PendingMembership { delivered_by: Some(server), ..sent }
}
