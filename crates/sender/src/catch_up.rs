//! What a server that is away for long is sent when it is back: of each room what it missed first,
//! up to a bound, and then the newest event, from which it can ask for what lies between.
//!
//! | Ephemeral items | Once the outage is long |
//! |---|---|
//! | `m.typing`, `m.presence` | go |
//! | `m.direct_to_device`, `m.device_list_update`, `m.signing_key_update` | stay |
//! | `m.receipt`, and all others | go when they are a day old, at two days the latest |
//!
//! Of those that stay there are 10,000 at most.

use std::collections::{BTreeMap, BTreeSet};

use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, ServerName, UserId};
use exeunt_store::records::OutboxItem;
use exeunt_store::tables::{Events, JoinedServers, Outbox};
use exeunt_store::{Batch, Reader, Store, StoreError, Table};
use serde::Deserialize;
use serde_json::Value;

/// A server that has failed for this long (an hour) has its queue kept within bounds.
pub const LONG_OUTAGE_MS: u64 = 3_600_000;
/// Events of one room that wait for such a server, beside the newest one.
pub const MAX_MISSED_PER_ROOM: usize = 200;
/// Ephemeral items that wait for such a server; beyond that the oldest go.
pub const MAX_MISSED_EDUS: usize = 10_000;

/// For how long an ephemeral item waits at least that is neither momentary nor to last.
pub const EDU_LIFE_MS: u64 = 24 * 3_600_000;

/// Ephemeral items that say nothing once their moment has passed.
const MOMENTARY: [&str; 2] = ["m.typing", "m.presence"];
/// Those without which encryption fails, and which nobody sends again.
const LASTING: [&str; 3] = ["m.direct_to_device", "m.device_list_update", "m.signing_key_update"];

/// Takes what is too much out of the queue of a server. What is `under_way` stays. Rows up to the
/// position `old` are as old as ephemeral items may become.
///
/// Never taken: member events of users of that server, for nobody else will tell it of a withdrawn
/// invite; and events of rooms that we have left. Our last leave is among those and follows the
/// others, which nobody could ask us for any more. There will be no more of them.
pub(crate) async fn trim(
    store: &Store,
    server: &OwnedServerName,
    ours: &OwnedServerName,
    under_way: &[u64],
    old: u64,
) -> Result<usize, StoreError> {
    let (key, ours) = (server.clone(), ours.clone());
    let under_way: BTreeSet<_> = under_way.iter().copied().collect();
    let drop = store.read(move |r| superfluous(r, &key, &ours, &under_way, old)).await?;
    if drop.is_empty() {
        return Ok(0);
    }
    let mut batch = Batch::default();
    for position in &drop {
        batch.delete::<Outbox>(&(server.clone(), *position));
    }
    store.commit(batch).await?;
    Ok(drop.len())
}

/// The rows of a room so far.
#[derive(Default)]
struct Missed {
    resident: bool,
    count: usize,
    /// The newest row beyond the bound.
    newest: Option<u64>,
}

fn superfluous(
    r: &Reader<'_>,
    server: &OwnedServerName,
    ours: &OwnedServerName,
    under_way: &BTreeSet<u64>,
    old: u64,
) -> Result<Vec<u64>, StoreError> {
    let mut drop = Vec::new();
    let mut rooms: BTreeMap<OwnedRoomId, Missed> = BTreeMap::new();
    let mut edus = Vec::new();
    for row in r.scan::<Outbox>(server.clone()).iter() {
        let ((_, position), item) = row?;
        if under_way.contains(&position) {
            continue;
        }
        let event = match item {
            OutboxItem::Pdu(event) => event,
            OutboxItem::Edu(edu) => {
                let kind = edu.get("edu_type").and_then(Value::as_str).unwrap_or_default();
                let is_old = position <= old && !LASTING.contains(&kind);
                if is_old || MOMENTARY.contains(&kind) {
                    drop.push(position)
                } else {
                    edus.push(position)
                }
                continue;
            }
        };
        let Some((room, brief)) = event_of(r, &event)? else {
            drop.push(position);
            continue;
        };
        if brief.is_membership_at(server) {
            continue;
        }
        let missed = match rooms.get_mut(&room) {
            Some(missed) => missed,
            None => {
                let resident = r.contains::<JoinedServers>(&(room.clone(), ours.clone()))?;
                rooms.entry(room).or_insert(Missed { resident, ..Missed::default() })
            }
        };
        missed.count += 1;
        if missed.resident && missed.count > MAX_MISSED_PER_ROOM {
            drop.extend(missed.newest.replace(position));
        }
    }
    let excess = edus.len().saturating_sub(MAX_MISSED_EDUS);
    drop.extend(edus.into_iter().take(excess));
    Ok(drop)
}

/// What of an event decides whether it waits.
#[derive(Deserialize)]
struct Brief {
    #[serde(rename = "type", default)]
    kind: String,
    state_key: Option<String>,
}

impl Brief {
    fn is_membership_at(&self, server: &ServerName) -> bool {
        let target = self.state_key.as_deref().and_then(|key| <&UserId>::try_from(key).ok());
        self.kind == "m.room.member" && target.is_some_and(|user| user.server_name() == server)
    }
}

fn event_of(r: &Reader<'_>, id: &OwnedEventId) -> Result<Option<(OwnedRoomId, Brief)>, StoreError> {
    let Some(record) = r.get::<Events>(id)? else { return Ok(None) };
    let brief = serde_json::from_str(record.json.get())
        .map_err(|_| StoreError::Corrupt { table: Events::NAME, key: id.to_string() })?;
    Ok(Some((record.room_id, brief)))
}
