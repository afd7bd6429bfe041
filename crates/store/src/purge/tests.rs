use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use exeunt_core::StateKey;
use ruma::{OwnedServerName, owned_room_id, owned_server_name, owned_user_id};
use serde_json::{json, value::RawValue};
use tempfile::TempDir;

use super::*;
use crate::engine::memory::MemoryEngine;
use crate::engine::{Changes, Engine, Row, Snapshot};
use crate::records::{
    AliasRecord, InboundRecord, NotableRecord, PublicRoomRecord, RedactionRecord, RelationRecord,
    RoomRecord, States, Verdict,
};
use crate::tables::{self, MembershipLog, StateNodes};
use crate::{Root, TableVisitor, collect_state, snapshot, verify};

const MEMBERS: usize = 60;
const MESSAGES: usize = 40;
/// Small, so that a purge takes many batches.
const SMALL_PAGE: usize = 7;

fn doomed() -> OwnedRoomId {
    owned_room_id!("!doomed:x.org")
}

fn other() -> OwnedRoomId {
    owned_room_id!("!other:x.org")
}

fn event_id(room: &RoomId, number: usize) -> OwnedEventId {
    OwnedEventId::try_from(format!("${}{number}", room.as_str()[1..6].to_owned())).unwrap()
}

fn left() -> OwnedUserId {
    owned_user_id!("@left:x.org")
}

fn peer() -> OwnedServerName {
    owned_server_name!("y.org")
}

/// An event that rests on the create event, and the first one also on an event nobody has.
fn record(room: &RoomId, number: usize, states: States) -> EventRecord {
    let auth = if number == 0 {
        vec![OwnedEventId::try_from("$nobody").unwrap()]
    } else {
        vec![event_id(room, 0)]
    };
    let json = json!({
        "type": "m.room.member", "state_key": format!("@{number}:x.org"), "sender": "@a:x.org",
        "room_id": room, "content": {"number": number}, "prev_events": [], "auth_events": auth,
        "depth": 1, "origin_server_ts": 1, "hashes": {"sha256": ""}, "signatures": {},
    });
    EventRecord {
        json: RawValue::from_string(json.to_string()).unwrap().into(),
        room_id: room.to_owned(),
        room_version: "10".to_owned(),
        verdict: Verdict::Accepted,
        generation: number.min(1) as u64,
        states: Some(states),
        replaces: Default::default(),
        order: Some(number as i64),
        redacted_because: None,
        received_from: None,
    }
}

