//! The query and the shape of `/sync`.

use exeunt_core::Object;
use ruma::UserId;
use serde_json::{Value, json};

use crate::common::{Server, escape};

#[actix_web::test]
async fn the_shape_of_a_joined_room() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.public_room().await;
    let body = ann.get("/_matrix/client/r0/sync?set_presence=offline").await.ok();
    assert!(body["next_batch"].as_str().unwrap().starts_with('s'));
    let section = &body["rooms"]["join"][&room];
    assert_eq!(section["timeline"]["limited"], false);
    assert!(section["timeline"]["prev_batch"].as_str().unwrap().starts_with('t'));
    assert_eq!(section["timeline"]["events"][0]["type"], "m.room.create");
    for name in ["state", "ephemeral", "account_data"] {
        assert_eq!(section[name]["events"], json!([]), "{name}");
    }
    assert_eq!(section["summary"]["m.joined_member_count"], 1);
    let none = json!({ "notification_count": 0, "highlight_count": 0 });
    assert_eq!(section["unread_notifications"], none);
    assert!(section.get("unread_thread_notifications").is_none());
    let absent = ["invite", "knock", "leave"];
    assert!(absent.iter().all(|name| body["rooms"].get(name).is_none()));

    for (query, name) in [
        ("use_state_after=true", "state_after"),
        ("org.matrix.msc4222.use_state_after=true", "org.matrix.msc4222.state_after"),
        ("use_state_after=true&org.matrix.msc4222.use_state_after=true", "state_after"),
    ] {
        let body = ann.get(&format!("/sync?{query}")).await.ok();
        let section = &body["rooms"]["join"][&room];
        assert!(section.get("state").is_none());
        assert!(section[name]["events"].as_array().unwrap().len() > 3, "{name}");
    }
}

#[actix_web::test]
async fn queries_that_make_no_sense() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let future = "since=s99999";
    for query in [
        "since=x",
        "since=s1_2",
        "since=t1",
        future,
        "timeout=soon",
        "full_state=maybe",
        "filter=17",
        "filter=%7B",
        "filter=%7B%22room%22:1%7D",
        "filter=%7B%22event_format%22:%22x%22%7D",
        "filter=%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:-1%7D%7D%7D",
        "filter=x",
    ] {
        ann.get(&format!("/sync?{query}")).await.fails(400, "M_INVALID_PARAM");
    }
    server.anyone().get("/sync").await.fails(401, "M_MISSING_TOKEN");
}

#[actix_web::test]
async fn filters_inline_and_stored() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.public_room().await;
    let filter = json!({ "room": { "timeline": { "limit": 1 } } });
    let path = format!("/user/{}/filter", escape(&ann.user));
    let stored = ann.post(&path, filter.clone()).await.ok()["filter_id"].clone();
    let inline = escape(&filter.to_string());
    for filter in [inline.as_str(), stored.as_str().unwrap()] {
        let body = ann.get(&format!("/sync?filter={filter}")).await.ok();
        let timeline = &body["rooms"]["join"][&room]["timeline"];
        assert_eq!(timeline["events"].as_array().unwrap().len(), 1);
        assert_eq!(timeline["limited"], true);
    }
}

#[actix_web::test]
async fn account_data_of_joined_rooms_and_of_the_account() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let (room, left) = (ann.public_room().await, ann.public_room().await);
    ann.post(&format!("/rooms/{}/leave", escape(&left)), json!({})).await.ok();
    let since = ann.get("/sync").await.ok()["next_batch"].clone();
    let content = |n: u64| Object::from_iter([("n".to_owned(), Value::from(n))]);
    let user = UserId::parse(ann.user.as_str()).unwrap();
    let put = async |room: Option<&str>, n| {
        let room = room.map(|room| ruma::RoomId::parse(room).unwrap());
        let users = &server.api.users;
        users.put_account_data(&user, room.as_deref(), "m.x", content(n)).await.unwrap();
    };
    put(None, 1).await;
    put(Some(&room), 2).await;
    put(Some(&left), 3).await;
    let body = ann.get(&format!("/sync?since={}", since.as_str().unwrap())).await.ok();
    assert_eq!(body["account_data"]["events"], json!([{ "type": "m.x", "content": { "n": 1 } }]));
    let in_room = json!([{ "type": "m.x", "content": { "n": 2 } }]);
    assert_eq!(body["rooms"]["join"][&room]["account_data"]["events"], in_room);
    assert!(body["rooms"]["join"].get(&left).is_none());
    let next = body["next_batch"].as_str().unwrap();
    let body = ann.get(&format!("/sync?since={next}")).await.ok();
    assert_eq!(body, json!({ "next_batch": next }));
}

