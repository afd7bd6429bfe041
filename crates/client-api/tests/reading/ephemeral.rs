//! What of the moment comes with `/sync`, and that it ends the wait.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, pause, sleep};

use crate::common::{Client, Server, escape};

async fn token(client: &Client<'_>) -> String {
    client.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned()
}

async fn say(client: &Client<'_>, room: &str, text: &str) -> String {
    let path = format!("/rooms/{}/send/m.room.message/{text}", escape(room));
    let sent = client.put(&path, json!({ "msgtype": "m.text", "body": text })).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

async fn types(client: &Client<'_>, room: &str, typing: bool) {
    let path = format!("/rooms/{}/typing/{}", escape(room), client.user);
    client.put(&path, json!({ "typing": typing, "timeout": 10_000 })).await.ok();
}

async fn read(client: &Client<'_>, room: &str, kind: &str, event: &str, body: Value) {
    let path = format!("/rooms/{}/receipt/{kind}/{}", escape(room), escape(event));
    client.post(&path, body).await.ok();
}

fn moment(body: &Value, room: &str, kind: &str) -> Value {
    let events = body["rooms"]["join"][room]["ephemeral"]["events"].as_array();
    let mut events = events.into_iter().flatten().filter(|event| event["type"] == kind);
    events.next().cloned().unwrap_or_default()
}

/// The next answer, and the token that it ends with.
async fn next(client: &Client<'_>, since: &mut String) -> Value {
    let body = client.get(&format!("/sync?since={since}&timeout=1000")).await.ok();
    *since = body["next_batch"].as_str().unwrap().to_owned();
    body
}

#[actix_web::test]
async fn typing_receipts_and_presence_end_the_wait() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    bob.join(&room).await;
    let event = say(&ann, &room, "hello").await;
    let mut since = token(&bob).await;
    let status = format!("/presence/{}/status", ann.user);
    pause();
    for what in ["m.typing", "m.receipt", "presence"] {
        let start = Instant::now();
        let path = format!("/sync?since={since}&timeout=30000");
        let act = async {
            sleep(Duration::from_secs(5)).await;
            match what {
                "m.typing" => types(&ann, &room, true).await,
                "m.receipt" => read(&ann, &room, "m.read", &event, json!({})).await,
                _ => {
                    ann.put(&status, json!({ "presence": "online" })).await.ok();
                }
            }
        };
        let (answer, ()) = tokio::join!(bob.get(&path), act);
        let body = answer.ok();
        assert_eq!(start.elapsed().as_secs(), 5, "{what}");
        since = body["next_batch"].as_str().unwrap().to_owned();
        match what {
            "m.typing" => {
                let expected = json!({ "type": what, "content": { "user_ids": [ann.user] } });
                assert_eq!(moment(&body, &room, what), expected);
            }
            "m.receipt" => {
                let content = &moment(&body, &room, what)["content"];
                let expected = json!({ &event: { "m.read": { &ann.user: {
                    "ts": 1_700_000_000_000_u64,
                } } } });
                assert_eq!(*content, expected);
            }
            _ => assert_eq!(body["presence"]["events"][0]["sender"], ann.user.as_str()),
        }
        // And nothing of it comes twice.
        let body = bob.get(&format!("/sync?since={since}")).await.ok();
        assert_eq!(body, json!({ "next_batch": since }));
    }
}

