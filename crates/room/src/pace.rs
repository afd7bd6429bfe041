//! Rooms whose events take long to decide make a pause after each, as long as it took: what such a
//! room has of a core is half of it at most, and other rooms have the rest. Decision 0036.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ruma::{OwnedRoomId, RoomId};
use tokio::time::{Instant, sleep_until};

use crate::{Rooms, locks::RoomGuard};

/// An event that takes no longer is followed by the next one at once. Most take a millisecond.
const FREE: Duration = Duration::from_millis(20);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Most rooms that pause at a time; others do not.
const MAX_ROOMS: usize = 1_000;

/// When rooms may go on.
#[derive(Default)]
pub(crate) struct Pace(Mutex<BTreeMap<OwnedRoomId, Instant>>);

impl Pace {
    /// An event of the room took that long, until now.
    pub fn note(&self, room_id: &RoomId, took: Duration, now: Instant) {
        if took <= FREE {
            return;
        }
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rooms.len() >= MAX_ROOMS {
            rooms.retain(|_, until| *until > now);
        }
        if rooms.len() < MAX_ROOMS {
            rooms.insert(room_id.to_owned(), now + took.min(MAX_PAUSE));
        }
    }

    fn pause(&self, room_id: &RoomId, now: Instant) -> Option<Instant> {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = *rooms.get(room_id)?;
        if until <= now {
            rooms.remove(room_id);
            return None;
        }
        Some(until)
    }
}

impl Rooms {
    /// The room's lock for an event of another server, once the room does not pause. Local users
    /// do not wait.
    pub(crate) async fn turn(&self, room_id: &RoomId) -> RoomGuard {
        loop {
            self.pause(room_id).await;
            let guard = self.inner.locks.lock(room_id).await;
            if self.inner.pace.pause(room_id, Instant::now()).is_none() {
                return guard;
            }
        }
    }

    /// Waits until the room does not pause.
    pub(crate) async fn pause(&self, room_id: &RoomId) {
        while let Some(until) = self.inner.pace.pause(room_id, Instant::now()) {
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    #[test]
    fn a_room_pauses_for_as_long_as_its_event_took() {
        let (pace, now) = (Pace::default(), Instant::now());
        let (slow, quick) = (room_id!("!slow:x"), room_id!("!quick:x"));
        pace.note(slow, FREE * 3, now);
        pace.note(quick, FREE, now);
        assert_eq!(pace.pause(slow, now), Some(now + FREE * 3));
        assert_eq!(pace.pause(quick, now), None);
        assert_eq!(pace.pause(slow, now + FREE * 3), None);
        pace.note(slow, MAX_PAUSE * 2, now);
        assert_eq!(pace.pause(slow, now), Some(now + MAX_PAUSE));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (pace, now) = (Pace::default(), Instant::now());
        let rooms: Vec<_> =
            (0..=MAX_ROOMS).map(|i| RoomId::parse(format!("!{i}:x")).unwrap()).collect();
        rooms.iter().for_each(|room| pace.note(room, FREE * 2, now));
        assert!(pace.pause(&rooms[0], now).is_some());
        assert!(pace.pause(&rooms[MAX_ROOMS], now).is_none());
        pace.note(&rooms[MAX_ROOMS], FREE * 2, now + FREE * 2);
        assert!(pace.pause(&rooms[MAX_ROOMS], now + FREE * 2).is_some());
    }
}
