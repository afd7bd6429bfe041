//! The store as its users see it, on both engines.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};

use ruma::{OwnedEventId, OwnedRoomId, owned_room_id};
use tempfile::TempDir;

use crate::derived::Derived;
use crate::engine::memory::MemoryEngine;
use crate::engine::{Changes, Engine, Snapshot};
use crate::table::{Table, row_key};
use crate::tables::{ClientTransactions, Meta, RoomStates, Timeline};
use crate::{Batch, Fault, Reader, Root, Store, StoreError, verify};

fn room() -> OwnedRoomId {
    owned_room_id!("!room:example.org")
}

fn event(number: u64) -> OwnedEventId {
    OwnedEventId::try_from(format!("$event{number}")).unwrap()
}

fn counter(name: &str, value: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put::<Meta>(&name.to_owned(), &value);
    batch
}

fn get(store: &Store, name: &str) -> Option<u64> {
    store.reader().get::<Meta>(&name.to_owned()).unwrap()
}

/// A memory engine behind the committer's thread.
fn threaded() -> Store {
    Store::on_engine(Arc::new(MemoryEngine::default()), true).unwrap()
}

/// Runs a check on every kind of store.
async fn on_stores(check: impl AsyncFn(Store)) {
    check(Store::memory()).await;
    check(threaded()).await;
    let dir = TempDir::new().unwrap();
    check(Store::open(dir.path()).unwrap()).await;
}

#[tokio::test]
async fn commits_are_read_back() {
    on_stores(async |store| {
        let mut batch = counter("a", 1);
        batch.append(counter("b", 2));
        batch.delete::<Meta>(&"c".to_owned());
        let position = store.commit(batch).await.unwrap();
        assert_eq!(
            (get(&store, "a"), get(&store, "b"), get(&store, "c")),
            (Some(1), Some(2), None)
        );
        let read = store.read(|reader| {
            Ok::<_, StoreError>((reader.position()?, reader.get::<Meta>(&"b".to_owned())?))
        });
        assert_eq!(read.await, Ok((position, Some(2))));
    })
    .await;
}

#[tokio::test]
async fn later_changes_of_a_batch_win() {
    on_stores(async |store| {
        let mut batch = counter("a", 1);
        batch.at_position(|_, batch| batch.append(counter("a", 3)));
        batch.append(counter("a", 2));
        assert_eq!(store.commit(batch).await, Ok(1));
        assert_eq!(get(&store, "a"), Some(3));
    })
    .await;
}

#[test]
fn a_batch_knows_what_it_puts() {
    let mut batch = Batch::default();
    let other = owned_room_id!("!room:example.org.uk");
    batch.put::<Timeline>(&(room(), 7), &event(7));
    batch.delete::<Timeline>(&(other.clone(), 7));
    assert!(batch.puts::<Timeline>(room()) && batch.puts::<Timeline>((room(), 7)));
    assert!(!batch.puts::<Timeline>((room(), 8)) && !batch.puts::<Timeline>(other));
    assert!(!batch.puts::<RoomStates>(()) && batch.puts::<Timeline>(()));
}

/// The threads that a read of so many rows of a store of 400 ran on. The last rows: a start looks at
/// the first ones.
async fn threads_of_a_read(store: &Store, rows: usize) -> Vec<ThreadId> {
    let (threads, ran) = mpsc::channel();
    let read = store.read(move |reader| {
        threads.send(thread::current().id()).unwrap();
        let rows = reader.scan::<Timeline>(()).rev().limit(rows).keys()?.len();
        Ok::<_, StoreError>((rows, reader.get::<Meta>(&"a".to_owned())?))
    });
    assert_eq!(read.await, Ok((rows, Some(1))));
    ran.iter().collect()
}

#[tokio::test]
async fn a_short_read_of_what_is_in_memory_stays_in_its_turn() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut batch = counter("a", 1);
    for order in 0..400 {
        batch.put::<Timeline>(&(room(), order), &event(1));
    }
    store.commit(batch).await.unwrap();
    let here = thread::current().id();
    assert_eq!(threads_of_a_read(&store, 10).await, [here]);
    let [first, second] = threads_of_a_read(&store, 400).await[..] else { panic!("once more") };
    assert!(first == here && second != here);
    store.close();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(threads_of_a_read(&store, 10).await.len(), 2, "on disk only");
    assert_eq!(threads_of_a_read(&store, 10).await, [here], "in the cache by now");
}

