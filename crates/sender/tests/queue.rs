//! Queues of destinations: batches, restarts, back-off, poison.

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use exeunt_core::ruma::{RoomId, server_name};
use exeunt_sender::{
    EDU_LIFE_MS, LONG_OUTAGE_MS, MAX_MISSED_PER_ROOM, MAX_SET_ASIDE, MAX_WHY_BYTES, SendError,
    Transport,
};
use exeunt_store::records::{OutboxItem, Verdict};
use exeunt_store::tables::{Events, JoinedServers};
use exeunt_store::{Batch, Store};
use serde_json::json;
use support::*;

/// A server that is away until it is told to be there.
fn away() -> (Arc<AtomicBool>, Arc<Fake>) {
    let up = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&up);
    let fake = Fake::new(move |_| match is_up.load(Ordering::SeqCst) {
        true => Reply::Take,
        false => Reply::Fail(Fake::unreachable()),
    });
    (up, fake)
}

#[tokio::test(start_paused = true)]
async fn batches_of_50_and_100_in_order() {
    let store = Store::memory();
    for n in 0..120 {
        queue_pdu(&store, &peer(), n).await;
    }
    for n in 0..130 {
        queue_edu(&store, &peer(), n).await;
    }
    let fake = Fake::new(|_| Reply::Take);
    let running = Running::start(&store, &fake);
    running.idle(&store).await;

    let sent = fake.sent();
    let sizes: Vec<_> = sent.iter().map(|s| (s.pdus.len(), s.edus.len())).collect();
    assert_eq!(sizes, [(50, 0), (50, 0), (20, 100), (0, 30)]);
    assert_eq!(fake.pdus_taken(), event_ids(0..120));
    let edus: Vec<_> = sent.iter().flat_map(|s| s.edus.clone()).collect();
    assert_eq!(edus, (0..130).collect::<Vec<_>>());
    assert_eq!(sent[0].body["origin"], "example.org");
    assert!(sent[0].body["origin_server_ts"].as_u64().unwrap() >= 1_000_000);
    let mut ids: Vec<_> = sent.iter().map(|s| s.txn_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), sent.len(), "transaction ids differ");
    assert_eq!(destination(&store, &peer()).in_flight, None);
}

