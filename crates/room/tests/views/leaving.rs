//! Departures in `/sync`: spec-map rows LV1 to LV6 and FG2, FG3.

use exeunt_core::Object;
use exeunt_room::views::{Direction, SyncRequest};
use exeunt_store::tables;
use serde_json::json;

use crate::bench::{bench, find, gist, is_forbidden, user};

const WITH_LEAVE: &str = r#"{ "room": { "include_leave": true } }"#;

#[tokio::test]
async fn a_left_room_is_told_once() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "shared").await;
    bench.join(&bob, &room).await;
    let since = bench.sync(&bob, None).await.next_batch;
    bench.say(&alice, &room, "before").await;
    bench.leave(&bob, &room).await;
    bench.say(&alice, &room, "after").await;
    let view = bench.sync(&bob, Some(since)).await;
    assert!(view.join.is_empty());
    assert_eq!(gist(&view.leave[&room].timeline.events), ["before", "leave"]);
    assert!(view.leave[&room].state.is_empty());
    bench.say(&alice, &room, "later").await;
    assert!(bench.sync(&bob, Some(view.next_batch)).await.is_empty());

    assert!(bench.sync(&bob, None).await.is_empty());
    let with_leave = serde_json::from_str(WITH_LEAVE).unwrap();
    let view = bench.sync_with(&bob, None, with_leave).await;
    let left = &view.leave[&room];
    let shown = gist(&left.timeline.events);
    assert!(shown.ends_with(&["join", "before", "leave"].map(Into::into)), "{shown:?}");
}

#[tokio::test]
async fn without_a_timeline_the_leave_is_in_state() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "shared").await;
    bench.join(&bob, &room).await;
    bench.set(&alice, &room, "m.room.name", json!({ "name": "before" })).await;
    let since = bench.sync(&bob, None).await.next_batch;
    bench.leave(&bob, &room).await;
    bench.set(&alice, &room, "m.room.name", json!({ "name": "after" })).await;
    let given = json!({ "room": { "include_leave": true, "timeline": { "limit": 0 } } });
    let first = bench.sync_with(&bob, None, given.clone()).await;
    let left = &first.leave[&room];
    assert!(left.timeline.events.is_empty() && left.timeline.limited);
    let name = find(&left.state, "m.room.name", "").unwrap();
    assert_eq!(name["content"]["name"], "before");
    let own = find(&left.state, "m.room.member", bob.as_str()).unwrap();
    assert_eq!(own["content"]["membership"], "leave");
    let later = bench.sync_with(&bob, Some(since), given).await;
    assert_eq!(gist(&later.leave[&room].state), ["leave"]);
}

#[tokio::test]
async fn ones_own_leave_shows_where_history_is_for_members() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "joined").await;
    bench.join(&bob, &room).await;
    let since = bench.sync(&alice, None).await.next_batch;
    bench.leave(&alice, &room).await;
    bench.say(&bob, &room, "alone").await;
    let view = bench.sync(&alice, Some(since)).await;
    let left = &view.leave[&room];
    assert_eq!(gist(&left.timeline.events), ["leave"]);
    assert!(left.state.is_empty());
}

#[tokio::test]
async fn a_rejected_invite_shows_its_leave_and_nothing_of_the_room() {
    for visibility in ["joined", "shared"] {
        let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
        let room = bench.room(&alice, visibility).await;
        bench.say(&alice, &room, "secret").await;
        let before = bench.sync(&bob, None).await.next_batch;
        bench.invite(&alice, &bob, &room).await;
        let invited = bench.sync(&bob, Some(before)).await;
        assert!(invited.invite.contains_key(&room));
        bench.leave(&bob, &room).await;
        for (since, expected) in
            [(invited.next_batch, &["leave"][..]), (before, &["invite", "leave"][..])]
        {
            let view = bench.sync(&bob, Some(since)).await;
            assert!(view.invite.is_empty() && view.join.is_empty());
            assert_eq!(gist(&view.leave[&room].timeline.events), expected);
            assert!(view.leave[&room].state.is_empty());
        }
        let request =
            SyncRequest { full_state: true, ..bench.request(&bob, Some(invited.next_batch)) };
        let view = bench.answer(request).await;
        assert!(view.leave.contains_key(&room));
        bench.join(&bob, &room).await;
        let request =
            SyncRequest { full_state: true, ..bench.request(&bob, Some(view.next_batch)) };
        let view = bench.answer(request).await;
        assert!(view.leave.is_empty() && view.join.contains_key(&room));
    }
}

#[tokio::test]
async fn a_rejected_invite_of_another_server_shows_at_once() {
    let (bench, bob) = (bench(), user("bob"));
    let room = bench.remote_invite(&bob).await;
    let since = bench.sync(&bob, None).await.next_batch;
    bench.rooms.leave(&bob, &room, Some("no, thanks".into())).await.unwrap();
    let view = bench.sync(&bob, Some(since)).await;
    assert!(view.invite.is_empty());
    let [leave] = &view.leave[&room].timeline.events[..] else { panic!("one event") };
    assert_eq!(leave["content"], json!({ "membership": "leave", "reason": "no, thanks" }));
    assert_eq!((&leave["sender"], &leave["state_key"]), (&json!(bob), &json!(bob)));
    assert!(leave["event_id"].as_str().unwrap().starts_with('$'));
    for federation_only in ["signatures", "hashes", "auth_events", "depth", "room_id"] {
        assert!(leave.get(federation_only).is_none(), "{federation_only}");
    }
    assert!(bench.sync(&bob, Some(view.next_batch)).await.is_empty());
    assert!(bench.sync(&bob, None).await.is_empty());
}