#[tokio::test]
async fn empty_batches_take_no_position() {
    on_stores(async |store| {
        assert!(Batch::default().is_empty());
        assert_eq!(store.commit(Batch::default()).await, Ok(0));
        assert_eq!(store.commit(counter("a", 1)).await, Ok(1));
        assert_eq!(store.commit(Batch::default()).await, Ok(1));
        assert_eq!(store.commit(counter("a", 1)).await, Ok(2));
    })
    .await;
}

#[tokio::test]
async fn snapshots_do_not_move() {
    on_stores(async |store| {
        store.commit(counter("a", 1)).await.unwrap();
        let before = store.reader();
        store.commit(counter("a", 2)).await.unwrap();
        assert_eq!(before.get::<Meta>(&"a".to_owned()), Ok(Some(1)));
        assert_eq!((before.position(), store.reader().position()), (Ok(1), Ok(2)));
    })
    .await;
}

#[tokio::test]
async fn scans() {
    on_stores(async |store| {
        let mut batch = Batch::default();
        for order in [-3, -1, 0, 2, 7] {
            batch.put::<Timeline>(&(room(), order), &event(order.unsigned_abs()));
        }
        let other = owned_room_id!("!room:example.org.uk");
        batch.put::<Timeline>(&(other, 1), &event(1));
        store.commit(batch).await.unwrap();

        let reader = store.reader();
        let orders = |scan: crate::Scan<'_, Timeline>| {
            scan.keys().unwrap().into_iter().map(|(_, order)| order).collect::<Vec<_>>()
        };
        let scan = || reader.scan::<Timeline>(room());
        assert_eq!(orders(scan()), [-3, -1, 0, 2, 7]);
        assert_eq!(orders(scan().after((room(), -1))), [0, 2, 7]);
        assert_eq!(orders(scan().from((room(), -1)).before((room(), 7))), [-1, 0, 2]);
        assert_eq!(orders(scan().before((room(), 2)).rev().limit(2)), [0, -1]);
        assert_eq!(orders(scan().after((room(), 0)).rev()), [7, 2]);
        assert_eq!(orders(scan().after(room())), [0; 0]);
        assert_eq!(orders(scan().limit(0)), [0; 0]);
        assert_eq!(orders(reader.scan::<Timeline>(())), [-3, -1, 0, 2, 7, 1]);
        assert_eq!(scan().rev().first(), Ok(Some(((room(), 7), event(7)))));
        assert_eq!(scan().limit(1).collect(), Ok(vec![((room(), -3), event(3))]));
        assert_eq!(reader.scan::<RoomStates>(()).first(), Ok(None));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_each_get_a_position() {
    const WRITERS: u64 = 300;
    on_stores(async |store| {
        let watched = store.position();
        let mut tasks = Vec::new();
        for number in 0..WRITERS {
            let store = store.clone();
            tasks.push(tokio::spawn(async move {
                let mut batch = Batch::default();
                batch.at_position(move |position, batch| {
                    batch.put::<Timeline>(&(room(), position.cast_signed()), &event(number));
                });
                (number, store.commit(batch).await.unwrap())
            }));
        }
        let mut positions = Vec::new();
        for task in tasks {
            let (number, position) = task.await.unwrap();
            let key = (room(), position.cast_signed());
            assert_eq!(store.reader().get::<Timeline>(&key), Ok(Some(event(number))));
            positions.push(position);
        }
        positions.sort_unstable();
        assert_eq!(positions, (1..=WRITERS).collect::<Vec<_>>());
        assert_eq!(*watched.borrow(), WRITERS);
    })
    .await;
}

/// Counts writes, and lets the first one take until told.
struct Gate {
    engine: MemoryEngine,
    writes: AtomicUsize,
    open: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Engine for Gate {
    fn snapshot(&self) -> Box<dyn Snapshot + '_> {
        self.engine.snapshot()
    }

    fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        // The first write is the schema's, the second one waits.
        if self.writes.fetch_add(1, Ordering::SeqCst) == 1 {
            self.open.lock().unwrap().recv().unwrap();
        }
        self.engine.write(changes)
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn waiting_batches_share_a_sync_in_their_order() {
    let (open, gate) = std::sync::mpsc::channel();
    let engine = Arc::new(Gate {
        engine: MemoryEngine::default(),
        writes: AtomicUsize::new(0),
        open: std::sync::Mutex::new(gate),
    });
    let store = Store::on_engine(engine.clone(), true).unwrap();
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.commit(counter("first", 0)).await }
    });
    while engine.writes.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    let waiting: Vec<_> = (0..50)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(counter("last", number)).await })
        })
        .collect();
    // One turn for each of them: they are queued, in order.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    open.send(()).unwrap();
    assert_eq!(first.await.unwrap(), Ok(1));
    for (position, commit) in (2..).zip(waiting) {
        assert_eq!(commit.await.unwrap(), Ok(position));
    }
    assert_eq!(engine.writes.load(Ordering::SeqCst), 3);
    assert_eq!(get(&store, "last"), Some(49));
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let commits = (0..100).map(|number| store.commit(counter(&format!("row {number}"), number)));
    for commit in commits {
        commit.await.unwrap();
    }
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.reader().position(), Ok(100));
    assert_eq!(*store.position().borrow(), 100);
    for number in 0..100 {
        assert_eq!(get(&store, &format!("row {number}")), Some(number));
    }
    assert_eq!(store.commit(counter("a", 1)).await, Ok(101));
    store.close();
    drop(store);
    assert_eq!(get(&Store::open(dir.path()).unwrap(), "a"), Some(1));
}

