//! The state across a gap in a room that we are in, taken in as a join takes a room: laid aside as
//! it comes, then checked and judged in parts, so that no answer is in memory as a whole.

use std::sync::Arc;

use futures_util::future;
use ruma::{EventId, OwnedServerName};
use tokio::{sync::mpsc, time::timeout_at};

use super::{
    ENTRIES_AHEAD,
    entry::{CHUNK, CHUNK_BYTES},
    intake::{Intake, Shelf},
};
use crate::{Call, RoomError, Rooms, fetch::Quest, outliers::Pool};

impl Rooms {
    /// Asks a server for the whole state before an event, and keeps what that consists of as
    /// outliers. Whether the server helped.
    pub(crate) async fn take_in_state(
        &self,
        quest: &Quest,
        server: &OwnedServerName,
        event: &EventId,
    ) -> Result<bool, RoomError> {
        let room = &*quest.room_id;
        let _turn = self.inner.told.lock(quest.room_id.clone()).await;
        self.clear_arrivals(room, Shelf::State).await?;
        let (entries, coming) = mpsc::channel(ENTRIES_AHEAD);
        let answer = self.ask_listing(quest, server, Call::State { room, event }, entries);
        let intake = Intake::new(quest.version, room, Shelf::State);
        let kept = match future::join(answer, self.take_in(intake, coming)).await {
            (Some(_), Ok(intake)) => self.keep_taken(quest, server, event, intake).await,
            (None, Ok(_)) => Ok(false),
            (_, Err(error @ RoomError::InvalidParam(_))) => {
                tracing::info!(%room, %server, %error, "no help");
                Ok(false)
            }
            (_, Err(error)) => Err(error),
        };
        self.clear_arrivals(room, Shelf::State).await?;
        kept
    }

    /// Keeps what can be verified and is not refused. Keys that do not come in time leave none.
    async fn keep_taken(
        &self,
        quest: &Quest,
        server: &OwnedServerName,
        event: &EventId,
        mut intake: Intake,
    ) -> Result<bool, RoomError> {
        let wanted = std::mem::take(&mut intake.wanted);
        let ring = timeout_at(quest.deadline, self.keys().ring_by_way_of(wanted, server));
        let Ok(ring) = ring.await else { return Ok(false) };
        let ring = Arc::new(ring?);
        let first = intake.create.as_deref().unwrap_or(event);
        let order = intake.index.order(first);
        for numbers in intake.index.parts(&order, CHUNK, CHUNK_BYTES) {
            let (version, room_id) = (intake.version, intake.room_id.clone());
            let numbers = numbers.to_vec();
            let loaded = self.load(version, room_id, Shelf::State, numbers, ring.clone()).await?;
            let mut pool = Pool::new();
            for (_, loaded) in loaded {
                match loaded.event {
                    Ok(event) => drop(pool.insert(loaded.id, event)),
                    Err(why) => tracing::debug!(event = %loaded.id, why, "an event is left out"),
                }
            }
            self.keep_outliers(quest, pool).await?;
        }
        Ok(true)
    }
}
