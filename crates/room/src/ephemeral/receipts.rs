//! Who has read what. Specification: client-server API, "Receipts"; MSC3771 (threads), MSC4102.

use std::collections::BTreeMap;

use exeunt_store::{Batch, Reader, Scan, StoreError, records::ReceiptRecord, tables};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};

use super::{Edu, event};
use crate::{RoomError, Rooms, graph::load_event};

/// Receipts of one user in one room, those of threads included. The oldest go.
pub const MAX_PER_USER: usize = 500;
/// Receipts of a room that one `/sync` tells, the newest first. Older ones are not told then.
pub const MAX_IN_SYNC: usize = 2_000;
/// Longest thread id.
pub const MAX_THREAD_BYTES: usize = 255;

/// Who is told of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptKind {
    Read,
    /// For the user's own devices only.
    Private,
}

impl ReceiptKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "m.read",
            Self::Private => "m.read.private",
        }
    }
}

/// A receipt, as a user sends it.
#[derive(Debug, Clone)]
pub struct Receipt {
    pub user: OwnedUserId,
    pub kind: ReceiptKind,
    pub event_id: OwnedEventId,
    /// `main`, or the thread's root; `None`: unthreaded.
    pub thread: Option<String>,
}

type Key = (OwnedRoomId, OwnedUserId, String);

impl Receipt {
    fn key(&self, room_id: &RoomId) -> Key {
        let thread = self.thread.as_deref().unwrap_or_default();
        let what = format!("{} {thread}", self.kind.as_str());
        (room_id.to_owned(), self.user.clone(), what)
    }

    fn record(&self, order: Option<i64>, ts: u64, position: u64) -> ReceiptRecord {
        ReceiptRecord {
            order,
            kind: self.kind.as_str().to_owned(),
            thread_id: self.thread.clone(),
            event_id: self.event_id.clone(),
            ts,
            position,
        }
    }
}

/// Checks a thread id.
fn check_thread(thread: Option<&str>) -> Result<(), RoomError> {
    match thread {
        Some(id) if id.is_empty() || id.len() > MAX_THREAD_BYTES => {
            Err(RoomError::InvalidParam("thread_id is empty or too long".into()))
        }
        _ => Ok(()),
    }
}

/// What a receipt does to those that are there.
enum Effect {
    /// It is no step forward.
    Nothing,
    Step {
        /// The position of the one that it replaces.
        replaces: Option<u64>,
        /// The order of its event.
        order: Option<i64>,
    },
}

impl Rooms {
    /// Takes a local user's receipt for an event of a room that the user is in.
    pub async fn receipt(&self, room_id: &RoomId, receipt: Receipt) -> Result<(), RoomError> {
        check_thread(receipt.thread.as_deref())?;
        self.check_read(&receipt.user, room_id, &receipt.event_id).await?;
        let now = self.now();
        let _turn = self.inner.ephemeral.rooms.lock(room_id.to_owned()).await;
        let key = receipt.key(room_id);
        let event_id = receipt.event_id.clone();
        let effect = self.store().read(move |reader| effect(reader, &key, &event_id)).await?;
        let Effect::Step { replaces, order } = effect else { return Ok(()) };
        let servers = match receipt.kind {
            ReceiptKind::Read => self.servers_to_tell(room_id).await?,
            ReceiptKind::Private => Default::default(),
        };
        let (mut batch, destinations) = match servers.is_empty() {
            true => (Batch::default(), Vec::new()),
            false => {
                let content = edu_content(room_id, &receipt, now);
                let kind = "m.receipt";
                self.edu(Edu { kind, content, servers, replaces, momentary: false }).await?
            }
        };
        let (kind, user) = (receipt.kind, receipt.user.clone());
        self.put(&mut batch, room_id, receipt, order, now).await?;
        let position = self.store().commit(batch).await?;
        self.inner.wake.wake(&destinations);
        match kind {
            ReceiptKind::Read => self.inner.notifier.notify_room(room_id, position),
            ReceiptKind::Private => self.wake_user(&user, position),
        }
        Ok(())
    }