#[tokio::test]
async fn a_closed_store_reads_but_does_not_write() {
    on_stores(async |store| {
        store.commit(counter("a", 1)).await.unwrap();
        store.close();
        assert_eq!(store.commit(counter("a", 2)).await, Err(StoreError::Closed));
        assert_eq!(get(&store, "a"), Some(1));
    })
    .await;
}

#[tokio::test]
async fn the_position_wakes_those_who_wait() {
    on_stores(async |store| {
        let mut position = store.position();
        assert!(!position.has_changed().unwrap());
        let waiting = tokio::spawn(async move {
            position.changed().await.unwrap();
            *position.borrow()
        });
        tokio::task::yield_now().await;
        store.commit(counter("a", 1)).await.unwrap();
        assert_eq!(waiting.await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_failed_write_stops_the_store() {
    for (fault, kept) in [(Fault::Lose, None), (Fault::Keep, Some(1))] {
        let (store, faults) = Store::memory_with_faults();
        store.commit(counter("before", 1)).await.unwrap();
        faults.fail_next_write(fault);
        assert!(matches!(store.commit(counter("a", 1)).await, Err(StoreError::Io(_))));
        assert!(matches!(store.commit(counter("b", 1)).await, Err(StoreError::Failed(_))));
        assert_eq!(*store.position().borrow(), 1);

        let again = faults.crash().unwrap();
        assert_eq!(
            (get(&again, "before"), get(&again, "a"), get(&again, "b")),
            (Some(1), kept, None)
        );
        // A position that may have been used is not used again.
        let next = if kept.is_some() { 3 } else { 2 };
        assert_eq!(again.commit(counter("c", 1)).await, Ok(next));
    }
}

#[tokio::test]
async fn a_lying_disk_loses_what_it_did_not_sync() {
    let (store, faults) = Store::memory_with_faults();
    store.commit(counter("a", 1)).await.unwrap();
    faults.hold_syncs();
    store.commit(counter("a", 2)).await.unwrap();
    let again = faults.crash().unwrap();
    assert_eq!(get(&again, "a"), Some(1));
    assert!(matches!(store.commit(counter("a", 3)).await, Err(StoreError::Io(_))));
    faults.hold_syncs();
    again.commit(counter("a", 4)).await.unwrap();
    faults.release_syncs();
    assert_eq!(get(&faults.crash().unwrap(), "a"), Some(4));
}

#[tokio::test]
async fn a_value_that_cannot_be_written_fails_its_batch_alone() {
    /// A map whose keys are no text has no JSON.
    struct Unwritable;
    impl Table for Unwritable {
        const NAME: &'static str = "Unwritable";
        const PREFIX: u8 = 0xff;
        type Key = ();
        type Value = std::collections::BTreeMap<(u8, u8), u8>;
    }
    on_stores(async |store| {
        let mut batch = counter("a", 1);
        batch.put::<Unwritable>(&(), &[((1, 1), 1)].into());
        let error = store.commit(batch).await.unwrap_err();
        assert!(matches!(error, StoreError::Encode { table: "Unwritable", .. }));
        assert_eq!(get(&store, "a"), None);
        assert_eq!(store.commit(counter("b", 1)).await, Ok(1));
    })
    .await;
}

#[tokio::test]
async fn an_unreadable_value_is_not_an_absent_one() {
    for value in [&b""[..], b"\x01", b"\x01{", b"\x02[1]", b"\x01\"text\""] {
        on_stores(async |store| {
            let mut batch = counter("good", 1);
            batch.put_raw(row_key::<Meta>(&"bad".to_owned()), value.to_vec());
            store.commit(batch).await.unwrap();
            let reader = store.reader();
            let error = StoreError::Corrupt { table: "Meta", key: "bad\\x00".to_owned() };
            assert_eq!(reader.get::<Meta>(&"bad".to_owned()), Err(error.clone()));
            assert_eq!(reader.scan::<Meta>(()).collect(), Err(error));
            assert_eq!(reader.get::<Meta>(&"good".to_owned()), Ok(Some(1)));
            let report = verify(&store).unwrap();
            assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
            assert_eq!(report.findings[0].key, "bad\\x00");
        })
        .await;
    }
}

#[test]
fn an_unreadable_position_is_an_error() {
    let mut batch = Batch::default();
    batch.put_raw(row_key::<Meta>(&"position".to_owned()), b"\x02".to_vec());
    let engine = MemoryEngine::default();
    engine.write(&batch.settle(0).unwrap()).unwrap();
    let derived = Derived::default();
    let reader = Reader::new(engine.snapshot(), &derived, 0);
    assert!(matches!(reader.position(), Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn a_key_that_does_not_parse_is_corrupt() {
    let store = Store::memory();
    let mut batch = Batch::default();
    batch.put_raw(vec![ClientTransactions::PREFIX, b'x', 0], b"\x01null".to_vec());
    batch.put_raw(vec![0xfe, 1], Vec::new());
    store.commit(batch).await.unwrap();
    let keys = store.reader().scan::<ClientTransactions>(()).keys();
    assert!(matches!(keys, Err(StoreError::Corrupt { table: "ClientTransactions", .. })));
    let problems: Vec<_> =
        verify(&store).unwrap().findings.into_iter().map(|f| f.problem).collect();
    assert!(problems.iter().any(|problem| problem.contains("no table has the prefix 0xfe")));
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.commit(counter("schema", 99)).await.unwrap();
    drop(store);
    let error = Store::open(dir.path()).err();
    assert_eq!(error, Some(StoreError::NewerSchema { found: 99, known: crate::SCHEMA }));
}

#[test]
fn one_process_at_a_time() {
    let dir = TempDir::new().unwrap();
    let _first = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).err().unwrap();
    assert_eq!(error, StoreError::Locked { path: dir.path().to_owned() });
    assert!(error.to_string().contains(dir.path().to_str().unwrap()));
}

#[test]
fn a_file_is_not_a_directory() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "text").unwrap();
    assert_eq!(Store::open(&path).err(), Some(StoreError::NotADirectory { path }));
}

#[tokio::test]
async fn a_damaged_database_is_not_replaced_by_a_new_one() {
    for lost in ["CURRENT", "MANIFEST", ".sst"] {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.commit(counter("a", 1)).await.unwrap();
        store.close();
        drop(store);
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_str().unwrap().contains(lost) {
                std::fs::remove_file(path).unwrap();
            }
        }
        let error = Store::open(dir.path()).err();
        assert!(matches!(error, Some(StoreError::Damaged { .. })), "{lost}: {error:?}");
    }
}

#[tokio::test]
async fn a_torn_last_write_does_not_keep_the_store_from_opening() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.commit(counter("a", 1)).await.unwrap();
    store.commit(counter("a", 2)).await.unwrap();
    drop(store);
    let logs = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let log = logs.filter(|path| path.extension().is_some_and(|kind| kind == "log")).max().unwrap();
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..bytes.len() - 3]).unwrap();
    assert_eq!(get(&Store::open(dir.path()).unwrap(), "a"), Some(1));
}

#[test]
fn roots_are_hex() {
    let root = Root(*b"0123456789abcdef");
    let text = serde_json::to_string(&root).unwrap();
    assert_eq!(text, "\"30313233343536373839616263646566\"");
    assert_eq!(serde_json::from_str::<Root>(&text).unwrap(), root);
    for bad in ["\"\"", "\"+0313233343536373839616263646566\"", "7"] {
        assert!(serde_json::from_str::<Root>(bad).is_err(), "{bad}");
    }
}
