//! State, members, messages and events, for members, departed users and strangers.

use exeunt_room::RoomError;
use exeunt_room::views::{
    ContextRequest, Direction, EventFilter, MembersRequest, MessagesRequest, TimestampRequest,
    Token,
};
use ruma::{RoomId, UserId};
use serde_json::{Value, json};

use crate::bench::{Bench, bench, find, gist, ids, is_forbidden, user};

async fn members_of(bench: &Bench, user: &UserId, room: &RoomId) -> Vec<(String, String)> {
    let events = bench.rooms.members(bench.members_request(user, room)).await.unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pair = |event: &Value| (text(&event["state_key"]), text(&event["content"]["membership"]));
    events.iter().map(pair).collect()
}

async fn name(bench: &Bench, user: &UserId, room: &RoomId) -> Value {
    let event = bench.rooms.state_event(bench.viewer(user), room, "m.room.name", "").await;
    event.unwrap().unwrap()["content"]["name"].clone()
}

/// As Complement's TestLeftRoomFixture (row LV5).
/// CVE-2024-53867.
#[tokio::test]
async fn a_departed_user_reads_the_room_as_of_the_departure() {
    let (bench, alice, bob, carol) = (bench(), user("alice"), user("bob"), user("carol"));
    let room = bench.room(&alice, "joined").await;
    bench.join(&bob, &room).await;
    bench.set(&alice, &room, "m.room.name", json!({ "name": "before" })).await;
    bench.say(&alice, &room, "one").await;
    bench.say(&alice, &room, "two").await;
    bench.leave(&bob, &room).await;
    let since = Token::Stream(bench.sync(&bob, None).await.next_batch);
    bench.set(&alice, &room, "m.room.name", json!({ "name": "after" })).await;
    let hidden = bench.say(&alice, &room, "three").await;
    bench.join(&carol, &room).await;

    assert_eq!(name(&bench, &bob, &room).await, "before");
    assert_eq!(name(&bench, &alice, &room).await, "after");
    let state = bench.rooms.state(bench.viewer(&bob), &room).await.unwrap();
    assert_eq!(find(&state, "m.room.name", "").unwrap()["content"]["name"], "before");
    assert_eq!(find(&state, "m.room.member", carol.as_str()), None);
    let pair = |user: &UserId, membership: &str| (user.to_string(), membership.to_owned());
    let expected = [pair(&alice, "join"), pair(&bob, "leave")];
    assert_eq!(members_of(&bench, &bob, &room).await, expected);
    assert_eq!(members_of(&bench, &alice, &room).await.len(), 3);

    let page = bench.page(&bob, &room, Direction::Backward, Some(since), 3).await.unwrap();
    assert_eq!(gist(&page.chunk), ["leave", "two", "one"]);
    assert_eq!(page.chunk[0]["room_id"], room.as_str());
    let page = bench.page(&bob, &room, Direction::Forward, Some(since), 100).await.unwrap();
    assert!(page.chunk.is_empty() && page.end.is_none());
    let event = bench.rooms.event(bench.viewer(&bob), &room, &hidden).await.unwrap();
    assert_eq!(event, None);
    let joined = bench.rooms.joined_members(bench.viewer(&bob), &room).await;
    assert!(is_forbidden(&joined));
}

#[tokio::test]
async fn strangers_and_those_who_forgot_read_nothing() {
    let (bench, alice, bob, carol) = (bench(), user("alice"), user("bob"), user("carol"));
    let dave = user("dave");
    let room = bench.room(&alice, "shared").await;
    let event = bench.say(&alice, &room, "secret").await;
    bench.invite(&alice, &carol, &room).await;
    bench.join(&dave, &room).await;
    bench.leave(&dave, &room).await;
    bench.forget(&dave, &room).await;
    let nowhere = RoomId::parse("!nowhere:here.example").unwrap();
    for (user, room) in [(&bob, &room), (&carol, &room), (&dave, &room), (&alice, &nowhere)] {
        let viewer = || bench.viewer(user);
        assert!(is_forbidden(&bench.page(user, room, Direction::Backward, None, 5).await));
        assert!(is_forbidden(&bench.rooms.members(bench.members_request(user, room)).await));
        assert!(is_forbidden(&bench.rooms.joined_members(viewer(), room).await));
        assert!(is_forbidden(&bench.rooms.state(viewer(), room).await));
        let one = bench.rooms.state_event(viewer(), room, "m.room.create", "").await;
        assert!(is_forbidden(&one));
        assert_eq!(bench.rooms.event(viewer(), room, &event).await.unwrap(), None);
        let (viewer, room_id) = (viewer(), room.clone());
        let (ts, direction) = (0, Direction::Forward);
        let request = TimestampRequest { viewer, room_id, ts, direction };
        assert!(is_forbidden(&bench.rooms.timestamp_to_event(request).await));
    }
    // An invite after a stay opens the stay, not what came after it.
    bench.join(&bob, &room).await;
    bench.leave(&bob, &room).await;
    let later = bench.say(&alice, &room, "later").await;
    bench.invite(&alice, &bob, &room).await;
    let seen = bench.history(&bob, &room).await;
    assert!(seen.contains(&event.to_string()) && !seen.contains(&later.to_string()));
    // The event of one room is not found in another.
    let other = bench.room(&alice, "shared").await;
    assert_eq!(bench.rooms.event(bench.viewer(&alice), &other, &event).await.unwrap(), None);
}

