//! When queued events whose gap nobody filled are tried again, and rooms whose work failed: after
//! a rest that grows, and sooner where there is hope.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use tokio::time::Instant;

/// Most times that a queued event is tried: with the rests between, for some minutes.
pub const MAX_TRIES: u32 = 5;
/// Rest after the first try. Each further one doubles it.
pub const FIRST_REST: Duration = Duration::from_secs(30);
/// Shortest rest, whatever hope there is.
const MIN_REST: Duration = Duration::from_secs(10);
/// Pause after the work on a room failed here. Each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause.
const MAX_PAUSE: Duration = Duration::from_secs(64);

/// A row of the queue.
pub(super) type RowKey = (OwnedRoomId, u64, u64);

/// What rests. Not durable: after a start everything is tried.
#[derive(Default)]
pub(super) struct Rests(Mutex<State>);

#[derive(Default)]
struct State {
    /// Events that were tried in vain. No more than wait in all.
    events: BTreeMap<RowKey, Rest>,
    /// Times at which somebody looks at a room.
    alarms: BTreeMap<OwnedRoomId, Instant>,
    /// Failures in a row, of rooms that have some.
    failures: BTreeMap<OwnedRoomId, u32>,
}

/// The rest of an event.
#[derive(Clone)]
pub(super) struct Rest {
    pub origin: OwnedServerName,
    since: Instant,
    pub until: Instant,
}

impl Rests {
    /// An event was tried in vain, for the time given by `tries`.
    pub fn begin(&self, key: RowKey, origin: OwnedServerName, tries: u32, now: Instant) {
        let length = FIRST_REST * 2u32.saturating_pow(tries.saturating_sub(1).min(MAX_TRIES));
        let rest = Rest { origin, since: now, until: now + length };
        self.state().events.insert(key, rest);
    }

    /// An event waits no more.
    pub fn end(&self, key: &RowKey) {
        self.state().events.remove(key);
    }

    /// The events of a room that were tried in vain.
    pub fn of_room(&self, room_id: &RoomId) -> BTreeMap<RowKey, Rest> {
        let state = self.state();
        let rows = state.events.range((room_id.to_owned(), 0, 0)..);
        rows.take_while(|((room, ..), _)| room == room_id)
            .map(|(key, rest)| (key.clone(), rest.clone()))
            .collect()
    }

    /// There is hope for what `origin` sent, and for the events of some rooms. Gives the rooms
    /// concerned, with the time at which to look at them.
    pub fn stir(
        &self,
        origin: &ServerName,
        rooms: &BTreeSet<OwnedRoomId>,
        now: Instant,
    ) -> BTreeMap<OwnedRoomId, Instant> {
        let mut stirred = BTreeMap::new();
        for ((room_id, ..), rest) in &mut self.state().events {
            if rest.origin == origin || rooms.contains(room_id) {
                rest.until = rest.until.min(now.max(rest.since + MIN_REST));
                let first = stirred.entry(room_id.clone()).or_insert(rest.until);
                *first = rest.until.min(*first);
            }
        }
        stirred
    }

    /// The work on a room failed: the pause before it goes on.
    pub fn fail(&self, room_id: &RoomId) -> Duration {
        let mut state = self.state();
        let failures = state.failures.entry(room_id.to_owned()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(*failures)).min(MAX_PAUSE);
        *failures += 1;
        pause
    }

    /// The work on a room goes on.
    pub fn recover(&self, room_id: &RoomId) {
        self.state().failures.remove(room_id);
    }

    /// Sets a room's alarm. `false` if it goes off before that time anyway.
    pub fn set_alarm(&self, room_id: &RoomId, at: Instant) -> bool {
        let mut state = self.state();
        if state.alarms.get(room_id).is_some_and(|set| *set <= at) {
            return false;
        }
        state.alarms.insert(room_id.to_owned(), at);
        true
    }

    /// The alarm of that time goes off. `false` if there is an earlier one instead.
    pub fn take_alarm(&self, room_id: &RoomId, at: Instant) -> bool {
        let mut state = self.state();
        let is_set = state.alarms.get(room_id) == Some(&at);
        if is_set {
            state.alarms.remove(room_id);
        }
        is_set
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, owned_server_name, server_name};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rests_grow_and_hope_shortens_them() {
        let (rests, now) = (Rests::default(), Instant::now());
        let (room, origin) = (owned_room_id!("!a:x"), owned_server_name!("x"));
        let key = (room.clone(), 1, 0);
        let until = |rests: &Rests| rests.of_room(&room)[&key].until - now;
        rests.begin(key.clone(), origin.clone(), 1, now);
        assert_eq!(until(&rests), FIRST_REST);
        rests.begin(key.clone(), origin.clone(), 3, now);
        assert_eq!(until(&rests), FIRST_REST * 4);
        assert!(rests.stir(server_name!("y"), &BTreeSet::new(), now).is_empty());
        assert_eq!(until(&rests), FIRST_REST * 4);
        let stirred = rests.stir(&origin, &BTreeSet::new(), now);
        assert_eq!(stirred, [(room.clone(), now + MIN_REST)].into());
        assert_eq!(until(&rests), MIN_REST);
        let late = now + FIRST_REST;
        rests.begin(key.clone(), origin, 3, now);
        let stirred = rests.stir(server_name!("y"), &[room.clone()].into(), late);
        assert_eq!(stirred, [(room.clone(), late)].into());
        rests.end(&key);
        assert!(rests.of_room(&room).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_alarm_counts() {
        let (rests, room, now) = (Rests::default(), owned_room_id!("!a:x"), Instant::now());
        let (soon, later) = (now + FIRST_PAUSE, now + MAX_PAUSE);
        assert!(rests.set_alarm(&room, later));
        assert!(!rests.set_alarm(&room, later));
        assert!(rests.set_alarm(&room, soon));
        assert!(!rests.set_alarm(&room, later));
        assert!(!rests.take_alarm(&room, later));
        assert!(rests.take_alarm(&room, soon));
        assert!(!rests.take_alarm(&room, soon));
    }

    #[test]
    fn pauses_are_bounded() {
        let (rests, room) = (Rests::default(), owned_room_id!("!a:x"));
        let pauses: Vec<_> = (0..40).map(|_| rests.fail(&room)).collect();
        assert_eq!(pauses[..3], [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]);
        assert_eq!(pauses[39], MAX_PAUSE);
        rests.recover(&room);
        assert_eq!(rests.fail(&room), FIRST_PAUSE);
    }
}