#[actix_web::test]
async fn typing_is_for_those_in_the_room() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let cat = server.user("cat").await;
    let room = ann.public_room().await;
    bob.join(&room).await;
    let (mut bobs, mut cats) = (token(&bob).await, token(&cat).await);
    types(&ann, &room, true).await;
    let body = next(&bob, &mut bobs).await;
    assert_eq!(moment(&body, &room, "m.typing")["content"]["user_ids"], json!([ann.user]));
    types(&ann, &room, true).await;
    assert_eq!(bob.get(&format!("/sync?since={bobs}")).await.ok()["rooms"], Value::Null);
    types(&ann, &room, false).await;
    let body = next(&bob, &mut bobs).await;
    assert_eq!(moment(&body, &room, "m.typing")["content"]["user_ids"], json!([]));
    pause();
    assert_eq!(next(&cat, &mut cats).await["rooms"], Value::Null);
    // One who comes in sees who types; a filter takes it.
    types(&ann, &room, true).await;
    cat.join(&room).await;
    let body = next(&cat, &mut cats).await;
    assert_eq!(moment(&body, &room, "m.typing")["content"]["user_ids"], json!([ann.user]));
    for filter in [
        json!({ "room": { "ephemeral": { "not_types": ["m.typing"] } } }),
        json!({ "room": { "ephemeral": { "not_rooms": [room] } } }),
        json!({ "room": { "ephemeral": { "limit": 0 } } }),
    ] {
        let body = bob.get(&format!("/sync?filter={}", escape(&filter.to_string()))).await.ok();
        assert_eq!(body["rooms"]["join"][&room]["ephemeral"]["events"], json!([]));
    }
}

/// MSC3771 and MSC4102: receipts of threads, and which one is shown of two for one event.
#[actix_web::test]
async fn threaded_and_private_receipts() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    bob.join(&room).await;
    let (one, two) = (say(&ann, &room, "one").await, say(&ann, &room, "two").await);
    // So that ann has heard that bob is there.
    token(&bob).await;
    let (mut anns, mut bobs) = (token(&ann).await, token(&bob).await);
    read(&bob, &room, "m.read", &one, json!({ "thread_id": "main" })).await;
    let body = next(&ann, &mut anns).await;
    let place = |body: &Value, event: &str, kind: &str| {
        moment(body, &room, "m.receipt")["content"][event][kind][&bob.user].clone()
    };
    assert_eq!(place(&body, &one, "m.read")["thread_id"], "main");
    read(&bob, &room, "m.read", &one, json!({ "thread_id": one })).await;
    read(&bob, &room, "m.read", &one, json!({})).await;
    read(&bob, &room, "m.read", &one, json!({ "thread_id": "other" })).await;
    // All three at once.
    let plain = json!({ "ts": 1_700_000_000_000_u64 });
    assert_eq!(place(&next(&ann, &mut anns).await, &one, "m.read"), plain);
    // None goes back.
    read(&bob, &room, "m.read", &two, json!({})).await;
    read(&bob, &room, "m.read", &one, json!({})).await;
    let body = next(&ann, &mut anns).await;
    assert_eq!(place(&body, &two, "m.read"), plain);
    assert!(place(&body, &one, "m.read").is_null());
    next(&bob, &mut bobs).await;
    anns = token(&ann).await;
    read(&bob, &room, "m.read.private", &two, json!({})).await;
    assert!(place(&next(&bob, &mut bobs).await, &two, "m.read.private").is_object());
    pause();
    assert_eq!(next(&ann, &mut anns).await["rooms"], Value::Null);
    let whole = ann.get("/sync").await.ok();
    assert!(place(&whole, &two, "m.read.private").is_null());
    assert!(place(&whole, &two, "m.read").is_object());
}

