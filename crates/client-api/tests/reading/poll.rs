//! The long poll, on a clock that jumps to the next thing that happens.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, pause, sleep};

use crate::common::{Client, Server, escape};

async fn token(client: &Client<'_>) -> String {
    client.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned()
}

async fn say(client: &Client<'_>, room: &str, text: &str) {
    let path = format!("/rooms/{}/send/m.room.message/{text}", escape(room));
    client.put(&path, json!({ "msgtype": "m.text", "body": text })).await.ok();
}

fn timeline(body: &Value, room: &str) -> Value {
    body["rooms"]["join"][room]["timeline"]["events"].clone()
}

#[actix_web::test]
async fn nothing_new_is_answered_at_the_timeout() {
    let server = Server::new();
    let ann = server.user("ann").await;
    ann.public_room().await;
    let since = token(&ann).await;
    pause();
    for (timeout, waited) in [(0, 0), (30_000, 30), (u64::MAX, 300)] {
        let start = Instant::now();
        let body = ann.get(&format!("/sync?since={since}&timeout={timeout}")).await.ok();
        assert_eq!(body, json!({ "next_batch": since }));
        assert_eq!(start.elapsed().as_secs(), waited);
    }
}

#[actix_web::test]
async fn first_and_full_syncs_do_not_wait() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let since = token(&ann).await;
    pause();
    let start = Instant::now();
    ann.get("/sync?timeout=30000").await.ok();
    ann.get(&format!("/sync?timeout=30000&full_state=true&since={since}")).await.ok();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// News that comes with the poll, before or after it has read the store, and news that comes later.
#[actix_web::test]
async fn news_ends_the_wait() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    bob.join(&room).await;
    let mut since = token(&bob).await;
    pause();
    for delay in [0, 1, 7, 29] {
        let start = Instant::now();
        let path = format!("/sync?since={since}&timeout=30000");
        let text = format!("after{delay}");
        let speak = async {
            if delay > 0 {
                sleep(Duration::from_secs(delay)).await;
            }
            say(&ann, &room, &text).await;
        };
        let (answer, ()) = tokio::join!(bob.get(&path), speak);
        let body = answer.ok();
        assert_eq!(timeline(&body, &room)[0]["content"]["body"], text);
        assert_eq!(start.elapsed().as_secs(), delay);
        since = body["next_batch"].as_str().unwrap().to_owned();
    }
}

#[actix_web::test]
async fn what_the_filter_takes_does_not_end_the_wait() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    bob.join(&room).await;
    let since = token(&bob).await;
    pause();
    let filter = escape(&json!({ "room": { "not_rooms": [room] } }).to_string());
    let path = format!("/sync?since={since}&timeout=20000&filter={filter}");
    let start = Instant::now();
    let speak = async {
        sleep(Duration::from_secs(5)).await;
        say(&ann, &room, "unheard").await;
    };
    let (answer, ()) = tokio::join!(bob.get(&path), speak);
    let body = answer.ok();
    assert!(body.get("rooms").is_none());
    assert_ne!(body["next_batch"], since.as_str(), "the token moves on");
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[actix_web::test]
async fn invites_and_departures_end_the_wait() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    let at = format!("/rooms/{}", escape(&room));
    pause();
    let since = token(&bob).await;
    let path = format!("/sync?since={since}&timeout=30000");
    let invite = async {
        sleep(Duration::from_secs(1)).await;
        ann.post(&format!("{at}/invite"), json!({ "user_id": bob.user })).await.ok();
    };
    let (answer, ()) = tokio::join!(bob.get(&path), invite);
    let body = answer.ok();
    let state = body["rooms"]["invite"][&room]["invite_state"]["events"].as_array().unwrap();
    assert_eq!(state.last().unwrap()["content"]["membership"], "invite");

    let path = format!("/sync?since={}&timeout=30000", body["next_batch"].as_str().unwrap());
    let leave = async {
        sleep(Duration::from_secs(1)).await;
        bob.post(&format!("{at}/leave"), json!({})).await.ok();
    };
    let (answer, ()) = tokio::join!(bob.get(&path), leave);
    let body = answer.ok();
    let events = &body["rooms"]["leave"][&room]["timeline"]["events"];
    assert_eq!(events[0]["content"]["membership"], "leave");
    assert!(body["rooms"].get("invite").is_none());
}

/// Account data comes to the user's other devices at once; an invite that is ignored does not end
/// the wait.
#[actix_web::test]
async fn account_data_ends_the_wait() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let ignore = format!("/user/{}/account_data/m.ignored_user_list", bob.user);
    bob.put(&ignore, json!({ "ignored_users": { ann.user.clone(): {} } })).await.ok();
    let since = token(&bob).await;
    pause();
    let start = Instant::now();
    let speak = async {
        sleep(Duration::from_secs(3)).await;
        ann.create_room(json!({ "invite": [bob.user] })).await;
        sleep(Duration::from_secs(3)).await;
        let tags = format!("/user/{}/account_data/org.example.x", bob.user);
        bob.put(&tags, json!({ "a": 1 })).await.ok();
    };
    let path = format!("/sync?since={since}&timeout=30000");
    let (answer, ()) = tokio::join!(bob.get(&path), speak);
    let body = answer.ok();
    assert_eq!(body["account_data"]["events"][0]["content"], json!({ "a": 1 }));
    assert_eq!(body["rooms"], Value::Null);
    assert_eq!(start.elapsed().as_secs(), 6);
}
