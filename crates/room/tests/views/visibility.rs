//! Who sees which event: the rules of history visibility through every read.

use exeunt_room::views::Direction;

use crate::bench::{bench, gist, user};

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
        let content = serde_json::json!({ "history_visibility": visibility });
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
