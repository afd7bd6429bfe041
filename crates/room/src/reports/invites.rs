//! Invites of our users that wait for an answer.

use std::collections::BTreeMap;

use exeunt_core::PendingMembership;
use exeunt_store::{Reader, StoreError, tables};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, ServerName};
use serde::{Deserialize, Serialize};

use super::MAX_ROWS;
use crate::inbound::{counts, pending_id};

/// A pending invite (or knock) to a room that we do not reside in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invite {
    pub user_id: OwnedUserId,
    pub room_id: OwnedRoomId,
    /// `invite` or `knock`.
    pub membership: String,
    pub sender: OwnedUserId,
    pub room_version: String,
    pub delivered_by: Option<OwnedServerName>,
    /// Milliseconds since the epoch, as all times here.
    pub received_at: u64,
    /// Since when (at the earliest) somebody says that the invite is withdrawn, who cannot be seen
    /// to have the right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubted_since: Option<u64>,
    /// Since when the inviter's server has not been reached, if it is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable_since: Option<u64>,
}

/// Pending invites and knocks by user and room, from (and without) `after`; `now` in milliseconds
/// since the epoch.
pub fn invites(
    reader: &Reader<'_>,
    after: Option<(OwnedUserId, OwnedRoomId)>,
    now: u64,
) -> Result<Vec<Invite>, StoreError> {
    Ok(pending(reader, after, now)?.into_iter().map(|(invite, _)| invite).collect())
}

/// The same, each with what is held of it.
pub(crate) fn pending(
    reader: &Reader<'_>,
    after: Option<(OwnedUserId, OwnedRoomId)>,
    now: u64,
) -> Result<Vec<(Invite, PendingMembership)>, StoreError> {
    let scan = reader.scan::<tables::Pending>(()).limit(MAX_ROWS);
    let scan = match after {
        Some(after) => scan.after(after),
        None => scan,
    };
    let doubts = doubts(reader, now)?;
    let mut invites = Vec::new();
    for row in scan.iter() {
        let ((user_id, room_id), pending) = row?;
        let unreachable_since = match &pending.delivered_by {
            Some(server) => failing_since(reader, server)?,
            None => failing_since(reader, pending.sender.server_name())?,
        };
        let doubted_since = doubts.get(&(user_id.clone(), room_id.clone())).copied();
        let invite = Invite {
            doubted_since,
            user_id,
            room_id,
            membership: pending.membership.clone(),
            sender: pending.sender.clone(),
            room_version: pending.room_version.clone(),
            delivered_by: pending.delivered_by.clone(),
            received_at: pending.received_at,
            unreachable_since,
        };
        invites.push((invite, pending));
    }
    Ok(invites)
}

/// Since when withdrawals are kept that nobody could act on, by user and room.
fn doubts(
    reader: &Reader<'_>,
    now: u64,
) -> Result<BTreeMap<(OwnedUserId, OwnedRoomId), u64>, StoreError> {
    let mut doubts = BTreeMap::new();
    for row in reader.scan::<tables::Withdrawals>(()).iter() {
        let ((_, user_id, room_id), record) = row?;
        let pending = pending_id(reader, &user_id, &room_id)?;
        let counted = record.events.iter().filter(|held| counts(held, pending.as_ref(), now));
        if let Some(at) = counted.map(|held| held.at).min() {
            let since = doubts.entry((user_id, room_id)).or_insert(at);
            *since = at.min(*since);
        }
    }
    Ok(doubts)
}

fn failing_since(reader: &Reader<'_>, server: &ServerName) -> Result<Option<u64>, StoreError> {
    let record = reader.get::<tables::Destinations>(&server.to_owned())?;
    Ok(record.and_then(|record| record.failing_since))
}
