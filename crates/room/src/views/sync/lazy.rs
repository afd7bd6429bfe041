//! Which member events a device has, under lazy loading, so that none is told twice.
//!
//! Specification: client-server API, "Lazy-loading room members". A client may lose an answer and
//! ask again, or sync twice over with one device. So what an answer told counts only for the
//! request that brings this answer's token; a request that brings another one begins anew.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ruma::{EventId, OwnedDeviceId, OwnedEventId, OwnedUserId};

/// Member events that are remembered. Beyond that all are forgotten, and told again.
const MAX_TOLD: usize = 50_000;

type Device = (OwnedUserId, OwnedDeviceId);

/// What all devices have. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct LazyMembers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    devices: HashMap<Device, Chain>,
    told: usize,
}

/// The last answer to a device, and what it has by then.
struct Chain {
    since: u64,
    next: u64,
    told: Told,
}

/// Member events, with the position of the answer that told them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told(Arc<HashMap<OwnedEventId, u64>>);

impl Told {
    pub fn has(&self, event_id: &EventId) -> bool {
        self.0.contains_key(event_id)
    }
}

impl LazyMembers {
    /// What a device has that brings this token.
    pub fn told(&self, device: &Device, since: u64) -> Told {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(chain) = state.devices.get_mut(device) else { return Told::default() };
        let before = chain.told.0.len();
        if since != chain.next {
            // The last answer is lost, or this is not its successor.
            let again = since == chain.since;
            Arc::make_mut(&mut chain.told.0).retain(|_, told_at| again && *told_at <= since);
        }
        state.told -= before - chain.told.0.len();
        chain.told.clone()
    }

    /// What is told to a device with the token `next`.
    pub fn note(&self, device: &Device, since: u64, next: u64, told: Vec<OwnedEventId>) {
        let mut state = self.lock();
        if state.told + told.len() > MAX_TOLD {
            *state = State::default();
        }
        let state = &mut *state;
        let new = || Chain { since, next, told: Told::default() };
        let chain = state.devices.entry(device.clone()).or_insert_with(new);
        (chain.since, chain.next) = (since, next);
        if told.is_empty() {
            return;
        }
        let before = chain.told.0.len();
        let known = Arc::make_mut(&mut chain.told.0);
        for event_id in told {
            known.entry(event_id).or_insert(next);
        }
        state.told += known.len() - before;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_event_id, owned_user_id};

    use super::*;

    #[test]
    fn what_was_told_counts_for_who_brings_the_token() {
        let (members, device) = (LazyMembers::default(), (owned_user_id!("@a:x"), "D".into()));
        let (one, two) = (owned_event_id!("$one"), owned_event_id!("$two"));
        let has = |since| {
            let told = members.told(&device, since);
            (told.has(&one), told.has(&two))
        };
        assert_eq!(has(0), (false, false));
        members.note(&device, 0, 5, vec![one.clone()]);
        assert_eq!(has(5), (true, false));
        members.note(&device, 5, 8, vec![two.clone()]);
        assert_eq!(has(8), (true, true));
        // The answer with the token 8 is lost.
        assert_eq!(has(5), (true, false));
        members.note(&device, 5, 9, vec![two.clone()]);
        assert_eq!(has(9), (true, true));
        // Somebody else with the same device.
        assert_eq!(has(7), (false, false));
        assert_eq!(has(9), (false, false));
    }

    #[test]
    fn it_is_bounded() {
        let members = LazyMembers::default();
        for n in 0..300 {
            let device = (owned_user_id!("@a:x"), format!("D{n}").into());
            let told = (0..200).map(|m| EventId::parse(format!("${m}")).unwrap()).collect();
            members.note(&device, 0, 1, told);
            let state = members.lock();
            let kept: usize = state.devices.values().map(|chain| chain.told.0.len()).sum();
            assert!(kept == state.told && kept <= MAX_TOLD);
        }
    }
}
