//! One writer per room, and other things of which one happens at a time.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex},
};

use ruma::{OwnedRoomId, RoomId};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// A lock for each key that somebody holds or waits for.
pub(crate) struct Locks<K>(Mutex<HashMap<K, Arc<RwLock<()>>>>);

impl<K> Default for Locks<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Locks<K> {
    /// Waits until nobody else has a part in it.
    pub async fn lock(&self, key: K) -> OwnedRwLockWriteGuard<()> {
        self.of(key).write_owned().await
    }

    /// Takes part beside others who share it; `None` if somebody has it for themselves, or waits to.
    pub fn try_share(&self, key: K) -> Option<OwnedRwLockReadGuard<()>> {
        self.of(key).try_read_owned().ok()
    }

    fn of(&self, key: K) -> Arc<RwLock<()>> {
        let mut locks = self.0.lock().unwrap_or_else(|e| e.into_inner());
        // Locks that nobody holds or waits for are dropped when the table has doubled.
        if locks.len() >= 1024 && locks.len().is_power_of_two() {
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        locks.entry(key).or_default().clone()
    }
}

/// The locks of all rooms.
#[derive(Default)]
pub struct RoomLocks(Locks<OwnedRoomId>);

/// Proof that its holder is the room's only writer. Committing to a room takes it as argument.
pub struct RoomGuard {
    room_id: OwnedRoomId,
    _held: OwnedRwLockWriteGuard<()>,
}

impl RoomGuard {
    pub fn room_id(&self) -> &RoomId {
        &self.room_id
    }
}

impl RoomLocks {
    /// Waits for the room's lock. Never held across a call to another server.
    pub async fn lock(&self, room_id: &RoomId) -> RoomGuard {
        let held = self.0.lock(room_id.to_owned()).await;
        RoomGuard { room_id: room_id.to_owned(), _held: held }
    }
}
