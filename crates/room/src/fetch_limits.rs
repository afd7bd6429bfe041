//! What fetching may cost: a budget for each room and server whose events it is for, so that none
//! spends that of the others, and what is known to be nowhere.
//!
//! A peer can name events that do not exist for as long as it likes; what we do about them is
//! bounded here (pains.md, CY 26.9.1 and feature 14).

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};

/// Requests that the events of one server in one room may cost us in a window.
pub const MAX_REQUESTS_PER_WINDOW: u32 = 600;
/// Length of a window.
pub const WINDOW_MS: u64 = 60_000;
/// For how long an event that nobody had is not asked for again.
pub const ABSENT_MS: u64 = 60_000;
/// Most events that are remembered as absent.
pub const MAX_ABSENT: usize = 10_000;
/// Most budgets that are remembered.
const MAX_WINDOWS: usize = 10_000;

/// As what an event is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sought {
    /// As a part of history: whoever knows it without its place does not give it.
    History,
    /// By itself.
    Event,
}

/// Shared by all rooms. Times are milliseconds of the caller's clock.
#[derive(Default)]
pub(crate) struct FetchLimits(Mutex<State>);

#[derive(Default)]
struct State {
    absent: BTreeMap<(OwnedEventId, Sought), u64>,
    windows: BTreeMap<(OwnedRoomId, OwnedServerName), Window>,
}

struct Window {
    until: u64,
    left: u32,
}

impl FetchLimits {
    /// Takes one request out of the budget for the events of `origin` in the room, if there is
    /// one left.
    pub fn take(&self, room_id: &RoomId, origin: &ServerName, now: u64) -> bool {
        let key = (room_id.to_owned(), origin.to_owned());
        let mut state = self.state();
        if state.windows.len() >= MAX_WINDOWS {
            state.windows.retain(|_, window| window.until > now);
        }
        if state.windows.len() >= MAX_WINDOWS && !state.windows.contains_key(&key) {
            return false;
        }
        let fresh = || Window { until: now + WINDOW_MS, left: MAX_REQUESTS_PER_WINDOW };
        let window = state.windows.entry(key).or_insert_with(fresh);
        if window.until <= now {
            *window = fresh();
        }
        let allowed = window.left > 0;
        window.left = window.left.saturating_sub(1);
        allowed
    }

    /// Whether nobody had the event a short while ago.
    pub fn is_absent(&self, id: &EventId, sought: Sought, now: u64) -> bool {
        let key = (id.to_owned(), sought);
        self.state().absent.get(&key).is_some_and(|until| *until > now)
    }

    /// Notes that nobody has an event.
    pub fn note_absent(&self, id: OwnedEventId, sought: Sought, now: u64) {
        let mut state = self.state();
        if state.absent.len() >= MAX_ABSENT {
            state.absent.retain(|_, until| *until > now);
        }
        if state.absent.len() < MAX_ABSENT {
            state.absent.insert((id, sought), now + ABSENT_MS);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_event_id, room_id, server_name};

    use super::*;

    #[test]
    fn a_server_spends_its_own_budget_in_a_room_only() {
        let limits = FetchLimits::default();
        let (a, b) = (room_id!("!a:x"), room_id!("!b:x"));
        let (x, y) = (server_name!("x"), server_name!("y"));
        let granted = (0..MAX_REQUESTS_PER_WINDOW + 10).filter(|_| limits.take(a, x, 5)).count();
        assert_eq!(granted, MAX_REQUESTS_PER_WINDOW as usize);
        assert!(limits.take(b, x, 5));
        assert!(limits.take(a, y, 5));
        assert!(!limits.take(a, x, 4 + WINDOW_MS));
        assert!(limits.take(a, x, 5 + WINDOW_MS));
    }

    #[test]
    fn what_is_absent_is_asked_for_again_later() {
        let limits = FetchLimits::default();
        let id = owned_event_id!("$gone");
        assert!(!limits.is_absent(&id, Sought::Event, 5));
        limits.note_absent(id.clone(), Sought::Event, 5);
        assert!(limits.is_absent(&id, Sought::Event, 4 + ABSENT_MS));
        assert!(!limits.is_absent(&id, Sought::History, 5));
        assert!(!limits.is_absent(&id, Sought::Event, 5 + ABSENT_MS));
    }

    #[test]
    fn memory_is_bounded_and_recovers() {
        let limits = FetchLimits::default();
        for index in 0..MAX_ABSENT + 10 {
            let id = EventId::parse(format!("${index}")).unwrap();
            limits.note_absent(id, Sought::Event, 0);
        }
        assert_eq!(limits.state().absent.len(), MAX_ABSENT);
        limits.note_absent(owned_event_id!("$later"), Sought::Event, ABSENT_MS);
        assert_eq!(limits.state().absent.len(), 1);
        for index in 0..MAX_WINDOWS + 10 {
            limits.take(&RoomId::parse(format!("!{index}:x")).unwrap(), server_name!("x"), 0);
        }
        assert_eq!(limits.state().windows.len(), MAX_WINDOWS);
        assert!(limits.take(room_id!("!later:x"), server_name!("x"), WINDOW_MS));
    }
}
