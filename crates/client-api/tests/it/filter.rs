use serde_json::json;

use crate::common::Server;

#[actix_web::test]
async fn filters_come_back_as_they_were() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let path = format!("/user/{}/filter", ann.user);
    let filter = json!({ "room": { "timeline": { "limit": 5 } }, "org.example.unknown": [1] });
    let id = ann.post(&path, filter.clone()).await.ok()["filter_id"].as_str().unwrap().to_owned();
    assert_eq!(ann.get(&format!("{path}/{id}")).await.ok(), filter);
    for unknown in ["77", "x"] {
        ann.get(&format!("{path}/{unknown}")).await.fails(404, "M_NOT_FOUND");
    }
}

#[actix_web::test]
async fn filters_are_checked_and_private() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let path = format!("/user/{}/filter", ann.user);
    for bad in [
        json!({ "presence": "not_an_object" }),
        json!({ "room": { "timeline": "not_an_object" } }),
        json!({ "room": { "timeline": { "types": [1] } } }),
        json!({ "room": { "timeline": { "rooms": ["not_a_room_id"] } } }),
        json!({ "room": { "timeline": { "senders": ["not_a_sender_id"] } } }),
        json!([]),
    ] {
        ann.post(&path, bad).await.fails(400, "M_BAD_JSON");
    }
    bob.post(&path, json!({})).await.fails(403, "M_FORBIDDEN");
    bob.get(&format!("{path}/0")).await.fails(403, "M_FORBIDDEN");
    server.anyone().post(&path, json!({})).await.fails(401, "M_MISSING_TOKEN");
}
