use actix_web::http::Method;
use serde_json::json;

use crate::common::{Server, escape};

#[actix_web::test]
async fn a_transaction_is_sent_once() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let (one, two) = (ann.public_room().await, ann.public_room().await);
    let send = async |room: &str, rest: &str, body: &str| {
        let path = format!("/rooms/{}/send/{rest}", escape(room));
        ann.put(&path, json!({ "body": body })).await.ok()["event_id"].clone()
    };
    let first = send(&one, "m.room.message/txn", "first").await;
    assert_eq!(send(&one, "m.room.message/txn", "again").await, first);
    assert_ne!(send(&one, "m.room.message/txn2", "first").await, first);
    assert_ne!(send(&one, "org.example/txn", "first").await, first);
    assert_ne!(send(&two, "m.room.message/txn", "first").await, first);
    let other = server.login(ruma::user_id!("@ann:example.org")).await;
    let path = format!("/rooms/{}/send/m.room.message/txn", escape(&one));
    let of_other = other.put(&path, json!({ "body": "first" })).await.ok()["event_id"].clone();
    assert_ne!(of_other, first);

    let redact = format!("/rooms/{}/redact/{}/txn", escape(&one), escape(first.as_str().unwrap()));
    let redaction = ann.put(&redact, json!({ "reason": "typo" })).await.ok()["event_id"].clone();
    assert_ne!(redaction, first);
    assert_eq!(ann.put(&redact, json!({})).await.ok()["event_id"], redaction);
}

#[actix_web::test]
async fn messages_that_are_refused() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    let path = format!("/rooms/{}/send/m.room.message/t", escape(&room));
    for bad in [r#"{"body":9007199254740992}"#, r#"{"body":-9007199254740992}"#, r#"{"body":1.1}"#]
    {
        let answer = ann.send_bytes(Method::PUT, &path, Some(bad.into())).await;
        answer.fails(400, "M_BAD_JSON");
    }
    for bad in [r#"{"body":Infinity}"#, r#"{"body":NaN}"#, "{"] {
        let answer = ann.send_bytes(Method::PUT, &path, Some(bad.into())).await;
        answer.fails(400, "M_NOT_JSON");
    }
    ann.put(&path, json!([])).await.fails(400, "M_BAD_JSON");
    let large = json!({ "body": "x".repeat(70_000) });
    ann.put(&path, large.clone()).await.fails(413, "M_TOO_LARGE");
    let state = format!("/rooms/{}/state/org.example", escape(&room));
    ann.put(&state, large).await.fails(413, "M_TOO_LARGE");
    bob.put(&path, json!({ "body": "hi" })).await.fails(403, "M_FORBIDDEN");
    let unknown = "/rooms/!none:example.org/send/m.room.message/t";
    ann.put(unknown, json!({})).await.fails(404, "M_NOT_FOUND");
    let long = format!("/rooms/{}/send/m.room.message/{}", escape(&room), "t".repeat(300));
    ann.put(&long, json!({})).await.fails(400, "M_INVALID_PARAM");
    server.anyone().put(&path, json!({})).await.fails(401, "M_MISSING_TOKEN");
}

#[actix_web::test]
async fn state_events() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    bob.join(&room).await;
    let path = |rest: &str| format!("/rooms/{}/state/{rest}", escape(&room));
    let first = ann.put(&path("m.room.topic"), json!({ "topic": "Tea" })).await.ok();
    assert_eq!(ann.state(&room, "m.room.topic", "").await.unwrap(), json!({ "topic": "Tea" }));
    let again = ann.put(&path("m.room.topic/"), json!({ "topic": "Tea" })).await.ok();
    assert_eq!(again, first);
    ann.put(&path("org.example/a%2Fb"), json!({ "a": 1 })).await.ok();
    assert_eq!(ann.state(&room, "org.example", "a/b").await.unwrap(), json!({ "a": 1 }));
    bob.put(&path("m.room.topic"), json!({ "topic": "No" })).await.fails(403, "M_FORBIDDEN");
    ann.put(&path("m.room.create"), json!({})).await.fails(400, "M_BAD_JSON");
}

#[actix_web::test]
async fn canonical_aliases_lead_to_the_room() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let (room, other) = (ann.public_room().await, ann.public_room().await);
    for (alias, room) in [("%23here", &room), ("%23there", &other)] {
        let path = format!("/directory/room/{alias}:example.org");
        ann.put(&path, json!({ "room_id": room })).await.ok();
    }
    let path = format!("/rooms/{}/state/m.room.canonical_alias", escape(&room));
    for good in [
        json!({ "alias": "#here:example.org", "alt_aliases": ["#here:example.org"] }),
        json!({ "alias": "" }),
        json!({}),
    ] {
        ann.put(&path, good).await.ok();
    }
    for (bad, errcode) in [
        (json!({ "alias": "#none:example.org" }), "M_BAD_ALIAS"),
        (json!({ "alias": "#there:example.org" }), "M_BAD_ALIAS"),
        (json!({ "alt_aliases": ["#there:example.org"] }), "M_BAD_ALIAS"),
        (json!({ "alias": "#any:elsewhere.example" }), "M_BAD_ALIAS"),
        (json!({ "alias": "%invalid:example.org" }), "M_INVALID_PARAM"),
        (json!({ "alias": 1 }), "M_INVALID_PARAM"),
        (json!({ "alt_aliases": "#here:example.org" }), "M_INVALID_PARAM"),
    ] {
        ann.put(&path, bad).await.fails(400, errcode);
    }
}

/// Spec-map 4.10: an ACL that denies this server could not be mended from here.
#[actix_web::test]
async fn an_acl_that_locks_us_out_is_refused() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.public_room().await;
    let path = format!("/rooms/{}/state/m.room.server_acl", escape(&room));
    for content in [json!({}), json!({ "allow": ["*"], "deny": ["*.org"] })] {
        ann.put(&path, content).await.fails(400, "M_BAD_JSON");
    }
    let sent = ann.put(&path, json!({ "allow": ["*"], "deny": ["evil.org"] })).await.ok();
    let acl = escape(sent["event_id"].as_str().unwrap());
    let redact = format!("/rooms/{}/redact/{acl}/1", escape(&room));
    ann.put(&redact, json!({})).await.fails(403, "M_FORBIDDEN");
    let body = json!({
        "initial_state": [{ "type": "m.room.server_acl", "state_key": "", "content": {} }],
    });
    ann.post("/createRoom", body).await.fails(400, "M_BAD_JSON");
    assert_eq!(ann.get("/joined_rooms").await.ok()["joined_rooms"], json!([room]));
}
