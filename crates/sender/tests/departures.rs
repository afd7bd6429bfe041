//! The departure outbox.

mod support;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use exeunt_core::PendingMembership;
use exeunt_core::ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId, owned_user_id,
    server_name,
};
use exeunt_sender::{
    Backoff, Clock, DepartureOptions, DepartureOutcome, DepartureRunner, Departures, STUCK_AFTER_MS,
};
use exeunt_store::records::{DepartureRecord, DepartureRetryRecord};
use exeunt_store::tables::{self, DepartureRetries};
use exeunt_store::{Batch, Store};
use support::{clock, jitter};
use tokio::sync::watch;
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3600);

fn alice() -> OwnedUserId {
    owned_user_id!("@alice:example.org")
}

fn room(n: u32) -> OwnedRoomId {
    RoomId::parse(format!("!room{n}:domain.org")).unwrap()
}

async fn queue(store: &Store, n: u32, departed_at: u64, retry_at: u64) {
    let pending = PendingMembership {
        user_id: alice(),
        room_id: room(n),
        membership: "invite".to_owned(),
        room_version: "11".to_owned(),
        event: serde_json::Map::new(),
        stripped_state: Vec::new(),
        sender: owned_user_id!("@bob:inviter.org"),
        delivered_by: Some(server_name!("relay.org").to_owned()),
        candidates: vec![server_name!("via.org").to_owned()],
        received_at: departed_at,
    };
    let record = DepartureRecord {
        pending,
        reason: None,
        departed_at,
        attempts: 0,
        retry_at,
        last: Vec::new(),
        candidates: vec![server_name!("stripped.org").to_owned()],
    };
    let mut batch = Batch::default();
    batch.put::<tables::Departures>(&(alice(), room(n)), &record);
    store.commit(batch).await.unwrap();
}

fn schedule(store: &Store, n: u32) -> Option<DepartureRetryRecord> {
    store.reader().get::<DepartureRetries>(&(alice(), room(n))).unwrap()
}

fn waiting(store: &Store) -> usize {
    store.reader().scan::<tables::Departures>(()).keys().unwrap().len()
}

/// Does what the script says, then retries for ever.
struct Runner {
    store: Store,
    start: Instant,
    script: Mutex<VecDeque<DepartureOutcome>>,
    attempts: watch::Sender<Vec<(OwnedRoomId, Duration)>>,
    running: watch::Sender<usize>,
    most: watch::Sender<usize>,
    takes: Duration,
}

impl Runner {
    fn new(store: &Store, script: &[DepartureOutcome], takes: Duration) -> Arc<Self> {
        Arc::new(Self {
            store: store.clone(),
            start: Instant::now(),
            script: Mutex::new(script.iter().copied().collect()),
            attempts: watch::Sender::new(Vec::new()),
            running: watch::Sender::new(0),
            most: watch::Sender::new(0),
            takes,
        })
    }

    fn times(&self) -> Vec<u64> {
        self.attempts.borrow().iter().map(|(_, at)| at.as_secs()).collect()
    }