/// LV3 where no graph holds the leave.
#[tokio::test]
async fn without_a_timeline_a_rejected_invite_is_in_state() {
    let (bench, bob) = (bench(), user("bob"));
    let room = bench.remote_invite(&bob).await;
    let since = bench.sync(&bob, None).await.next_batch;
    bench.rooms.leave(&bob, &room, None).await.unwrap();
    for (state, expected) in [
        (json!({}), &["leave"][..]),
        (json!({ "not_types": ["m.room.*"] }), &[]),
        (json!({ "not_rooms": [room] }), &[]),
    ] {
        let filter = json!({ "room": { "timeline": { "limit": 0 }, "state": state } });
        let view = bench.sync_with(&bob, Some(since), filter).await;
        let left = &view.leave[&room];
        assert!(left.timeline.events.is_empty());
        assert_eq!(gist(&left.state), expected, "{state}");
    }
}

#[tokio::test]
async fn removals_name_who_removed() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "shared").await;
    bench.join(&bob, &room).await;
    let since = bench.sync(&bob, None).await.next_batch;
    bench.rooms.kick(&alice, &bob, &room, Some("out".into())).await.unwrap();
    let view = bench.sync(&bob, Some(since)).await;
    let kick = find(&view.leave[&room].timeline.events, "m.room.member", bob.as_str()).unwrap();
    assert_eq!((&kick["sender"], &kick["content"]["reason"]), (&json!(alice), &json!("out")));
    bench.rooms.ban(&alice, &bob, &room, None).await.unwrap();
    let view = bench.sync(&bob, Some(view.next_batch)).await;
    assert_eq!(gist(&view.leave[&room].timeline.events), ["ban"]);
}

/// As Synapse has it: a first sync tells of rooms that others took the user out of, without a filter
/// that wants them.
#[tokio::test]
async fn a_first_sync_tells_of_removals() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let mut rooms = Vec::new();
    for _ in 0..4 {
        let room = bench.room(&alice, "shared").await;
        bench.join(&bob, &room).await;
        rooms.push(room);
    }
    let [left, kicked, banned, forgotten] = &rooms[..] else { panic!("four") };
    bench.leave(&bob, left).await;
    for room in [kicked, forgotten] {
        bench.rooms.kick(&alice, &bob, room, None).await.unwrap();
    }
    bench.rooms.ban(&alice, &bob, banned, None).await.unwrap();
    bench.forget(&bob, forgotten).await;
    let mut told: Vec<_> = bench.sync(&bob, None).await.leave.into_keys().collect();
    let mut expected = vec![kicked.clone(), banned.clone()];
    told.sort();
    expected.sort();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn who_is_back_by_the_next_sync_has_not_left() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "shared").await;
    let since = bench.sync(&bob, None).await.next_batch;
    bench.join(&bob, &room).await;
    let joined = bench.sync(&bob, Some(since)).await.next_batch;
    bench.leave(&bob, &room).await;
    bench.join(&bob, &room).await;
    for since in [since, joined] {
        let view = bench.sync(&bob, Some(since)).await;
        assert!(view.leave.is_empty() && view.join.contains_key(&room));
    }
}

#[tokio::test]
async fn a_forgotten_room_is_told_to_devices_that_do_not_know() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "shared").await;
    bench.join(&bob, &room).await;
    let since = bench.sync(&bob, None).await.next_batch;
    bench.leave(&bob, &room).await;
    bench.forget(&bob, &room).await;
    assert!(bench.sync(&bob, Some(since)).await.leave.contains_key(&room));
    let with_leave = serde_json::from_str(WITH_LEAVE).unwrap();
    assert!(bench.sync_with(&bob, None, with_leave).await.is_empty());
    bench.rooms.join(&bob, &room, &[], Object::new()).await.unwrap();
    assert!(bench.sync(&bob, None).await.join.contains_key(&room));
}

/// FG3, where nobody of ours is left: the graph goes, and the departure is told nevertheless.
#[tokio::test]
async fn a_departure_outlives_its_room() {
    let (bench, alice) = (bench(), user("alice"));
    let room = bench.room(&alice, "shared").await;
    let since = bench.sync(&alice, None).await.next_batch;
    bench.leave(&alice, &room).await;
    bench.forget(&alice, &room).await;
    bench.rooms.purge_forgotten(&room).await.unwrap();
    assert!(bench.store.reader().get::<tables::Rooms>(&room).unwrap().is_none());
    let view = bench.sync(&alice, Some(since)).await;
    assert_eq!(gist(&view.leave[&room].timeline.events), ["leave"]);
    let with_leave = serde_json::from_str(WITH_LEAVE).unwrap();
    assert!(bench.sync_with(&alice, None, with_leave).await.is_empty());
    let page = bench.page(&alice, &room, Direction::Backward, None, 10).await;
    assert!(is_forbidden(&page));
    bench.forget(&alice, &room).await;
}