#[tokio::test]
async fn world_readable_rooms_are_open() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "world_readable").await;
    let event = bench.say(&alice, &room, "open").await;
    let found = bench.rooms.event(bench.viewer(&bob), &room, &event).await.unwrap().unwrap();
    assert_eq!(found["unsigned"]["membership"], "leave");
    assert!(bench.history(&bob, &room).await.contains(&event.to_string()));
}

/// Client-server API, "Ignoring Users": state events are told all the same.
#[tokio::test]
async fn whom_a_user_ignores_is_not_heard_in_history() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "shared").await;
    bench.join(&bob, &room).await;
    bench.say(&alice, &room, "one").await;
    bench.say(&bob, &room, "unheard").await;
    let two = bench.say(&alice, &room, "two").await;
    bench.say(&bob, &room, "unheard").await;
    bench.leave(&bob, &room).await;
    bench.ignore(&alice, &bob).await;
    let page = bench.page(&alice, &room, Direction::Backward, None, 4).await.unwrap();
    assert_eq!(gist(&page.chunk), ["leave", "two", "one", "join"]);
    let page = bench.page(&bob, &room, Direction::Backward, None, 3).await.unwrap();
    assert_eq!(gist(&page.chunk), ["leave", "unheard", "two"]);
    let request = ContextRequest {
        viewer: bench.viewer(&alice),
        room_id: room.clone(),
        event_id: two,
        limit: Some(2),
        filter: EventFilter::default(),
    };
    let around = bench.rooms.context(request).await.unwrap().unwrap();
    assert_eq!(
        (gist(&around.before), gist(&around.after)),
        (vec!["one".into()], vec!["leave".into()])
    );
}

