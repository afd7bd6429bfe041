use serde_json::json;

use crate::common::{Client, Server, escape};

async fn act(
    client: &Client<'_>,
    verb: &str,
    room: &str,
    target: &Client<'_>,
) -> crate::common::Answer {
    let body = json!({ "user_id": target.user, "reason": "because" });
    client.post(&format!("/rooms/{}/{verb}", escape(room)), body).await
}

#[actix_web::test]
async fn invited_and_joined_and_gone() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let name = json!({ "displayname": "Bob" });
    bob.put(&format!("/profile/{}/displayname", bob.user), name).await.ok();
    let room = ann.create_room(json!({})).await;
    let path = format!("/rooms/{}", escape(&room));
    bob.post(&format!("{path}/join"), json!({})).await.fails(403, "M_FORBIDDEN");
    act(&ann, "invite", &room, &bob).await.ok();
    let member = ann.state(&room, "m.room.member", &bob.user).await.unwrap();
    let invite = json!({ "membership": "invite", "displayname": "Bob", "reason": "because" });
    assert_eq!(member, invite);
    let joined = bob.post(&format!("{path}/join"), json!({})).await.ok();
    assert_eq!(joined, json!({ "room_id": room }));
    let member = ann.state(&room, "m.room.member", &bob.user).await.unwrap();
    assert_eq!(member, json!({ "membership": "join", "displayname": "Bob" }));
    assert_eq!(bob.get("/joined_rooms").await.ok(), json!({ "joined_rooms": [room] }));
    for who in [&bob, &ann] {
        let text = act(&ann, "invite", &room, who).await.fails(403, "M_FORBIDDEN");
        assert_eq!(text, "The user is in the room already");
    }
    bob.post(&format!("{path}/leave"), json!({ "reason": "late" })).await.ok();
    let member = ann.state(&room, "m.room.member", &bob.user).await.unwrap();
    assert_eq!(member, json!({ "membership": "leave", "reason": "late" }));
    assert_eq!(bob.get("/joined_rooms").await.ok(), json!({ "joined_rooms": [] }));
    // Leaving twice is no error.
    bob.post(&format!("{path}/leave"), json!({})).await.ok();
}

#[actix_web::test]
async fn invites_that_are_refused() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.create_room(json!({})).await;
    act(&bob, "invite", &room, &bob).await.fails(403, "M_FORBIDDEN");
    act(&ann, "invite", "!unknown:example.org", &bob).await.fails(404, "M_NOT_FOUND");
    let path = format!("/rooms/{}/invite", escape(&room));
    let email = json!({
        "id_server": "id.example.org", "id_access_token": "t",
        "medium": "email", "address": "bob@example.org",
    });
    ann.post(&path, email).await.fails(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED");
    ann.post(&path, json!({})).await.fails(400, "M_BAD_JSON");
}

/// Who would be ours and does not exist is not invited, and no room is made for them.
#[actix_web::test]
async fn users_who_do_not_exist_are_not_invited() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.create_room(json!({})).await;
    let path = format!("/rooms/{}", escape(&room));
    let nobody = "@nobody:example.org";
    let told = "There is no user @nobody:example.org on this server";
    let invite = ann.post(&format!("{path}/invite"), json!({ "user_id": nobody })).await;
    assert_eq!(invite.fails(404, "M_NOT_FOUND"), told);
    let state = format!("{path}/state/m.room.member/{nobody}");
    let invite = ann.put(&state, json!({ "membership": "invite" })).await;
    assert_eq!(invite.fails(404, "M_NOT_FOUND"), told);
    let created = ann.post("/createRoom", json!({ "invite": [nobody] })).await;
    assert_eq!(created.fails(404, "M_NOT_FOUND"), told);
    assert_eq!(ann.membership(&room, nobody).await, None);
    assert_eq!(ann.get("/joined_rooms").await.ok(), json!({ "joined_rooms": [room] }));
}

