//! Room previews: reading a room without being in it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, pause, sleep};

use crate::common::{Client, Server, escape};

async fn say(client: &Client<'_>, room: &str, text: &str) {
    let path = format!("/rooms/{}/send/m.room.message/{text}", escape(room));
    client.put(&path, json!({ "msgtype": "m.text", "body": text })).await.ok();
}

/// A room of that visibility in which two things were said.
async fn room(ann: &Client<'_>, visibility: &str) -> String {
    let content = json!({ "history_visibility": visibility });
    let state = json!({ "type": "m.room.history_visibility", "content": content });
    let room = json!({ "preset": "public_chat", "visibility": "public", "initial_state": [state] });
    let room = ann.create_room(room).await;
    say(ann, &room, "one").await;
    say(ann, &room, "two").await;
    room
}

fn bodies(chunk: &Value) -> Vec<&str> {
    let events = chunk.as_array().unwrap().iter();
    events.filter_map(|event| event["content"]["body"].as_str()).collect()
}

#[actix_web::test]
async fn a_stranger_looks_into_a_room_and_goes_on_looking() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = room(&ann, "world_readable").await;
    let path = format!("/rooms/{}/initialSync?limit=1", escape(&room));
    let seen = bob.get(&path).await.ok();
    assert_eq!((&seen["room_id"], &seen["visibility"]), (&json!(room), &json!("public")));
    assert_eq!((seen.get("membership"), &seen["account_data"]), (None, &json!([])));
    assert_eq!(bodies(&seen["messages"]["chunk"]), ["two"]);
    let is_create = |event: &Value| event["type"] == "m.room.create" && event["room_id"] == *room;
    assert!(seen["state"].as_array().unwrap().iter().any(is_create));
    let token = |value: &Value| value.as_str().unwrap().to_owned();
    let start = token(&seen["messages"]["start"]);
    let back = format!("/rooms/{}/messages?dir=b&limit=1&from={start}", escape(&room));
    assert_eq!(bodies(&bob.get(&back).await.ok()["chunk"]), ["one"]);

    pause();
    let mut from = token(&seen["messages"]["end"]);
    for delay in [0, 7] {
        let begun = Instant::now();
        let path = format!("/events?room_id={}&timeout=30000&from={from}", escape(&room));
        let text = format!("after{delay}");
        let speak = async {
            sleep(Duration::from_secs(delay)).await;
            say(&ann, &room, &text).await;
        };
        let (answer, ()) = tokio::join!(bob.get(&path), speak);
        let answer = answer.ok();
        assert_eq!((bodies(&answer["chunk"]), &answer["start"]), (vec![&*text], &json!(from)));
        assert_eq!(begun.elapsed().as_secs(), delay);
        from = token(&answer["end"]);
    }
    // What happens elsewhere is no news.
    let begun = Instant::now();
    let path = format!("/events?room_id={}&timeout=5000&from={from}", escape(&room));
    let (answer, _) = tokio::join!(bob.get(&path), ann.public_room());
    assert_eq!(answer.ok()["chunk"], json!([]));
    assert_eq!(begun.elapsed().as_secs(), 5);
    // The room closes.
    let close = async {
        sleep(Duration::from_secs(1)).await;
        let path = format!("/rooms/{}/state/m.room.history_visibility", escape(&room));
        ann.put(&path, json!({ "history_visibility": "shared" })).await.ok();
    };
    let (answer, ()) = tokio::join!(bob.get(&path), close);
    answer.fails(403, "M_FORBIDDEN");
}

#[actix_web::test]
async fn a_room_that_is_not_world_readable_is_for_those_who_are_or_were_in_it() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = room(&ann, "shared").await;
    let initial = format!("/rooms/{}/initialSync", escape(&room));
    let events = |more: &str| format!("/events?room_id={}{more}", escape(&room));
    for path in [&initial, &events("")] {
        bob.get(path).await.fails(403, "M_FORBIDDEN");
        server.anyone().get(path).await.fails(401, "M_MISSING_TOKEN");
    }
    let of_room = format!("/user/{}/rooms/{}/account_data/m.x", escape(&ann.user), escape(&room));
    ann.put(&of_room, json!({ "a": 1 })).await.ok();
    let seen = ann.get(&initial).await.ok();
    assert_eq!(seen["membership"], "join");
    assert_eq!(seen["account_data"], json!([{ "type": "m.x", "content": { "a": 1 } }]));
    assert_eq!(ann.get(&events("")).await.ok()["chunk"], json!([]));
    bob.join(&room).await;
    bob.post(&format!("/rooms/{}/leave", escape(&room)), json!({})).await.ok();
    say(&ann, &room, "unheard").await;
    let seen = bob.get(&initial).await.ok();
    assert_eq!(bodies(&seen["messages"]["chunk"]), ["one", "two"]);
    assert_eq!(seen["membership"], "leave");
    let from = seen["messages"]["end"].as_str().unwrap();
    assert_eq!(bob.get(&events(&format!("&from={from}"))).await.ok()["chunk"], json!([]));

    ann.get("/events").await.fails(400, "M_MISSING_PARAM");
    for wrong in ["&from=x", "&from=s99999", "&timeout=x"] {
        ann.get(&events(wrong)).await.fails(400, "M_INVALID_PARAM");
    }
    ann.get("/events?room_id=x").await.fails(400, "M_INVALID_PARAM");
}
