use serde_json::json;

use crate::common::Server;

#[actix_web::test]
async fn profiles_are_public() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let path = format!("/profile/{}", ann.user);
    assert_eq!(ann.get(&path).await.ok(), json!({}));
    assert_eq!(ann.get(&format!("{path}/displayname")).await.ok(), json!({}));
    ann.put(&format!("{path}/displayname"), json!({ "displayname": "Ann" })).await.ok();
    ann.put(&format!("{path}/avatar_url"), json!({ "avatar_url": "mxc://x/y" })).await.ok();
    let whole = server.anyone().get(&path).await.ok();
    assert_eq!(whole, json!({ "displayname": "Ann", "avatar_url": "mxc://x/y" }));
    let name = server.anyone().get(&format!("{path}/displayname")).await.ok();
    assert_eq!(name, json!({ "displayname": "Ann" }));
    ann.delete(&format!("{path}/avatar_url")).await.ok();
    ann.put(&format!("{path}/displayname"), json!({ "displayname": "" })).await.ok();
    assert_eq!(ann.get(&path).await.ok(), json!({}));

    server.anyone().get("/profile/@nobody:example.org").await.fails(404, "M_NOT_FOUND");
    ann.get(&format!("{path}/org.example.mood")).await.fails(404, "M_NOT_FOUND");
    ann.get("/profile/ann").await.fails(400, "M_INVALID_PARAM");
}

#[actix_web::test]
async fn profile_changes_that_are_refused() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let path = format!("/profile/{}/displayname", ann.user);
    bob.put(&path, json!({ "displayname": "Eve" })).await.fails(403, "M_FORBIDDEN");
    ann.put(&path, json!({})).await.fails(400, "M_MISSING_PARAM");
    ann.put(&path, json!({ "displayname": 1 })).await.fails(400, "M_BAD_JSON");
    let long = "x".repeat(2000);
    ann.put(&path, json!({ "displayname": long })).await.fails(400, "M_TOO_LARGE");
    let mood = format!("/profile/{}/org.example.mood", ann.user);
    ann.put(&mood, json!({ "org.example.mood": "fine" })).await.fails(403, "M_FORBIDDEN");
}

#[actix_web::test]
async fn rooms_learn_of_a_new_profile() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let (stays, left) = (ann.public_room().await, ann.public_room().await);
    ann.post(&format!("/rooms/{}/leave", crate::common::escape(&left)), json!({})).await.ok();
    let path = format!("/profile/{}/displayname", ann.user);
    ann.put(&path, json!({ "displayname": "Ann" })).await.ok();
    let member = ann.state(&stays, "m.room.member", &ann.user).await.unwrap();
    assert_eq!(member, json!({ "membership": "join", "displayname": "Ann" }));
    let member = ann.state(&left, "m.room.member", &ann.user).await.unwrap();
    assert_eq!(member, json!({ "membership": "leave" }));
    ann.delete(&path).await.ok();
    let member = ann.state(&stays, "m.room.member", &ann.user).await.unwrap();
    assert_eq!(member, json!({ "membership": "join" }));
}
