//! Joins and knocks that failed, as far as the user knows, and that a server may have taken all the
//! same: its answer was lost, or is of no use. The room would show for ever one who is not there.

use exeunt_core::{CheckedPdu, PendingMembership};
use exeunt_store::{Batch, records::DepartureRecord, tables};
use ruma::OwnedServerName;

use super::departure;
use crate::{RoomError, Rooms, graph::is_joined, place::Placement, signing::Signing};

/// How long a join is not taken back yet: its user is likely to try again.
pub const REJOIN_WITHIN_MS: u64 = 60_000;

impl Rooms {
    /// Journals the signature of a join or knock that is about to be sent and, in the same batch,
    /// that it is to be taken back after a while: we may be stopped before its answer is recorded.
    /// Its success ends that, and so does [`Self::entry_refused`].
    pub(crate) async fn journal_entry(
        &self,
        signing: Signing<'_>,
        event: &CheckedPdu,
        server: &OwnedServerName,
    ) -> Result<(), RoomError> {
        let key = (event.sender().to_owned(), event.room_id().to_owned());
        let mut batch = Batch::default();
        let row = match self.departure(&key).await? {
            None => self.taken_back(event, server.clone(), REJOIN_WITHIN_MS),
            // One of before, that another server may have.
            Some(mut row) if is_entry(&row) => {
                row.candidates.retain(|known| known != server);
                row.candidates.push(server.clone());
                row
            }
            Some(_) => return signing.journal().await,
        };
        batch.put::<tables::Departures>(&key, &row);
        signing.journal_with(batch).await?;
        self.inner.wake.departure_queued();
        Ok(())
    }

    /// The server has refused what was noted: there is nothing to be taken back.
    pub(crate) async fn entry_refused(&self, event: &CheckedPdu) -> Result<(), RoomError> {
        let key = (event.sender().to_owned(), event.room_id().to_owned());
        let _guard = self.inner.locks.lock(&key.1).await;
        let row = self.departure(&key).await?;
        if row.is_some_and(|row| row.pending.event == *event.object()) {
            let mut batch = Batch::default();
            batch.delete::<tables::Departures>(&key);
            self.store().commit(batch).await?;
        }
        Ok(())
    }

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
        let mut batch = Batch::default();
        let wait = if event.membership() == Some("join") { REJOIN_WITHIN_MS } else { 0 };
        batch.put::<tables::Departures>(&key, &self.taken_back(&event, server, wait));
        self.commit(&guard, Placement::only(batch)).await?;
        self.inner.wake.departure_queued();
        Ok(())
    }

    fn taken_back(
        &self,
        event: &CheckedPdu,
        server: OwnedServerName,
        wait: u64,
    ) -> DepartureRecord {
        let now = self.now();
        departure(sent_to(event, server, now), None, self.server_name(), now, wait)
    }
}

/// Whether it is a join or knock that is to be taken back.
fn is_entry(departure: &DepartureRecord) -> bool {
    let pending = &departure.pending;
    pending.sender == pending.user_id && matches!(&*pending.membership, "join" | "knock")
}

/// A member event of a user of ours as something that we wait for the end of.
pub(crate) fn sent_to(event: &CheckedPdu, server: OwnedServerName, now: u64) -> PendingMembership {
    let sent = PendingMembership::of(event.sender(), event, now);
    PendingMembership { delivered_by: Some(server), ..sent }
}
