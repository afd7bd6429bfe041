//! One writer per room.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use ruma::{OwnedRoomId, RoomId};
use tokio::sync::OwnedMutexGuard;

/// The locks of all rooms that somebody holds or waits for.
#[derive(Default)]
pub struct RoomLocks(Mutex<HashMap<OwnedRoomId, Arc<tokio::sync::Mutex<()>>>>);

/// Proof that its holder is the room's only writer. Committing to a room takes it as argument.
pub struct RoomGuard {
    room_id: OwnedRoomId,
    _held: OwnedMutexGuard<()>,
}

impl RoomGuard {
    pub fn room_id(&self) -> &RoomId {
        &self.room_id
    }
}

impl RoomLocks {
    /// Waits for the room's lock. Never held across a call to another server.
    pub async fn lock(&self, room_id: &RoomId) -> RoomGuard {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(|e| e.into_inner());
            // Locks that nobody holds or waits for are dropped when the table has doubled.
            if locks.len() >= 1024 && locks.len().is_power_of_two() {
                locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            }
            locks.entry(room_id.to_owned()).or_default().clone()
        };
        RoomGuard { room_id: room_id.to_owned(), _held: lock.lock_owned().await }
    }
}
