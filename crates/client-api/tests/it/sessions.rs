//! Refreshing, changing the password, tokens to log in with.

use actix_web::http::Method;
use serde_json::{Value, json};

use crate::common::{Client, Server};

const PASSWORD: &str = "sUp3rs3kr1t";

async fn register(server: &Server, name: &str) -> Value {
    let auth = json!({ "type": "m.login.dummy" });
    let body = json!({ "auth": auth, "username": name, "password": PASSWORD });
    server.anyone().post("/register", body).await.ok()
}

fn by_password(name: &str, password: &str) -> Value {
    let identifier = json!({ "type": "m.id.user", "user": name });
    json!({ "type": "m.login.password", "identifier": identifier, "password": password })
}

fn of<'a>(server: &'a Server, login: &Value) -> Client<'a> {
    server.bearer(Some(login["access_token"].as_str().expect("an access token")))
}

/// A request with user-interactive authentication, begun and finished.
async fn confirm(client: &Client<'_>, path: &str, mut body: Value) -> Value {
    let first = client.post(path, body.clone()).await;
    assert_eq!(first.status, 401, "{}", first.body);
    assert_eq!(first.body["flows"], json!([{ "stages": ["m.login.password"] }]));
    body["auth"] = by_password("ann", PASSWORD);
    body["auth"]["session"] = first.body["session"].clone();
    client.post(path, body).await.ok()
}

#[actix_web::test]
async fn tokens_are_refreshed() {
    let server = Server::new();
    let auth = json!({ "type": "m.login.dummy" });
    let body = json!({
        "auth": auth, "username": "ann", "password": PASSWORD, "refresh_token": true,
    });
    let anyone = server.anyone();
    let registered = anyone.post("/register", body).await.ok();
    let mut login = by_password("ann", PASSWORD);
    assert_eq!(anyone.post("/login", login.clone()).await.ok().get("refresh_token"), None);
    login["refresh_token"] = true.into();
    let login = anyone.post("/login", login).await.ok();
    for first in [registered, login] {
        assert_eq!(first["expires_in_ms"], 3_600_000);
        let body = json!({ "refresh_token": first["refresh_token"] });
        let next = anyone.post("/refresh", body.clone()).await.ok();
        assert_eq!(next["expires_in_ms"], 3_600_000);
        let who = of(&server, &next).get("/account/whoami").await.ok();
        assert_eq!(who["device_id"], first["device_id"]);
        let used = anyone.post("/refresh", body).await;
        assert_eq!(used.body["soft_logout"], true);
        used.fails(401, "M_UNKNOWN_TOKEN");
        let old = of(&server, &first).get("/account/whoami").await;
        assert_eq!(old.body["soft_logout"], false);
        old.fails(401, "M_UNKNOWN_TOKEN");
    }
    anyone.post("/refresh", json!({})).await.fails(400, "M_MISSING_PARAM");
}

#[actix_web::test]
async fn an_expired_token_is_a_soft_logout() {
    let server = Server::new();
    register(&server, "ann").await;
    let mut login = by_password("ann", PASSWORD);
    login["refresh_token"] = true.into();
    let login = server.anyone().post("/login", login).await.ok();
    server.later(3_600_000);
    let expired = of(&server, &login).get("/account/whoami").await;
    assert_eq!(expired.body["soft_logout"], true);
    expired.fails(401, "M_UNKNOWN_TOKEN");
    let body = json!({ "refresh_token": login["refresh_token"] });
    let next = server.anyone().post("/refresh", body).await.ok();
    of(&server, &next).get("/account/whoami").await.ok();
}

/// A transaction belongs to the device, whatever its token.
#[actix_web::test]
async fn transactions_outlive_a_refresh() {
    let server = Server::new();
    register(&server, "ann").await;
    let mut login = by_password("ann", PASSWORD);
    login["refresh_token"] = true.into();
    let login = server.anyone().post("/login", login).await.ok();
    let ann = of(&server, &login);
    let room = crate::common::escape(&ann.public_room().await);
    let path = format!("/rooms/{room}/send/m.room.message/one");
    let body = json!({ "msgtype": "m.text", "body": "first" });
    let event = ann.put(&path, body.clone()).await.ok();
    let refresh = json!({ "refresh_token": login["refresh_token"] });
    let next = server.anyone().post("/refresh", refresh).await.ok();
    let ann = of(&server, &next);
    assert_eq!(ann.put(&path, body).await.ok(), event);
    let event = event["event_id"].as_str().unwrap();
    let event = ann.get(&format!("/rooms/{room}/event/{event}")).await.ok();
    assert_eq!(event["unsigned"]["transaction_id"], "one");
}