/// A room with members and messages, and rows in every table that has any of a room.
async fn make_room(store: &Store, room: &OwnedRoomId) {
    let mut state = Root::EMPTY;
    for number in 0..MEMBERS + MESSAGES {
        let id = event_id(room, number);
        let mut batch = Batch::default();
        let before = state;
        if number < MEMBERS {
            let key = StateKey::new("m.room.member", format!("@{number}:x.org"));
            let changes = [(key, Some(id.clone()))];
            state = snapshot::apply(&store.reader(), before, &changes, &mut batch).unwrap();
            batch.put::<RoomStates>(&(room.clone(), number as u64), &state);
        }
        let record = record(room, number, States { before, after: state, told: false });
        let pdu = Pdu::parse(RoomVersion::parse("10").unwrap(), record.json.get().as_bytes());
        for auth in pdu.unwrap().auth_events() {
            batch.put::<AuthChildren>(&(auth.clone(), id.clone()), &());
        }
        batch.put::<Events>(&id, &record);
        batch.put::<Timeline>(&(room.clone(), number as i64), &id);
        let notable = NotableRecord {
            sender: owned_user_id!("@a:x.org"),
            thread: None,
            counts: true,
            highlights: Vec::new(),
            highlights_all: false,
        };
        batch.put::<Notable>(&(room.clone(), number as i64), &notable);
        batch.put::<EventTimes>(&(room.clone(), 1, number as i64), &());
        if let Some(before) = number.checked_sub(1) {
            batch.put::<Children>(&(room.clone(), event_id(room, before), id.clone()), &());
        }
        let transaction = ("DEVICE".into(), format!("t{number}"));
        batch.put::<EventTransactions>(&id, &transaction);
        store.commit(batch).await.unwrap();
    }
    let mut batch = Batch::default();
    batch.put::<Rooms>(
        room,
        &RoomRecord {
            version: "10".to_owned(),
            create_event: event_id(room, 0),
            extremities: vec![event_id(room, MEMBERS + MESSAGES - 1)],
            has_older_heads: true,
            state,
            state_since: 0,
            has_relations: true,
            depth: 1,
            first_order: 0,
            position: 1,
            untold: Vec::new(),
            since: 0,
        },
    );
    batch.put::<JoinedServers>(&(room.clone(), peer()), &1);
    let absent = OwnedEventId::try_from("$absent").unwrap();
    let redaction = RedactionRecord { server: peer(), is_entitled: true };
    batch.put::<OlderHeads>(&(room.clone(), 1, event_id(room, 1)), &());
    batch.put::<Redactions>(&(room.clone(), absent, event_id(room, MEMBERS)), &redaction);
    batch.put::<Denied>(&(room.clone(), 1), &(peer(), event_id(room, MEMBERS)));
    let child = RelationRecord {
        event_id: event_id(room, MEMBERS + 1),
        rel_type: "m.thread".to_owned(),
        kind: "m.room.message".to_owned(),
        sender: left(),
        ts: 1,
    };
    let (root, order) = (event_id(room, MEMBERS), MEMBERS as i64 + 1);
    batch.put::<Relations>(&(room.clone(), root.clone(), order), &child);
    batch.put::<ThreadEvents>(&(room.clone(), order), &root);
    batch.put::<Words>(&(room.clone(), "word".to_owned(), order), &(1, 1));
    batch.put::<Arrivals>(&(room.clone(), 1), &RawValue::from_string("{}".into()).unwrap());
    let queued = InboundRecord { origin: peer(), event: Object::new(), at: 0, tries: 0 };
    batch.put::<InboundQueue>(&(room.clone(), 1, 1), &queued);
    let alias = ruma::OwnedRoomAliasId::try_from(format!("#{}", &room.as_str()[1..])).unwrap();
    let creator = owned_user_id!("@a:x.org");
    batch.put::<Aliases>(&alias, &AliasRecord { room_id: room.clone(), creator });
    batch.put::<RoomAliases>(&(room.clone(), alias), &());
    batch.put::<PublicRooms>(room, &PublicRoomRecord { published_at: 1 });
    for (user, membership, number, forgotten) in [
        (left(), "leave", 3, false),
        (owned_user_id!("@forgot:x.org"), "leave", 4, true),
        (owned_user_id!("@invited:x.org"), "invite", 5, false),
    ] {
        let record = MembershipRecord {
            membership: membership.to_owned(),
            event_id: event_id(room, number),
            sender: user.clone(),
            position: 1,
            local_event: None,
            room_version: None,
            forgotten,
        };
        batch.put::<LocalMembers>(&(room.clone(), user.clone()), &membership.to_owned());
        batch.put::<Memberships>(&(user, room.clone()), &record);
    }
    store.commit(batch).await.unwrap();
}

async fn two_rooms(store: &Store) {
    make_room(store, &other()).await;
    make_room(store, &doomed()).await;
}

/// Every row but those of single values: positions differ.
fn rows(store: &Store) -> BTreeSet<Row> {
    struct All<'a>(&'a Reader<'a>, BTreeSet<Row>);
    impl TableVisitor for All<'_> {
        type Error = StoreError;
        fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
            if T::NAME != "Meta" {
                self.1.extend(self.0.raw::<T>().collect::<Result<Vec<_>, _>>()?);
            }
            Ok(())
        }
    }
    let reader = store.reader();
    let mut all = All(&reader, BTreeSet::new());
    tables::visit_all(&mut all).unwrap();
    all.1
}

/// Takes out the one thing that a purge keeps of these rooms: departures. Gives the first one.
async fn drop_kept(store: &Store) -> MembershipRecord {
    let kept = store.reader().get::<Memberships>(&(left(), doomed())).unwrap().unwrap();
    let mut batch = Batch::default();
    for user in [left(), owned_user_id!("@forgot:x.org")] {
        batch.delete::<LocalMembers>(&(doomed(), user.clone()));
        batch.delete::<Memberships>(&(user, doomed()));
    }
    store.commit(batch).await.unwrap();
    kept
}

fn assert_clean(store: &Store) -> u64 {
    let report = verify(store).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    report.unreferenced
}

/// What the other room's rows are when it is alone.
async fn alone() -> BTreeSet<Row> {
    let store = Store::memory();
    make_room(&store, &other()).await;
    rows(&store)
}