/// What is no identifier is told as it came, and without the names of types.
#[actix_web::test]
async fn what_is_no_identifier() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.create_room(json!({})).await;
    let path = |verb: &str| format!("/rooms/{}/{verb}", escape(&room));
    for verb in ["invite", "kick", "ban", "unban"] {
        let text = ann.post(&path(verb), json!({ "user_id": "bob" })).await;
        assert_eq!(text.fails(400, "M_INVALID_PARAM"), "\"bob\" is not a user id", "{verb}");
    }
    let text = ann.post("/createRoom", json!({ "invite": [ann.user, "bob"] })).await;
    assert_eq!(text.fails(400, "M_INVALID_PARAM"), "\"bob\" is not a user id");
    let text = ann.post("/rooms/tea/leave", json!({})).await.fails(400, "M_INVALID_PARAM");
    assert_eq!(text, "\"tea\" is not a room id");
    let text = ann.get(&path("event/tea")).await.fails(400, "M_INVALID_PARAM");
    assert_eq!(text, "\"tea\" is not an event id");
    for body in [json!({}), json!([]), json!({ "user_id": 1 })] {
        let text = ann.post(&path("invite"), body).await.fails(400, "M_BAD_JSON");
        assert!(!text.contains("Recipient"), "{text}");
        let text = ann.post(&path("kick"), json!([])).await.fails(400, "M_BAD_JSON");
        assert!(!text.contains("Request"), "{text}");
    }
}

#[actix_web::test]
async fn joining_by_alias() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.create_room(json!({ "preset": "public_chat", "room_alias_name": "tea" })).await;
    let joined = bob.post("/join/%23tea:example.org?via=x.example", json!({})).await.ok();
    assert_eq!(joined, json!({ "room_id": room }));
    bob.post("/join/%23none:example.org", json!({})).await.fails(404, "M_NOT_FOUND");
    bob.post("/join/tea", json!({})).await.fails(400, "M_INVALID_PARAM");
}

#[actix_web::test]
async fn joining_with_custom_content() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let name = json!({ "displayname": "Bob" });
    bob.put(&format!("/profile/{}/displayname", bob.user), name).await.ok();
    let room = ann.create_room(json!({ "preset": "public_chat", "room_alias_name": "tea" })).await;
    let by_id = format!("/rooms/{}/join", escape(&room));
    for path in [&by_id, &format!("/join/{}", escape(&room)), "/join/%23tea:example.org"] {
        let body = json!({
            "foo": { "bar": [1] },
            "reason": "thirst",
            "third_party_signed": {},
            "membership": "ban",
            "displayname": "Ann",
            "avatar_url": "mxc://example.org/ann",
            "join_authorised_via_users_server": ann.user,
        });
        assert_eq!(bob.post(path, body).await.ok(), json!({ "room_id": room }));
        let member = ann.state(&room, "m.room.member", &bob.user).await.unwrap();
        let expected = json!({
            "membership": "join", "displayname": "Bob", "reason": "thirst", "foo": { "bar": [1] },
        });
        assert_eq!(member, expected, "{path}");
        bob.post(&format!("/rooms/{}/leave", escape(&room)), json!({})).await.ok();
    }
    for path in [&*by_id, "/join/%23tea:example.org"] {
        bob.post(path, json!({ "reason": 1 })).await.fails(400, "M_BAD_JSON");
        bob.post(path, json!({ "foo": 1.5 })).await.fails(400, "M_BAD_JSON");
        bob.post(path, json!({ "foo": "x".repeat(70_000) })).await.fails(413, "M_TOO_LARGE");
    }
    // An endpoint of older clients, and one of a bad room.
    bob.post(&format!("/_matrix/client/r0/join/{}", escape(&room)), json!({})).await.ok();
    bob.post("/rooms/tea/join", json!({})).await.fails(400, "M_INVALID_PARAM");
    server.anyone().post(&by_id, json!({})).await.fails(401, "M_MISSING_TOKEN");
}

