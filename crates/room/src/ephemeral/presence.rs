//! Who is there: the table. Specification: client-server API, "Presence".

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use exeunt_core::Object;
use ruma::{OwnedUserId, UserId};
use serde_json::{Value, json};

use super::{Told, devices::Devices};

/// Users whose presence is kept.
pub const MAX_USERS: usize = 20_000;
/// The same of one server; of ours too.
pub const MAX_USERS_OF_SERVER: usize = 5_000;
/// When other servers are told again that a user is there. They forget it after a while: Synapse
/// after half an hour.
const TELL_AGAIN_MS: u64 = 25 * 60 * 1_000;
/// Longest status message.
pub const MAX_STATUS_BYTES: usize = 1_024;

/// Whether a user is there; the later, the more so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    #[default]
    Offline,
    Unavailable,
    Online,
}

impl Presence {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "online" => Some(Self::Online),
            "unavailable" => Some(Self::Unavailable),
            "offline" => Some(Self::Offline),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Unavailable => "unavailable",
            Self::Offline => "offline",
        }
    }
}

/// What is known of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub presence: Presence,
    pub status: Option<String>,
    /// Milliseconds since the epoch; `None` where another server does not say.
    pub active_at: Option<u64>,
    pub is_active: bool,
    /// Until when this holds, unless more is heard: milliseconds since the epoch.
    pub until: u64,
    /// Stream position of the last change.
    pub position: u64,
    /// Of a user of ours.
    pub told: Option<Told>,
    pub devices: Devices,
}

impl Entry {
    /// The content for clients and for other servers.
    pub fn content(&self, now: u64) -> Object {
        let mut content = Object::new();
        content.insert("presence".into(), self.presence.as_str().into());
        if let Some(at) = self.active_at {
            content.insert("last_active_ago".into(), now.saturating_sub(at).into());
        }
        if let Some(status) = &self.status {
            content.insert("status_msg".into(), status.clone().into());
        }
        content.insert("currently_active".into(), self.is_active.into());
        content
    }

    /// The same in an EDU.
    pub fn update(&self, user: &UserId, now: u64) -> Value {
        let mut update = self.content(now);
        update.insert("user_id".into(), user.as_str().into());
        update.into()
    }

    pub fn event(&self, user: &UserId, now: u64) -> Value {
        json!({ "type": "m.presence", "sender": user, "content": self.content(now) })
    }

    /// What clients see is another.
    pub fn differs(&self, other: &Self) -> bool {
        self.presence != other.presence
            || self.status != other.status
            || self.is_active != other.is_active
    }

    pub fn is_there(&self) -> bool {
        self.presence != Presence::Offline
    }

    /// When there is something to do: the user's time is up, or other servers are to be told again.
    pub fn due_at(&self) -> u64 {
        let told = self.told.map(|told| told.at.saturating_add(TELL_AGAIN_MS));
        told.map_or(self.until, |again| again.min(self.until))
    }
}

/// The presence of all users.
#[derive(Default, Clone)]
pub(super) struct Table(Arc<Mutex<BTreeMap<OwnedUserId, Entry>>>);

impl Table {
    pub fn get(&self, user: &UserId) -> Option<Entry> {
        self.lock().get(user).cloned()
    }

    /// A new entry may take the place of the one that has not changed for longest: of those of the
    /// same server if they are too many, else of all.
    pub fn put(&self, user: &UserId, entry: Entry) {
        let mut users = self.lock();
        if !users.contains_key(user) {
            let server = user.server_name();
            let of_server = users.keys().filter(|known| known.server_name() == server).count();
            let evicts = |known: &OwnedUserId| {
                of_server < MAX_USERS_OF_SERVER || known.server_name() == server
            };
            if of_server >= MAX_USERS_OF_SERVER || users.len() >= MAX_USERS {
                let candidates = users.iter().filter(|(known, _)| evicts(known));
                let oldest = candidates.min_by_key(|(_, entry)| entry.position);
                if let Some(oldest) = oldest.map(|(known, _)| known.clone()) {
                    users.remove(&oldest);
                }
            }
        }
        users.insert(user.to_owned(), entry);
    }

    /// Whether the user is there.
    pub fn has(&self, user: &UserId) -> bool {
        self.lock().get(user).is_some_and(Entry::is_there)
    }

    /// Whether any user of ours is there.
    pub fn has_ours(&self) -> bool {
        self.lock().values().any(|entry| entry.is_there() && entry.told.is_some())
    }

    /// The user of another server is seen again: nothing else changes.
    pub fn renew(&self, user: &UserId, active_at: Option<u64>, until: u64) {
        if let Some(entry) = self.lock().get_mut(user) {
            entry.active_at = active_at.or(entry.active_at);
            entry.until = entry.until.max(until);
        }
    }

    /// How many are wanted.
    pub fn count(&self, is_wanted: impl Fn(&UserId, &Entry) -> bool) -> usize {
        self.lock().iter().filter(|(user, entry)| is_wanted(user, entry)).count()
    }

    /// Those that are wanted.
    pub fn those(&self, is_wanted: impl Fn(&UserId, &Entry) -> bool) -> Vec<(OwnedUserId, Entry)> {
        let users = self.lock();
        let those = users.iter().filter(|(user, entry)| is_wanted(user, entry));
        those.map(|(user, entry)| (user.clone(), entry.clone())).collect()
    }

    /// Users for whom it is time, and when it is for the next one.
    pub fn due(&self, now: u64) -> (Vec<(OwnedUserId, Entry)>, Option<u64>) {
        let users = self.lock();
        let there = users.iter().filter(|(_, entry)| entry.is_there());
        let (due, others): (Vec<_>, Vec<_>) = there.partition(|(_, entry)| entry.due_at() <= now);
        let next = others.into_iter().map(|(_, entry)| entry.due_at()).min();
        (due.into_iter().map(|(user, entry)| (user.clone(), entry.clone())).collect(), next)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OwnedUserId, Entry>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_floods_nobody_elses_place() {
        let table = Table::default();
        let user = |n: usize, server: &str| UserId::parse(format!("@u{n}:{server}")).unwrap();
        table.put(&user(0, "good"), Entry { position: 1, ..Entry::default() });
        for n in 0..MAX_USERS_OF_SERVER + 10 {
            let position = 2 + n as u64;
            table.put(&user(n, "evil"), Entry { position, ..Entry::default() });
        }
        assert!(table.get(&user(0, "good")).is_some());
        assert!(table.get(&user(9, "evil")).is_none());
        assert!(table.get(&user(10, "evil")).is_some());
        assert_eq!(table.lock().len(), MAX_USERS_OF_SERVER + 1);
    }
}
