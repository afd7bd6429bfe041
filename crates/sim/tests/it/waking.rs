//! Who is woken by what: news of a room wakes those in it, and no membership is missed.

use std::collections::BTreeMap;

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId, UserId};
use exeunt_room::{
    Preset,
    views::{Filter, SyncRequest, SyncView},
};
use exeunt_sim::{Mesh, Rng, Server};

/// What a poll reads.
async fn read(server: &Server, user: &UserId, since: Option<u64>) -> SyncView {
    let viewer = server.rooms.viewer(user, None);
    let filter = Filter::default();
    let (full_state, use_state_after) = (false, false);
    let request = SyncRequest { viewer, since, filter, full_state, use_state_after };
    server.rooms.sync(request).await.unwrap()
}

fn users(server: &Server) -> [OwnedUserId; 2] {
    ["ann", "amy"].map(|name| server.user(name))
}

#[tokio::test]
async fn a_poll_is_woken_by_its_users_rooms_only() {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let ([ann, amy], bob) = (users(a), b.user("bob"));
    let (anns, amys) =
        (a.room(&ann, Preset::Public, "12").await, a.room(&amy, Preset::Public, "12").await);
    for room in [&anns, &amys] {
        b.join(&bob, room, a).await.unwrap();
    }
    mesh.settle().await;
    let mut since = read(a, &ann, None).await.next_batch;
    let mut news = a.rooms.subscribe(&ann);
    assert!(read(a, &ann, Some(since)).await.is_empty());
    news.mark_unchanged();

    // A room that is none of hers: once her poll has read its rooms, she sleeps on.
    b.say(&bob, &amys, "not for ann").await;
    mesh.settle().await;
    assert!(!news.has_changed().unwrap());
    b.say(&bob, &anns, "for ann").await;
    mesh.settle().await;
    assert!(news.has_changed().unwrap());
    let view = read(a, &ann, Some(since)).await;
    assert!(!view.is_empty());
    since = view.next_batch;

    // An invite while she waits, and then what is said in the room she has come to.
    news.mark_unchanged();
    assert!(read(a, &ann, Some(since)).await.is_empty());
    a.invite(&amy, &ann, &amys).await.unwrap();
    assert!(news.has_changed().unwrap());
    since = read(a, &ann, Some(since)).await.next_batch;
    assert!(read(a, &ann, Some(since)).await.is_empty());
    news.mark_unchanged();
    a.rooms.join(&ann, &amys, &[], Default::default()).await.unwrap();
    assert!(news.has_changed().unwrap());
    since = read(a, &ann, Some(since)).await.next_batch;
    // Her poll has not read again before something is said.
    news.mark_unchanged();
    b.say(&bob, &amys, "now for ann").await;
    mesh.settle().await;
    assert!(news.has_changed().unwrap());
    since = read(a, &ann, Some(since)).await.next_batch;
    assert!(read(a, &ann, Some(since)).await.is_empty());
    news.mark_unchanged();
    b.say(&bob, &amys, "again").await;
    mesh.settle().await;
    assert!(news.has_changed().unwrap());
}

/// As the long poll of the client API does: subscribe once, then read, and wait where there is
/// nothing. Ends with the message `end`; gives every message by its room, as they came.
async fn poll(
    server: &Server,
    user: &UserId,
    mut since: u64,
) -> BTreeMap<OwnedRoomId, Vec<String>> {
    let mut told: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut is_over = false;
    while !is_over {
        let mut news = server.rooms.subscribe(user);
        let view = loop {
            news.borrow_and_update();
            let view = read(server, user, Some(since)).await;
            if !view.is_empty() {
                break view;
            }
            since = view.next_batch;
            news.changed().await.unwrap();
        };
        since = view.next_batch;
        for (room, section) in view.join {
            assert!(!section.timeline.limited || view.joined[&room]);
            for event in section.timeline.events {
                if let Some(body) = event.event().and_then(|event| event.content_str("body")) {
                    is_over |= body == "end";
                    told.entry(room.clone()).or_default().push(body.to_owned());
                }
            }
        }
    }
    told
}

/// Users come and go and talk while others wait, as the seed has it. Nobody misses anything of the
/// room that they stay in, hears anything twice, or sleeps on.
#[tokio::test(start_paused = true)]
async fn no_wake_up_is_lost_and_nothing_comes_twice() {
    for seed in 0..40 {
        let rng = Rng::new(seed);
        let mesh = Mesh::new(&["a.example", "b.example"]);
        let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
        let ([ann, amy], bob) = (users(a), b.user("bob"));
        let home = a.room(&ann, Preset::Public, "12").await;
        let side = a.room(&ann, Preset::Public, "12").await;
        a.join(&amy, &home, a).await.unwrap();
        b.join(&bob, &home, a).await.unwrap();
        b.join(&bob, &side, a).await.unwrap();
        mesh.settle().await;
        let mut said = Vec::new();
        let act = async {
            let mut is_in = false;
            for n in 0..25 {
                let text = format!("{n}");
                match rng.below(6) {
                    0 => {
                        let moved = match is_in {
                            true => a.leave(&amy, &side).await,
                            false => a.join(&amy, &side, a).await,
                        };
                        moved.unwrap();
                        is_in = !is_in;
                    }
                    1 => drop(b.say(&bob, &side, &text).await),
                    2 => drop(a.say(&ann, &side, &text).await),
                    3 => {
                        b.say(&bob, &home, &text).await;
                        mesh.settle().await;
                        said.push(text);
                    }
                    _ => {
                        a.say(&ann, &home, &text).await;
                        said.push(text);
                    }
                }
                for _ in 0..rng.below(40) {
                    tokio::task::yield_now().await;
                }
            }
            mesh.settle().await;
            a.say(&ann, &home, "end").await;
            said.push("end".to_owned());
        };
        let mut since = Vec::new();
        for user in [&ann, &amy] {
            since.push(read(a, user, None).await.next_batch);
        }
        // Time goes only when everybody sleeps.
        let polls = async { tokio::join!(poll(a, &ann, since[0]), poll(a, &amy, since[1])) };
        let polls = tokio::time::timeout(std::time::Duration::from_secs(3_600), polls);
        let (told, ()) = tokio::join!(polls, act);
        let (anns, amys) = told.unwrap_or_else(|_| panic!("seed {seed}: a poll sleeps on"));
        assert_eq!(anns[&home], said, "seed {seed}");
        assert_eq!(amys[&home], said, "seed {seed}");
    }
}