#[tokio::test]
async fn a_purge_leaves_exactly_the_other_room() {
    let dir = TempDir::new().unwrap();
    for store in [Store::memory(), Store::open(dir.path()).unwrap()] {
        two_rooms(&store).await;
        assert_eq!(assert_clean(&store), 0);
        let purged = purge_room(&store, &doomed()).await.unwrap();
        assert_eq!(purged, Purged { events: (MEMBERS + MESSAGES) as u64, waiting: 0 });
        assert_eq!(assert_clean(&store), 0);
        store.compact().unwrap();

        let kept = drop_kept(&store).await;
        assert_eq!(kept.local_event.unwrap()["content"], json!({"number": 3}));
        assert_eq!(rows(&store), alone().await);
    }
}

#[tokio::test]
async fn a_collection_takes_the_states_that_nothing_leads_to() {
    let store = Store::memory();
    make_room(&store, &other()).await;
    let before = rows(&store);
    let mut batch = Batch::default();
    let user = |number| StateKey::new("m.room.member", format!("@{number}:x.org"));
    let state = (0..MEMBERS).map(|number| (user(number), event_id(&doomed(), number)));
    let unused = snapshot::from_map(&state.collect(), &mut batch);
    store.commit(batch).await.unwrap();
    let left_over = assert_clean(&store);
    assert!(store.reader().contains::<StateNodes>(&unused.0).unwrap() && left_over > 3);

    let collected = collect_state(&store).await.unwrap();
    assert_eq!(collected.deleted, left_over);
    assert_eq!(assert_clean(&store), 0);
    assert_eq!(rows(&store), before);
}

/// Fails every write after the first so many.
struct Mortal {
    engine: MemoryEngine,
    writes: AtomicUsize,
}

impl Engine for Mortal {
    fn snapshot(&self) -> Box<dyn Snapshot + '_> {
        self.engine.snapshot()
    }

    fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        let left =
            self.writes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        left.map_err(|_| StoreError::Io("the power is gone".to_owned()))?;
        self.engine.write(changes)
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn open(engine: &MemoryEngine, writes: usize) -> Store {
    let mortal = Mortal { engine: engine.clone(), writes: AtomicUsize::new(writes) };
    Store::on_engine(Arc::new(mortal), false).unwrap()
}

#[tokio::test]
async fn a_purge_resumes_after_a_crash_between_any_two_batches() {
    let alone = alone().await;
    let mut crashes = 0;
    for writes in 0.. {
        let engine = MemoryEngine::default();
        two_rooms(&open(&engine, usize::MAX)).await;
        let result = purge_by(&open(&engine, writes), doomed(), SMALL_PAGE).await;
        let store = open(&engine, usize::MAX);
        assert_clean(&store);
        let under_way = store.reader().contains::<Purges>(&doomed()).unwrap();
        assert_eq!(under_way, result.is_err() && writes > 0, "after {writes} writes");
        let known = store.reader().contains::<Rooms>(&doomed()).unwrap();
        assert_eq!(known, writes == 0);
        if result.is_ok() {
            break;
        }
        crashes += 1;
        if writes > 0 {
            resume_purges(&store).await.unwrap();
            assert_eq!(assert_clean(&store), 0, "after {writes} writes");
            drop_kept(&store).await;
            assert!(rows(&store) == alone, "after {writes} writes");
        }
    }
    assert!(crashes > 50, "{crashes}");
}

#[tokio::test]
async fn a_room_with_somebody_in_it_is_refused() {
    let store = Store::memory();
    two_rooms(&store).await;
    let mut batch = Batch::default();
    batch.put::<LocalMembers>(&(doomed(), left()), &"join".to_owned());
    store.commit(batch).await.unwrap();
    let before = rows(&store);
    let refused = purge_room(&store, &doomed()).await;
    assert!(matches!(refused, Err(PurgeError::Occupied(user)) if user == left()));
    assert!(rows(&store) == before);
}

