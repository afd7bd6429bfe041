use serde_json::{Value, json};

use crate::common::{Client, Server, escape};

async fn upgrade(client: &Client<'_>, room: &str, body: Value) -> String {
    let path = format!("/rooms/{}/upgrade", escape(room));
    let answer = client.post(&path, body).await.ok();
    answer["replacement_room"].as_str().unwrap().to_owned()
}

#[actix_web::test]
async fn a_room_is_replaced_with_what_makes_it_the_same() {
    let server = Server::new();
    let (ann, bob, cat) =
        (server.user("ann").await, server.user("bob").await, server.user("cat").await);
    let old = ann
        .create_room(json!({
            "room_version": "10",
            "preset": "public_chat",
            "name": "Tea",
            "room_alias_name": "tea",
            "creation_content": { "type": "m.space" },
            "power_level_content_override": { "ban": 60 },
            "initial_state": [
                { "type": "m.room.server_acl", "content": { "allow": ["*"], "deny": ["bad.example"] } },
                { "type": "m.space.child", "state_key": "!in:x", "content": { "via": ["x"] } },
                { "type": "m.space.child", "state_key": "!out:x", "content": {} },
                { "type": "org.example", "content": { "stays": true } },
            ],
        }))
        .await;
    bob.join(&old).await;
    cat.join(&old).await;
    let ban = json!({ "user_id": cat.user, "reason": "spam" });
    ann.post(&format!("/rooms/{}/ban", escape(&old)), ban).await.ok();

    let new = upgrade(&ann, &old, json!({ "new_version": "11" })).await;
    let of_new = async |kind: &str, key: &str| ann.state(&new, kind, key).await;
    let create = of_new("m.room.create", "").await.unwrap();
    assert_eq!((&create["room_version"], &create["type"]), (&json!("11"), &json!("m.space")));
    assert_eq!(create["predecessor"]["room_id"], old.as_str());
    assert!(create["predecessor"]["event_id"].is_string());
    for kind in ["m.room.name", "m.room.server_acl", "m.room.join_rules"] {
        assert_eq!(of_new(kind, "").await, ann.state(&old, kind, "").await, "{kind}");
    }
    assert_eq!(of_new("m.room.power_levels", "").await.unwrap()["ban"], 60);
    assert_eq!(of_new("m.space.child", "!in:x").await, Some(json!({ "via": ["x"] })));
    assert_eq!(of_new("m.space.child", "!out:x").await, None);
    assert_eq!(of_new("org.example", "").await, None);
    assert_eq!(ann.membership(&new, &cat.user).await.as_deref(), Some("ban"));
    assert_eq!(ann.membership(&new, &bob.user).await, None);

    let of_old = async |kind: &str| ann.state(&old, kind, "").await.unwrap();
    assert_eq!(of_old("m.room.tombstone").await["replacement_room"], new.as_str());
    let levels = of_old("m.room.power_levels").await;
    assert_eq!((&levels["events_default"], &levels["invite"]), (&json!(50), &json!(50)));
    assert_eq!(of_old("m.room.canonical_alias").await, json!({}));
    let alias = bob.get("/directory/room/%23tea:example.org").await.ok();
    assert_eq!(alias["room_id"], new.as_str());
    let canonical = of_new("m.room.canonical_alias", "").await.unwrap();
    assert_eq!(canonical["alias"], "#tea:example.org");
}

#[actix_web::test]
async fn creators_of_the_new_room_have_no_level() {
    let server = Server::new();
    let (ann, bob, cat) =
        (server.user("ann").await, server.user("bob").await, server.user("cat").await);
    let users = json!({ ann.user.clone(): 100, bob.user.clone(): 100, cat.user.clone(): 50 });
    let old = ann
        .create_room(json!({
            "room_version": "11",
            "power_level_content_override": { "users": users },
        }))
        .await;
    let body = json!({ "new_version": "12", "additional_creators": [bob.user] });
    let new = upgrade(&ann, &old, body).await;
    let create = ann.state(&new, "m.room.create", "").await.unwrap();
    assert_eq!(create["additional_creators"], json!([bob.user]));
    assert_eq!(create["predecessor"], json!({ "room_id": old }));
    let levels = ann.state(&new, "m.room.power_levels", "").await.unwrap();
    assert_eq!(levels["users"], json!({ cat.user.clone(): 50 }));

    // Back to a version without creators: who replaces the room governs it.
    let again = upgrade(&ann, &new, json!({ "new_version": "11" })).await;
    let levels = ann.state(&again, "m.room.power_levels", "").await.unwrap();
    assert_eq!(levels["users"], json!({ ann.user.clone(): 100, cat.user.clone(): 50 }));
}

#[actix_web::test]
async fn who_may_not_replace_a_room() {
    let server = Server::new();
    let (ann, bob, cat) =
        (server.user("ann").await, server.user("bob").await, server.user("cat").await);
    let room = ann.public_room().await;
    bob.join(&room).await;
    let path = format!("/rooms/{}/upgrade", escape(&room));
    let to_11 = || json!({ "new_version": "11" });
    bob.post(&path, to_11()).await.fails(403, "M_FORBIDDEN");
    cat.post(&path, to_11()).await.fails(403, "M_FORBIDDEN");
    ann.post(&path, json!({ "new_version": "13" })).await.fails(400, "M_UNSUPPORTED_ROOM_VERSION");
    ann.post(&path, json!({})).await.fails(400, "M_MISSING_PARAM");
    ann.post("/rooms/!none:x/upgrade", to_11()).await.fails(404, "M_NOT_FOUND");
    assert_eq!(ann.state(&room, "m.room.tombstone", "").await, None);
}
