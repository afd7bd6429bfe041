//! Departures that no server has taken yet.

use exeunt_store::{
    Reader, StoreError,
    records::{AttemptRecord, DepartureRetryRecord},
    tables,
};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::Serialize;

/// A departure that waits, and what each server said so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Departure {
    pub user_id: OwnedUserId,
    pub room_id: OwnedRoomId,
    /// `invite` or `knock`: what the user turned down or took back.
    pub membership: String,
    /// Who invited, or the user who knocked.
    pub sender: OwnedUserId,
    pub delivered_by: Option<OwnedServerName>,
    pub reason: Option<String>,
    /// Milliseconds since the epoch, as all times here.
    pub departed_at: u64,
    pub attempts: u32,
    pub retry_at: u64,
    pub last: Vec<AttemptRecord>,
}

/// The departure outbox, by user and room.
pub fn departures(reader: &Reader<'_>) -> Result<Vec<Departure>, StoreError> {
    let describe = |row: Result<_, StoreError>| {
        let (key, record): (_, exeunt_store::records::DepartureRecord) = row?;
        let retry = reader.get::<tables::DepartureRetries>(&key)?;
        let retry = retry.filter(|retry| retry.departed_at == record.departed_at);
        let (user_id, room_id) = key;
        let (attempts, retry_at) = match retry {
            Some(DepartureRetryRecord { attempts, retry_at, .. }) => (attempts, retry_at),
            None => (record.attempts, record.retry_at),
        };
        Ok(Departure {
            user_id,
            room_id,
            membership: record.pending.membership,
            sender: record.pending.sender,
            delivered_by: record.pending.delivered_by,
            reason: record.reason,
            departed_at: record.departed_at,
            attempts,
            retry_at,
            last: record.last,
        })
    };
    reader.scan::<tables::Departures>(()).iter().map(describe).collect()
}
