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
    let absent = ["invite", "knock", "leave"];
    assert!(absent.iter().all(|name| body["rooms"].get(name).is_none()));

    let body = ann.get("/sync?use_state_after=true").await.ok();
    let section = &body["rooms"]["join"][&room];
    assert!(section.get("state").is_none());
    assert!(section["state_after"]["events"].as_array().unwrap().len() > 3);
}

#[actix_web::test]
async fn queries_that_make_no_sense() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let future = "since=s99999";
    for query in [
        "since=x",
        "since=s1_2",
        future,
        "timeout=soon",
        "full_state=maybe",
        "filter=17",
        "filter=%7B",
        "filter=%7B%22room%22:1%7D",
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
