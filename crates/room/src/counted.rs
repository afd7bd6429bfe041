//! Rooms with more heads than are resolved together: the states that have counted in a room's
//! current state, so that events upon them are not resolved with all of it again. Decision 0036.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use exeunt_store::records::Root;
use ruma::{OwnedRoomId, RoomId};

/// Most states that are remembered for a room, and most rooms. Beyond, all are forgotten: what it
/// costs is a resolution each.
const MAX_STATES: usize = 10_000;
const MAX_ROOMS: usize = 100;

#[derive(Default)]
pub(crate) struct Counted(Mutex<BTreeMap<OwnedRoomId, BTreeSet<Root>>>);

impl Counted {
    pub fn has(&self, room_id: &RoomId, state: Root) -> bool {
        self.rooms().get(room_id).is_some_and(|states| states.contains(&state))
    }

    /// Notes states that count from a commit on. None: the room has few heads, and needs no notes.
    pub fn note(&self, room_id: &RoomId, counted: Vec<Root>) {
        let mut rooms = self.rooms();
        if counted.is_empty() {
            rooms.remove(room_id);
            return;
        }
        if rooms.len() >= MAX_ROOMS && !rooms.contains_key(room_id) {
            rooms.clear();
        }
        let states = rooms.entry(room_id.to_owned()).or_default();
        if states.len() >= MAX_STATES {
            states.clear();
        }
        states.extend(counted);
    }

    fn rooms(&self) -> MutexGuard<'_, BTreeMap<OwnedRoomId, BTreeSet<Root>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    fn root(number: usize) -> Root {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Root(bytes)
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (counted, room) = (Counted::default(), room_id!("!a:x"));
        (0..=MAX_STATES).for_each(|number| counted.note(room, vec![root(number)]));
        assert!(counted.has(room, root(MAX_STATES)));
        assert!(!counted.has(room, root(0)));
        for number in 0..MAX_ROOMS {
            counted.note(&RoomId::parse(format!("!{number}:x")).unwrap(), vec![root(1)]);
        }
        assert!(!counted.has(room, root(MAX_STATES)));
    }

    #[test]
    fn a_room_with_few_heads_is_forgotten() {
        let (counted, room) = (Counted::default(), room_id!("!a:x"));
        counted.note(room, vec![root(1)]);
        assert!(!counted.has(room_id!("!b:x"), root(1)));
        counted.note(room, Vec::new());
        assert!(!counted.has(room, root(1)));
    }
}
