//! What is of the moment: it ends by itself, it is bounded, it can be switched off.

use std::{sync::Arc, time::Duration};

use exeunt_room::{
    Clock, EphemeralView, Options, Presence, Receipt, ReceiptKind,
    ephemeral::receipts::MAX_PER_USER,
    views::{Filter, SyncRequest},
};
use exeunt_store::tables;
use ruma::{DeviceId, OwnedRoomId, OwnedUserId, UserId, device_id};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::bench::{Bench, bench, bench_with, user};

/// On a clock that goes with the runtime's.
async fn stage(options: Options) -> (Bench, OwnedRoomId, OwnedUserId, OwnedUserId) {
    let began = Instant::now();
    let now = move || 1_700_000_000_000 + u64::try_from(began.elapsed().as_millis()).unwrap();
    let clock: Clock = Arc::new(now);
    let bench = bench_with(clock, options);
    let (ann, bob) = (user("ann"), user("bob"));
    let room = bench.room(&ann, "shared").await;
    bench.join(&bob, &room).await;
    (bench, room, ann, bob)
}

fn phone() -> &'static DeviceId {
    device_id!("PHONE")
}

async fn news(bench: &Bench, user: &UserId, since: Option<u64>) -> (EphemeralView, u64) {
    let request = SyncRequest {
        viewer: bench.rooms.viewer(user, None),
        since,
        filter: Filter::default(),
        full_state: false,
        use_state_after: false,
    };
    let mut view = bench.rooms.sync(request).await.unwrap();
    let news = bench.rooms.ephemeral(user, since, &mut view, &Filter::default()).await.unwrap();
    (news, view.next_batch)
}

#[tokio::test(start_paused = true)]
async fn typing_and_presence_end_by_themselves_and_wake_those_who_wait() {
    let (bench, room, ann, bob) = stage(Options::default()).await;
    let rooms = &bench.rooms;
    let typing = Some(Duration::from_secs(20));
    rooms.set_presence(&ann, phone(), Presence::Online, None).await.unwrap();
    rooms.set_typing(&ann, &room, typing).await.unwrap();
    let (told, mut since) = news(&bench, &bob, None).await;
    assert_eq!(told.rooms[&room][0]["content"]["user_ids"], json!([ann]));
    assert_eq!(told.presence.len(), 1);
    // Who goes on typing is told of once.
    tokio::time::sleep(Duration::from_secs(15)).await;
    rooms.set_typing(&ann, &room, typing).await.unwrap();
    let mut woken = rooms.subscribe(&bob);
    let start = Instant::now();
    for (after, is_typing) in [(20, true), (300 - 15, false)] {
        assert!(news(&bench, &bob, Some(since)).await.0.is_empty());
        timeout(Duration::from_secs(600), woken.changed()).await.unwrap().unwrap();
        assert_eq!(start.elapsed().as_secs(), after);
        let (told, next) = news(&bench, &bob, Some(since)).await;
        since = next;
        if is_typing {
            assert_eq!(told.rooms[&room][0]["content"]["user_ids"], json!([]));
        } else {
            assert_eq!(told.presence[0]["content"]["presence"], "offline");
        }
    }
    // As long as somebody syncs they are there.
    for _ in 0..5 {
        rooms
            .present_by_sync(&bob, phone(), Presence::Online, Duration::from_secs(100))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(rooms.presence(&ann, &bob).await.unwrap()["presence"], "online");
    }
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(rooms.presence(&ann, &bob).await.unwrap()["presence"], "offline");
}

/// A user is there as the one of their devices that is there most, and its polls are no news.
#[tokio::test(start_paused = true)]
async fn two_devices_do_not_speak_against_each_other() {
    let (bench, _, ann, bob) = stage(Options::default()).await;
    let (rooms, laptop) = (&bench.rooms, device_id!("LAPTOP"));
    let (online, unavailable) = (Presence::Online, Presence::Unavailable);
    let timeout = Duration::from_secs(30);
    rooms.present_by_sync(&ann, phone(), online, timeout).await.unwrap();
    let position = *bench.store.position().borrow();
    let is = async || rooms.presence(&bob, &ann).await.unwrap()["presence"].clone();
    for _ in 0..5 {
        rooms.present_by_sync(&ann, laptop, unavailable, timeout).await.unwrap();
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert_eq!(is().await, "online");
        rooms.present_by_sync(&ann, phone(), online, timeout).await.unwrap();
        tokio::time::sleep(Duration::from_secs(15)).await;
    }
    assert_eq!(*bench.store.position().borrow(), position, "nothing was written");
    // The phone goes, and the laptop speaks; then it goes too.
    for (passes, expected) in [(40, "online"), (10, "unavailable"), (50, "unavailable")] {
        rooms.present_by_sync(&ann, laptop, unavailable, timeout).await.unwrap();
        tokio::time::sleep(Duration::from_secs(passes)).await;
        assert_eq!(is().await, expected);
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(is().await, "offline");
}

/// However many others are there: few are looked up one by one, of many the rooms' members are read.
#[tokio::test]
async fn presence_is_of_those_who_share_a_room() {
    for strangers in [1, 50] {
        let (bench, room, ann, bob) = stage(Options::default()).await;
        let (eve, elsewhere) = (user("eve"), bench.room(&user("stranger0"), "shared").await);
        bench.join(&eve, &room).await;
        bench.leave(&eve, &room).await;
        let (_, since) = news(&bench, &bob, None).await;
        let strangers = (0..strangers).map(|n| user(&format!("stranger{n}")));
        for who in strangers.chain([ann.clone(), eve]) {
            bench.join(&who, &elsewhere).await;
            bench.rooms.set_presence(&who, phone(), Presence::Online, None).await.unwrap();
        }
        for since in [None, Some(since)] {
            let told = news(&bench, &bob, since).await.0.presence;
            let senders: Vec<_> = told.iter().map(|event| &event["sender"]).collect();
            assert_eq!(senders, [&json!(ann)]);
        }
    }
}

#[tokio::test]
async fn presence_can_be_switched_off() {
    let options = Options { presence: false, ..Options::default() };
    let (bench, _, ann, bob) = stage(options).await;
    bench.rooms.set_presence(&ann, phone(), Presence::Online, None).await.unwrap();
    bench.rooms.present_by_sync(&ann, phone(), Presence::Online, Duration::ZERO).await.unwrap();
    assert!(news(&bench, &bob, None).await.0.is_empty());
    assert_eq!(bench.rooms.presence(&bob, &ann).await.unwrap()["presence"], "offline");
}

#[tokio::test]
async fn a_user_has_so_many_receipts_and_the_oldest_go() {
    let bench = bench();
    let ann = user("ann");
    let room = bench.room(&ann, "shared").await;
    let event_id = bench.say(&ann, &room, "hello").await;
    for n in 0..MAX_PER_USER + 2 {
        let (user, event_id, thread) = (ann.clone(), event_id.clone(), Some(format!("t{n}")));
        let receipt = Receipt { user, kind: ReceiptKind::Private, event_id, thread };
        bench.rooms.receipt(&room, receipt).await.unwrap();
    }
    let rows = bench.store.reader().scan::<tables::Receipts>(room).collect().unwrap();
    let mut threads: Vec<_> = rows.into_iter().filter_map(|(_, row)| row.thread_id).collect();
    assert_eq!(threads.len(), MAX_PER_USER);
    threads.sort();
    assert!(!threads.contains(&"t0".to_owned()) && !threads.contains(&"t1".to_owned()));
}