#[actix_web::test]
async fn kick_ban_and_unban() {
    let server = Server::new();
    let (ann, bob, eve) =
        (server.user("ann").await, server.user("bob").await, server.user("eve").await);
    let room = ann.public_room().await;
    let membership = async |client: &Client<'_>| ann.membership(&room, &client.user).await;
    act(&ann, "kick", &room, &bob).await.fails(403, "M_FORBIDDEN");
    bob.join(&room).await;
    // Who is not there may not ban, and who has no power neither.
    act(&eve, "ban", &room, &bob).await.fails(403, "M_FORBIDDEN");
    act(&bob, "kick", &room, &ann).await.fails(403, "M_FORBIDDEN");
    act(&ann, "kick", &room, &bob).await.ok();
    assert_eq!(membership(&bob).await.as_deref(), Some("leave"));
    act(&ann, "kick", &room, &bob).await.fails(403, "M_FORBIDDEN");
    act(&ann, "unban", &room, &bob).await.fails(403, "M_FORBIDDEN");
    act(&ann, "ban", &room, &bob).await.ok();
    let member = ann.state(&room, "m.room.member", &bob.user).await.unwrap();
    assert_eq!(member, json!({ "membership": "ban", "reason": "because" }));
    let path = format!("/rooms/{}/join", escape(&room));
    bob.post(&path, json!({})).await.fails(403, "M_FORBIDDEN");
    let text = act(&ann, "invite", &room, &bob).await.fails(403, "M_FORBIDDEN");
    assert_eq!(text, "The user is banned from the room");
    act(&ann, "unban", &room, &bob).await.ok();
    bob.join(&room).await;
    ann.post(&format!("/rooms/{}/kick", escape(&room)), json!({})).await.fails(400, "M_BAD_JSON");
}

#[actix_web::test]
async fn member_events_are_the_same_verbs() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.create_room(json!({})).await;
    let path = format!("/rooms/{}/state/m.room.member/{}", escape(&room), bob.user);
    for (client, content, membership) in [
        (&ann, json!({ "membership": "invite" }), "invite"),
        (&bob, json!({ "membership": "join", "displayname": "Bobby" }), "join"),
        (&ann, json!({ "membership": "leave" }), "leave"),
        (&ann, json!({ "membership": "ban" }), "ban"),
        (&ann, json!({ "membership": "leave", "reason": "peace" }), "leave"),
        (&ann, json!({ "membership": "invite" }), "invite"),
        (&bob, json!({ "membership": "leave" }), "leave"),
    ] {
        let event_id = client.put(&path, content.clone()).await.ok()["event_id"].clone();
        let user = ruma::UserId::parse(&*bob.user).unwrap();
        let id = ruma::RoomId::parse(&*room).unwrap();
        let (is, event) = server.api.rooms.member(&id, &user).await.unwrap().unwrap();
        assert_eq!((&*is, json!(event)), (membership, event_id), "{content}");
        if membership == "join" {
            let member = ann.state(&room, "m.room.member", &bob.user).await.unwrap();
            assert_eq!(member["displayname"], "Bobby");
        }
    }
    for (content, status, errcode) in [
        (json!({ "membership": "join" }), 403, "M_FORBIDDEN"),
        (json!({ "membership": "guest" }), 400, "M_BAD_JSON"),
        (json!({}), 400, "M_BAD_JSON"),
    ] {
        ann.put(&path, content).await.fails(status, errcode);
    }
    let nobody = format!("/rooms/{}/state/m.room.member/bob", escape(&room));
    ann.put(&nobody, json!({ "membership": "ban" })).await.fails(400, "M_INVALID_PARAM");
}

/// FG1, FG2, FG4.
#[actix_web::test]
async fn forgetting() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.create_room(json!({})).await;
    let path = format!("/rooms/{}", escape(&room));
    let forget =
        async |client: &Client<'_>| client.post(&format!("{path}/forget"), json!({})).await;
    // Who never knew a room has nothing to forget.
    forget(&bob).await.ok();
    act(&ann, "invite", &room, &bob).await.ok();
    forget(&bob).await.fails(400, "M_UNKNOWN");
    bob.join(&room).await;
    forget(&bob).await.fails(400, "M_UNKNOWN");
    bob.post(&format!("{path}/leave"), json!({})).await.ok();
    bob.get(&format!("{path}/messages?dir=b")).await.ok();
    forget(&bob).await.ok();
    forget(&bob).await.ok();
    for read in ["messages?dir=b", "state", "members"] {
        bob.get(&format!("{path}/{read}")).await.fails(403, "M_FORBIDDEN");
    }
    bob.post(&format!("{path}/join"), json!({})).await.fails(403, "M_FORBIDDEN");
    act(&ann, "invite", &room, &bob).await.ok();
    bob.join(&room).await;
    bob.get(&format!("{path}/messages?dir=b")).await.ok();
    act(&ann, "ban", &room, &bob).await.ok();
    forget(&bob).await.ok();
    forget(&server.bearer(None)).await.fails(401, "M_MISSING_TOKEN");
}