#[tokio::test]
async fn members_by_membership_and_time() {
    let (bench, alice, bob, carol) = (bench(), user("alice"), user("bob"), user("carol"));
    let room = bench.room(&alice, "shared").await;
    let early = bench.sync(&alice, None).await;
    let prev_batch = early.join[&room].timeline.prev_batch;
    bench.join(&bob, &room).await;
    bench.join(&carol, &room).await;
    bench.leave(&carol, &room).await;
    let who = async |request: MembersRequest| {
        let events = bench.rooms.members(request).await.unwrap();
        events.iter().map(|e| e["state_key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = || bench.members_request(&alice, &room);
    let (a, b, c) = (alice.as_str(), bob.as_str(), carol.as_str());
    assert_eq!(who(all()).await, [a, b, c]);
    let joined = MembersRequest { membership: Some("join".into()), ..all() };
    assert_eq!(who(joined).await, [a, b]);
    let left = MembersRequest { membership: Some("leave".into()), ..all() };
    assert_eq!(who(left).await, [c]);
    let not_left = MembersRequest { not_membership: Some("leave".into()), ..all() };
    assert_eq!(who(not_left).await, [a, b]);
    let at = MembersRequest { at: Some(Token::Stream(early.next_batch)), ..all() };
    assert_eq!(who(at).await, [a]);
    // As of before the room was there: nobody saw that, so it is the first join that counts.
    let before = MembersRequest { at: Some(prev_batch), ..all() };
    assert_eq!(who(before).await, [a]);
    let profiles = bench.rooms.joined_members(bench.viewer(&alice), &room).await.unwrap();
    assert_eq!(profiles.into_keys().collect::<Vec<_>>(), [alice, bob]);
}

/// Who was out and came back learns who was there meanwhile only where history is theirs to see.
#[tokio::test]
async fn members_of_the_time_of_an_absence() {
    for visibility in ["joined", "invited", "shared"] {
        let (bench, alice, bob, carol) = (bench(), user("alice"), user("bob"), user("carol"));
        let room = bench.room(&alice, visibility).await;
        let at = async |place: u64| {
            let at = Some(Token::Stream(place));
            let request = MembersRequest { at, ..bench.members_request(&bob, &room) };
            let events = bench.rooms.members(request).await.unwrap();
            let there = events.iter().filter(|event| event["content"]["membership"] == "join");
            there.map(|e| e["state_key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        bench.join(&bob, &room).await;
        bench.leave(&bob, &room).await;
        let out = bench.sync(&alice, None).await.next_batch;
        bench.join(&carol, &room).await;
        let met = bench.sync(&alice, None).await.next_batch;
        bench.leave(&carol, &room).await;
        // Who does not come back sees no further than the departure.
        assert_eq!((at(met).await, at(out).await), (vec![alice.to_string()], at(met).await));
        bench.join(&bob, &room).await;
        let expected = match visibility {
            "shared" => [&alice, &carol],
            _ => [&alice, &bob],
        };
        assert_eq!(at(met).await, expected.map(ToString::to_string), "{visibility}");
    }
}

#[tokio::test]
async fn pages_with_bounds_filters_and_members() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "shared").await;
    bench.join(&bob, &room).await;
    let from = Token::Stream(bench.sync(&alice, None).await.next_batch);
    bench.say(&bob, &room, "1").await;
    bench.set(&alice, &room, "m.room.name", json!({ "name": "n" })).await;
    bench.say(&bob, &room, "2").await;
    let to = Token::Stream(bench.sync(&alice, None).await.next_batch);
    bench.say(&alice, &room, "3").await;
    let request = |direction, from, to| MessagesRequest {
        viewer: bench.viewer(&alice),
        room_id: room.clone(),
        from: Some(from),
        to: Some(to),
        direction,
        limit: None,
        filter: EventFilter {
            types: Some(vec!["m.room.m*".into()]),
            lazy_load_members: true,
            ..EventFilter::default()
        },
    };
    let forward = bench.rooms.messages(request(Direction::Forward, from, to)).await.unwrap();
    assert_eq!(gist(&forward.chunk), ["1", "2"]);
    assert_eq!(forward.state.len(), 1);
    assert_eq!(forward.state[0]["state_key"], bob.as_str());
    assert_eq!(forward.state[0]["content"]["membership"], "join");
    let backward = bench.rooms.messages(request(Direction::Backward, to, from)).await.unwrap();
    assert_eq!(gist(&backward.chunk), ["2", "1"]);
    let rest = bench.page(&alice, &room, Direction::Forward, forward.end, 10).await.unwrap();
    assert_eq!(gist(&rest.chunk), ["3"]);
    let rest = bench.page(&alice, &room, Direction::Forward, rest.end, 10).await.unwrap();
    assert!(rest.chunk.is_empty() && rest.end.is_none());
}

#[tokio::test]
async fn history_is_whole_and_in_order() {
    let (bench, alice) = (bench(), user("alice"));
    let room = bench.room(&alice, "shared").await;
    let said = bench.say(&alice, &room, "last").await;
    let forward = bench.history(&alice, &room).await;
    assert_eq!(forward.last(), Some(&said.to_string()));
    let page = bench.page(&alice, &room, Direction::Backward, None, 100).await.unwrap();
    let mut backward = ids(&page.chunk);
    backward.reverse();
    assert_eq!(backward, forward);
    assert!(page.end.is_none(), "the beginning of the room");
    let state = bench.rooms.state_event(bench.viewer(&alice), &room, "m.room.topic", "").await;
    assert!(matches!(state, Ok::<_, RoomError>(None)));
}

#[tokio::test]
async fn context_is_what_lies_around_an_event_and_pages_on() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "joined").await;
    let mut said = Vec::new();
    for text in ["one", "two", "three", "four", "five"] {
        said.push(bench.say(&alice, &room, text).await);
    }
    bench.set(&alice, &room, "m.room.name", json!({ "name": "later" })).await;
    let request = |user: &UserId, limit| ContextRequest {
        viewer: bench.viewer(user),
        room_id: room.clone(),
        event_id: said[2].clone(),
        limit,
        filter: EventFilter::default(),
    };
    let context = bench.rooms.context(request(&alice, Some(3))).await.unwrap().unwrap();
    assert_eq!(context.event["event_id"], said[2].as_str());
    assert_eq!(gist(&context.before), ["two"]);
    assert_eq!(gist(&context.after), ["four", "five"]);
    assert_eq!(find(&context.state, "m.room.name", ""), None, "state as of the last event");
    let page = bench.page(&alice, &room, Direction::Backward, Some(context.start), 1);
    assert_eq!(gist(&page.await.unwrap().chunk), ["one"]);
    let page = bench.page(&alice, &room, Direction::Forward, Some(context.end), 1);
    assert!(find(&page.await.unwrap().chunk, "m.room.name", "").is_some());

    let alone = bench.rooms.context(request(&alice, Some(0))).await.unwrap().unwrap();
    assert!(alone.before.is_empty() && alone.after.is_empty());
    assert!(is_forbidden(&bench.rooms.context(request(&bob, None)).await));
    bench.join(&bob, &room).await;
    assert!(bench.rooms.context(request(&bob, None)).await.unwrap().is_none());
}