    async fn until(&self, attempts: usize) {
        self.attempts.subscribe().wait_for(|all| all.len() >= attempts).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[async_trait]
impl DepartureRunner for Runner {
    async fn attempt(&self, user: &UserId, room: &RoomId) -> DepartureOutcome {
        self.running.send_modify(|n| *n += 1);
        self.most.send_modify(|n| *n = (*n).max(*self.running.borrow()));
        let outcome = self.script.lock().unwrap().pop_front().unwrap_or(DepartureOutcome::Retry);
        self.attempts.send_modify(|all| all.push((room.to_owned(), self.start.elapsed())));
        tokio::time::sleep(self.takes).await;
        if outcome != DepartureOutcome::Retry {
            let mut batch = Batch::default();
            batch.delete::<tables::Departures>(&(user.to_owned(), room.to_owned()));
            self.store.commit(batch).await.unwrap();
        }
        self.running.send_modify(|n| *n -= 1);
        outcome
    }
}

struct Running {
    departures: Departures,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

fn start(store: &Store, runner: &Arc<Runner>, clock: Clock) -> Running {
    let (stop, shutdown) = watch::channel(false);
    let backoff = Backoff { first: Duration::from_secs(5), last: 6 * HOUR };
    let options = DepartureOptions { backoff, attempt_timeout: Duration::from_secs(300) };
    let departures = Departures::new(store.clone(), clock, jitter(), options, shutdown);
    let task = departures.start(runner.clone());
    Running { departures, stop, task }
}

impl Running {
    async fn kill(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

use DepartureOutcome::{Delivered, Ended, Retry};

#[tokio::test(start_paused = true)]
async fn tried_until_delivered() {
    let store = Store::memory();
    let clock = clock();
    let runner = Runner::new(&store, &[Retry, Retry, Retry, Delivered], Duration::ZERO);
    let running = start(&store, &runner, clock.clone());
    tokio::time::sleep(Duration::from_secs(10)).await;
    queue(&store, 1, clock(), clock() + 2_000).await;
    running.departures.departure_queued();
    runner.until(3).await;
    let schedule_3 = schedule(&store, 1).unwrap();
    assert_eq!(schedule_3.attempts, 3);
    assert_eq!(schedule_3.retry_at, schedule_3.tried_at + 20_000);
    runner.until(4).await;
    assert_eq!(runner.times(), [12, 17, 27, 47]);
    assert_eq!((waiting(&store), schedule(&store, 1)), (0, None));
    tokio::time::sleep(24 * HOUR).await;
    assert_eq!(runner.times().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_the_schedule() {
    let store = Store::memory();
    let clock = clock();
    queue(&store, 1, clock(), 0).await;
    let runner = Runner::new(&store, &[], Duration::ZERO);
    let running = start(&store, &runner, clock.clone());
    runner.until(5).await;
    running.kill().await;
    let before = schedule(&store, 1).unwrap();
    assert_eq!(before.attempts, 5);

    let runner = Runner::new(&store, &[Ended], Duration::ZERO);
    let _running = start(&store, &runner, clock.clone());
    let restarted = clock();
    runner.until(1).await;
    assert_eq!(runner.times(), [(before.retry_at - restarted) / 1000]);
    assert_eq!((waiting(&store), schedule(&store, 1)), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_middle_of_an_attempt() {
    let store = Store::memory();
    let clock = clock();
    queue(&store, 1, clock(), 0).await;
    let runner = Runner::new(&store, &[Delivered], HOUR);
    let running = start(&store, &runner, clock.clone());
    runner.until(1).await;
    running.kill().await;
    assert_eq!(waiting(&store), 1);
    let runner = Runner::new(&store, &[Delivered], Duration::ZERO);
    let _running = start(&store, &runner, clock);
    runner.until(1).await;
    assert_eq!(waiting(&store), 0);
}

#[tokio::test(start_paused = true)]
async fn any_candidate_that_shows_life_brings_it_forward() {
    let candidates: [&ServerName; 5] = [
        server_name!("stripped.org"),
        server_name!("inviter.org"),
        server_name!("relay.org"),
        server_name!("via.org"),
        server_name!("domain.org"),
    ];
    for candidate in candidates {
        let store = Store::memory();
        let clock = clock();
        queue(&store, 1, clock(), 0).await;
        let runner = Runner::new(&store, &[Retry; 12], Duration::ZERO);
        let running = start(&store, &runner, clock.clone());
        runner.until(12).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        running.departures.alive(server_name!("stranger.org"));
        running.departures.alive(server_name!("example.org"));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(runner.times().len(), 12);

        runner.script.lock().unwrap().push_back(Delivered);
        let asked = clock();
        running.departures.alive(candidate);
        runner.until(13).await;
        assert!(clock() - asked < 100, "{candidate}");
        assert_eq!(waiting(&store), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_do_not_make_a_storm() {
    let store = Store::memory();
    let clock = clock();
    queue(&store, 1, clock(), 0).await;
    let runner = Runner::new(&store, &[], Duration::ZERO);
    let running = start(&store, &runner, clock);
    runner.until(4).await;
    let inviter: OwnedServerName = server_name!("inviter.org").to_owned();
    for _ in 0..600 {
        running.departures.alive(&inviter);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let times = runner.times();
    assert!((11..=13).contains(&(times.len() - 4)), "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 4), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_later_departure_starts_afresh() {
    let store = Store::memory();
    let clock = clock();
    queue(&store, 1, clock(), 0).await;
    let runner = Runner::new(&store, &[], Duration::ZERO);
    let running = start(&store, &runner, clock.clone());
    runner.until(8).await;
    // Invited again, and rejected again: the row is another departure's now.
    queue(&store, 1, clock(), clock()).await;
    let asked = clock();
    running.departures.departure_queued();
    runner.until(9).await;
    assert!(clock() - asked < 100);
    assert_eq!(schedule(&store, 1).unwrap().attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn never_given_up_and_ever_more_rarely_tried() {
    let store = Store::memory();
    let clock = clock();
    let departed_at = clock();
    queue(&store, 1, departed_at, 0).await;
    let runner = Runner::new(&store, &[], Duration::ZERO);
    let _running = start(&store, &runner, clock.clone());
    while clock() - departed_at < 2 * STUCK_AFTER_MS {
        tokio::time::sleep(HOUR).await;
    }
    assert_eq!(waiting(&store), 1);
    let schedule = schedule(&store, 1).unwrap();
    assert_eq!(schedule.retry_at, schedule.tried_at + 6 * 3_600_000);
    let gaps: Vec<_> = runner.times().windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps[..4], [5, 10, 20, 40]);
    assert!(gaps.iter().all(|gap| *gap <= 6 * 3600));
    assert_eq!(gaps.last(), Some(&(6 * 3600)));
}

#[tokio::test(start_paused = true)]
async fn so_many_at_once_and_each_gets_its_turn() {
    let store = Store::memory();
    let clock = clock();
    for n in 0..40 {
        queue(&store, n, clock(), 0).await;
    }
    let runner = Runner::new(&store, &[Delivered; 40], Duration::from_secs(1));
    let _running = start(&store, &runner, clock);
    while waiting(&store) > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(*runner.most.borrow(), exeunt_sender::MAX_DEPARTURES_AT_ONCE);
    let mut rooms: Vec<_> = runner.attempts.borrow().iter().map(|(room, _)| room.clone()).collect();
    rooms.sort();
    rooms.dedup();
    assert_eq!(rooms.len(), 40, "each once");
    assert_eq!(runner.times().last(), Some(&4));
}