/// Account data of a room that is new to the client comes whole, whenever it was set.
#[actix_web::test]
async fn account_data_of_a_room_that_is_joined_later() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    bob.join(&room).await;
    let path = format!("/user/{}/rooms/{}/account_data", bob.user, escape(&room));
    bob.put(&format!("{path}/m.x"), json!({ "n": 1 })).await.ok();
    bob.post(&format!("/rooms/{}/leave", escape(&room)), json!({})).await.ok();
    let since = bob.get("/sync").await.ok()["next_batch"].clone();
    bob.join(&room).await;
    let path = format!("/sync?since={}", since.as_str().unwrap());
    let body = bob.get(&path).await.ok();
    let expected = json!([{ "type": "m.x", "content": { "n": 1 } }]);
    assert_eq!(body["rooms"]["join"][&room]["account_data"]["events"], expected);
    assert!(body.get("account_data").is_none());
    // And a filter takes it.
    for filter in [json!({ "not_types": ["m.*"] }), json!({ "not_rooms": [room] })] {
        let filter = json!({ "room": { "account_data": filter } }).to_string();
        let body = bob.get(&format!("{path}&filter={}", escape(&filter))).await.ok();
        assert_eq!(body["rooms"]["join"][&room]["account_data"]["events"], json!([]));
    }
}

/// What was deleted since the token is told, also where a room is new to the client; what was set
/// and deleted in that room before is not.
#[actix_web::test]
async fn deleted_account_data_beside_a_room_that_is_new() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let (old, new) = (ann.public_room().await, ann.public_room().await);
    bob.join(&old).await;
    let global = format!("/user/{}/account_data/m.x", bob.user);
    let of = |room: &str, kind: &str| {
        format!("/user/{}/rooms/{}/account_data/{kind}", bob.user, escape(room))
    };
    for path in [&global, &of(&old, "m.x"), &of(&new, "m.x"), &of(&new, "m.y")] {
        bob.put(path, json!({ "n": 1 })).await.ok();
    }
    bob.put(&of(&new, "m.x"), json!({})).await.ok();
    let since = bob.get("/sync").await.ok()["next_batch"].clone();
    for path in [&global, &of(&old, "m.x")] {
        bob.put(path, json!({})).await.ok();
    }
    bob.join(&new).await;
    let body = bob.get(&format!("/sync?since={}", since.as_str().unwrap())).await.ok();
    let deleted = json!([{ "type": "m.x", "content": {} }]);
    assert_eq!(body["account_data"]["events"], deleted);
    assert_eq!(body["rooms"]["join"][&old]["account_data"]["events"], deleted);
    let there = json!([{ "type": "m.y", "content": { "n": 1 } }]);
    assert_eq!(body["rooms"]["join"][&new]["account_data"]["events"], there);
}

#[actix_web::test]
async fn account_data_of_a_room_that_was_left() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let (room, plain) = (ann.public_room().await, ann.public_room().await);
    for room in [&room, &plain] {
        bob.join(room).await;
    }
    let since = bob.get("/sync").await.ok()["next_batch"].clone();
    let path = format!("/user/{}/rooms/{}/account_data/m.x", bob.user, escape(&room));
    bob.put(&path, json!({ "n": 1 })).await.ok();
    for room in [&room, &plain] {
        bob.post(&format!("/rooms/{}/leave", escape(room)), json!({})).await.ok();
    }
    let there = json!([{ "type": "m.x", "content": { "n": 1 } }]);
    let all = escape(&json!({ "room": { "include_leave": true } }).to_string());
    for query in [format!("since={}", since.as_str().unwrap()), format!("filter={all}")] {
        let rooms = bob.get(&format!("/sync?{query}")).await.ok()["rooms"].take();
        assert_eq!(rooms["leave"][&room]["account_data"]["events"], there);
        assert_eq!(rooms["leave"][&plain]["account_data"]["events"], json!([]));
        assert!(rooms.get("join").is_none());
    }
    let filter = json!({ "room": { "account_data": { "not_types": ["m.x"] } } }).to_string();
    let query = format!("since={}&filter={}", since.as_str().unwrap(), escape(&filter));
    let body = bob.get(&format!("/sync?{query}")).await.ok();
    assert_eq!(body["rooms"]["leave"][&room]["account_data"]["events"], json!([]));
}

