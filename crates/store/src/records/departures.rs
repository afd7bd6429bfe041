//! Departures that have yet to reach their rooms, and those from everywhere.

use exeunt_core::{Pdu, PendingMembership};
use ruma::{OwnedRoomId, OwnedServerName};
use serde::{Deserialize, Serialize};

/// A departure (rejection, leave or knock retraction) that has yet to reach the room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DepartureRecord {
    pub pending: PendingMembership,
    pub reason: Option<String>,
    /// Milliseconds since the epoch.
    pub departed_at: u64,
    pub attempts: u32,
    /// Not before this time (ms), unless a candidate shows life.
    pub retry_at: u64,
    /// What each server said when it was asked last.
    pub last: Vec<AttemptRecord>,
    /// Whom to ask, in order. Empty in rows of before: `pending` tells then.
    #[serde(default)]
    pub candidates: Vec<OwnedServerName>,
}

impl DepartureRecord {
    /// The leave of a user of ours, which is in our graph, for a server that does not have it.
    pub fn of_leave(leave: &Pdu, left_at: u64, server: &OwnedServerName, now: u64) -> Self {
        let pending = PendingMembership {
            membership: "join".into(),
            delivered_by: Some(server.clone()),
            ..PendingMembership::of(leave.sender(), leave, left_at)
        };
        Self {
            pending,
            reason: None,
            departed_at: now,
            attempts: 0,
            retry_at: now,
            last: Vec::new(),
            candidates: vec![server.clone()],
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    pub server: OwnedServerName,
    pub outcome: String,
    /// Milliseconds since the epoch.
    #[serde(default)]
    pub at: u64,
}

/// The departure of a user from everywhere: rooms, invites, knocks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepartureJobRecord {
    /// Milliseconds since the epoch.
    pub started_at: u64,
    pub finished_at: Option<u64>,
    /// Rooms, invites and knocks, as far as they are known.
    pub total: u64,
    pub done: u64,
    /// How each one ended.
    pub results: Vec<DepartureResult>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepartureResult {
    pub room_id: OwnedRoomId,
    /// What the user was there.
    pub membership: String,
    pub ended: DepartureEnd,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "why")]
pub enum DepartureEnd {
    /// Not yet.
    Waiting,
    /// The leave is in our graph, or a server of the room has it, or there is nobody to tell.
    Left,
    /// The user is out here; the leave waits for a server of the room.
    Queued,
    Failed(String),
}

/// The schedule of a departure that has been tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepartureRetryRecord {
    /// Which departure of (user, room): a later one starts afresh.
    pub departed_at: u64,
    pub attempts: u32,
    pub tried_at: u64,
    pub retry_at: u64,
}
