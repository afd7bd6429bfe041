//! What clients are told when other servers fail.

use exeunt_room::RemoteError;
use serde_json::json;

use crate::common::{Server, escape};

/// GHSA-95fh-hv8c-chvq: a 401 would log the client out.
#[actix_web::test]
async fn another_servers_refusal_is_never_a_logout() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.create_room(json!({})).await;
    let invite = format!("/rooms/{}/invite", escape(&room));
    for (status, errcode, expected, code) in [
        (401, "M_UNKNOWN_TOKEN", 502, "M_UNKNOWN"),
        (401, "M_UNAUTHORIZED", 502, "M_UNKNOWN"),
        (403, "M_UNKNOWN_TOKEN", 502, "M_UNKNOWN"),
        (403, "M_FORBIDDEN", 403, "M_FORBIDDEN"),
        (403, "M_INVITE_BLOCKED", 403, "M_INVITE_BLOCKED"),
        (400, "M_INCOMPATIBLE_ROOM_VERSION", 400, "M_UNSUPPORTED_ROOM_VERSION"),
        (404, "M_NOT_FOUND", 404, "M_NOT_FOUND"),
        (404, "M_UNKNOWN_TOKEN", 404, "M_NOT_FOUND"),
        (429, "M_LIMIT_EXCEEDED", 502, "M_UNKNOWN"),
        (500, "", 502, "M_UNKNOWN"),
    ] {
        server.others_refuse_with(status, errcode);
        let profile = ann.get("/profile/@bob:else.org").await.fails(expected, code);
        assert!(profile.starts_with("else.org: "), "{profile}");
        ann.get("/directory/room/%23a:else.org").await.fails(expected, code);
        ann.post("/join/%23a:else.org", json!({})).await.fails(expected, code);
        ann.post("/join/!r:else.org", json!({})).await.fails(expected, code);
        ann.post("/knock/!r:else.org", json!({})).await.fails(expected, code);
        ann.post(&invite, json!({ "user_id": "@bob:else.org" })).await.fails(expected, code);
    }
}

#[actix_web::test]
async fn servers_that_cannot_be_reached() {
    let server = Server::new();
    let ann = server.user("ann").await;
    for failure in
        [RemoteError::Unreachable("no route".into()), RemoteError::Misbehaved("not JSON".into())]
    {
        server.others_fail_with(failure);
        let words = ann.get("/profile/@bob:else.org").await.fails(502, "M_UNKNOWN");
        assert!(words.starts_with("else.org: "), "{words}");
        let words = ann.post("/join/!r:else.org", json!({})).await.fails(502, "M_UNKNOWN");
        assert!(words.contains("else.org: "), "{words}");
    }
    // Nobody is known who could be asked.
    let hash = format!("/join/!{}", "a".repeat(43));
    ann.post(&hash, json!({})).await.fails(404, "M_NOT_FOUND");
    ann.post("/rooms/!r:else.org/leave", json!({})).await.fails(404, "M_NOT_FOUND");
}

/// A room is made though someone who is invited cannot be reached.
#[actix_web::test]
async fn an_invite_that_fails_does_not_fail_the_room() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.create_room(json!({ "invite": ["@bob:else.org"] })).await;
    assert_eq!(ann.membership(&room, "@bob:else.org").await, None);
}
