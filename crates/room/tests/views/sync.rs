//! Joined rooms and invites in `/sync`.

use exeunt_core::Object;
use exeunt_room::views::{Direction, SyncRequest};
use exeunt_room::{ClientTransaction, Intent, RoomError};
use serde_json::{Value, json};

use crate::bench::{bench, find, gist, object, user};

/// What heroes a room has depends on who looks: nobody is a hero to themselves.
#[tokio::test]
async fn heroes_are_others() {
    let bench = bench();
    let users: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"].map(user).into();
    let room = bench.room(&users[0], "shared").await;
    for user in &users[1..] {
        bench.join(user, &room).await;
    }
    let heroes = async |viewer: usize| {
        let view = bench.sync(&users[viewer], None).await;
        view.join[&room].summary.clone().unwrap().heroes
    };
    for _ in 0..2 {
        assert_eq!(heroes(0).await, users[1..6]);
        assert_eq!(heroes(2).await, [&users[..2], &users[3..6]].concat());
        assert_eq!(heroes(6).await, users[..5]);
    }
    bench.leave(&users[1], &room).await;
    assert_eq!(heroes(0).await, users[2..7]);
    for user in &users[2..] {
        bench.leave(user, &room).await;
    }
    assert_eq!(heroes(0).await, users[1..6], "all are gone");
}

#[tokio::test]
async fn the_first_sync_has_the_whole_room() {
    let (bench, alice) = (bench(), user("alice"));
    let room = bench.room(&alice, "shared").await;
    let view = bench.sync(&alice, None).await;
    let joined = &view.join[&room];
    assert_eq!(joined.timeline.events[0]["type"], "m.room.create");
    assert!(find(&joined.timeline.events, "m.room.member", alice.as_str()).is_some());
    assert!(!joined.timeline.limited);
    assert!(joined.state.is_empty(), "all of the state is in the timeline");
    let summary = joined.summary.as_ref().unwrap();
    assert_eq!((summary.joined, summary.invited, summary.heroes.len()), (1, Some(0), 0));
    assert!(view.invite.is_empty() && view.leave.is_empty() && view.knock.is_empty());
    for event in &joined.timeline.events {
        assert!(event.get("room_id").is_none());
        assert!(event["unsigned"]["age"].as_u64().is_some());
    }
}

#[tokio::test]
async fn later_syncs_have_what_is_new() {
    let (bench, alice) = (bench(), user("alice"));
    let room = bench.room(&alice, "shared").await;
    let since = bench.sync(&alice, None).await.next_batch;
    let nothing = bench.sync(&alice, Some(since)).await;
    assert!(nothing.is_empty());
    assert_eq!(nothing.next_batch, since);
    bench.say(&alice, &room, "one").await;
    let view = bench.sync(&alice, Some(since)).await;
    let joined = &view.join[&room];
    assert_eq!(gist(&joined.timeline.events), ["one"]);
    assert!(!joined.timeline.limited && joined.state.is_empty() && joined.summary.is_none());
    assert!(bench.sync(&alice, Some(view.next_batch)).await.is_empty());
}

#[tokio::test]
async fn a_token_from_the_future_is_refused() {
    let (bench, alice) = (bench(), user("alice"));
    let result = bench.rooms.sync(bench.request(&alice, Some(1_000))).await;
    assert!(matches!(result, Err(RoomError::InvalidParam(_))));
}

#[tokio::test]
async fn transaction_ids_are_for_the_device_that_sent() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "shared").await;
    bench.join(&bob, &room).await;
    let since = bench.sync(&alice, None).await.next_batch;
    let transaction =
        ClientTransaction { device: "DEVICE".into(), path: "/x".into(), id: "txn".into() };
    let content = object(json!({ "body": "hi" }));
    let intent = Intent {
        transaction: Some(transaction),
        ..Intent::message(alice.clone(), "m.room.message", content)
    };
    bench.rooms.append(&room, intent).await.unwrap();
    let id = async |user, device: &str| {
        let viewer = bench.rooms.viewer(user, Some(device.into()));
        let request = SyncRequest { viewer, ..bench.request(user, Some(since)) };
        let view = bench.answer(request).await;
        view.join[&room].timeline.events[0]["unsigned"]["transaction_id"].clone()
    };
    assert_eq!(id(&alice, "DEVICE").await, "txn");
    assert_eq!(id(&alice, "OTHER").await, Value::Null);
    assert_eq!(id(&bob, "DEVICE").await, Value::Null);
}