#[tokio::test(start_paused = true)]
async fn a_wake_sends_and_an_idle_sender_sleeps() {
    let store = Store::memory();
    let fake = Fake::new(|_| Reply::Take);
    let running = Running::start(&store, &fake);
    running.idle(&store).await;
    let (other, us) = (server_name!("other.org").to_owned(), origin());
    for n in 0..3 {
        queue_pdu(&store, &peer(), n).await;
        queue_pdu(&store, &other, 10 + n).await;
        running.sender.wake(&[peer(), other.clone(), us.clone()]);
        running.idle(&store).await;
    }
    let to = |server| fake.sent().iter().filter(|s| s.server == server).count();
    assert_eq!((to(peer()), to(other), to(us)), (3, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn the_same_transaction_again_after_a_crash() {
    let store = Store::memory();
    for n in 0..3 {
        queue_pdu(&store, &peer(), n).await;
    }
    let hanging = Fake::new(|_| Reply::Hang);
    let running = Running::start(&store, &hanging);
    hanging.until(|sent| sent.len() == 1).await;
    // More comes while the first transaction is on its way; then the process dies.
    queue_pdu(&store, &peer(), 3).await;
    running.kill().await;
    assert_eq!(queued(&store), 4);

    let fake = Fake::new(|_| Reply::Take);
    let running = Running::start(&store, &fake);
    running.idle(&store).await;
    let (before, after) = (&hanging.sent()[0], fake.sent());
    assert_eq!(after.len(), 2);
    assert_eq!(after[0].txn_id, before.txn_id);
    assert_eq!(after[0].pdus, before.pdus);
    assert_ne!(after[1].txn_id, before.txn_id);
    assert_eq!(fake.pdus_taken(), event_ids(0..4));
}

#[tokio::test(start_paused = true)]
async fn backs_off_longer_and_longer_then_recovers() {
    let store = Store::memory();
    queue_pdu(&store, &peer(), 0).await;
    let errors = [
        Fake::unreachable(),
        SendError::Refused { status: 502, message: String::new() },
        SendError::Refused { status: 429, message: String::new() },
        SendError::Misbehaved("not JSON".to_owned()),
    ];
    let mut errors = errors.into_iter();
    let fake = Fake::new(move |_| errors.next().map_or(Reply::Take, Reply::Fail));
    let running = Running::start(&store, &fake);

    fake.until(|sent| sent.len() == 3).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let record = destination(&store, &peer());
    assert_eq!(record.failures, 3);
    assert!(record.failing_since.is_some() && record.last_success.is_none());
    assert!(record.last_error.unwrap().contains("429"));

    running.idle(&store).await;
    let at: Vec<_> = fake.sent().iter().map(|s| s.at.as_secs()).collect();
    assert_eq!(at, [0, 1, 3, 7, 15]);
    let ids: Vec<_> = fake.sent().into_iter().map(|s| s.txn_id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "a retry is the same transaction");
    let record = destination(&store, &peer());
    assert_eq!((record.failures, record.failing_since, record.last_error), (0, None, None));
    assert!(record.last_success.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_counts_as_unreachable() {
    let store = Store::memory();
    queue_pdu(&store, &peer(), 0).await;
    let mut hang = true;
    let fake =
        Fake::new(move |_| if std::mem::take(&mut hang) { Reply::Hang } else { Reply::Take });
    let running = Running::start(&store, &fake);
    running.idle(&store).await;
    let at: Vec<_> = fake.sent().iter().map(|s| s.at.as_secs()).collect();
    assert_eq!(at, [0, 31]);
}

#[tokio::test(start_paused = true)]
async fn back_off_survives_a_restart() {
    let store = Store::memory();
    queue_pdu(&store, &peer(), 0).await;
    let clock = clock();
    let fake = Fake::new(|_| Reply::Fail(Fake::unreachable()));
    let running = Running::start_with(&store, &fake, clock.clone());
    fake.until(|sent| sent.len() == 5).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    running.kill().await;

    let begun = clock();
    let retry_at = destination(&store, &peer()).retry_at;
    assert!(retry_at > begun + 10_000);
    let fake = Fake::new(|_| Reply::Take);
    let running = Running::start_with(&store, &fake, clock.clone());
    // A wake for new rows does not end a back-off.
    queue_pdu(&store, &peer(), 1).await;
    running.sender.wake(&[peer()]);
    running.idle(&store).await;
    let waited = u64::try_from(fake.sent()[0].at.as_millis()).unwrap();
    assert_eq!(begun + waited, retry_at);
    assert_eq!(fake.pdus_taken(), event_ids(0..2));
}

#[tokio::test(start_paused = true)]
async fn a_sign_of_life_ends_the_back_off() {
    let store = Store::memory();
    queue_pdu(&store, &peer(), 0).await;
    let (up, fake) = away();
    let running = Running::start(&store, &fake);
    let sent = fake.until(|sent| sent.len() == 7).await;
    let last = sent[6].at;
    assert!(last - sent[5].at >= Duration::from_secs(30));

    // It talks, but does not listen: no more than one attempt in a first back-off.
    tokio::time::sleep(Duration::from_secs(5)).await;
    for _ in 0..100 {
        running.sender.alive(&peer());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let attempts = fake.sent().len() - 7;
    assert!((2..=3).contains(&attempts), "{attempts}");

    up.store(true, Ordering::SeqCst);
    let now = tokio::time::Instant::now();
    running.sender.alive(&peer());
    running.idle(&store).await;
    assert!(now.elapsed() <= Duration::from_millis(1_100));
}

/// CVE-2025-61672.
#[tokio::test(start_paused = true)]
async fn a_poison_event_is_isolated() {
    let store = Store::memory();
    for n in 0..70 {
        queue_pdu(&store, &peer(), n).await;
        queue_edu(&store, &peer(), n).await;
    }
    let poison = [37, 38, 60].map(event_id);
    let bad = poison.clone();
    let fake = Fake::new(move |sent| match sent.pdus.iter().any(|id| bad.contains(id)) {
        true => Reply::Fail(Fake::refused()),
        false => Reply::Take,
    });
    let running = Running::start(&store, &fake);
    running.idle(&store).await;

    let good: Vec<_> = event_ids(0..70).into_iter().filter(|id| !poison.contains(id)).collect();
    assert_eq!(fake.pdus_taken(), good, "all but the poison, in order, once");
    let edus: Vec<_> = fake.sent().into_iter().filter(|s| s.taken).flat_map(|s| s.edus).collect();
    assert_eq!(edus, (0..70).collect::<Vec<_>>());
    let aside = set_aside(&store);
    let ids: Vec<_> = aside.iter().filter_map(|(_, row)| row.event_id.clone()).collect();
    assert_eq!(ids, poison);
    assert!(aside.iter().all(|(_, row)| row.why.contains("M_BAD_JSON") && row.at > 0));
    let sent = fake.sent();
    assert!(sent.len() < 60, "{} transactions", sent.len());
    assert!(sent.iter().all(|s| s.at < Duration::from_secs(1)), "nobody waits");
    for (i, a) in sent.iter().enumerate() {
        let again = sent[..i].iter().find(|b| b.txn_id == a.txn_id);
        assert_eq!(again, None, "each set of rows has an id of its own");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_everything_loses_nothing() {
    let store = Store::memory();
    for n in 0..20 {
        queue_pdu(&store, &peer(), n).await;
    }
    let count = Arc::new(AtomicUsize::new(0));
    let fake = Fake::new(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0..40 => Reply::Fail(SendError::Refused { status: 403, message: "no".to_owned() }),
        _ => Reply::Take,
    });
    let running = Running::start(&store, &fake);
    running.idle(&store).await;
    assert_eq!(fake.pdus_taken(), event_ids(0..20));
}

#[tokio::test(start_paused = true)]
async fn an_error_for_one_event_counts_as_delivered() {
    let store = Store::memory();
    queue_pdu(&store, &peer(), 0).await;
    queue_pdu(&store, &peer(), 1).await;
    let reply = answer(&[(0, Err("M_FORBIDDEN")), (1, Ok(()))]);
    let fake = Fake::new(move |_| Reply::Answer(reply.clone()));
    let running = Running::start(&store, &fake);
    running.idle(&store).await;
    assert_eq!(fake.sent().len(), 1);
    let aside = set_aside(&store);
    assert_eq!(aside.len(), 1);
    let ((server, _), row) = &aside[0];
    assert_eq!((server, row.event_id.as_ref()), (&peer(), Some(&event_id(0))));
    assert_eq!(row.why, "M_FORBIDDEN");
}

#[tokio::test(start_paused = true)]
async fn what_is_set_aside_is_bounded() {
    let store = Store::memory();
    let count = MAX_SET_ASIDE as u64 + 120;
    for n in 0..count {
        queue_pdu(&store, &peer(), n).await;
    }
    let words = "no ".repeat(1000);
    let all: Vec<_> = (0..count).map(|n| (n, Err(&*words))).collect();
    let reply = answer(&all);
    let fake = Fake::new(move |_| Reply::Answer(reply.clone()));
    let running = Running::start(&store, &fake);
    running.idle(&store).await;
    let aside = set_aside(&store);
    let ids: Vec<_> = aside.iter().filter_map(|(_, row)| row.event_id.clone()).collect();
    assert_eq!(ids, event_ids(120..count));
    assert!(aside.iter().all(|(_, row)| row.why.len() == MAX_WHY_BYTES));
}

/// Queues an event of a room with this JSON.
async fn queue_json(store: &Store, n: u64, room: &str, json: serde_json::Value) {
    let record = event_record(&RoomId::parse(room).unwrap(), &json);
    let mut batch = Batch::default();
    batch.put::<Events>(&event_id(n), &record);
    queue_item(store, &peer(), OutboxItem::Pdu(event_id(n)), batch).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_long_outage_the_first_and_the_newest_are_sent() {
    let store = Store::memory();
    let missed = MAX_MISSED_PER_ROOM as u64;
    let message = |n: u64| json!({ "n": n, "type": "m.room.message" });
    let member = |n: u64, user: &str| json!({ "n": n, "type": "m.room.member", "state_key": user });
    let (busy, quiet, left) = ("!busy:example.org", "!quiet:example.org", "!left:example.org");
    let mut batch = Batch::default();
    for room in [busy, quiet] {
        batch.put::<JoinedServers>(&(RoomId::parse(room).unwrap(), origin()), &1);
    }
    store.commit(batch).await.unwrap();
    for n in 0..missed + 300 {
        queue_json(&store, n, busy, message(n)).await;
    }
    // A withdrawn invite in the midst of it, which nobody else will tell.
    queue_json(&store, 1000, busy, member(1000, "@bob:peer.org")).await;
    for n in missed + 300..missed + 400 {
        queue_json(&store, n, busy, message(n)).await;
    }
    queue_json(&store, 1001, quiet, message(1001)).await;
    queue_json(&store, 1002, left, message(1002)).await;
    queue_json(&store, 1003, left, member(1003, "@alice:example.org")).await;
    let typing = json!({ "edu_type": "m.typing", "content": { "n": 1 } });
    let typing = OutboxItem::Edu(typing.as_object().unwrap().clone());
    queue_item(&store, &peer(), typing, Batch::default()).await;
    let keys = json!({ "edu_type": "m.direct_to_device", "content": { "n": 2 } });
    let keys = OutboxItem::Edu(keys.as_object().unwrap().clone());
    queue_item(&store, &peer(), keys, Batch::default()).await;

    let (up, fake) = away();
    let running = Running::start(&store, &fake);
    tokio::time::sleep(Duration::from_millis(LONG_OUTAGE_MS / 2)).await;
    assert_eq!(queued(&store) as u64, missed + 400 + 6, "nothing is lost to a short outage");
    tokio::time::sleep(Duration::from_millis(LONG_OUTAGE_MS)).await;
    up.store(true, Ordering::SeqCst);
    running.idle(&store).await;

    let under_way = 50;
    let mut expected = event_ids(0..missed + under_way);
    expected.extend([1000, missed + 399, 1001, 1002, 1003].map(event_id));
    assert_eq!(fake.pdus_taken(), expected);
    let edus = fake.sent().into_iter().filter(|s| s.taken).flat_map(|s| s.edus);
    assert_eq!(edus.collect::<Vec<_>>(), [2]);
}

/// What is ephemeral is not kept for ever, but for what encryption needs.
#[tokio::test(start_paused = true)]
async fn old_receipts_are_not_sent_after_an_outage() {
    let store = Store::memory();
    // A transaction under way stays as it is, so what follows is not to be in it.
    for n in 0..51 {
        queue_pdu(&store, &peer(), n).await;
    }
    let edu = async |kind: &str, n: u64| {
        let edu = json!({ "edu_type": kind, "content": { "n": n } });
        let item = OutboxItem::Edu(edu.as_object().unwrap().clone());
        queue_item(&store, &peer(), item, Batch::default()).await;
    };
    for (kind, n) in [("m.receipt", 1), ("m.direct_to_device", 2), ("org.example.new", 3)] {
        edu(kind, n).await;
    }
    let (up, fake) = away();
    let running = Running::start(&store, &fake);
    tokio::time::sleep(Duration::from_millis(EDU_LIFE_MS)).await;
    assert_eq!(queued(&store), 54, "a day is not over");
    edu("m.receipt", 4).await;
    tokio::time::sleep(Duration::from_millis(3 * LONG_OUTAGE_MS)).await;
    assert_eq!(queued(&store), 53);
    up.store(true, Ordering::SeqCst);
    running.idle(&store).await;
    let edus = fake.sent().into_iter().filter(|s| s.taken).flat_map(|s| s.edus);
    assert_eq!(edus.collect::<Vec<_>>(), [2, 4]);
    assert_eq!(destination(&store, &peer()).mark, None);
}

#[tokio::test(start_paused = true)]
async fn rejected_and_purged_events_are_left_out() {
    let store = Store::memory();
    let rejected = Verdict::Rejected("rule 5".to_owned());
    queue_judged(&store, &peer(), 0, rejected.clone()).await;
    queue_pdu(&store, &peer(), 1).await;
    queue_item(&store, &peer(), OutboxItem::Pdu(event_id(99)), Batch::default()).await;
    let lonely = server_name!("lonely.org").to_owned();
    queue_judged(&store, &lonely, 2, rejected).await;
    let fake = Fake::new(|_| Reply::Take);
    let running = Running::start(&store, &fake);
    running.idle(&store).await;
    assert_eq!(fake.sent().len(), 1);
    assert_eq!(fake.pdus_taken(), [event_id(1)]);
    assert_eq!(destination(&store, &lonely).in_flight, None);
}

#[tokio::test(start_paused = true)]
async fn one_dead_server_does_not_hold_up_the_others() {
    let store = Store::memory();
    let others: Vec<_> = (0..100)
        .map(|n| exeunt_core::ruma::ServerName::parse(format!("s{n}.org")).unwrap())
        .collect();
    for (n, server) in (0..).zip(&others) {
        queue_pdu(&store, server, n).await;
    }
    let dead = others[3].clone();
    let gone = dead.clone();
    let fake = Fake::new(move |sent| if sent.server == gone { Reply::Hang } else { Reply::Take });
    let reached = Arc::new(Mutex::new(Vec::new()));
    let running = Running::start(&store, &fake);
    let list = Arc::clone(&reached);
    assert!(running.sender.on_reached(move |server| list.lock().unwrap().push(server.to_owned())));
    while queued(&store) > 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(fake.sent().iter().all(|s| s.at < Duration::from_secs(1)));
    assert_eq!(running.sender.busy(), std::slice::from_ref(&dead));
    let reached = reached.lock().unwrap();
    assert!(reached.len() == 99 && !reached.contains(&dead));
}

struct Panics(Arc<Fake>, AtomicBool);

#[async_trait::async_trait]
impl Transport for Panics {
    async fn send_transaction(
        &self,
        destination: &exeunt_core::ruma::ServerName,
        txn_id: &str,
        body: serde_json::Value,
    ) -> Result<exeunt_sender::TransactionAnswer, SendError> {
        assert!(self.1.swap(true, Ordering::SeqCst), "the first attempt panics");
        self.0.send_transaction(destination, txn_id, body).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_does_not_wedge_a_destination() {
    let store = Store::memory();
    queue_pdu(&store, &peer(), 0).await;
    let fake = Fake::new(|_| Reply::Take);
    let transport = Arc::new(Panics(Arc::clone(&fake), AtomicBool::new(false)));
    let (_stop, shutdown) = tokio::sync::watch::channel(false);
    let sender = exeunt_sender::Sender::start(
        store.clone(),
        transport,
        clock(),
        jitter(),
        origin(),
        options(),
        shutdown,
    );
    while !sender.busy().is_empty() || queued(&store) > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(fake.pdus_taken(), [event_id(0)]);
}
