//! Which servers bring us events of servers that the room's ACL denies.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use metrics::counter;
use ruma::OwnedServerName;

use crate::Rooms;

/// Most servers that are counted.
const MAX_SERVERS: usize = 1_000;

/// Events since the start, by the server that relayed them.
#[derive(Default)]
pub(crate) struct Leaks(Mutex<BTreeMap<OwnedServerName, u64>>);

impl Leaks {
    pub fn note(&self, by: OwnedServerName) {
        let mut counts = self.lock();
        if counts.len() < MAX_SERVERS || counts.contains_key(&by) {
            counter!("exeunt_acl_leaks_total", "relay" => by.to_string()).increment(1);
            *counts.entry(by).or_default() += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OwnedServerName, u64>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Rooms {
    /// How many events of denied servers each server has relayed since the start. They are
    /// soft-failed.
    pub fn acl_leaks(&self) -> BTreeMap<OwnedServerName, u64> {
        self.inner.leaks.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_servers_are_counted_as_there_is_room_for() {
        let leaks = Leaks::default();
        let server = |n| OwnedServerName::try_from(format!("s{n}.example")).unwrap();
        for n in 0..MAX_SERVERS + 5 {
            leaks.note(server(n));
            leaks.note(server(0));
        }
        let counts = leaks.lock();
        assert_eq!(counts.len(), MAX_SERVERS);
        assert_eq!(counts[&server(0)], (MAX_SERVERS + 6) as u64);
    }
}
