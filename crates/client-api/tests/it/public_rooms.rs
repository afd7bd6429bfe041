use serde_json::{Value, json};

use crate::common::{Server, escape};

fn ids(page: &Value) -> Vec<&str> {
    let chunk = page["chunk"].as_array().unwrap();
    chunk.iter().map(|room| room["room_id"].as_str().unwrap()).collect()
}

#[actix_web::test]
async fn a_public_room_is_listed_with_what_describes_it() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    ann.create_room(json!({ "preset": "public_chat" })).await;
    let empty = server.anyone().get("/publicRooms").await.ok();
    assert_eq!(empty, json!({ "chunk": [], "total_room_count_estimate": 0 }));
    let room = ann
        .create_room(json!({
            "visibility": "public",
            "room_alias_name": "tea",
            "name": "Tea",
            "topic": "Leaves",
            "creation_content": { "type": "m.space" },
            "initial_state": [
                { "type": "m.room.avatar", "content": { "url": "mxc://example.org/a" } },
                { "type": "m.room.guest_access", "content": { "guest_access": "can_join" } },
                {
                    "type": "m.room.history_visibility",
                    "content": { "history_visibility": "world_readable" },
                },
            ],
        }))
        .await;
    bob.join(&room).await;
    let expected = json!({
        "chunk": [{
            "room_id": room,
            "name": "Tea",
            "topic": "Leaves",
            "canonical_alias": "#tea:example.org",
            "avatar_url": "mxc://example.org/a",
            "num_joined_members": 2,
            "world_readable": true,
            "guest_can_join": true,
            "join_rule": "public",
            "room_type": "m.space",
        }],
        "total_room_count_estimate": 1,
    });
    for path in ["/publicRooms", "/_matrix/client/r0/publicRooms?server=example.org"] {
        assert_eq!(server.anyone().get(path).await.ok(), expected);
        assert_eq!(ann.post(path, json!({})).await.ok(), expected);
    }
    // Nobody here knows how it goes on in a room that all have left.
    for user in [&ann, &bob] {
        user.post(&format!("/rooms/{}/leave", escape(&room)), json!({})).await.ok();
    }
    assert_eq!(ann.get("/publicRooms").await.ok(), empty);
}

#[actix_web::test]
async fn pages_and_filters() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let public = async |body: Value| {
        let mut room = json!({ "visibility": "public" });
        room.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        ann.create_room(room).await
    };
    let mut rooms = [
        public(json!({ "name": "Green tea" })).await,
        public(json!({ "topic": "TEA, black" })).await,
        public(json!({ "room_alias_name": "team" })).await,
    ];
    rooms.sort();
    let coffee = json!({ "name": "Coffee", "creation_content": { "type": "m.space" } });
    let coffee = public(coffee).await;
    bob.join(&coffee).await;
    let mut all = vec![&*coffee];
    all.extend(rooms.iter().map(String::as_str));

    let first = ann.get("/publicRooms?limit=3").await.ok();
    assert_eq!(ids(&first), all[..3]);
    assert_eq!(first["total_room_count_estimate"], 4);
    assert_eq!(first.get("prev_batch"), None);
    let since = first["next_batch"].as_str().unwrap();
    let second = ann.post("/publicRooms", json!({ "limit": 3, "since": since })).await.ok();
    assert_eq!(ids(&second), all[3..]);
    assert_eq!(second.get("next_batch"), None);
    let back = second["prev_batch"].as_str().unwrap();
    let back = ann.get(&format!("/publicRooms?limit=3&since={back}")).await.ok();
    assert_eq!(back, first);

    let filtered =
        async |filter: Value| ann.post("/publicRooms", json!({ "filter": filter })).await.ok();
    assert_eq!(ids(&filtered(json!({ "generic_search_term": "tea" })).await), all[1..]);
    assert_eq!(ids(&filtered(json!({ "generic_search_term": "" })).await), all);
    assert_eq!(ids(&filtered(json!({ "generic_search_term": "cocoa" })).await), [""; 0]);
    assert_eq!(ids(&filtered(json!({ "room_types": ["m.space"] })).await), all[..1]);
    assert_eq!(ids(&filtered(json!({ "room_types": [null] })).await), all[1..]);

    ann.get("/publicRooms?limit=many").await.fails(400, "M_INVALID_PARAM");
    ann.get("/publicRooms?since=s4").await.fails(400, "M_INVALID_PARAM");
    ann.post("/publicRooms", json!({ "filter": 1 })).await.fails(400, "M_BAD_JSON");
    server.anyone().post("/publicRooms", json!({})).await.fails(401, "M_MISSING_TOKEN");
    let irc = json!({ "third_party_instance_id": "irc" });
    ann.post("/publicRooms", irc).await.fails(400, "M_INVALID_PARAM");
    ann.get("/publicRooms?third_party_instance_id=irc").await.fails(400, "M_INVALID_PARAM");
    let all = json!({ "include_all_networks": true, "third_party_instance_id": null });
    ann.post("/publicRooms", all).await.ok();
    // Nobody makes us ask others but our users.
    let other = "/publicRooms?server=else.org";
    server.anyone().get(other).await.fails(401, "M_MISSING_TOKEN");
    ann.get(other).await.fails(502, "M_UNKNOWN");
    ann.get("/publicRooms?server=no%20name").await.fails(400, "M_INVALID_PARAM");
}

#[actix_web::test]
async fn who_may_publish_a_room() {
    let server = Server::new();
    let (ann, bob, eve) =
        (server.user("ann").await, server.user("bob").await, server.user("eve").await);
    let room = ann.public_room().await;
    bob.join(&room).await;
    let path = format!("/directory/list/room/{}", escape(&room));
    let is = async |visibility: &str| {
        let found = server.anyone().get(&path).await.ok();
        assert_eq!(found, json!({ "visibility": visibility }));
        let listed = ann.get("/publicRooms").await.ok();
        assert_eq!(ids(&listed).is_empty(), visibility == "private");
    };
    is("private").await;
    for user in [&bob, &eve] {
        user.put(&path, json!({})).await.fails(403, "M_FORBIDDEN");
    }
    ann.put(&path, json!({ "visibility": "hidden" })).await.fails(400, "M_BAD_JSON");
    is("private").await;
    ann.put(&path, json!({})).await.ok();
    is("public").await;
    bob.put(&path, json!({ "visibility": "private" })).await.fails(403, "M_FORBIDDEN");
    ann.put(&path, json!({ "visibility": "public" })).await.ok();
    is("public").await;
    ann.put(&path, json!({ "visibility": "private" })).await.ok();
    is("private").await;
    let unknown = "/directory/list/room/!unknown:example.org";
    ann.get(unknown).await.fails(404, "M_NOT_FOUND");
    ann.put(unknown, json!({})).await.fails(404, "M_NOT_FOUND");
    server.anyone().put(&path, json!({})).await.fails(401, "M_MISSING_TOKEN");
}
