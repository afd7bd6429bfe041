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
    bob.put(&mood, json!({ "org.example.mood": "bad" })).await.fails(403, "M_FORBIDDEN");
    bob.delete(&mood).await.fails(403, "M_FORBIDDEN");
    ann.put(&mood, json!({ "org.example.mode": 1 })).await.fails(400, "M_MISSING_PARAM");
    let large = json!({ "org.example.mood": "x".repeat(65_536) });
    ann.put(&mood, large).await.fails(400, "M_PROFILE_TOO_LARGE");
    let key = "x".repeat(256);
    let path = format!("/profile/{}/{key}", ann.user);
    ann.put(&path, json!({ key: 1 })).await.fails(400, "M_KEY_TOO_LARGE");
    let path = format!("/profile/{}/Mood", ann.user);
    ann.put(&path, json!({ "Mood": 1 })).await.fails(400, "M_INVALID_PARAM");
    ann.delete(&path).await.fails(400, "M_INVALID_PARAM");
}

#[actix_web::test]
async fn fields_of_any_name() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.public_room().await;
    let whole = format!("/profile/{}", ann.user);
    let mood = format!("{whole}/org.example.mood");
    for value in [json!("fine"), json!({ "a": [1, null] }), json!(null)] {
        let body = json!({ "org.example.mood": value });
        ann.put(&mood, body.clone()).await.ok();
        assert_eq!(server.anyone().get(&mood).await.ok(), body);
        assert_eq!(server.anyone().get(&whole).await.ok(), body);
    }
    // Rooms are not told.
    let member = ann.state(&room, "m.room.member", &ann.user).await.unwrap();
    assert_eq!(member, json!({ "membership": "join" }));
    ann.delete(&mood).await.ok();
    ann.delete(&mood).await.ok();
    ann.get(&mood).await.fails(404, "M_NOT_FOUND");
    let capabilities = ann.get("/capabilities").await.ok();
    let fields = &capabilities["capabilities"]["m.profile_fields"];
    assert_eq!(*fields, json!({ "enabled": true }));
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
