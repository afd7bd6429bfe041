//! In which rooms something is new, so that a `/sync` reads no others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use exeunt_store::Batch;
use ruma::{OwnedRoomId, RoomId};

/// Rooms whose last news is known. Beyond that all are forgotten, and each is looked at once.
const MAX_ROOMS: usize = 20_000;

/// The position of the last news of each room.
#[derive(Clone)]
pub(crate) struct LastNews(Arc<Mutex<State>>);

struct State {
    rooms: HashMap<OwnedRoomId, u64>,
    /// Rooms that are not listed have nothing newer.
    others: u64,
}

impl LastNews {
    /// `position`: of the store at the start.
    pub fn new(position: u64) -> Self {
        Self(Arc::new(Mutex::new(State { rooms: HashMap::new(), others: position })))
    }

    /// The batch is news of the room. It is noted while the position is given out, so that no
    /// `/sync` passes it by.
    pub fn note_with(&self, batch: &mut Batch, room_id: &RoomId) {
        let (index, room_id) = (self.clone(), room_id.to_owned());
        batch.at_position(move |position, _| index.note(&room_id, position));
    }

    fn note(&self, room_id: &RoomId, position: u64) {
        let mut state = self.lock();
        if state.rooms.len() >= MAX_ROOMS && !state.rooms.contains_key(room_id) {
            state.rooms.clear();
            state.others = position;
        }
        let known = state.rooms.entry(room_id.to_owned()).or_default();
        *known = position.max(*known);
    }

    /// Whether there may be news from after that position.
    pub fn may_be_after(&self, since: u64, room_id: &RoomId) -> bool {
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
        let (index, one) = (LastNews::new(5), room_id!("!one:x"));
        assert!(index.may_be_after(4, one) && !index.may_be_after(5, one));
        index.note(one, 7);
        assert!(index.may_be_after(6, one) && !index.may_be_after(7, one));
        for n in 0..MAX_ROOMS {
            index.note(&RoomId::parse(format!("!r{n}:x")).unwrap(), 8);
        }
        assert!(index.may_be_after(7, one) && !index.may_be_after(8, one));
        assert!(index.lock().rooms.len() <= MAX_ROOMS);
    }
}