#[actix_web::test]
async fn the_password_is_changed() {
    for keep in [false, true] {
        let server = Server::new();
        let ann = of(&server, &register(&server, "ann").await);
        let login = server.anyone().post("/login", by_password("ann", PASSWORD)).await.ok();
        let other = of(&server, &login);
        let mut body = json!({ "new_password": "0therS3cret" });
        if keep {
            body["logout_devices"] = false.into();
        }
        assert_eq!(confirm(&ann, "/account/password", body).await, json!({}));
        let anyone = server.anyone();
        anyone.post("/login", by_password("ann", PASSWORD)).await.fails(403, "M_FORBIDDEN");
        anyone.post("/login", by_password("ann", "0therS3cret")).await.ok();
        ann.get("/account/whoami").await.ok();
        let who = other.get("/account/whoami").await;
        if keep { drop(who.ok()) } else { drop(who.fails(401, "M_UNKNOWN_TOKEN")) }
    }
}

#[actix_web::test]
async fn a_password_is_not_changed_without_the_old_one() {
    let server = Server::new();
    let ann = of(&server, &register(&server, "ann").await);
    register(&server, "bob").await;
    let mut body = json!({ "new_password": "x", "auth": by_password("ann", "wrong") });
    ann.post("/account/password", body.clone()).await.fails(401, "M_FORBIDDEN");
    // Bob proves to be Bob, which helps nobody.
    body["auth"] = by_password("bob", PASSWORD);
    ann.post("/account/password", body.clone()).await.fails(403, "M_FORBIDDEN");
    server.anyone().post("/account/password", body.clone()).await.fails(401, "M_MISSING_TOKEN");
    body["auth"] = by_password("ann", PASSWORD);
    body["new_password"] = "".into();
    ann.post("/account/password", body).await.fails(400, "M_WEAK_PASSWORD");
    ann.post("/account/password", json!({})).await.fails(400, "M_MISSING_PARAM");
    server.anyone().post("/login", by_password("ann", PASSWORD)).await.ok();
}

#[actix_web::test]
async fn another_client_is_logged_in_by_token() {
    let server = Server::new();
    let ann = of(&server, &register(&server, "ann").await);
    let flows = server.anyone().get("/login").await.ok();
    let token_flow = json!({ "type": "m.login.token", "get_login_token": true });
    assert!(flows["flows"].as_array().unwrap().contains(&token_flow));
    let given = confirm(&ann, "/_matrix/client/v1/login/get_token", json!({})).await;
    assert_eq!(given["expires_in_ms"], 120_000);
    let body = json!({ "type": "m.login.token", "token": given["login_token"] });
    let login = server.anyone().post("/login", body.clone()).await.ok();
    assert_eq!(login["user_id"], "@ann:example.org");
    of(&server, &login).get("/account/whoami").await.ok();
    server.anyone().post("/login", body).await.fails(403, "M_FORBIDDEN");
    let without = json!({ "type": "m.login.token" });
    server.anyone().post("/login", without).await.fails(400, "M_MISSING_PARAM");
}

#[actix_web::test]
async fn devices_are_deleted_in_bulk() {
    let server = Server::new();
    let ann = of(&server, &register(&server, "ann").await);
    let mut login = by_password("ann", PASSWORD);
    for id in ["one", "two", "three"] {
        login["device_id"] = id.into();
        server.anyone().post("/login", login.clone()).await.ok();
    }
    let body = json!({ "devices": ["one", "three", "never"] });
    confirm(&ann, "/delete_devices", body).await;
    let devices = ann.get("/devices").await.ok();
    let ids: Vec<_> =
        devices["devices"].as_array().unwrap().iter().map(|d| &d["device_id"]).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.contains(&&json!("two")));
    let seen = devices["devices"].as_array().unwrap().iter().filter_map(|d| d.get("last_seen_ts"));
    assert_eq!(seen.collect::<Vec<_>>(), [1_700_000_000_000_u64], "only Ann's was used");
    let delete = ann.send(Method::DELETE, "/devices/two", Some(json!({}))).await;
    assert_eq!(delete.status, 401);
}
