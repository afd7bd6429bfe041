use serde_json::{Value, json};

use crate::common::{Server, escape};

fn rule(name: &str) -> Value {
    json!([{ "type": "m.room.join_rules", "content": { "join_rule": name } }])
}

#[actix_web::test]
async fn knocking_and_taking_it_back() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let name = json!({ "displayname": "Bob" });
    bob.put(&format!("/profile/{}/displayname", bob.user), name).await.ok();
    let body = json!({ "room_alias_name": "tea", "initial_state": rule("knock") });
    let room = ann.create_room(body).await;
    let knock = format!("/knock/{}", escape(&room));
    for (path, reason) in [(&*knock, "thirst"), ("/knock/%23tea:example.org", "still")] {
        let answer = bob.post(path, json!({ "reason": reason })).await.ok();
        assert_eq!(answer, json!({ "room_id": room }));
        let member = ann.state(&room, "m.room.member", &bob.user).await.unwrap();
        let expected = json!({ "membership": "knock", "displayname": "Bob", "reason": reason });
        assert_eq!(member, expected);
        let sync = bob.get("/sync").await.ok();
        let state = sync["rooms"]["knock"][&room]["knock_state"]["events"].as_array().unwrap();
        assert_eq!(state[0]["type"], "m.room.create");
        assert!(state[0]["origin_server_ts"].is_u64());
        assert_eq!(state.last().unwrap()["content"]["reason"], reason);
    }
    bob.post(&format!("/rooms/{}/leave", escape(&room)), json!({})).await.ok();
    assert_eq!(bob.get("/sync").await.ok()["rooms"]["knock"], Value::Null);
    // The same as state, and without a body.
    let path = format!("/rooms/{}/state/m.room.member/{}", escape(&room), bob.user);
    bob.put(&path, json!({ "membership": "knock" })).await.ok();
    bob.post(&format!("{knock}?via=x.example&server_name=y.example"), json!({})).await.ok();
    assert_eq!(ann.membership(&room, &bob.user).await.as_deref(), Some("knock"));
}

#[actix_web::test]
async fn knocks_that_are_refused() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.create_room(json!({})).await;
    let knock = format!("/knock/{}", escape(&room));
    bob.post(&knock, json!({})).await.fails(403, "M_FORBIDDEN");
    bob.post(&knock, json!({ "reason": 1 })).await.fails(400, "M_BAD_JSON");
    bob.post(&format!("{knock}?via=no%20name"), json!({})).await.fails(400, "M_INVALID_PARAM");
    bob.post("/knock/tea", json!({})).await.fails(400, "M_INVALID_PARAM");
    bob.post("/knock/%23none:example.org", json!({})).await.fails(404, "M_NOT_FOUND");
    let unknown = format!("/knock/!{}", "a".repeat(43));
    bob.post(&unknown, json!({})).await.fails(404, "M_NOT_FOUND");
    server.anyone().post(&knock, json!({})).await.fails(401, "M_MISSING_TOKEN");
}

/// Whatever the join rule is: who is in the room, invited or banned is told so.
#[actix_web::test]
async fn who_cannot_knock_is_told_why() {
    let server = Server::new();
    let (ann, bob, cat) =
        (server.user("ann").await, server.user("bob").await, server.user("cat").await);
    for join_rule in ["knock", "invite", "public"] {
        let room = ann.create_room(json!({ "initial_state": rule(join_rule) })).await;
        let path = format!("/rooms/{}", escape(&room));
        ann.post(&format!("{path}/invite"), json!({ "user_id": bob.user })).await.ok();
        ann.post(&format!("{path}/ban"), json!({ "user_id": cat.user })).await.ok();
        for (user, told) in [
            (&ann, "You are in the room already"),
            (&bob, "You are invited to the room already"),
            (&cat, "You are banned from the room"),
        ] {
            let knock = user.post(&format!("/knock/{}", escape(&room)), json!({})).await;
            assert_eq!(knock.fails(403, "M_FORBIDDEN"), told, "{join_rule}");
        }
        let joined = cat.post(&format!("{path}/join"), json!({})).await;
        assert_eq!(joined.fails(403, "M_FORBIDDEN"), "You are banned from the room");
    }
}
