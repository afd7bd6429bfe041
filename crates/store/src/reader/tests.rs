//! What a reader keeps, and what it shares.

use std::sync::Arc;

use ruma::owned_room_id;

use crate::engine::memory::MemoryEngine;
use crate::tables::{Meta, RoomStates};
use crate::{Batch, Reader, Root, Store, StoreError};

/// Stores that commit in their caller's turn and on a thread.
fn stores() -> [Store; 2] {
    let threaded = Store::on_engine(Arc::new(MemoryEngine::default()), true);
    [Store::memory(), threaded.unwrap()]
}

#[tokio::test]
async fn what_was_made_of_a_row_is_of_the_snapshot() {
    for store in stores() {
        let key = (owned_room_id!("!room:example.org"), 1);
        let change = async |byte| {
            let mut batch = Batch::default();
            batch.put::<RoomStates>(&key, &Root([byte; 16]));
            store.commit(batch).await.unwrap();
        };
        let made = |reader: &Reader<'_>| {
            let made = reader.derived::<RoomStates, _, StoreError>(&key, |root| Ok(root.0[0]));
            made.unwrap().map(|byte| *byte)
        };
        change(1).await;
        let before = store.reader();
        assert_eq!(made(&before), Some(1));
        let unread = store.reader();
        change(2).await;
        assert_eq!((made(&before), made(&unread)), (Some(1), Some(1)));
        assert_eq!(made(&store.reader()), Some(2));
        assert_eq!((made(&unread), made(&store.reader())), (Some(1), Some(2)));
    }
}

#[tokio::test]
async fn a_read_in_parts_is_of_one_snapshot_and_in_order() {
    for store in stores() {
        write(&store, 1).await;
        let reader = store.reader();
        write(&store, 2).await;
        let read = |reader: &Reader<'_>, part: Vec<u32>| {
            (reader.get::<Meta>(&"a".to_owned()).unwrap(), part)
        };
        let parts = reader.split((0..1_000).collect(), read);
        assert!(parts.iter().all(|(value, _)| *value == Some(1)));
        let items = parts.into_iter().flat_map(|(_, part)| part);
        assert!(items.eq(0..1_000));
    }
}

#[tokio::test]
async fn few_rows_and_many_are_read_back_alike() {
    for store in stores() {
        let room_id = owned_room_id!("!room:example.org");
        for rows in [0, 1, super::FEW - 1, super::FEW, super::FEW + 1, 3 * super::FEW] {
            let mut batch = Batch::default();
            for position in 0..rows as u64 {
                batch.put::<RoomStates>(&(room_id.clone(), position), &Root([1; 16]));
            }
            store.commit(batch).await.unwrap();
            let reader = store.reader();
            let scan = || reader.scan::<RoomStates>(room_id.clone());
            for limit in [0, 1, super::FEW, usize::MAX] {
                let back: Result<Vec<_>, _> = scan().limit(limit).iter_back().collect();
                assert_eq!(back, scan().rev().limit(limit).collect(), "{limit} of {rows}");
            }
        }
    }
}

async fn write(store: &Store, value: u64) {
    let mut batch = Batch::default();
    batch.put::<Meta>(&"a".to_owned(), &value);
    store.commit(batch).await.unwrap();
}
