use exeunt_client_api::{Options, Turn};
use serde_json::json;

use crate::common::Server;

#[actix_web::test]
async fn versions_are_listed() {
    let body = Server::new().anyone().get("/_matrix/client/versions").await.ok();
    let versions = body["versions"].as_array().unwrap();
    assert!(versions.contains(&json!("v1.1")) && versions.contains(&json!("v1.16")), "{body}");
    // Before v1.19, clients look for rooms of two by these.
    for feature in ["query_mutual_rooms", "query_mutual_rooms.stable"] {
        let feature = format!("uk.half-shot.msc2666.{feature}");
        assert_eq!(body["unstable_features"][&feature], true, "{feature}");
    }
}

#[actix_web::test]
async fn well_known_is_served_when_configured() {
    let path = "/.well-known/matrix/client";
    Server::new().anyone().get(path).await.fails(404, "M_NOT_FOUND");
    let url = Some("https://matrix.example.org".to_owned());
    let server = Server::with(Options { well_known_client: url, ..Options::default() });
    let body = server.anyone().get(path).await.ok();
    assert_eq!(body, json!({ "m.homeserver": { "base_url": "https://matrix.example.org" } }));
}

#[actix_web::test]
async fn capabilities() {
    let server = Server::new();
    server.anyone().get("/capabilities").await.fails(401, "M_MISSING_TOKEN");
    let body = server.user("ann").await.get("/capabilities").await.ok();
    let all = &body["capabilities"];
    assert_eq!(all["m.room_versions"]["default"], "12");
    assert_eq!(all["m.room_versions"]["available"]["1"], "stable");
    assert_eq!(all["m.room_versions"]["available"]["12"], "stable");
    assert_eq!(all["m.room_versions"]["available"]["13"], json!(null));
    // Complement wants to hear it, though it is the default.
    assert_eq!(all["m.change_password"]["enabled"], true);
    assert_eq!(all["m.get_login_token"]["enabled"], true);
    assert_eq!(all["m.3pid_changes"]["enabled"], false);
    // FG6: to leave is not to forget.
    assert_eq!(all["m.forget_forced_upon_leave"], json!(null));
}

#[actix_web::test]
async fn what_is_not_built_is_not_recognized() {
    let server = Server::new();
    server.anyone().get("/nope").await.fails(404, "M_UNRECOGNIZED");
    server.anyone().put("/login", json!({})).await.fails(405, "M_UNRECOGNIZED");
}

#[actix_web::test]
async fn no_calls_and_no_bridges_unless_the_operator_has_some() {
    let server = Server::new();
    let ann = server.user("ann").await;
    for path in ["/voip/turnServer", "/thirdparty/protocols"] {
        assert_eq!(ann.get(path).await.ok(), json!({}));
        server.anyone().get(path).await.fails(401, "M_MISSING_TOKEN");
    }
    let turn = Turn {
        uris: vec!["turn:turn.example.org".into()],
        shared_secret: "north".into(),
        life: std::time::Duration::from_secs(60),
    };
    let server = Server::with(Options { turn, ..Options::default() });
    let ann = server.user("ann").await;
    let found = ann.get("/voip/turnServer").await.ok();
    assert_eq!(found["username"], format!("1700000060:{}", ann.user));
}

/// There are none, which clients want to hear when they show the settings.
#[actix_web::test]
async fn no_email_addresses() {
    let server = Server::new();
    let ann = server.user("ann").await;
    assert_eq!(ann.get("/account/3pid").await.ok(), json!({ "threepids": [] }));
    server.anyone().get("/account/3pid").await.fails(401, "M_MISSING_TOKEN");
    ann.post("/account/3pid/add", json!({})).await.fails(404, "M_UNRECOGNIZED");
}

/// Paths of the specification that are not built are known all the same.
#[actix_web::test]
async fn what_is_not_built_is_told_from_what_has_another_method() {
    use actix_web::http::Method;
    let server = Server::new();
    let (ann, patch) = (server.user("ann").await, Method::PATCH);
    for path in ["/_matrix/media/v3/upload", "/keys/upload", "/pushers/set"] {
        ann.post(path, json!({})).await.fails(404, "M_UNRECOGNIZED");
        ann.send(patch.clone(), path, None).await.fails(405, "M_UNRECOGNIZED");
    }
    for path in ["/unknown", "/_matrix/media/v3/unknown", "/_matrix/client/v1/unknown"] {
        ann.post(path, json!({})).await.fails(404, "M_UNRECOGNIZED");
        ann.send(patch.clone(), path, None).await.fails(404, "M_UNRECOGNIZED");
    }
}
