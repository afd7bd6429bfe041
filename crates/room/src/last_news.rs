//! In which rooms receipts are new, so that a `/sync` without news reads none.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use ruma::{OwnedRoomId, RoomId};

/// Rooms whose last receipt is known. Beyond that all are forgotten, and each is looked at once.
const MAX_ROOMS: usize = 20_000;

/// The position of the last receipt of each room.
#[derive(Clone)]
pub(super) struct Index(Arc<Mutex<State>>);

struct State {
    rooms: HashMap<OwnedRoomId, u64>,
    /// Rooms that are not listed have nothing newer.
    others: u64,
}

impl Index {
    pub fn new(position: u64) -> Self {
        Self(Arc::new(Mutex::new(State { rooms: HashMap::new(), others: position })))
    }

    pub fn note(&self, room_id: &RoomId, position: u64) {
        let mut state = self.lock();
        if state.rooms.len() >= MAX_ROOMS && !state.rooms.contains_key(room_id) {
            state.rooms.clear();
            state.others = position;
        }
        let known = state.rooms.entry(room_id.to_owned()).or_default();
        *known = position.max(*known);
    }

    /// Whether there may be receipts from after that position.
    pub fn may_have_news(&self, room_id: &RoomId, since: u64) -> bool {
        let state = self.lock();
        state.rooms.get(room_id).copied().unwrap_or(state.others) > since
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    #[test]
    fn no_news_is_missed_when_rooms_are_forgotten() {
        let (index, one) = (Index::new(5), room_id!("!one:x"));
        assert!(index.may_have_news(one, 4) && !index.may_have_news(one, 5));
        index.note(one, 7);
        assert!(index.may_have_news(one, 6) && !index.may_have_news(one, 7));
        for n in 0..MAX_ROOMS {
            index.note(&RoomId::parse(format!("!r{n}:x")).unwrap(), 8);
        }
        assert!(index.may_have_news(one, 7) && !index.may_have_news(one, 8));
        assert!(index.lock().rooms.len() <= MAX_ROOMS);
    }
}
