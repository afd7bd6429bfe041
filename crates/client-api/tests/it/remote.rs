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
        (400, "M_INVALID_PARAM", 502, "M_UNKNOWN"),
        (400, "M_MISSING_PARAM", 502, "M_UNKNOWN"),
        (404, "M_NOT_FOUND", 404, "M_NOT_FOUND"),
        (404, "M_UNKNOWN_TOKEN", 404, "M_NOT_FOUND"),
        (429, "M_LIMIT_EXCEEDED", 502, "M_UNKNOWN"),
        (500, "", 502, "M_UNKNOWN"),
    ] {
        server.others_refuse_with(status, errcode);
        let profile = ann.get("/profile/@bob:else.org").await.fails(expected, code);
        assert!(profile.starts_with("else.org "), "{profile}");
        ann.get("/directory/room/%23a:else.org").await.fails(expected, code);
        ann.get("/publicRooms?server=else.org").await.fails(expected, code);
        ann.post("/publicRooms?server=else.org", json!({})).await.fails(expected, code);
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
    let room = ann.create_room(json!({})).await;
    let invite = format!("/rooms/{}/invite", escape(&room));
    let down = RemoteError::Unreachable("Connection refused (os error 111)".into());
    for (failure, told) in [
        (down, "else.org cannot be reached"),
        (RemoteError::Misbehaved("not JSON".into()), "else.org gave an answer that cannot be used"),
    ] {
        server.others_fail_with(failure);
        let words = ann.get("/profile/@bob:else.org").await.fails(502, "M_UNKNOWN");
        assert_eq!(words, told);
        let bob = json!({ "user_id": "@bob:else.org" });
        assert_eq!(ann.post(&invite, bob).await.fails(502, "M_UNKNOWN"), told);
        let words = ann.post("/join/!r:else.org", json!({})).await.fails(502, "M_UNKNOWN");
        assert_eq!(words, "No server that was asked could help: else.org");
    }
    // Nobody is known who could be asked.
    for verb in ["join", "knock"] {
        let hash = format!("/{verb}/!{}", "a".repeat(43));
        let words = ann.post(&hash, json!({})).await.fails(404, "M_NOT_FOUND");
        assert_eq!(words, "No server is known that is in the room: name one with `via`");
    }
    ann.post("/rooms/!r:else.org/leave", json!({})).await.fails(404, "M_NOT_FOUND");
}

/// As of joins: each server that was asked, with its answer.
#[actix_web::test]
async fn a_knock_that_fails_lists_who_was_asked() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let path = "/knock/!r:else.org?via=a.example&via=b.example";
    server.others_refuse_with(403, "M_FORBIDDEN");
    let answer = ann.post(path, json!({})).await;
    let outcome = "make_knock: refused with 403 M_FORBIDDEN: for a reason";
    let golden = json!({
        "errcode": "M_FORBIDDEN",
        "error": "a.example refused: for a reason",
        "attempts": [
            { "server": "a.example", "outcome": outcome },
            { "server": "b.example", "outcome": outcome },
        ],
    });
    assert_eq!((answer.status, answer.body), (403, golden));
}

/// Each server that was asked, with its answer: the client's words for what went wrong.
#[actix_web::test]
async fn a_join_that_fails_lists_who_was_asked() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let path = "/join/!r:else.org?via=a.example&via=b.example&via=example.org&via=a.example";
    server.others_refuse_with(403, "M_FORBIDDEN");
    let answer = ann.post(path, json!({})).await;
    let golden = json!({
        "errcode": "M_FORBIDDEN",
        "error": "a.example refused: for a reason",
        "attempts": [
            {
                "server": "a.example",
                "outcome": "make_join: refused with 403 M_FORBIDDEN: for a reason",
            },
            {
                "server": "b.example",
                "outcome": "make_join: refused with 403 M_FORBIDDEN: for a reason",
            },
        ],
    });
    assert_eq!((answer.status, answer.body), (403, golden));

    server.others_fail_with(RemoteError::Unreachable("no route".into()));
    let answer = ann.post(path, json!({})).await;
    let golden = json!({
        "errcode": "M_UNKNOWN",
        "error": "No server that was asked could help: a.example, b.example",
        "attempts": [
            { "server": "a.example", "outcome": "make_join: unreachable" },
            { "server": "b.example", "outcome": "make_join: unreachable" },
        ],
    });
    assert_eq!((answer.status, answer.body), (502, golden));

    // Others may be able to where these are not.
    for errcode in ["M_UNABLE_TO_AUTHORISE_JOIN", "M_UNABLE_TO_GRANT_JOIN"] {
        server.others_refuse_with(400, errcode);
        ann.post(path, json!({})).await.fails(400, errcode);
    }
    // GHSA-95fh-hv8c-chvq
    for status in [400, 401, 403, 404, 500] {
        server.others_refuse_with(status, "M_UNKNOWN_TOKEN");
        let answer = ann.post(path, json!({})).await;
        assert_ne!(answer.status, 401);
        assert!(matches!(answer.body["errcode"].as_str(), Some("M_UNKNOWN" | "M_NOT_FOUND")));
        assert_eq!(answer.body["attempts"].as_array().map(Vec::len), Some(2));
    }
}

/// A room is made though someone who is invited cannot be reached.
#[actix_web::test]
async fn an_invite_that_fails_does_not_fail_the_room() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.create_room(json!({ "invite": ["@bob:else.org"] })).await;
    assert_eq!(ann.membership(&room, "@bob:else.org").await, None);
}
