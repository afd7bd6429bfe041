//! Random rooms, resolved by us and by ruma, and by us in two ways.
//!
//! `EXEUNT_GRAPHS` sets how many rooms are made, `EXEUNT_SEED` where the seeds start. A failure
//! names its seed.

mod support;

use exeunt_core::{Pdu, RoomVersion};
use exeunt_state_res::{EventSource, LookupError, ResolveError, resolve};
use ruma::{EventId, OwnedEventId};
use support::random_room::{Room, State};
use support::room::ALL;
use support::version;

const EVENTS: usize = 40;

/// Names the seed when a case panics.
struct Seed(u64, RoomVersion);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("EXEUNT_SEED={} EXEUNT_GRAPHS=1, room version {}", self.0, self.1);
        }
    }
}

fn number_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn make(seed: u64) -> Room {
    let version = version(ALL[(seed % ALL.len() as u64) as usize]);
    let _seed = Seed(seed, version);
    let mut room = Room::new(version, seed);
    for _ in 0..EVENTS {
        room.step();
    }
    room
}

/// CVE-2022-31152.
#[test]
fn agrees_with_ruma() {
    let first = number_from_env("EXEUNT_SEED", 0);
    let count = number_from_env("EXEUNT_GRAPHS", 504);
    let (mut conflicts, mut events) = (0, 0);
    for seed in first..first + count {
        let mut room = make(seed);
        let _seed = Seed(seed, room.version);
        events += room.accepted.len();
        conflicts += room.compare_distant();
    }
    // The rooms are worth resolving: most events are allowed somewhere, and states differ.
    let count = count as usize;
    assert!(events > count * 12, "{events} events in {count} rooms");
    assert!(conflicts > count * 3, "{conflicts} conflicts in {count} rooms");
}

#[test]
fn a_missing_event_is_an_error_and_not_a_guess() {
    let mut missing = 0;
    for seed in 0..20 {
        let mut room = make(seed);
        let last =
            |room: &Room, back| room.after[&room.accepted[room.accepted.len() - back]].clone();
        let sets = [last(&room, 1), last(&room, 4)];
        let whole = resolve(room.version, &sets, &room.index).expect("resolves");
        let ids: Vec<OwnedEventId> = room.index.events.keys().cloned().collect();
        for id in ids {
            let kept = room.index.events.remove(&id).expect("there");
            match resolve(room.version, &sets, &room.index) {
                Ok(state) => assert_eq!(state, whole, "the same without an event not needed"),
                Err(error) => {
                    assert_eq!(error, ResolveError::Missing(id.clone()));
                    missing += 1;
                }
            }
            room.index.events.insert(id, kept);
        }
    }
    assert!(missing > 0);
}

#[test]
fn a_failed_lookup_is_passed_on() {
    struct Broken(LookupError);
    impl EventSource for Broken {
        fn event(&self, _: &EventId) -> Result<Option<Pdu>, LookupError> {
            Err(self.0.clone())
        }
        fn rejected(&self, _: &EventId) -> Result<bool, LookupError> {
            Err(self.0.clone())
        }
    }
    let room = make(3);
    let sets: Vec<State> = room.after.values().cloned().collect();
    let error = LookupError::new("the disk is gone");
    let result = resolve(room.version, &sets, &Broken(error.clone()));
    assert_eq!(result, Err(ResolveError::Lookup(error)));
}

#[test]
fn states_that_agree_need_no_events() {
    let room = make(7);
    let state = room.after[room.accepted.last().expect("events")].clone();
    struct Nothing;
    impl EventSource for Nothing {
        fn event(&self, _: &EventId) -> Result<Option<Pdu>, LookupError> {
            Ok(None)
        }
        fn rejected(&self, _: &EventId) -> Result<bool, LookupError> {
            Ok(false)
        }
    }
    let sets = [state.clone(), state.clone()];
    assert_eq!(resolve(room.version, &sets, &Nothing), Ok(state));
    assert_eq!(resolve(room.version, &[], &Nothing), Ok(State::new()));
}
