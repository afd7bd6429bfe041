//! Events of a room that we are in no more, from a server that sends them to us because it takes a
//! user of ours for joined: it may have lost the leave. It is offered the leave once more (pains
//! C1).

use std::{collections::BTreeMap, sync::Mutex};

use exeunt_core::{Object, pdu::MAX_AUTH_EVENTS};
use exeunt_store::{Batch, Reader, records::DepartureRecord, tables};
use ruma::{EventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde_json::Value;

use crate::{
    RoomError, Rooms,
    graph::{is_joined, load_event},
    leave::last_line,
    place::Placement,
};

/// How old a leave is that a server may be supposed to have, in milliseconds.
pub const LEAVE_ARRIVES_WITHIN_MS: u64 = 5 * 60_000;
/// A server is asked about a room once in this time, in milliseconds.
pub const ASKED_AGAIN_AFTER_MS: u64 = 60 * 60_000;
/// Most users whose leaves it is offered at a time.
const MAX_LEAVES: usize = 16;
/// Most pairs of room and server that are remembered. Beyond that nobody is asked for a while.
const MAX_ASKED: usize = 1_000;

/// When which server was asked about which room.
#[derive(Default)]
pub(crate) struct Strays(Mutex<BTreeMap<(OwnedRoomId, OwnedServerName), u64>>);

impl Strays {
    /// Whether the server may be asked about the room now.
    fn begin(&self, room_id: &OwnedRoomId, server: &OwnedServerName, now: u64) -> bool {
        let mut asked = self.0.lock().unwrap_or_else(|e| e.into_inner());
        asked.retain(|_, at| now < *at + ASKED_AGAIN_AFTER_MS);
        let key = (room_id.clone(), server.clone());
        let may = asked.len() < MAX_ASKED && !asked.contains_key(&key);
        if may {
            asked.insert(key, now);
        }
        may
    }
}

impl Rooms {
    /// Queues the leaves of our users as departures to a server that sends an event of a room that
    /// all of them have left. It was in the room with us, or knows what the room rests on: others
    /// may have let it in before they had the leaves. Whoever else is owed nothing.
    pub(super) async fn offer_leaves(
        &self,
        origin: &OwnedServerName,
        room_id: &OwnedRoomId,
        event: Object,
    ) -> Result<(), RoomError> {
        let now = self.now();
        let (server, room, ours) = (origin.clone(), room_id.clone(), self.server_name().to_owned());
        let read = self.store().read(move |reader| {
            let is_known =
                is_joined(reader, &room, &server)? || rests_on_room(reader, &room, &event)?;
            if is_joined(reader, &room, &ours)? || !is_known {
                return Ok(Vec::new());
            }
            leaves(reader, &room, &server, now)
        });
        let leaves = read.await?;
        if leaves.is_empty() || !self.inner.strays.begin(room_id, origin, now) {
            return Ok(());
        }
        tracing::info!(%origin, %room_id, users = leaves.len(), "offers leaves once more");
        let guard = self.inner.locks.lock(room_id).await;
        let mut batch = Batch::default();
        for (user, departure) in leaves {
            batch.put::<tables::Departures>(&(user, room_id.clone()), &departure);
        }
        self.commit(&guard, Placement::only(batch)).await?;
        self.inner.wake.departure_queued();
        Ok(())
    }
}

/// Whether an event, which nobody has checked, names an event of the room among its auth events.
fn rests_on_room(
    reader: &Reader<'_>,
    room_id: &OwnedRoomId,
    event: &Object,
) -> Result<bool, RoomError> {
    let named = event.get("auth_events").and_then(Value::as_array).into_iter().flatten();
    // With a hash in room versions 1 and 2.
    let ids = named.filter_map(|named| named.as_str().or_else(|| named.get(0)?.as_str()));
    for id in ids.filter_map(|id| <&EventId>::try_from(id).ok()).take(MAX_AUTH_EVENTS) {
        if load_event(reader, id)?.is_some_and(|known| known.pdu.room_id() == room_id) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The users who have left the room by their own word, of which there is no doubt any more.
fn leaves(
    reader: &Reader<'_>,
    room_id: &OwnedRoomId,
    server: &OwnedServerName,
    now: u64,
) -> Result<Vec<(OwnedUserId, DepartureRecord)>, RoomError> {
    let mut leaves = Vec::new();
    for row in reader.scan::<tables::LocalMembers>(room_id.clone()).iter() {
        let ((_, user), membership) = row?;
        if leaves.len() >= MAX_LEAVES {
            break;
        }
        let key = (user, room_id.clone());
        if membership != "leave" || reader.contains::<tables::Departures>(&key)? {
            continue;
        }
        let row = reader.get::<tables::Memberships>(&key)?;
        let Some(row) = row.filter(|row| row.sender == key.0) else { continue };
        let Some(leave) = load_event(reader, &row.event_id)? else { continue };
        let left_at = last_line(reader, &key.0, room_id)?.map_or(0, |(_, line)| line.at);
        if left_at + LEAVE_ARRIVES_WITHIN_MS <= now {
            let departure = DepartureRecord::of_leave(&leave.pdu, left_at, server, now);
            leaves.push((key.0, departure));
        }
    }
    Ok(leaves)
}