#[tokio::test]
async fn an_event_that_waits_for_a_server_stays_until_it_is_sent() {
    let store = Store::memory();
    two_rooms(&store).await;
    let mut batch = Batch::default();
    let leave = event_id(&doomed(), 3);
    batch.put::<Outbox>(&(peer(), 1), &OutboxItem::Pdu(leave.clone()));
    batch.put::<Outbox>(&(peer(), 2), &OutboxItem::Pdu(event_id(&other(), 3)));
    store.commit(batch).await.unwrap();

    let purged = purge_room(&store, &doomed()).await.unwrap();
    assert_eq!(purged, Purged { events: (MEMBERS + MESSAGES - 1) as u64, waiting: 1 });
    assert_clean(&store);
    let kept = store.reader().get::<Events>(&leave).unwrap().unwrap();
    assert_eq!((kept.states, kept.order), (None, None));
    let other = store.reader().get::<Events>(&event_id(&other(), 3)).unwrap().unwrap();
    assert_eq!(other.order, Some(3));

    let is_kept = || store.reader().contains::<Events>(&leave).unwrap();
    assert_eq!(rooms_with_kept(&store).await.unwrap(), BTreeSet::from([doomed()]));
    drop_delivered(&store, &doomed()).await.unwrap();
    assert!(is_kept());
    let mut batch = Batch::default();
    batch.delete::<Outbox>(&(peer(), 1));
    store.commit(batch).await.unwrap();
    drop_delivered(&store, &doomed()).await.unwrap();
    assert!(!is_kept());
    let mut batch = Batch::default();
    batch.delete::<Outbox>(&(peer(), 2));
    store.commit(batch).await.unwrap();
    drop_kept(&store).await;
    assert_eq!(rows(&store), alone().await);
    assert_clean(&store);
}

#[tokio::test]
async fn an_event_that_waited_stays_where_its_room_is_back() {
    let store = Store::memory();
    two_rooms(&store).await;
    let (waits, head) = (event_id(&doomed(), 3), store.reader().get::<Rooms>(&doomed()).unwrap());
    let row = (peer(), 1);
    let mut batch = Batch::default();
    batch.put::<Outbox>(&row, &OutboxItem::Pdu(waits.clone()));
    store.commit(batch).await.unwrap();
    purge_room(&store, &doomed()).await.unwrap();
    let mut batch = Batch::default();
    batch.delete::<Outbox>(&row);
    batch.put::<Rooms>(&doomed(), &head.unwrap());
    store.commit(batch).await.unwrap();
    drop_delivered(&store, &doomed()).await.unwrap();
    assert!(store.reader().contains::<Events>(&waits).unwrap());
    assert!(rooms_with_kept(&store).await.unwrap().is_empty());
}

#[tokio::test]
async fn departures_and_pending_invites_outlive_the_room() {
    let store = Store::memory();
    two_rooms(&store).await;
    let user = owned_user_id!("@forgot:x.org");
    let key = (user.clone(), doomed());
    let pending = exeunt_core::PendingMembership {
        user_id: user.clone(),
        room_id: doomed(),
        membership: "invite".into(),
        room_version: "10".into(),
        event: Object::new(),
        stripped_state: Vec::new(),
        sender: user.clone(),
        delivered_by: None,
        candidates: Vec::new(),
        received_at: 0,
    };
    let departure = crate::records::DepartureRecord {
        pending: pending.clone(),
        reason: None,
        departed_at: 0,
        attempts: 0,
        retry_at: 0,
        last: Vec::new(),
        candidates: Vec::new(),
    };
    let log = crate::records::MembershipLogRecord {
        membership: "leave".to_owned(),
        event_id: event_id(&doomed(), 4),
        sender: user.clone(),
        via: "local".to_owned(),
        received_from: None,
        at: 0,
    };
    let mut batch = Batch::default();
    batch.put::<Departures>(&key, &departure);
    batch.put::<Pending>(&(owned_user_id!("@invited:x.org"), doomed()), &pending);
    batch.put::<MembershipLog>(&(doomed(), user.clone(), 1), &log);
    store.commit(batch).await.unwrap();

    purge_room(&store, &doomed()).await.unwrap();
    assert_clean(&store);
    let reader = store.reader();
    assert_eq!(reader.get::<Departures>(&key).unwrap(), Some(departure));
    assert!(reader.get::<Memberships>(&key).unwrap().unwrap().local_event.is_some());
    assert!(reader.contains::<Memberships>(&(owned_user_id!("@invited:x.org"), doomed())).unwrap());
    assert_eq!(reader.scan::<MembershipLog>(doomed()).keys().unwrap().len(), 1);
    assert_eq!(reader.scan::<LocalMembers>(doomed()).keys().unwrap().len(), 3);
}
