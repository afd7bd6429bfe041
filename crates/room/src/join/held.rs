//! Events that arrive for a room while its join is under way. They are kept until the room is
//! there and then taken as if they came in that moment. Those that a full list turns away, or that
//! a crash takes, leave a gap that the room's next event has filled.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use exeunt_core::Object;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};

use crate::{
    Rooms,
    locks::{RoomGuard, RoomLocks},
};

/// Most events that are kept for a room.
const MAX_HELD: usize = 500;
/// Most rooms of which events are kept.
const MAX_ROOMS: usize = 100;

/// Joins by handshake that are under way.
#[derive(Default)]
pub(crate) struct Joins {
    /// One handshake per room at a time.
    turns: RoomLocks,
    held: Mutex<BTreeMap<OwnedRoomId, Waiting>>,
}

/// What waits for a room.
#[derive(Default)]
struct Waiting {
    /// Joins under way; none once the last one's events are being taken.
    joins: usize,
    events: Held,
}

/// Events with the servers that sent them, in order.
type Held = Vec<(OwnedServerName, Object)>;

impl Joins {
    /// Waits for the handshakes with the room that others have begun.
    pub async fn turn(&self, room_id: &RoomId) -> RoomGuard {
        self.turns.lock(room_id).await
    }

    /// Keeps events from now on.
    fn begin(&self, room_id: &RoomId) {
        let mut held = self.lock();
        if held.len() < MAX_ROOMS || held.contains_key(room_id) {
            held.entry(room_id.to_owned()).or_default().joins += 1;
        }
    }

    /// A join is over: what is kept may be taken, unless there is another one.
    fn end(&self, room_id: &RoomId) {
        if let Some(waiting) = self.lock().get_mut(room_id) {
            waiting.joins = waiting.joins.saturating_sub(1);
        }
    }

    /// Keeps events of a room that is being joined; gives back what it does not keep.
    pub fn hold(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        mut events: Vec<Object>,
    ) -> Vec<Object> {
        let mut held = self.lock();
        let Some(waiting) = held.get_mut(room_id) else { return events };
        let room = MAX_HELD.saturating_sub(waiting.events.len()).min(events.len());
        waiting.events.extend(events.drain(..room).map(|event| (origin.to_owned(), event)));
        events
    }

    /// What is kept for a room, unless a join is under way. Once there is nothing, nothing is kept
    /// any more.
    fn take(&self, room_id: &RoomId) -> Option<Held> {
        let mut held = self.lock();
        let waiting = held.get_mut(room_id).filter(|waiting| waiting.joins == 0)?;
        if waiting.events.is_empty() {
            held.remove(room_id);
            return None;
        }
        Some(std::mem::take(&mut waiting.events))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OwnedRoomId, Waiting>> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A join under way. When it is dropped, the events that were kept go their way.
pub(super) struct Underway {
    rooms: Rooms,
    room_id: OwnedRoomId,
}

impl Underway {
    pub fn begin(rooms: &Rooms, room_id: &RoomId) -> Self {
        rooms.inner.joins.begin(room_id);
        Self { rooms: rooms.clone(), room_id: room_id.to_owned() }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let (rooms, room_id) = (self.rooms.clone(), self.room_id.clone());
        rooms.inner.joins.end(&room_id);
        // Filling gaps takes time, for which nobody need wait.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { rooms.release(&room_id).await })),
            Err(_) => drop(self.rooms.inner.joins.lock().remove(&self.room_id)),
        }
    }
}

impl Rooms {
    async fn release(&self, room_id: &OwnedRoomId) {
        while let Some(events) = self.inner.joins.take(room_id) {
            tracing::debug!(%room_id, count = events.len(), "events that came during the join");
            for (origin, event) in events {
                let taken = self.receive_again(&origin, room_id, vec![event]).await;
                if let Err(error) = taken {
                    tracing::error!(%room_id, %origin, %error, "an event was lost to a failure here");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, server_name};

    use super::*;

    #[test]
    fn events_are_kept_for_rooms_that_are_being_joined() {
        let (joins, origin) = (Joins::default(), server_name!("a.example"));
        let (room, other) = (room_id!("!a:a.example"), room_id!("!b:a.example"));
        let events = |count| vec![Object::new(); count];
        assert_eq!(joins.hold(origin, room, events(1)).len(), 1);
        joins.begin(room);
        assert!(joins.hold(origin, room, events(2)).is_empty());
        assert_eq!(joins.hold(origin, other, events(1)).len(), 1);
        joins.begin(room);
        joins.end(room);
        assert!(joins.take(room).is_none(), "there is another join");
        joins.end(room);
        assert_eq!(joins.take(room).map(|held| held.len()), Some(2));
        assert_eq!(joins.hold(origin, room, events(MAX_HELD + 3)).len(), 3, "the list is full");
        assert_eq!(joins.take(room).map(|held| held.len()), Some(MAX_HELD));
        assert!(joins.take(room).is_none());
        assert_eq!(joins.hold(origin, room, events(1)).len(), 1, "it is over");
    }
}