#[actix_web::test]
async fn read_markers_are_receipts_and_account_data() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    let (one, two) = (say(&ann, &room, "one").await, say(&ann, &room, "two").await);
    let elsewhere = ann.public_room().await;
    let other = say(&ann, &elsewhere, "three").await;
    let at = format!("/rooms/{}", escape(&room));
    let markers = format!("{at}/read_markers");
    let all = json!({ "m.fully_read": one, "m.read": two, "m.read.private": two });
    ann.post(&markers, all.clone()).await.ok();
    let body = ann.get("/sync").await.ok();
    let content = &moment(&body, &room, "m.receipt")["content"];
    assert!(content[&two]["m.read"][&ann.user].is_object());
    assert!(content[&two]["m.read.private"][&ann.user].is_object());
    assert!(content[&one].is_null());
    let data = json!([{ "type": "m.fully_read", "content": { "event_id": one } }]);
    assert_eq!(body["rooms"]["join"][&room]["account_data"]["events"], data);
    read(&ann, &room, "m.fully_read", &two, json!({})).await;
    let body = ann.get("/sync").await.ok();
    let data = json!([{ "type": "m.fully_read", "content": { "event_id": two } }]);
    assert_eq!(body["rooms"]["join"][&room]["account_data"]["events"], data);
    ann.post(&markers, json!({})).await.ok();
    // Not for others, not for what is elsewhere.
    bob.post(&markers, all).await.fails(403, "M_FORBIDDEN");
    ann.post(&markers, json!({ "m.read": other })).await.fails(404, "M_NOT_FOUND");
    ann.post(&markers, json!({ "m.read": 3 })).await.fails(400, "M_BAD_JSON");
    let receipt = |kind: &str| format!("{at}/receipt/{kind}/{}", escape(&two));
    for (kind, body) in [
        ("m.read", json!({ "thread_id": "" })),
        ("m.read", json!({ "thread_id": 3 })),
        ("m.read", json!({ "thread_id": "x".repeat(256) })),
        ("m.fully_read", json!({ "thread_id": "main" })),
        ("m.wrong", json!({})),
    ] {
        ann.post(&receipt(kind), body).await.fails(400, "M_INVALID_PARAM");
    }
    bob.post(&receipt("m.read"), json!({})).await.fails(403, "M_FORBIDDEN");
    let typing = format!("{at}/typing/{}", ann.user);
    bob.put(&typing, json!({ "typing": true })).await.fails(403, "M_FORBIDDEN");
    let typing = format!("{at}/typing/{}", bob.user);
    bob.put(&typing, json!({ "typing": true })).await.fails(403, "M_FORBIDDEN");
}

#[actix_web::test]
async fn presence_is_for_those_who_share_a_room() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let cat = server.user("cat").await;
    let status = |client: &Client<'_>| format!("/presence/{}/status", client.user);
    let room = ann.public_room().await;
    assert_eq!(ann.get(&status(&ann)).await.ok()["presence"], "offline");
    let online = json!({ "presence": "online", "status_msg": "here" });
    ann.put(&status(&ann), online.clone()).await.ok();
    bob.put(&status(&ann), online.clone()).await.fails(403, "M_FORBIDDEN");
    ann.put(&status(&ann), json!({ "presence": "asleep" })).await.fails(400, "M_INVALID_PARAM");
    let long = json!({ "presence": "online", "status_msg": "x".repeat(2_000) });
    ann.put(&status(&ann), long).await.fails(400, "M_INVALID_PARAM");
    bob.get(&status(&ann)).await.fails(403, "M_FORBIDDEN");
    let (mut anns, mut bobs, mut cats) = (token(&ann).await, token(&bob).await, token(&cat).await);
    // Who comes in sees who is there, and is seen.
    bob.join(&room).await;
    let body = next(&bob, &mut bobs).await;
    let expected = json!([{ "type": "m.presence", "sender": ann.user, "content": {
        "presence": "online", "status_msg": "here",
        "currently_active": true, "last_active_ago": 0,
    } }]);
    assert_eq!(body["presence"]["events"], expected);
    assert_eq!(next(&ann, &mut anns).await["presence"]["events"][0]["sender"], bob.user.as_str());
    assert_eq!(bob.get(&status(&ann)).await.ok()["status_msg"], "here");
    let whole = bob.get("/sync").await.ok();
    assert_eq!(whole["presence"]["events"], expected);
    // By a sync; which says nothing of one who is offline.
    ann.get("/sync?set_presence=unavailable").await.ok();
    let body = next(&bob, &mut bobs).await;
    assert_eq!(body["presence"]["events"][0]["content"]["presence"], "unavailable");
    assert_eq!(body["presence"]["events"][0]["content"]["status_msg"], "here");
    ann.get("/sync?set_presence=offline").await.ok();
    ann.get("/sync?set_presence=away").await.fails(400, "M_INVALID_PARAM");
    assert_eq!(ann.get(&status(&ann)).await.ok()["presence"], "unavailable");
    pause();
    assert_eq!(next(&cat, &mut cats).await["presence"], Value::Null);
    assert_eq!(next(&bob, &mut bobs).await["presence"], Value::Null);
}
