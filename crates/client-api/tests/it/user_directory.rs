//! Finding users, and proving who one is.

use serde_json::json;

use crate::common::{Client, Server, escape};

async fn search(client: &Client<'_>, term: &str) -> Vec<String> {
    let body = json!({ "search_term": term });
    let found = client.post("/user_directory/search", body).await.ok();
    assert_eq!(found["limited"], false);
    let results = found["results"].as_array().unwrap();
    results.iter().map(|user| user["user_id"].as_str().unwrap().to_owned()).collect()
}

async fn set_name(client: &Client<'_>, name: &str) {
    let path = format!("/profile/{}/displayname", client.user);
    client.put(&path, json!({ "displayname": name })).await.ok();
}

async fn leave(client: &Client<'_>, room: &str) {
    client.post(&format!("/rooms/{}/leave", escape(room)), json!({})).await.ok();
}

#[actix_web::test]
async fn those_in_public_and_shared_rooms_are_found() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let eve = server.user("eve").await;
    set_name(&ann, "Alice Cooper").await;
    assert!(search(&eve, "alice").await.is_empty(), "nobody can see her");
    // A room of two: they find each other, and nobody finds oneself.
    let private = bob.create_room(json!({ "invite": [ann.user] })).await;
    assert!(search(&bob, "alice").await.is_empty(), "an invite is not a membership");
    ann.join(&private).await;
    assert_eq!(search(&bob, "COOPER").await, [&*ann.user]);
    assert_eq!(search(&ann, "@bob:example.org").await, [&*bob.user]);
    assert!(search(&ann, "alice").await.is_empty());
    assert!(search(&eve, "alice").await.is_empty());
    // A public room: everybody finds those in it.
    let public = ann.public_room().await;
    assert_eq!(search(&eve, "alice").await, [&*ann.user]);
    assert!(search(&eve, "bob").await.is_empty());
    leave(&ann, &public).await;
    assert!(search(&eve, "alice").await.is_empty(), "everyone has left it");
    leave(&ann, &private).await;
    assert!(search(&bob, "alice").await.is_empty());
    // A room that anyone may read.
    let state = json!([{
        "type": "m.room.history_visibility", "content": { "history_visibility": "world_readable" },
    }]);
    ann.create_room(json!({ "initial_state": state })).await;
    assert_eq!(search(&eve, "alice").await, [&*ann.user]);
    for nobody in ["", "  ", &"x".repeat(300)] {
        assert!(search(&eve, nobody).await.is_empty());
    }
    let body = json!({ "limit": 1 });
    eve.post("/user_directory/search", body).await.fails(400, "M_MISSING_PARAM");
}

/// What a room calls a local user is nobody's business outside of it.
#[actix_web::test]
async fn a_name_in_one_room_stays_there() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let eve = server.user("eve").await;
    set_name(&ann, "Alice Cooper").await;
    ann.public_room().await;
    let private = bob.create_room(json!({ "invite": [ann.user] })).await;
    ann.join(&private).await;
    let path = format!("/rooms/{}/state/m.room.member/{}", escape(&private), escape(&ann.user));
    ann.put(&path, json!({ "membership": "join", "displayname": "Freddy" })).await.ok();
    for who in [&eve, &bob] {
        assert!(search(who, "freddy").await.is_empty());
        let body = json!({ "search_term": "Alice Cooper" });
        let found = who.post("/user_directory/search", body).await.ok();
        let alice = json!([{ "user_id": ann.user, "display_name": "Alice Cooper" }]);
        assert_eq!(found["results"], alice);
    }
}

#[actix_web::test]
async fn the_best_come_first_and_not_too_many() {
    let server = Server::new();
    let host = server.user("host").await;
    let room = host.public_room().await;
    for (name, display_name) in
        [("c", "Maxim Ann"), ("b", "Annabel"), ("a", "Joanna"), ("d", "Ann")]
    {
        let client = server.user(name).await;
        client.join(&room).await;
        set_name(&client, display_name).await;
    }
    let order = ["@d:example.org", "@b:example.org", "@c:example.org", "@a:example.org"];
    assert_eq!(search(&host, "ann").await, order);
    let body = json!({ "search_term": "ann", "limit": 2 });
    let found = host.post("/user_directory/search", body).await.ok();
    assert_eq!(found["limited"], true);
    assert_eq!(found["results"].as_array().unwrap().len(), 2);
}

#[actix_web::test]
async fn rooms_of_two() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let mutual =
        async |query: &str| ann.get(&format!("/_matrix/client/v1/mutual_rooms{query}")).await;
    let with_bob = "?user_id=@bob:example.org";
    assert_eq!(mutual(with_bob).await.ok(), json!({ "joined": [], "count": 0 }));
    ann.public_room().await;
    let mut rooms = Vec::new();
    for _ in 0..3 {
        let room = ann.public_room().await;
        bob.join(&room).await;
        rooms.push(room);
    }
    leave(&bob, &rooms.pop().unwrap()).await;
    rooms.sort();
    assert_eq!(mutual(with_bob).await.ok(), json!({ "joined": rooms, "count": 2 }));
    let next = format!("{with_bob}&from={}", escape(&rooms[0]));
    assert_eq!(mutual(&next).await.ok(), json!({ "joined": [rooms[1]], "count": 2 }));
    let nobody = "?user_id=@nobody:elsewhere.org";
    assert_eq!(mutual(nobody).await.ok()["joined"], json!([]));
    for bad in ["", "?user_id=bob", "?user_id=@ann:example.org", "?user_id=@bob:example.org&from=x"]
    {
        mutual(bad).await.fails(400, "M_INVALID_PARAM");
    }
}

/// A page holds 100 rooms. MSC2666 calls the tokens differently.
#[actix_web::test]
async fn rooms_of_two_by_pages() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let mut rooms = Vec::new();
    for _ in 0..101 {
        server.later(1);
        let room = ann.public_room().await;
        bob.join(&room).await;
        rooms.push(room);
    }
    rooms.sort();
    for (path, from, next) in [
        ("/_matrix/client/v1/mutual_rooms", "from", "next_batch"),
        (
            "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms",
            "batch_token",
            "next_batch_token",
        ),
    ] {
        let path = format!("{path}?user_id={}", bob.user);
        let page = ann.get(&path).await.ok();
        assert_eq!(page["joined"], json!(rooms[..100]));
        let token = escape(page[next].as_str().unwrap());
        let last = ann.get(&format!("{path}&{from}={token}")).await.ok();
        assert_eq!(last, json!({ "joined": rooms[100..], "count": 101 }));
        ann.get(&format!("{path}&{from}=x")).await.fails(400, "M_INVALID_PARAM");
    }
}

#[actix_web::test]
async fn a_token_for_openid() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let path = format!("/user/{}/openid/request_token", ann.user);
    let token = ann.post(&path, json!({})).await.ok();
    assert_eq!(token["token_type"], "Bearer");
    assert_eq!(token["matrix_server_name"], "example.org");
    assert_eq!(token["expires_in"], 3600);
    let text = token["access_token"].as_str().unwrap();
    let user = server.api.users.openid_user(text);
    assert_eq!(user.unwrap(), ann.user);
    server.bearer(Some(text)).get("/account/whoami").await.fails(401, "M_UNKNOWN_TOKEN");
    bob.post(&path, json!({})).await.fails(403, "M_FORBIDDEN");
}