#[tokio::test]
async fn a_gap_brings_the_state_that_changed_in_it() {
    let (bench, alice) = (bench(), user("alice"));
    let room = bench.room(&alice, "shared").await;
    let since = bench.sync(&alice, None).await.next_batch;
    bench.set(&alice, &room, "m.room.name", json!({ "name": "in the gap" })).await;
    for text in ["1", "2", "3"] {
        bench.say(&alice, &room, text).await;
    }
    bench.set(&alice, &room, "m.room.topic", json!({ "topic": "shown" })).await;
    let limit = json!({ "room": { "timeline": { "limit": 2 } } });
    let view = bench.sync_with(&alice, Some(since), limit).await;
    let joined = &view.join[&room];
    assert!(joined.timeline.limited);
    assert_eq!(gist(&joined.timeline.events), ["3", "m.room.topic"]);
    assert_eq!(gist(&joined.state), ["m.room.name"]);

    let request = SyncRequest { use_state_after: true, ..bench.request(&alice, Some(since)) };
    let view = bench.answer(request).await;
    assert_eq!(gist(&view.join[&room].state), ["m.room.name", "m.room.topic"]);
}

/// As Complement's TestSyncTimelineGap: events before a hole in the graph do not come with those
/// after it, but by paging back.
#[tokio::test]
async fn a_hole_in_the_graph_limits_the_timeline() {
    let (bench, alice) = (bench(), user("alice"));
    let room = bench.room(&alice, "shared").await;
    let since = bench.sync(&alice, None).await.next_batch;
    bench.say(&alice, &room, "before").await;
    bench.say_after_gap(&alice, &room, "hole").await;
    bench.say(&alice, &room, "after").await;
    for since in [None, Some(since)] {
        let view = bench.sync(&alice, since).await;
        let timeline = &view.join[&room].timeline;
        assert_eq!(gist(&timeline.events), ["hole", "after"]);
        assert!(timeline.limited);
        let from = Some(timeline.prev_batch);
        let page = bench.page(&alice, &room, Direction::Backward, from, 1).await.unwrap();
        assert_eq!(gist(&page.chunk), ["before"]);
    }
}

#[tokio::test]
async fn state_that_a_filter_takes_from_the_timeline_is_in_state() {
    let (bench, alice) = (bench(), user("alice"));
    let room = bench.room(&alice, "shared").await;
    let since = bench.sync(&alice, None).await.next_batch;
    bench.say(&alice, &room, "1").await;
    bench.set(&alice, &room, "m.room.name", json!({ "name": "x" })).await;
    bench.say(&alice, &room, "2").await;
    let given = json!({ "room": { "timeline": { "types": ["m.*.message"] } } });
    let joined = &bench.sync_with(&alice, Some(since), given).await.join[&room];
    assert_eq!(gist(&joined.timeline.events), ["1", "2"]);
    assert_eq!(gist(&joined.state), ["m.room.name"]);
    let given = json!({ "room": {
        "timeline": { "not_senders": [alice] },
        "state": { "types": [] },
    } });
    assert!(bench.sync_with(&alice, Some(since), given).await.is_empty());
    for given in [json!({ "not_rooms": [room] }), json!({ "rooms": ["!other:x"] })] {
        assert!(bench.sync_with(&alice, None, json!({ "room": given })).await.is_empty());
    }
}

#[tokio::test]
async fn who_joins_gets_the_room_as_a_new_one() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "shared").await;
    bench.set(&alice, &room, "m.room.name", json!({ "name": "old" })).await;
    for n in 0..12 {
        bench.say(&alice, &room, &n.to_string()).await;
    }
    let since = bench.sync(&bob, None).await.next_batch;
    bench.join(&bob, &room).await;
    let view = bench.sync(&bob, Some(since)).await;
    let joined = &view.join[&room];
    assert!(joined.timeline.limited);
    assert_eq!(joined.timeline.events.len(), 10);
    assert!(find(&joined.state, "m.room.create", "").is_some());
    assert!(find(&joined.state, "m.room.name", "").is_some());
    assert!(find(&joined.state, "m.room.member", alice.as_str()).is_some());
    assert!(find(&joined.state, "m.room.member", bob.as_str()).is_none(), "in the timeline");
    let memberships: Vec<_> =
        joined.timeline.events.iter().map(|e| e["unsigned"]["membership"].clone()).collect();
    assert_eq!(memberships[8..], ["leave", "join"], "MSC4115");
    let summary = joined.summary.as_ref().unwrap();
    assert_eq!((summary.joined, &summary.heroes[..]), (2, &[][..]), "a named room has no heroes");
    assert!(bench.sync(&bob, Some(view.next_batch)).await.is_empty());
}

