//! State, members, messages and single events.

use serde_json::{Value, json};

use crate::common::{Server, escape};

#[actix_web::test]
async fn state_by_key_and_whole() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.create_room(json!({ "preset": "public_chat", "name": "N" })).await;
    let at = format!("/rooms/{}/state", escape(&room));
    for path in ["m.room.name", "m.room.name/"] {
        assert_eq!(ann.get(&format!("{at}/{path}")).await.ok(), json!({ "name": "N" }));
    }
    let own = format!("{at}/m.room.member/{}", escape(&ann.user));
    assert_eq!(ann.get(&own).await.ok()["membership"], "join");
    let event = ann.get(&format!("{own}?format=event")).await.ok();
    assert_eq!((&event["room_id"], &event["sender"]), (&json!(room), &json!(ann.user)));
    ann.get(&format!("{own}?format=poem")).await.fails(400, "M_INVALID_PARAM");
    ann.get(&format!("{at}/m.room.topic")).await.fails(404, "M_NOT_FOUND");
    let whole = ann.get(&at).await.ok();
    assert!(whole.as_array().unwrap().iter().any(|event| event["type"] == "m.room.create"));
    let bob = server.user("bob").await;
    bob.get(&at).await.fails(403, "M_FORBIDDEN");
    bob.get(&own).await.fails(403, "M_FORBIDDEN");
    bob.get("/rooms/nonsense/state").await.fails(400, "M_INVALID_PARAM");
}

#[actix_web::test]
async fn members() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    bob.join(&room).await;
    bob.post(&format!("/rooms/{}/leave", escape(&room)), json!({})).await.ok();
    let at = format!("/rooms/{}", escape(&room));
    let who = async |query: &str| {
        let body = ann.get(&format!("{at}/members{query}")).await.ok();
        let chunk = body["chunk"].as_array().unwrap().clone();
        assert!(chunk.iter().all(|event| event["room_id"] == room.as_str()));
        chunk.iter().map(|event| event["state_key"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(who("").await, [json!(ann.user), json!(bob.user)]);
    assert_eq!(who("?not_membership=leave").await, [json!(ann.user)]);
    assert_eq!(who("?membership=leave").await, [json!(bob.user)]);
    ann.get(&format!("{at}/members?at=never")).await.fails(400, "M_INVALID_PARAM");
    let joined = ann.get(&format!("/_matrix/client/r0{at}/joined_members")).await.ok();
    let profile = &joined["joined"][&ann.user];
    assert!(profile.get("avatar_url").is_some() && profile.get("display_name").is_some());
    assert!(joined["joined"].get(&bob.user).is_none());
    bob.get(&format!("{at}/joined_members")).await.fails(403, "M_FORBIDDEN");
    assert_eq!(ann.get("/joined_rooms").await.ok(), json!({ "joined_rooms": [room] }));
}

#[actix_web::test]
async fn messages_and_events() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.public_room().await;
    let since = ann.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    let at = format!("/rooms/{}", escape(&room));
    let mut sent = Vec::new();
    for text in ["one", "two", "three"] {
        let path = format!("{at}/send/m.room.message/{text}");
        sent.push(ann.put(&path, json!({ "body": text })).await.ok()["event_id"].clone());
    }
    let ids = |body: &Value| {
        let chunk = body["chunk"].as_array().unwrap();
        chunk.iter().map(|event| event["event_id"].clone()).collect::<Vec<_>>()
    };
    let page = ann.get(&format!("{at}/messages?dir=f&from={since}&limit=2")).await.ok();
    assert_eq!(ids(&page), sent[..2]);
    assert_eq!(page["start"].as_str().unwrap()[1..], since[1..]);
    let end = page["end"].as_str().unwrap();
    let page = ann.get(&format!("{at}/messages?dir=f&from={end}")).await.ok();
    assert_eq!(ids(&page), sent[2..]);
    let page = ann.get(&format!("{at}/messages?dir=b&limit=1")).await.ok();
    assert_eq!(ids(&page), sent[2..]);
    let filter = escape(r#"{"lazy_load_members":true}"#);
    let page = ann.get(&format!("{at}/messages?dir=b&from={since}&filter={filter}")).await.ok();
    assert_eq!(page["state"].as_array().unwrap().len(), 1);
    assert!(page.get("end").is_none());
    for query in ["dir=x", "dir=b&from=x", "dir=b&limit=-1", "dir=b&filter=x"] {
        ann.get(&format!("{at}/messages?{query}")).await.fails(400, "M_INVALID_PARAM");
    }
    let nowhere = "/rooms/%21does-not-exist%3Aexample.org/messages?dir=b";
    ann.get(nowhere).await.fails(403, "M_FORBIDDEN");

    let event = format!("{at}/event/{}", escape(sent[0].as_str().unwrap()));
    let found = ann.get(&event).await.ok();
    assert_eq!((&found["room_id"], &found["content"]["body"]), (&json!(room), &json!("one")));
    assert_eq!(found["unsigned"]["transaction_id"], "one");
    server.user("bob").await.get(&event).await.fails(404, "M_NOT_FOUND");
    let context = format!("{}?limit=2", event.replace("/event/", "/context/"));
    let found = ann.get(&context).await.ok();
    assert_eq!(found["event"]["content"]["body"], "one");
    assert_eq!(found["events_before"].as_array().unwrap().len(), 1);
    assert_eq!(found["events_after"][0]["content"]["body"], "two");
    server.user("cat").await.get(&context).await.fails(403, "M_FORBIDDEN");
    ann.get(&context.replace("limit=2", "limit=many")).await.fails(400, "M_INVALID_PARAM");
}
