//! Keys of room state, and maps by them.

use std::collections::BTreeMap;

/// The key of a state event: its type and state key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKey {
    pub kind: String,
    pub key: String,
}

/// Room state, or any map by state key. Ordered, so that iteration never depends on chance.
pub type StateMap<T> = BTreeMap<StateKey, T>;

impl StateKey {
    pub fn new(kind: impl Into<String>, key: impl Into<String>) -> Self {
        Self { kind: kind.into(), key: key.into() }
    }

    /// The key of a state event of which a room has one, such as `m.room.create`.
    pub fn single(kind: &str) -> Self {
        Self::new(kind, "")
    }

    pub fn member(user: &ruma::UserId) -> Self {
        Self::new("m.room.member", user.as_str())
    }
}
