//! Registration tokens, by the API that administration tools speak.

use actix_web::http::Method;
use exeunt_client_api::Options;
use exeunt_users::NewAccount;
use serde_json::{Value, json};

use crate::common::{Client, Server};

const TOKENS: &str = "/_synapse/admin/v1/registration_tokens";

async fn admin(server: &Server) -> Client<'_> {
    let account = NewAccount { localpart: Some("root"), admin: true, ..NewAccount::default() };
    let user = server.api.users.register(account).await.unwrap();
    server.login(&user).await
}

fn registration(name: &str, token: &str) -> Value {
    let auth = json!({ "type": "m.login.registration_token", "token": token });
    json!({ "auth": auth, "username": name, "password": "sUp3rs3kr1t" })
}

#[actix_web::test]
async fn a_token_lets_so_many_in() {
    let server = Server::with(Options::default());
    let (root, anyone) = (admin(&server).await, server.anyone());
    let valid = |token: &str| {
        format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={token}")
    };
    // Registration is closed.
    anyone.post("/register", json!({})).await.fails(403, "M_FORBIDDEN");
    anyone.get(&valid("x")).await.fails(403, "M_FORBIDDEN");
    anyone.get("/register/available?username=ann").await.fails(403, "M_FORBIDDEN");

    let new = json!({ "token": "friends", "uses_allowed": 1 });
    let made = root.post(&format!("{TOKENS}/new"), new.clone()).await.ok();
    let fresh = json!({
        "token": "friends", "uses_allowed": 1, "pending": 0, "completed": 0, "expiry_time": null,
    });
    assert_eq!(made, fresh);
    root.post(&format!("{TOKENS}/new"), new).await.fails(400, "M_INVALID_PARAM");
    assert_eq!(anyone.get(&valid("friends")).await.ok(), json!({ "valid": true }));
    assert_eq!(anyone.get(&valid("foes")).await.ok(), json!({ "valid": false }));
    anyone.get(valid("").trim_end_matches("?token=")).await.fails(400, "M_MISSING_PARAM");
    anyone.get("/register/available?username=ann").await.ok();

    anyone.post("/register", registration("ann", "foes")).await.fails(401, "M_FORBIDDEN");
    anyone.post("/register", registration("ann", "friends")).await.ok();
    let one = format!("{TOKENS}/friends");
    assert_eq!(root.get(&one).await.ok()["completed"], 1);
    anyone.post("/register", registration("bob", "friends")).await.fails(403, "M_FORBIDDEN");

    // More of them, until a time.
    let end = 1_700_000_060_000_u64;
    let body = json!({ "uses_allowed": null, "expiry_time": end });
    let changed = root.put(&one, body).await.ok();
    assert_eq!((&changed["uses_allowed"], &changed["expiry_time"]), (&json!(null), &json!(end)));
    anyone.post("/register", registration("bob", "friends")).await.ok();
    server.later(60_000);
    anyone.post("/register", registration("cat", "friends")).await.fails(403, "M_FORBIDDEN");
    let all = |query: &str| format!("{TOKENS}{query}");
    let tokens =
        async |query: &str| root.get(&all(query)).await.ok()["registration_tokens"].clone();
    assert_eq!(tokens("").await, tokens("?valid=false").await);
    assert_eq!(tokens("").await[0]["completed"], 2);
    assert_eq!(tokens("?valid=true").await, json!([]));
    root.get(&all("?valid=x")).await.fails(400, "M_INVALID_PARAM");
    assert_eq!(
        root.put(&one, json!({ "expiry_time": null })).await.ok()["expiry_time"],
        json!(null)
    );
    assert_eq!(root.delete(&one).await.ok(), json!({}));
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        root.send(method, &one, None).await.fails(404, "M_NOT_FOUND");
    }
}

#[actix_web::test]
async fn only_administrators_give_tokens_out() {
    let server = Server::new();
    let ann = server.user("ann").await;
    for (method, path) in [
        (Method::GET, TOKENS.to_owned()),
        (Method::POST, format!("{TOKENS}/new")),
        (Method::GET, format!("{TOKENS}/x")),
        (Method::PUT, format!("{TOKENS}/x")),
        (Method::DELETE, format!("{TOKENS}/x")),
    ] {
        ann.send(method.clone(), &path, None).await.fails(403, "M_FORBIDDEN");
        server.anyone().send(method, &path, None).await.fails(401, "M_MISSING_TOKEN");
    }
}

#[actix_web::test]
async fn who_cannot_register_is_told_why() {
    let server = Server::new();
    let anyone = server.anyone();
    anyone.post("/register?kind=guest", json!({})).await.fails(403, "M_GUEST_ACCESS_FORBIDDEN");
    anyone.post("/register?kind=bot", json!({})).await.fails(400, "M_INVALID_PARAM");
    let bridge = json!({ "type": "m.login.application_service", "username": "_irc_x" });
    anyone.post("/register", bridge.clone()).await.fails(401, "M_MISSING_TOKEN");
    let guess = server.bearer(Some("a guess"));
    guess.post("/register", bridge).await.fails(401, "M_UNKNOWN_TOKEN");
}