#[actix_web::test]
async fn account_data_of_the_account_is_filtered() {
    let server = Server::new();
    let ann = server.user("ann").await;
    for kind in ["m.x", "m.y"] {
        let path = format!("/user/{}/account_data/{kind}", ann.user);
        ann.put(&path, json!({ "a": 1 })).await.ok();
    }
    let filter = json!({ "account_data": { "types": ["*.y"] } }).to_string();
    let body = ann.get(&format!("/sync?filter={}", escape(&filter))).await.ok();
    let expected = json!([{ "type": "m.y", "content": { "a": 1 } }]);
    assert_eq!(body["account_data"]["events"], expected);
}

#[actix_web::test]
async fn only_some_fields() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.public_room().await;
    let path = format!("/rooms/{}/send/m.room.message/1", escape(&room));
    ann.put(&path, json!({ "msgtype": "m.text", "body": "hello" })).await.ok();
    let filter = json!({
        "event_fields": ["type", "content.body"],
        "room": { "timeline": { "limit": 1 } },
    });
    let body = ann.get(&format!("/sync?filter={}", escape(&filter.to_string()))).await.ok();
    let section = &body["rooms"]["join"][&room];
    let expected = json!([{ "type": "m.room.message", "content": { "body": "hello" } }]);
    assert_eq!(section["timeline"]["events"], expected);
    let state = section["state"]["events"].as_array().unwrap();
    assert!(state.contains(&json!({ "type": "m.room.create" })), "{state:?}");
}

/// Unread events of threads are counted apart for those who ask. One's own receipt ends the wait of
/// one's other devices, also if they want no receipts.
#[actix_web::test]
async fn unread_counts() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    bob.join(&room).await;
    let send = async |n: u64, relation: Value| {
        let path = format!("/rooms/{}/send/m.room.message/{n}", escape(&room));
        let content = json!({ "msgtype": "m.text", "body": "x", "m.relates_to": relation });
        ann.put(&path, content).await.ok()["event_id"].as_str().unwrap().to_owned()
    };
    let root = send(1, Value::Null).await;
    let last = send(2, json!({ "rel_type": "m.thread", "event_id": root })).await;
    let count = |n: u64| json!({ "notification_count": n, "highlight_count": 0 });
    let body = bob.get("/sync").await.ok();
    let section = &body["rooms"]["join"][&room];
    assert_eq!(section["unread_notifications"], count(2));
    assert!(section.get("unread_thread_notifications").is_none());
    let filter = |more: bool| {
        let ephemeral = if more { json!({}) } else { json!({ "types": [] }) };
        let filter = json!({ "room": {
            "timeline": { "unread_thread_notifications": true }, "ephemeral": ephemeral,
        } });
        escape(&filter.to_string())
    };
    let body = bob.get(&format!("/sync?filter={}", filter(true))).await.ok();
    let section = &body["rooms"]["join"][&room];
    assert_eq!(section["unread_notifications"], count(1));
    assert_eq!(section["unread_thread_notifications"], json!({ &root: count(1) }));

    let since = body["next_batch"].as_str().unwrap();
    let path = format!("/rooms/{}/receipt/m.read.private/{}", escape(&room), escape(&last));
    bob.post(&path, json!({ "thread_id": root })).await.ok();
    let body = bob.get(&format!("/sync?since={since}&filter={}", filter(false))).await.ok();
    let section = &body["rooms"]["join"][&room];
    assert_eq!(section["unread_notifications"], count(1));
    assert!(section.get("unread_thread_notifications").is_none());
    assert_eq!(
        (&section["timeline"]["events"], &section["ephemeral"]["events"]),
        (&json!([]), &json!([]))
    );
}

/// Clients that ask for the state after the timeline take their own membership from nowhere else.
#[actix_web::test]
async fn a_rejection_is_in_the_state_after_the_timeline() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.create_room(json!({ "invite": [bob.user] })).await;
    let since = bob.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    bob.post(&format!("/rooms/{}/leave", escape(&room)), json!({})).await.ok();
    let news = bob.get(&format!("/sync?since={since}&use_state_after=true")).await.ok();
    let left = &news["rooms"]["leave"][&room];
    assert_eq!(left["state_after"]["events"], left["timeline"]["events"]);
    assert_eq!(left["state_after"]["events"][0]["content"]["membership"], "leave");
}