#[tokio::test]
async fn lazy_loading_brings_senders_and_oneself() {
    let (bench, alice, bob, carol) = (bench(), user("alice"), user("bob"), user("carol"));
    let room = bench.room(&alice, "shared").await;
    let dave = user("dave");
    bench.set(&alice, &room, "m.room.name", json!({ "name": "named" })).await;
    for member in [&bob, &carol, &dave] {
        bench.join(member, &room).await;
    }
    let middle = bench.sync(&alice, None).await.next_batch;
    for n in 0..3 {
        bench.say(&bob, &room, &n.to_string()).await;
    }
    let lazy =
        json!({ "room": { "state": { "lazy_load_members": true }, "timeline": { "limit": 2 } } });
    let members = |state: &[Value]| {
        let members = state.iter().filter(|event| event["type"] == "m.room.member");
        members.map(|event| event["state_key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = bench.sync_with(&carol, None, lazy.clone()).await;
    assert_eq!(members(&first.join[&room].state), [bob.as_str(), carol.as_str()]);
    let later = bench.sync_with(&carol, Some(middle), lazy.clone()).await;
    assert_eq!(members(&later.join[&room].state), [bob.as_str()]);
    // A change in a gap is told, whoever made it.
    bench.leave(&dave, &room).await;
    bench.say(&bob, &room, "a").await;
    bench.say(&bob, &room, "b").await;
    let gap = bench.sync_with(&carol, Some(later.next_batch), lazy).await;
    assert_eq!(members(&gap.join[&room].state), [dave.as_str()]);
}

/// Each member event is told once, unless the client wants it again, or the answer was lost.
#[tokio::test]
async fn members_are_told_once() {
    let (bench, alice, bob, carol) = (bench(), user("alice"), user("bob"), user("carol"));
    let room = bench.room(&alice, "shared").await;
    // So that it has no heroes.
    bench.set(&alice, &room, "m.room.name", json!({ "name": "named" })).await;
    bench.join(&bob, &room).await;
    bench.join(&carol, &room).await;
    for n in 0..10 {
        bench.say(&alice, &room, &n.to_string()).await;
    }
    let lazy = |more: bool| {
        json!({ "room": { "state": {
        "lazy_load_members": true, "include_redundant_members": more,
    } } })
    };
    let told = async |since: Option<u64>, more: bool| {
        let view = bench.sync_with(&carol, since, lazy(more)).await;
        (gist(&view.join[&room].state), view.next_batch)
    };
    let (_, since) = told(None, false).await;
    bench.say(&bob, &room, "1").await;
    assert_eq!(told(Some(since), false).await.0, ["join"], "Bob");
    let (again, second) = told(Some(since), false).await;
    assert_eq!(again, ["join"], "the answer was lost");
    bench.say(&bob, &room, "2").await;
    bench.say(&alice, &room, "3").await;
    let (state, third) = told(Some(second), false).await;
    assert!(state.is_empty(), "{state:?}");
    bench.say(&bob, &room, "4").await;
    assert_eq!(told(Some(third), true).await.0, ["join"]);
    // A token of before: nothing is known of who brings it.
    assert_eq!(told(Some(since), false).await.0, ["join", "join"]);
}

#[tokio::test]
async fn the_federation_format_is_what_servers_have() {
    let (bench, alice) = (bench(), user("alice"));
    let room = bench.room(&alice, "shared").await;
    let said = bench.say(&alice, &room, "hello").await;
    let view = bench.sync_with(&alice, None, json!({ "event_format": "federation" })).await;
    let event = view.join[&room].timeline.events.last().unwrap();
    assert_eq!(
        (event["event_id"].as_str(), &event["room_id"]),
        (Some(said.as_str()), &json!(room))
    );
    for field in ["auth_events", "prev_events", "hashes", "signatures", "depth", "unsigned"] {
        assert!(event.get(field).is_some(), "{field}");
    }
}

#[tokio::test]
async fn full_state_repeats_the_state_and_not_the_timeline() {
    let (bench, alice) = (bench(), user("alice"));
    let room = bench.room(&alice, "shared").await;
    let since = bench.sync(&alice, None).await.next_batch;
    let request = SyncRequest { full_state: true, ..bench.request(&alice, Some(since)) };
    let view = bench.answer(request).await;
    let joined = &view.join[&room];
    assert!(joined.timeline.events.is_empty() && !joined.timeline.limited);
    assert!(find(&joined.state, "m.room.create", "").is_some());
}

#[tokio::test]
async fn state_events_say_what_they_replace_and_redactions_show() {
    let (bench, alice) = (bench(), user("alice"));
    let room = bench.room(&alice, "shared").await;
    let old = bench.set(&alice, &room, "m.room.name", json!({ "name": "old" })).await;
    let since = bench.sync(&alice, None).await.next_batch;
    bench.set(&alice, &room, "m.room.name", json!({ "name": "new" })).await;
    let said = bench.say(&alice, &room, "regret").await;
    let content = object(json!({ "redacts": said }));
    let intent = Intent {
        redacts: Some(said.clone()),
        ..Intent::message(alice.clone(), "m.room.redaction", content)
    };
    let redaction = bench.rooms.append(&room, intent).await.unwrap();
    let view = bench.sync(&alice, Some(since)).await;
    let events = &view.join[&room].timeline.events;
    assert_eq!(events[0]["unsigned"]["prev_content"], json!({ "name": "old" }));
    assert_eq!(events[0]["unsigned"]["replaces_state"], old.as_str());
    assert_eq!(events[1]["content"], json!({}));
    assert_eq!(events[1]["unsigned"]["redacted_because"]["event_id"], redaction.as_str());
    assert_eq!(events[2]["redacts"], said.as_str());
}

#[tokio::test]
async fn invites_of_rooms_that_we_reside_in() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "shared").await;
    let since = bench.sync(&bob, None).await.next_batch;
    let direct = object(json!({ "is_direct": true }));
    bench.rooms.invite(&alice, &bob, &room, direct).await.unwrap();
    for since in [None, Some(since)] {
        let view = bench.sync(&bob, since).await;
        assert!(view.join.is_empty() && view.leave.is_empty());
        let state = &view.invite[&room].state;
        let own = find(state, "m.room.member", bob.as_str()).unwrap();
        assert_eq!(own["content"], json!({ "membership": "invite", "is_direct": true }));
        assert_eq!(own.as_object().unwrap().len(), 4, "stripped: {own}");
        for kind in ["m.room.create", "m.room.join_rules"] {
            assert!(find(state, kind, "").is_some(), "{kind}");
        }
        assert!(bench.sync(&bob, Some(view.next_batch)).await.is_empty(), "told once");
    }
    bench.say(&alice, &room, "no news for the invited").await;
    let told = bench.sync(&bob, None).await.next_batch;
    assert!(bench.sync(&bob, Some(told)).await.is_empty());
    let since = bench.sync(&alice, None).await.next_batch;
    bench.rooms.join(&bob, &room, &[], Object::new()).await.unwrap();
    let view = bench.sync(&alice, Some(since)).await;
    let join = find(&view.join[&room].timeline.events, "m.room.member", bob.as_str()).unwrap();
    assert_eq!(join["unsigned"]["prev_content"]["is_direct"], true);
    let summary = view.join[&room].summary.as_ref().unwrap();
    assert_eq!((summary.joined, summary.invited, &summary.heroes[..]), (2, Some(0), &[bob][..]));
}

/// An invite that was hidden shows when what hid it is taken back.
#[tokio::test]
async fn invites_that_are_hidden_no_longer() {
    for (kind, hides) in [
        ("m.ignored_user_list", json!({ "ignored_users": { "@alice:here.example": {} } })),
        (
            "org.matrix.msc4155.invite_permission_config",
            json!({ "ignored_users": ["@alice:here.example"] }),
        ),
    ] {
        let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
        let room = bench.room(&alice, "shared").await;
        bench.account_data(&bob, kind, hides).await;
        bench.invite(&alice, &bob, &room).await;
        let hidden = bench.sync(&bob, None).await;
        assert!(hidden.is_empty(), "{kind}");
        bench.account_data(&bob, "m.x", json!({ "a": 1 })).await;
        assert!(bench.sync(&bob, Some(hidden.next_batch)).await.is_empty());
        bench.account_data(&bob, kind, json!({})).await;
        let shown = bench.sync(&bob, Some(hidden.next_batch)).await;
        assert!(shown.invite.contains_key(&room), "{kind}");
        assert!(bench.sync(&bob, Some(shown.next_batch)).await.is_empty(), "told once");
    }
}

#[tokio::test]
async fn invites_of_other_servers() {
    let (bench, bob) = (bench(), user("bob"));
    let room = bench.remote_invite(&bob).await;
    let view = bench.sync(&bob, None).await;
    let state = &view.invite[&room].state;
    assert_eq!(gist(state), ["m.room.name", "invite"], "an entry that is no event is left out");
    assert!(state[0].get("event_id").is_none());
    assert_eq!(state[1]["content"]["is_direct"], true);
}