    /// Checks that a local user is in a room and that the event is one of that room.
    pub async fn check_read(
        &self,
        user: &UserId,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<(), RoomError> {
        self.check_joined(user, room_id).await?;
        let (event_id, room_id) = (event_id.to_owned(), room_id.to_owned());
        let known = self.store().read(move |reader| {
            let known = load_event(reader, &event_id)?;
            Ok::<_, RoomError>(known.is_some_and(|known| known.record.room_id == room_id))
        });
        match known.await? {
            true => Ok(()),
            false => Err(RoomError::NotFound("There is no such event in the room".into())),
        }
    }

    /// Takes receipts of one room that another server sent. Checked by the caller.
    pub(super) async fn remote_receipts(
        &self,
        room_id: &RoomId,
        receipts: Vec<(Receipt, u64)>,
    ) -> Result<(), RoomError> {
        let _turn = self.inner.ephemeral.rooms.lock(room_id.to_owned()).await;
        let mut batch = Batch::default();
        for (receipt, ts) in receipts {
            let (key, event_id) = (receipt.key(room_id), receipt.event_id.clone());
            let effect = self.store().read(move |reader| effect(reader, &key, &event_id)).await?;
            if let Effect::Step { order, .. } = effect {
                self.put(&mut batch, room_id, receipt, order, ts).await?;
            }
        }
        if !batch.is_empty() {
            let position = self.store().commit(batch).await?;
            self.inner.notifier.notify_room(room_id, position);
        }
        Ok(())
    }

    async fn put(
        &self,
        batch: &mut Batch,
        room_id: &RoomId,
        receipt: Receipt,
        order: Option<i64>,
        ts: u64,
    ) -> Result<(), RoomError> {
        let key = receipt.key(room_id);
        let new = key.clone();
        let oldest = self.store().read(move |reader| superfluous(reader, &new)).await?;
        for key in oldest {
            batch.delete::<tables::Receipts>(&key);
        }
        self.inner.ephemeral.receipts.note_with(batch, room_id.to_owned());
        batch.at_position(move |position, batch| {
            batch.put::<tables::Receipts>(&key, &receipt.record(order, ts, position));
        });
        Ok(())
    }
}

/// A receipt does not go back behind the one before it.
fn effect(reader: &Reader<'_>, key: &Key, event_id: &EventId) -> Result<Effect, RoomError> {
    let order = load_event(reader, event_id)?.and_then(|known| known.record.order);
    let Some(known) = reader.get::<tables::Receipts>(key)? else {
        return Ok(Effect::Step { replaces: None, order });
    };
    let goes_back = match (known_order(reader, &known)?, order) {
        (Some(old), Some(new)) => new < old,
        _ => false,
    };
    Ok(match goes_back || known.event_id == *event_id {
        true => Effect::Nothing,
        false => Effect::Step { replaces: Some(known.position), order },
    })
}

/// The order of a receipt's event; rows of before do not have it.
pub(crate) fn known_order(
    reader: &Reader<'_>,
    receipt: &ReceiptRecord,
) -> Result<Option<i64>, RoomError> {
    match receipt.order {
        Some(order) => Ok(Some(order)),
        None => Ok(load_event(reader, &receipt.event_id)?.and_then(|known| known.record.order)),
    }
}

/// The user's receipts that are too many once there is one more.
fn superfluous(reader: &Reader<'_>, new: &Key) -> Result<Vec<Key>, RoomError> {
    let of_user = (new.0.clone(), new.1.clone());
    if reader.scan::<tables::Receipts>(of_user.clone()).keys()?.len() < MAX_PER_USER {
        return Ok(Vec::new());
    }
    let mut rows = reader.scan::<tables::Receipts>(of_user).collect()?;
    rows.retain(|(key, _)| key != new);
    rows.sort_by_key(|(_, record)| std::cmp::Reverse(record.position));
    Ok(rows.into_iter().skip(MAX_PER_USER - 1).map(|(key, _)| key).collect())
}

/// Receipts of a room, with whose they are.
pub(crate) type Receipts = Vec<(OwnedUserId, ReceiptRecord)>;

/// All receipts of a room.
pub(crate) fn of_room(reader: &Reader<'_>, room_id: &RoomId) -> Result<Receipts, StoreError> {
    rows(reader.scan::<tables::Receipts>(room_id.to_owned()))
}

/// The receipts of one user in a room.
pub(crate) fn of_user(
    reader: &Reader<'_>,
    room_id: &RoomId,
    user: &UserId,
) -> Result<Receipts, StoreError> {
    rows(reader.scan::<tables::Receipts>((room_id.to_owned(), user.to_owned())))
}

fn rows(scan: Scan<'_, tables::Receipts>) -> Result<Receipts, StoreError> {
    let rows = scan.iter().map(|row| row.map(|((_, user, _), record)| (user, record)));
    rows.collect()
}

/// The event that tells a user of receipts, those after a stream position; `None` if there are none.
pub(crate) fn told(mut receipts: Receipts, user: &UserId, after: u64) -> Option<Value> {
    receipts.retain(|(reader, record)| {
        let is_public = record.kind == ReceiptKind::Read.as_str();
        record.position > after && (is_public || reader == user)
    });
    if receipts.is_empty() {
        return None;
    }
    receipts.sort_by_key(|(_, record)| std::cmp::Reverse(record.position));
    receipts.truncate(MAX_IN_SYNC);
    Some(event("m.receipt", content(receipts)))
}

/// The content of `m.receipt`: event, type, user. There is one place for each user: an unthreaded
/// receipt wins over a threaded one (MSC4102).
fn content(receipts: Receipts) -> Value {
    let mut places: BTreeMap<_, ReceiptRecord> = BTreeMap::new();
    for (reader, record) in receipts {
        let place = (record.event_id.clone(), record.kind.clone(), reader);
        let is_better =
            |known: &ReceiptRecord| known.thread_id.is_some() && record.thread_id.is_none();
        if places.get(&place).is_none_or(is_better) {
            places.insert(place, record);
        }
    }
    let mut content = json!({});
    for ((event_id, kind, reader), record) in places {
        content[event_id.as_str()][kind][reader.as_str()] =
            data(record.ts, record.thread_id.as_deref());
    }
    content
}

fn edu_content(room_id: &RoomId, receipt: &Receipt, ts: u64) -> Value {
    let data = data(ts, receipt.thread.as_deref());
    json!({ room_id: { receipt.kind.as_str(): {
        receipt.user.as_str(): { "data": data, "event_ids": [receipt.event_id] },
    } } })
}

fn data(ts: u64, thread: Option<&str>) -> Value {
    let mut data = json!({ "ts": ts });
    if let Some(thread) = thread {
        data["thread_id"] = thread.into();
    }
    data
}
