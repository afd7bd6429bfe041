//! Events of a room that we are in no more, from a server that sends them to us because it takes a
//! user of ours for joined: it may have lost the leave. It is offered the leave once more (pains
//! C1).

use std::{collections::BTreeMap, sync::Mutex};

use exeunt_core::{Object, Pdu, RoomVersion, pdu::MAX_AUTH_EVENTS};
use exeunt_store::{
    Batch, Reader,
    records::{DepartureRecord, MembershipRecord},
    tables,
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde_json::Value;

use crate::{
    RoomError, Rooms,
    forget::departed_at,
    graph::{is_joined, load_event},
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
    /// all of them have left. It was in the room with us, or knows what the room or a leave rests
    /// on: others may have let it in before they had the leaves. Whoever else is owed nothing.
    pub(super) async fn offer_leaves(
        &self,
        origin: &OwnedServerName,
        room_id: &OwnedRoomId,
        event: Object,
    ) -> Result<(), RoomError> {
        let now = self.now();
        let (server, room, ours) = (origin.clone(), room_id.clone(), self.server_name().to_owned());
        let read = self.store().read(move |reader| {
            if is_joined(reader, &room, &ours)? {
                return Ok(Vec::new());
            }
            let basis = auth_events(&event);
            let is_known = is_joined(reader, &room, &server)? || has_any(reader, &room, &basis)?;
            let is_owed =
                |leave: &Pdu| is_known || leave.auth_events().iter().any(|id| basis.contains(id));
            leaves(reader, &room, &server, now, is_owed)
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

/// The auth events that an event names, which nobody has checked.
fn auth_events(event: &Object) -> Vec<OwnedEventId> {
    let named = event.get("auth_events").and_then(Value::as_array).into_iter().flatten();
    // With a hash in room versions 1 and 2.
    let ids = named.filter_map(|named| named.as_str().or_else(|| named.get(0)?.as_str()));
    ids.filter_map(|id| OwnedEventId::try_from(id).ok()).take(MAX_AUTH_EVENTS).collect()
}

/// Whether one of these is an event of the room.
fn has_any(
    reader: &Reader<'_>,
    room_id: &OwnedRoomId,
    ids: &[OwnedEventId],
) -> Result<bool, RoomError> {
    for id in ids {
        if load_event(reader, id)?.is_some_and(|known| known.pdu.room_id() == room_id) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The users who have left the room by their own word, of which there is no doubt any more, by a
/// leave that the server is owed.
fn leaves(
    reader: &Reader<'_>,
    room_id: &OwnedRoomId,
    server: &OwnedServerName,
    now: u64,
    is_owed: impl Fn(&Pdu) -> bool,
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
        let Some(leave) = leave_of(reader, row)?.filter(&is_owed) else { continue };
        let left_at = departed_at(reader, &key)?;
        if left_at + LEAVE_ARRIVES_WITHIN_MS <= now {
            let departure = DepartureRecord::of_leave(&leave, left_at, server, now);
            leaves.push((key.0, departure));
        }
    }
    Ok(leaves)
}

/// The leave that was in the room's graph, be the room purged since.
fn leave_of(reader: &Reader<'_>, row: MembershipRecord) -> Result<Option<Pdu>, RoomError> {
    if let Some(known) = load_event(reader, &row.event_id)? {
        return Ok(Some(known.pdu));
    }
    let version = row.room_version.and_then(|version| RoomVersion::parse(&version).ok());
    Ok(version.zip(row.local_event).and_then(|(version, e)| Pdu::from_object(version, e).ok()))
}
