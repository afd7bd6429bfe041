//! An event's place in its room's timeline, and the indices that say where: by relation, thread,
//! time and word. All are written in the batch that gives the place.

use std::collections::BTreeMap;

use exeunt_core::Pdu;
use exeunt_store::{Batch, SCHEMA, Store, records::RelationRecord, tables};
use ruma::{OwnedEventId, OwnedRoomId};

use crate::{
    RoomError,
    graph::{load_event, missing_in_store},
    relations::{self, Relation, relation},
    words,
};

/// Rows of a timeline that are indexed between two commits.
const PAGE: usize = 500;

/// A shown event as the timeline and its indices have it.
pub(crate) struct Shown {
    room_id: OwnedRoomId,
    event_id: OwnedEventId,
    ts: u64,
    child_of: Option<(OwnedEventId, RelationRecord)>,
    words: BTreeMap<String, u64>,
    word_count: u64,
}

impl Shown {
    pub fn new(event: &Pdu) -> Self {
        let (words, word_count) = words::counted(event);
        let (event_id, ts) = (event.event_id().to_owned(), event.origin_server_ts());
        let child_of = relation(event.content()).map(|Relation { parent, rel_type }| {
            let (kind, sender) = (event.kind().to_owned(), event.sender().to_owned());
            (parent, RelationRecord { event_id: event_id.clone(), rel_type, kind, sender, ts })
        });
        Self { room_id: event.room_id().to_owned(), event_id, ts, child_of, words, word_count }
    }

    /// Gives the event its place.
    pub fn put(&self, batch: &mut Batch, order: i64) {
        batch.put::<tables::Timeline>(&(self.room_id.clone(), order), &self.event_id);
        self.put_indices(batch, order);
    }

    fn put_indices(&self, batch: &mut Batch, order: i64) {
        let room_id = &self.room_id;
        batch.put::<tables::EventTimes>(&(room_id.clone(), self.ts, order), &());
        if let Some((parent, child)) = &self.child_of {
            batch.put::<tables::Relations>(&(room_id.clone(), parent.clone(), order), child);
            if child.rel_type == relations::THREAD {
                batch.put::<tables::ThreadEvents>(&(room_id.clone(), order), parent);
            }
        }
        for (word, count) in &self.words {
            let key = (room_id.clone(), word.clone(), order);
            batch.put::<tables::Words>(&key, &(*count, self.word_count));
        }
    }

    /// Takes out what a redaction takes: relation and words. Made of the event as it was.
    pub fn redact(&self, batch: &mut Batch, order: i64) {
        let room_id = &self.room_id;
        if let Some((parent, _)) = &self.child_of {
            batch.delete::<tables::Relations>(&(room_id.clone(), parent.clone(), order));
            batch.delete::<tables::ThreadEvents>(&(room_id.clone(), order));
        }
        for word in self.words.keys() {
            batch.delete::<tables::Words>(&(room_id.clone(), word.clone(), order));
        }
    }
}

/// Brings a store of an older layout up to date. Before anyone else writes; cut off by a crash, it
/// starts again.
pub async fn upgrade_store(store: &Store) -> Result<(), RoomError> {
    if store.schema()? == SCHEMA {
        return Ok(());
    }
    tracing::info!("indexing the timelines of the store");
    let mut after = None;
    loop {
        let from = after.take();
        let (batch, last) = store
            .read(move |reader| {
                let mut scan = reader.scan::<tables::Timeline>(()).limit(PAGE);
                if let Some(key) = from {
                    scan = scan.after(key);
                }
                let (mut batch, mut last) = (Batch::default(), None);
                for row in scan.iter() {
                    let (key, id) = row?;
                    let known = load_event(reader, &id)?.ok_or_else(|| missing_in_store(&id))?;
                    Shown::new(&known.pdu).put_indices(&mut batch, key.1);
                    last = Some(key);
                }
                Ok::<_, RoomError>((batch, last))
            })
            .await?;
        store.commit(batch).await?;
        after = last;
        if after.is_none() {
            store.set_newest_schema().await?;
            return Ok(());
        }
    }
}
