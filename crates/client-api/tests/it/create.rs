use serde_json::{Value, json};

use crate::common::{Server, escape};

#[actix_web::test]
async fn presets() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    for (body, join_rule) in [
        (json!({}), "invite"),
        (json!({ "visibility": "private" }), "invite"),
        (json!({ "visibility": "public" }), "public"),
        (json!({ "preset": "public_chat" }), "public"),
        (json!({ "preset": "private_chat", "visibility": "public" }), "invite"),
        (json!({ "preset": "trusted_private_chat", "invite": [bob.user] }), "invite"),
    ] {
        let room = ann.create_room(body.clone()).await;
        let rule = ann.state(&room, "m.room.join_rules", "").await.unwrap();
        assert_eq!(rule, json!({ "join_rule": join_rule }), "{body}");
        assert_eq!(ann.membership(&room, &ann.user).await.as_deref(), Some("join"));
        if body.get("invite").is_some() {
            assert_eq!(ann.membership(&room, &bob.user).await.as_deref(), Some("invite"));
            let create = ann.state(&room, "m.room.create", "").await.unwrap();
            assert_eq!(create["additional_creators"], json!([bob.user]));
        }
    }
}

#[actix_web::test]
async fn state_of_a_new_room() {
    for version in ["2", "10"] {
        check_state_of_a_new_room(version).await;
    }
}

async fn check_state_of_a_new_room(version: &str) {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let name = json!({ "displayname": "Bob" });
    bob.put(&format!("/profile/{}/displayname", bob.user), name).await.ok();
    let room = ann
        .create_room(json!({
            "room_version": version,
            "name": "Tea",
            "topic": "Which one",
            "room_alias_name": "tea",
            "is_direct": true,
            "invite": [bob.user],
            "initial_state": [
                { "type": "m.room.topic", "content": { "topic": "Shenanigans" } },
                { "type": "org.example", "state_key": "k", "content": { "a": 1 } },
            ],
            "creation_content": { "room_version": "bogus", "m.federate": false },
            "power_level_content_override": { "events_default": 7 },
        }))
        .await;
    let state = async |kind: &str, key: &str| ann.state(&room, kind, key).await.unwrap();
    assert_eq!(state("m.room.name", "").await, json!({ "name": "Tea" }));
    let topic = state("m.room.topic", "").await;
    assert_eq!(topic["topic"], "Which one");
    assert_eq!(topic["m.topic"]["m.text"], json!([{ "body": "Which one" }]));
    assert_eq!(state("org.example", "k").await, json!({ "a": 1 }));
    assert_eq!(state("m.room.canonical_alias", "").await["alias"], "#tea:example.org");
    let create = state("m.room.create", "").await;
    assert_eq!((&create["room_version"], &create["m.federate"]), (&json!(version), &json!(false)));
    assert_eq!(state("m.room.power_levels", "").await["events_default"], 7);
    let invite = json!({ "membership": "invite", "displayname": "Bob", "is_direct": true });
    assert_eq!(state("m.room.member", &bob.user).await, invite);
    let resolved = bob.get("/directory/room/%23tea:example.org").await.ok();
    assert_eq!(resolved, json!({ "room_id": room, "servers": ["example.org"] }));
}

