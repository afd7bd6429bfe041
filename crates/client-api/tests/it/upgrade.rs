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

/// The directory lists the new room; who is a member of the space may join it still, unless the
/// version does not know that; levels that are texts become numbers.
#[actix_web::test]
async fn a_room_keeps_its_place() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let allow = json!([{ "type": "m.room_membership", "room_id": "!space:x" }]);
    let rule = json!({ "join_rule": "restricted", "allow": allow });
    let parent = json!({ "via": ["x"], "canonical": true });
    let old = ann
        .create_room(json!({
            "room_version": "9",
            "visibility": "public",
            "power_level_content_override": { "kick": "60", "events": { "m.room.name": "70" } },
            "initial_state": [
                { "type": "m.room.join_rules", "content": rule },
                { "type": "m.room.avatar", "content": { "url": "mxc://example.org/a" } },
                { "type": "m.space.parent", "state_key": "!space:x", "content": parent },
                { "type": "m.space.parent", "state_key": "!gone:x", "content": {} },
            ],
        }))
        .await;
    let new = upgrade(&ann, &old, json!({ "new_version": "12" })).await;
    let levels = ann.state(&new, "m.room.power_levels", "").await.unwrap();
    assert_eq!((&levels["kick"], &levels["events"]["m.room.name"]), (&json!(60), &json!(70)));
    assert_eq!(ann.state(&new, "m.room.join_rules", "").await, Some(rule));
    assert_eq!(ann.state(&new, "m.space.parent", "!space:x").await, Some(parent));
    assert_eq!(ann.state(&new, "m.space.parent", "!gone:x").await, None);
    let listed = ann.get("/publicRooms").await.ok();
    assert_eq!(listed["total_room_count_estimate"], 1);
    assert_eq!(listed["chunk"][0]["room_id"], new.as_str());
    // Version 7 knows no restricted rooms.
    let back = upgrade(&ann, &new, json!({ "new_version": "7" })).await;
    let rule = ann.state(&back, "m.room.join_rules", "").await;
    assert_eq!(rule, Some(json!({ "join_rule": "invite" })));
}

/// Tags, direct chats and push rules follow each user who joins the new room, not other rooms'
/// claims.
#[actix_web::test]
async fn a_users_own_data_follows() {
    let server = Server::new();
    let (ann, bob, eve) =
        (server.user("ann").await, server.user("bob").await, server.user("eve").await);
    let old = ann.public_room().await;
    bob.join(&old).await;
    let tags = json!({ "tags": { "m.favourite": { "order": 0.5 } } });
    let direct = json!({ ann.user.clone(): [old, "!other:x"], "@cat:x": ["!other:x"] });
    let data = |user: &str, room: &str, kind: &str| {
        format!("/user/{user}/rooms/{}/account_data/{kind}", escape(room))
    };
    let global = |user: &str| format!("/user/{user}/account_data/m.direct");
    let rule = |room: &str| format!("/pushrules/global/room/{}", escape(room));
    for user in [&ann, &bob] {
        user.put(&data(&user.user, &old, "m.tag"), tags.clone()).await.ok();
        user.put(&global(&user.user), direct.clone()).await.ok();
        user.put(&rule(&old), json!({ "actions": [] })).await.ok();
    }
    // A room that only claims to follow ours.
    let creation = json!({ "predecessor": { "room_id": old, "event_id": "$x" } });
    let body = json!({ "preset": "public_chat", "creation_content": creation });
    let claims = eve.create_room(body).await;
    bob.join(&claims).await;
    bob.get(&data(&bob.user, &claims, "m.tag")).await.fails(404, "M_NOT_FOUND");

    let new = upgrade(&ann, &old, json!({ "new_version": "12" })).await;
    bob.get(&data(&bob.user, &new, "m.tag")).await.fails(404, "M_NOT_FOUND");
    let invite = json!({ "user_id": bob.user });
    ann.post(&format!("/rooms/{}/invite", escape(&new)), invite).await.ok();
    bob.join(&new).await;
    let followed = json!({ ann.user.clone(): [old, "!other:x", new], "@cat:x": ["!other:x"] });
    for user in [&ann, &bob] {
        assert_eq!(user.get(&data(&user.user, &new, "m.tag")).await.ok(), tags);
        assert_eq!(user.get(&global(&user.user)).await.ok(), followed);
        assert_eq!(user.get(&rule(&new)).await.ok()["actions"], json!([]));
    }
    // What the user has set since stays.
    let own = json!({ "tags": {} });
    bob.put(&data(&bob.user, &new, "m.tag"), own.clone()).await.ok();
    bob.join(&new).await;
    assert_eq!(bob.get(&data(&bob.user, &new, "m.tag")).await.ok(), own);
}

/// A room that is replaced by hand: its creator is in it before the old one says so.
#[actix_web::test]
async fn a_room_can_be_replaced_by_hand() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let old = ann.public_room().await;
    let tags = json!({ "tags": { "m.favourite": {} } });
    let data = |room: &str| format!("/user/{}/rooms/{}/account_data/m.tag", ann.user, escape(room));
    ann.put(&data(&old), tags.clone()).await.ok();
    let creation = json!({ "predecessor": { "room_id": old, "event_id": "$x" } });
    let new = ann.create_room(json!({ "creation_content": creation })).await;
    ann.get(&data(&new)).await.fails(404, "M_NOT_FOUND");
    let tombstone = json!({ "body": "moved", "replacement_room": new });
    let path = format!("/rooms/{}/state/m.room.tombstone", escape(&old));
    ann.put(&path, tombstone).await.ok();
    assert_eq!(ann.get(&data(&new)).await.ok(), tags);
}
