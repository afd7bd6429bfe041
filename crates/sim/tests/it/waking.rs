//! Who is woken by what: news of a room wakes those in it, and no membership is missed.

use exeunt_core::ruma::{OwnedUserId, UserId};
use exeunt_room::{
    Preset,
    views::{Filter, SyncRequest, SyncView},
};
use exeunt_sim::{Mesh, Server};

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
