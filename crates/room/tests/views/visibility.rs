//! Who sees which event: the rules of history visibility through every read.

use exeunt_room::{
    Intent,
    views::{Direction, EventFilter, SearchOrder, SearchRequest},
};
use serde_json::json;

use crate::bench::{bench, gist, object, user};

/// Bob is a stranger, then invited, then joined, then gone. What does he see of each time, while
/// joined and when he is gone?
#[tokio::test]
async fn the_times_of_a_member() {
    let table = [
        ("world_readable", "stranger invited joined", "stranger invited joined gone"),
        ("shared", "stranger invited joined", "stranger invited joined"),
        ("invited", "invited joined", "invited joined"),
        ("joined", "joined", "joined"),
    ];
    for (visibility, while_joined, when_gone) in table {
        let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
        let room = bench.room(&alice, visibility).await;
        let mut events = vec![bench.say(&alice, &room, "stranger").await];
        bench.invite(&alice, &bob, &room).await;
        events.push(bench.say(&alice, &room, "invited").await);
        let invited = bench.sync(&bob, None).await.next_batch;
        bench.join(&bob, &room).await;
        events.push(bench.say(&alice, &room, "joined").await);

        let times = |events: &[serde_json::Value]| {
            let messages = events.iter().filter(|event| event["type"] == "m.room.message");
            gist(&messages.cloned().collect::<Vec<_>>()).join(" ")
        };
        let view = bench.sync(&bob, Some(invited)).await;
        assert_eq!(times(&view.join[&room].timeline.events), while_joined, "{visibility}: sync");
        let page = bench.page(&bob, &room, Direction::Forward, None, 100).await.unwrap();
        assert_eq!(times(&page.chunk), while_joined, "{visibility}: messages");

        bench.leave(&bob, &room).await;
        events.push(bench.say(&alice, &room, "gone").await);
        let page = bench.page(&bob, &room, Direction::Forward, None, 100).await.unwrap();
        assert_eq!(times(&page.chunk), when_gone, "{visibility}: messages, when gone");
        let mut found = Vec::new();
        for id in &events {
            found.extend(bench.rooms.event(bench.viewer(&bob), &room, id).await.unwrap());
        }
        assert_eq!(times(&found), when_gone, "{visibility}: events, when gone");
        let view = bench.sync(&bob, Some(view.next_batch)).await;
        assert_eq!(gist(&view.leave[&room].timeline.events), ["leave"], "{visibility}");
    }
}

/// A change of the visibility is itself seen by those who may see what is before or after it.
#[tokio::test]
async fn changes_of_the_visibility() {
    let (bench, alice, bob) = (bench(), user("alice"), user("bob"));
    let room = bench.room(&alice, "joined").await;
    let set = async |visibility: &str| {
        let content = json!({ "history_visibility": visibility });
        bench.set(&alice, &room, "m.room.history_visibility", content).await.to_string()
    };
    let hidden = bench.say(&alice, &room, "hidden").await.to_string();
    let opened = set("shared").await;
    let open = bench.say(&alice, &room, "open").await.to_string();
    let closed = set("joined").await;
    let dark = bench.say(&alice, &room, "dark").await.to_string();
    bench.join(&bob, &room).await;
    let seen = bench.history(&bob, &room).await;
    for (id, expected) in
        [(hidden, false), (opened, true), (open, true), (closed, true), (dark, false)]
    {
        assert_eq!(seen.contains(&id), expected, "{id}");
    }
}

/// `erase` of `POST /account/deactivate`: who was in the room has what was sent, who came later has
/// it redacted, be it by whichever read. State is as it was.
#[tokio::test]
async fn what_an_erased_user_sent() {
    let (bench, alice, bob, carol) = (bench(), user("alice"), user("bob"), user("carol"));
    let room = bench.room(&alice, "world_readable").await;
    bench.join(&bob, &room).await;
    let root = bench.say(&alice, &room, "secret").await;
    let relation = json!({ "rel_type": "m.thread", "event_id": root });
    let reply = object(json!({ "body": "secret reply", "m.relates_to": relation }));
    let intent = Intent::message(alice.clone(), "m.room.message", reply);
    bench.rooms.append(&room, intent).await.unwrap();
    bench.set(&alice, &room, "m.room.name", json!({ "name": "old" })).await;
    bench.set(&alice, &room, "m.room.name", json!({ "name": "new" })).await;
    bench.join(&carol, &room).await;
    bench.erase(&alice).await;
    let dave = user("dave");
    for (reader, is_seen) in [(&bob, true), (&carol, false), (&dave, false)] {
        let page = bench.page(reader, &room, Direction::Backward, None, 100).await.unwrap();
        assert_eq!(format!("{:?}", page.chunk).contains("secret"), is_seen, "{reader}");
        assert_eq!(format!("{:?}", page.chunk).contains("old"), is_seen, "{reader}");
        let of_alice = page.chunk.iter().filter(|event| event["sender"] == alice.as_str());
        assert!(of_alice.count() > 4, "{reader}");
        let event = bench.rooms.event(bench.viewer(reader), &room, &root).await.unwrap().unwrap();
        assert_eq!(event["content"]["body"] == "secret", is_seen, "{reader}");
        assert_eq!(event["unsigned"].get("m.relations").is_some(), is_seen, "{reader}");
        let name = bench.rooms.state_event(bench.viewer(reader), &room, "m.room.name", "").await;
        assert_eq!(name.unwrap().unwrap()["content"]["name"], "new", "{reader}");
    }
    let shown = format!("{:?}", bench.sync(&carol, None).await.join[&room].timeline.events);
    assert!(!shown.contains("secret") && shown.contains("m.room.message"), "{shown}");
    for (reader, count) in [(&bob, 2), (&carol, 0)] {
        let request = SearchRequest {
            viewer: bench.viewer(reader),
            term: "secret".into(),
            kinds: ["m.room.message"].into(),
            filter: EventFilter::default(),
            order: SearchOrder::Recent,
            context: None,
            include_state: false,
            next_batch: None,
        };
        assert_eq!(bench.rooms.search(request).await.unwrap().count, count, "{reader}");
    }
}
