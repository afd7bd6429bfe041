use serde_json::json;

use crate::common::{Server, escape};

#[actix_web::test]
async fn aliases_come_and_go() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    let alias = "#老虎 🐅:example.org";
    let path = format!("/directory/room/{}", escape(alias));
    ann.get(&path).await.fails(404, "M_NOT_FOUND");
    ann.put(&path, json!({ "room_id": room })).await.ok();
    let found = server.anyone().get(&path).await.ok();
    assert_eq!(found, json!({ "room_id": room, "servers": ["example.org"] }));
    ann.put(&path, json!({ "room_id": room })).await.fails(409, "M_UNKNOWN");
    let list = format!("/rooms/{}/aliases", escape(&room));
    assert_eq!(ann.get(&list).await.ok(), json!({ "aliases": [alias] }));
    bob.get(&list).await.fails(403, "M_FORBIDDEN");
    ann.delete(&path).await.ok();
    ann.get(&path).await.fails(404, "M_NOT_FOUND");
    ann.delete(&path).await.fails(404, "M_NOT_FOUND");
    assert_eq!(ann.get(&list).await.ok(), json!({ "aliases": [] }));
}

/// Other servers are asked for our users alone.
#[actix_web::test]
async fn an_alias_of_another_server_takes_a_login() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let path = "/directory/room/%23tea:else.org";
    server.anyone().get(path).await.fails(401, "M_MISSING_TOKEN");
    server.bearer(Some("nonsense")).get(path).await.fails(401, "M_UNKNOWN_TOKEN");
    ann.get(path).await.fails(502, "M_UNKNOWN");
}

#[actix_web::test]
async fn aliases_that_are_refused() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    let body = json!({ "room_id": room });
    bob.put("/directory/room/%23a:example.org", body.clone()).await.fails(403, "M_FORBIDDEN");
    ann.put("/directory/room/%23a:else.org", body.clone()).await.fails(400, "M_INVALID_PARAM");
    ann.put("/directory/room/a", body.clone()).await.fails(400, "M_INVALID_PARAM");
    ann.put("/directory/room/%23a:example.org", json!({})).await.fails(400, "M_BAD_JSON");
    server
        .anyone()
        .put("/directory/room/%23a:example.org", body)
        .await
        .fails(401, "M_MISSING_TOKEN");
}

#[actix_web::test]
async fn who_may_delete_an_alias() {
    let server = Server::new();
    let (ann, bob, eve) =
        (server.user("ann").await, server.user("bob").await, server.user("eve").await);
    let room = ann.public_room().await;
    bob.join(&room).await;
    eve.join(&room).await;
    let path = "/directory/room/%23tea:example.org";
    let canonical = format!("/rooms/{}/state/m.room.canonical_alias", escape(&room));
    // Its creator, though the canonical alias stays for want of power.
    bob.put(path, json!({ "room_id": room })).await.ok();
    ann.put(&canonical, json!({ "alias": "#tea:example.org" })).await.ok();
    eve.delete(path).await.fails(403, "M_FORBIDDEN");
    bob.delete(path).await.ok();
    let content = ann.state(&room, "m.room.canonical_alias", "").await.unwrap();
    assert_eq!(content, json!({ "alias": "#tea:example.org" }));
    // Whoever has the power, and the canonical alias goes too.
    bob.put(path, json!({ "room_id": room })).await.ok();
    ann.delete(path).await.ok();
    assert_eq!(ann.state(&room, "m.room.canonical_alias", "").await.unwrap(), json!({}));
    // An administrator of the server, from outside the room.
    let root = server.admin("root").await;
    bob.put(path, json!({ "room_id": room })).await.ok();
    root.delete(path).await.ok();
    ann.get(path).await.fails(404, "M_NOT_FOUND");
}

#[actix_web::test]
async fn the_aliases_of_a_world_readable_room_are_everybodys() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let content = json!({ "history_visibility": "world_readable" });
    let visible = json!({ "type": "m.room.history_visibility", "content": content });
    let body = json!({ "initial_state": [visible], "room_alias_name": "tea" });
    let room = ann.create_room(body).await;
    let list = format!("/rooms/{}/aliases", escape(&room));
    assert_eq!(bob.get(&list).await.ok(), json!({ "aliases": ["#tea:example.org"] }));
    bob.get("/rooms/!none:example.org/aliases").await.fails(403, "M_FORBIDDEN");
}
