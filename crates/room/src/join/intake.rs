//! The first pass over a room that is handed to us: each event is parsed and laid aside in the
//! store as it comes, so that the memory that a join takes does not grow with the events' bytes.

use std::collections::BTreeMap;

use exeunt_core::{Object, Pdu, RoomVersion, hash};
use exeunt_store::{Batch, tables};
use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::index::Index;
use crate::{
    RoomError, Rooms,
    keys::want_signers,
    remote::{Entry, WantedKeys},
};

/// Most events of an answer, those that are merely named included.
pub(crate) const MAX_EVENTS: usize = 1_000_000;
/// Events that are laid aside with one write.
const BATCH: usize = 200;
/// Most reasons for dropping an event that are remembered.
const MAX_REASONS: usize = 1_000;
/// Rows that are removed with one write.
const REMOVED_AT_A_TIME: usize = 1_000;
/// Index of `state` among the lists of the answer.
const STATE: usize = 0;

/// Where in a room's `Arrivals` an answer is laid aside: a join and the state across a gap may come
/// at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shelf {
    Join,
    State,
}

impl Shelf {
    /// The rows are numbered from here on.
    fn first(self) -> u64 {
        match self {
            Shelf::Join => 0,
            Shelf::State => 1 << 32,
        }
    }

    /// The row of an event's number.
    pub fn row(self, room_id: &RoomId, number: u32) -> (OwnedRoomId, u64) {
        (room_id.to_owned(), self.first() + u64::from(number))
    }
}

/// What has come of an answer.
pub(super) struct Intake {
    pub version: RoomVersion,
    pub room_id: OwnedRoomId,
    shelf: Shelf,
    pub index: Index,
    /// The state's create event.
    pub create: Option<OwnedEventId>,
    pub wanted: WantedKeys,
    pub dropped: Reasons,
}

/// Why events were dropped, for those who look for them.
#[derive(Default)]
pub(super) struct Reasons(BTreeMap<OwnedEventId, String>);

impl Reasons {
    pub fn add(&mut self, id: OwnedEventId, why: String) {
        if self.0.len() < MAX_REASONS {
            self.0.insert(id, why);
        }
    }

    pub fn get(&self, id: &OwnedEventId) -> Option<&str> {
        self.0.get(id).map(String::as_str)
    }
}

impl Intake {
    pub fn new(version: RoomVersion, room_id: &RoomId, shelf: Shelf) -> Self {
        Self {
            version,
            room_id: room_id.to_owned(),
            shelf,
            index: Index::default(),
            create: None,
            wanted: WantedKeys::new(),
            dropped: Reasons::default(),
        }
    }

    /// Takes an entry. What is malformed or of another room is dropped alone.
    fn add(&mut self, (list, json): Entry, rows: &mut Batch) {
        let pdu = match Pdu::parse(self.version, json.get().as_bytes()) {
            Ok(pdu) if pdu.room_id() == self.room_id => pdu,
            Ok(pdu) => return self.drop(pdu.event_id().to_owned(), "it is of another room".into()),
            Err(error) => {
                let object = serde_json::from_str::<Object>(json.get()).ok();
                let id = object.and_then(|object| hash::event_id(self.version, &object));
                return match id {
                    Some(id) => self.drop(id, error.to_string()),
                    None => tracing::debug!(room_id = %self.room_id, %error, "no event, dropped"),
                };
            }
        };
        let json = pdu.canonical_json();
        if let Some(number) = self.index.add(pdu.event_id(), pdu.auth_events(), json.len()) {
            want_signers(&mut self.wanted, &pdu);
            let json = RawValue::from_string(json).expect("canonical JSON is JSON");
            rows.put::<tables::Arrivals>(&self.shelf.row(&self.room_id, number), &json);
        }
        if list == STATE && pdu.state_key().is_some() {
            self.index.set_in_state(pdu.event_id());
            if pdu.is_state("m.room.create", "") {
                self.create.get_or_insert_with(|| pdu.event_id().to_owned());
            }
        }
    }

    fn drop(&mut self, id: OwnedEventId, why: String) {
        tracing::debug!(room_id = %self.room_id, event = %id, why, "an event is dropped");
        self.dropped.add(id, why);
    }
}

impl Rooms {
    /// Lays the entries of an answer aside until there are no more.
    pub(super) async fn take_in(
        &self,
        mut intake: Intake,
        mut entries: mpsc::Receiver<Entry>,
    ) -> Result<Intake, RoomError> {
        let mut batch = Vec::new();
        while entries.recv_many(&mut batch, BATCH).await > 0 {
            let taken = std::mem::take(&mut batch);
            let rows;
            (intake, rows) = self
                .store()
                .off_thread(move || {
                    let mut rows = Batch::default();
                    taken.into_iter().for_each(|entry| intake.add(entry, &mut rows));
                    (intake, rows)
                })
                .await?;
            if intake.index.len() > MAX_EVENTS {
                return Err(RoomError::InvalidParam(format!("more than {MAX_EVENTS} events")));
            }
            self.store().commit(rows).await?;
        }
        Ok(intake)
    }

    /// Removes what was laid aside for a room.
    pub(super) async fn clear_arrivals(
        &self,
        room_id: &RoomId,
        shelf: Shelf,
    ) -> Result<(), RoomError> {
        let (mut first, end) = (shelf.row(room_id, 0), shelf.row(room_id, u32::MAX));
        loop {
            let (from, end) = (first.clone(), end.clone());
            let rows = self
                .store()
                .read(move |reader| {
                    let rows = reader.scan::<tables::Arrivals>(from.0.clone());
                    rows.from(from).before(end).limit(REMOVED_AT_A_TIME).keys()
                })
                .await?;
            let Some((_, last)) = rows.last() else { return Ok(()) };
            first.1 = last + 1;
            let mut batch = Batch::default();
            rows.iter().for_each(|key| batch.delete::<tables::Arrivals>(key));
            self.store().commit(batch).await?;
        }
    }
}

/// Removes what joins that were under way when the server stopped have left. For its start.
pub async fn clear_unfinished_joins(
    store: &exeunt_store::Store,
) -> Result<(), exeunt_store::StoreError> {
    loop {
        let scan = |reader: &exeunt_store::Reader| {
            reader.scan::<tables::Arrivals>(()).limit(REMOVED_AT_A_TIME).keys()
        };
        let rows = store.read(scan).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        rows.iter().for_each(|key| batch.delete::<tables::Arrivals>(key));
        store.commit(batch).await?;
    }
}