#[actix_web::test]
async fn rooms_that_are_not_made() {
    let server = Server::new();
    let ann = server.user("ann").await;
    ann.create_room(json!({ "room_alias_name": "tea" })).await;
    let override_creator = json!({ "users": { ann.user.clone(): 100 } });
    for (body, status, errcode) in [
        (json!({ "room_version": "nope" }), 400, "M_UNSUPPORTED_ROOM_VERSION"),
        (json!({ "room_version": 1 }), 400, "M_BAD_JSON"),
        (json!({ "preset": "salon" }), 400, "M_BAD_JSON"),
        (json!({ "invite": ["bob"] }), 400, "M_INVALID_PARAM"),
        (json!({ "initial_state": [{ "type": "m.room.topic" }] }), 400, "M_MISSING_PARAM"),
        (json!({ "room_alias_name": "tea" }), 400, "M_ROOM_IN_USE"),
        (json!({ "room_alias_name": "a:b" }), 400, "M_INVALID_PARAM"),
        (json!({ "invite_3pid": [{}] }), 400, "M_THREEPID_MEDIUM_NOT_SUPPORTED"),
        (json!({ "power_level_content_override": override_creator }), 400, "M_BAD_JSON"),
        (json!({ "creation_content": { "additional_creators": "x" } }), 400, "M_BAD_JSON"),
        (json!({ "creation_content": { "additional_creators": ["x"] } }), 400, "M_BAD_JSON"),
    ] {
        ann.post("/createRoom", body).await.fails(status, errcode);
    }
    assert_eq!(ann.get("/joined_rooms").await.ok()["joined_rooms"].as_array().unwrap().len(), 1);
    server.anyone().post("/createRoom", json!({})).await.fails(401, "M_MISSING_TOKEN");
}

/// A room whose first events the rules refuse is not there at all: its creator is nowhere, and the
/// alias is free.
#[actix_web::test]
async fn nothing_is_left_of_a_room_that_the_rules_refuse() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let state = |kind: &str, content: Value| json!([{ "type": kind, "content": content }]);
    for (version, field, value, status, errcode) in [
        ("11", "power_level_content_override", json!({ "users": {} }), 403, "M_FORBIDDEN"),
        ("11", "power_level_content_override", json!({ "state_default": 101 }), 403, "M_FORBIDDEN"),
        ("12", "initial_state", state("m.room.create", json!({})), 400, "M_BAD_JSON"),
        ("12", "initial_state", state("m.room.member", json!({})), 400, "M_BAD_JSON"),
        ("12", "initial_state", state("org.example", json!({ "a": 0.5 })), 400, "M_BAD_JSON"),
        ("12", "topic", json!("x".repeat(40_000)), 413, "M_TOO_LARGE"),
    ] {
        let mut body = json!({ "room_version": version, "room_alias_name": "tea" });
        body[field] = value;
        let answer = ann.post("/createRoom", body).await;
        answer.fails(status, errcode);
        assert_eq!(ann.get("/joined_rooms").await.ok(), json!({ "joined_rooms": [] }));
        assert!(ann.get("/sync").await.ok().get("rooms").is_none(), "{version} {field}");
    }
    ann.create_room(json!({ "room_alias_name": "tea" })).await;
}

/// The id of a room of version 12 is the hash of its create event; the test's clock stands still.
#[actix_web::test]
async fn rooms_of_one_instant_are_different_rooms() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let (one, two) = (ann.create_room(json!({})).await, ann.create_room(json!({})).await);
    assert_ne!(one, two);
}

#[actix_web::test]
async fn a_room_has_one_create_event_and_creators_no_level() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.create_room(json!({})).await;
    let state = format!("/rooms/{}/state", escape(&room));
    let another = json!({ "room_version": "12", "second": true });
    ann.put(&format!("{state}/m.room.create/"), another).await.fails(400, "M_BAD_JSON");
    let levels = json!({ "users": { ann.user.clone(): 100 } });
    ann.put(&format!("{state}/m.room.power_levels/"), levels).await.fails(400, "M_BAD_JSON");
}

/// The invited user could not even decline: the rules refuse events of other servers.
#[actix_web::test]
async fn nobody_is_invited_out_of_a_room_that_is_not_federated() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.create_room(json!({ "creation_content": { "m.federate": false } })).await;
    let invite = async |user: &str| {
        ann.post(&format!("/rooms/{}/invite", escape(&room)), json!({ "user_id": user })).await
    };
    invite("@eve:other.example").await.fails(403, "M_FORBIDDEN");
    invite(&bob.user).await.ok();
}
