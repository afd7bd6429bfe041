use actix_web::http::Method;
use exeunt_client_api::{NoticeOptions, Options};
use exeunt_users::RegistrationPolicy;
use ring::hmac;
use serde_json::{Value, json};

use crate::common::Server;

fn with_policy(registration: RegistrationPolicy) -> Server {
    Server::with(Options { registration, ..Options::default() })
}

fn registration(username: &str) -> Value {
    let auth = json!({ "type": "m.login.dummy" });
    json!({ "auth": auth, "username": username, "password": "sUp3rs3kr1t", "device_id": "D" })
}

#[actix_web::test]
async fn registration_by_flows() {
    let server = Server::new();
    let first = server.anyone().post("/register", json!({})).await;
    assert_eq!(first.status, 401);
    assert_eq!(first.body["flows"], json!([{ "stages": ["m.login.dummy"] }]));
    assert_eq!(first.body.get("errcode"), None);
    let mut body = registration("Ann");
    body["auth"]["session"] = first.body["session"].clone();
    let login = server.anyone().post("/register", body).await.ok();
    assert_eq!(login["user_id"], "@ann:example.org");
    assert_eq!(login["device_id"], "D");

    let client = server.bearer(login["access_token"].as_str());
    let who = client.get("/account/whoami").await.ok();
    assert_eq!(who["user_id"], "@ann:example.org");
    assert_eq!(who["device_id"], "D");

    server.anyone().post("/register", registration("ann")).await.fails(400, "M_USER_IN_USE");
}

#[actix_web::test]
async fn registration_can_leave_out_the_login() {
    let server = Server::new();
    let mut body = registration("ann");
    body["inhibit_login"] = true.into();
    let answer = server.anyone().post("/_matrix/client/r0/register", body).await.ok();
    assert_eq!(answer["user_id"], "@ann:example.org");
    assert_eq!(answer.get("access_token"), None);
}

#[actix_web::test]
async fn registrations_that_are_refused() {
    let server = Server::new();
    let client = server.anyone();
    for name in ["user-!", "user-:", "é", "a'b", ""] {
        client.post("/register", registration(name)).await.fails(400, "M_INVALID_USERNAME");
    }
    let guest = client.post("/register?kind=guest", json!({})).await;
    guest.fails(403, "M_GUEST_ACCESS_FORBIDDEN");
    client.post("/register?kind=king", json!({})).await.fails(400, "M_INVALID_PARAM");
    let mut body = registration("ann");
    body["password"] = Value::Null;
    client.post("/register", body).await.fails(400, "M_MISSING_PARAM");
    client.post("/register", json!({ "username": 1 })).await.fails(400, "M_BAD_JSON");
    let raw = b"{ \"test\":\"a\x81\" }".to_vec();
    client.send_bytes(Method::POST, "/register", Some(raw)).await.fails(400, "M_NOT_JSON");

    let closed = with_policy(RegistrationPolicy::default());
    closed.anyone().post("/register", registration("ann")).await.fails(403, "M_FORBIDDEN");
}

#[actix_web::test]
async fn registration_with_a_token() {
    let token = Some("open sesame".to_owned());
    let server = with_policy(RegistrationPolicy { token, ..RegistrationPolicy::default() });
    let client = server.anyone();
    let first = client.post("/register", json!({})).await;
    assert_eq!(first.body["flows"], json!([{ "stages": ["m.login.registration_token"] }]));
    let mut body = registration("ann");
    body["auth"] = json!({ "type": "m.login.registration_token", "token": "no" });
    client.post("/register", body.clone()).await.fails(401, "M_FORBIDDEN");
    body["auth"]["token"] = "open sesame".into();
    assert_eq!(client.post("/register", body).await.ok()["user_id"], "@ann:example.org");
}

#[actix_web::test]
async fn availability_of_names() {
    let server = Server::new();
    server.user("ann").await;
    let client = server.anyone();
    let ask = |name: &str| format!("/register/available?username={name}");
    assert_eq!(client.get(&ask("bob")).await.ok(), json!({ "available": true }));
    client.get(&ask("ann")).await.fails(400, "M_USER_IN_USE");
    client.get(&ask("b,b")).await.fails(400, "M_INVALID_USERNAME");
    client.get("/register/available").await.fails(400, "M_MISSING_PARAM");
}

/// Nobody takes the name by which the server will speak, before it first does.
#[actix_web::test]
async fn the_name_of_the_server_notices_is_reserved() {
    let notices = NoticeOptions { localpart: "Herald".into(), ..NoticeOptions::default() };
    let shared_secret = Some("secret".to_owned());
    let policy = RegistrationPolicy { open: true, shared_secret, ..RegistrationPolicy::default() };
    let server = Server::with(Options { registration: policy, notices, ..Options::default() });
    let client = server.anyone();
    for name in ["herald", "HERALD"] {
        let path = format!("/register/available?username={name}");
        client.get(&path).await.fails(400, "M_EXCLUSIVE");
        client.post("/register", registration(name)).await.fails(400, "M_EXCLUSIVE");
        client.post(ADMIN, signed(&server, name, false).await).await.fails(400, "M_EXCLUSIVE");
    }
    client.post("/register", registration("heralds")).await.ok();
}

const ADMIN: &str = "/_synapse/admin/v1/register";

async fn signed(server: &Server, username: &str, admin: bool) -> Value {
    let nonce = server.anyone().get(ADMIN).await.ok()["nonce"].as_str().unwrap().to_owned();
    let kind = if admin { "admin" } else { "notadmin" };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"secret");
    let tag = hmac::sign(&key, [&nonce, username, "s3cr3t", kind].join("\0").as_bytes());
    let mac: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let password = "s3cr3t";
    json!({ "nonce": nonce, "username": username, "password": password, "admin": admin, "mac": mac })
}

#[actix_web::test]
async fn registration_by_shared_secret() {
    let shared_secret = Some("secret".to_owned());
    let server = with_policy(RegistrationPolicy { shared_secret, ..RegistrationPolicy::default() });
    let client = server.anyone();
    let body = signed(&server, "user-UPPER", true).await;
    let login = client.post(ADMIN, body.clone()).await.ok();
    assert_eq!(login["user_id"], "@user-upper:example.org");
    let user = ruma::user_id!("@user-upper:example.org");
    assert!(server.api.users.account(user).await.unwrap().unwrap().admin);
    client.post(ADMIN, body).await.fails(400, "M_UNKNOWN");
    let body = signed(&server, "us,er", false).await;
    client.post(ADMIN, body).await.fails(400, "M_INVALID_USERNAME");
    let mut body = signed(&server, "mallory", false).await;
    body["admin"] = true.into();
    client.post(ADMIN, body).await.fails(403, "M_FORBIDDEN");
    client.post(ADMIN, json!({})).await.fails(400, "M_MISSING_PARAM");

    Server::new().anyone().get(ADMIN).await.fails(400, "M_UNKNOWN");
}

fn by_password(user: &str, password: &str) -> Value {
    let identifier = json!({ "type": "m.id.user", "user": user });
    json!({ "type": "m.login.password", "identifier": identifier, "password": password })
}

#[actix_web::test]
async fn login_by_password() {
    let server = Server::new();
    let client = server.anyone();
    let flows = client.get("/login").await.ok();
    let token = json!({ "type": "m.login.token", "get_login_token": true });
    assert_eq!(flows, json!({ "flows": [{ "type": "m.login.password" }, token] }));
    client.post("/register", registration("ann")).await.ok();
    let legacy = json!({ "type": "m.login.password", "user": "ann", "password": "sUp3rs3kr1t" });
    let mut device = by_password("ann", "sUp3rs3kr1t");
    device["device_id"] = "mine".into();
    for body in [by_password("@ANN:example.org", "sUp3rs3kr1t"), legacy, device] {
        let login = client.post("/login", body.clone()).await.ok();
        assert_eq!(login["user_id"], "@ann:example.org");
        assert!(body.get("device_id").is_none_or(|device| *device == login["device_id"]));
        server.bearer(login["access_token"].as_str()).get("/account/whoami").await.ok();
    }
}

#[actix_web::test]
async fn logins_that_are_refused() {
    let server = Server::new();
    let client = server.anyone();
    client.post("/register", registration("ann")).await.ok();
    for body in [by_password("ann", "wrong"), by_password("nobody", "sUp3rs3kr1t")] {
        client.post("/login", body).await.fails(403, "M_FORBIDDEN");
    }
    client.post("/login", json!({ "type": "m.login.magic" })).await.fails(400, "M_UNKNOWN");
    client.post("/login", json!({})).await.fails(400, "M_MISSING_PARAM");
    let nobody = json!({ "type": "m.login.password", "password": "x" });
    client.post("/login", nobody).await.fails(400, "M_MISSING_PARAM");
    let mut email = by_password("ann", "sUp3rs3kr1t");
    email["identifier"]["type"] = "m.id.thirdparty".into();
    client.post("/login", email).await.fails(400, "M_UNKNOWN");

    server.api.users.deactivate(ruma::user_id!("@ann:example.org"), false).await.unwrap();
    let gone = by_password("ann", "sUp3rs3kr1t");
    client.post("/login", gone).await.fails(403, "M_USER_DEACTIVATED");
}

#[actix_web::test]
async fn logging_out() {
    let server = Server::new();
    let first = server.user("ann").await;
    let user = ruma::user_id!("@ann:example.org");
    let (second, third) = (server.login(user).await, server.login(user).await);
    first.post("/logout", json!({})).await.ok();
    first.get("/account/whoami").await.fails(401, "M_UNKNOWN_TOKEN");
    second.get("/account/whoami").await.ok();
    // Some clients send no body at all.
    second.send(Method::POST, "/logout/all", None).await.ok();
    for client in [&second, &third] {
        client.get("/account/whoami").await.fails(401, "M_UNKNOWN_TOKEN");
    }
    server.bearer(Some("made-up")).post("/logout", json!({})).await.fails(401, "M_UNKNOWN_TOKEN");
    server.anyone().post("/logout", json!({})).await.fails(401, "M_MISSING_TOKEN");
}

#[actix_web::test]
async fn devices() {
    let server = Server::new();
    let client = server.anyone();
    let login = client.post("/register", registration("ann")).await.ok();
    let ann = server.bearer(login["access_token"].as_str());
    let mut other = by_password("ann", "sUp3rs3kr1t");
    other["device_id"] = "other".into();
    client.post("/login", other).await.ok();

    assert_eq!(ann.get("/devices").await.ok()["devices"].as_array().unwrap().len(), 2);
    ann.put("/devices/other", json!({ "display_name": "Phone" })).await.ok();
    assert_eq!(ann.get("/devices/other").await.ok()["display_name"], "Phone");
    ann.get("/devices/none").await.fails(404, "M_NOT_FOUND");
    ann.put("/devices/none", json!({ "display_name": "x" })).await.fails(404, "M_NOT_FOUND");

    let first = ann.delete("/devices/other").await;
    assert_eq!(first.status, 401);
    assert_eq!(first.body["flows"], json!([{ "stages": ["m.login.password"] }]));
    let auth = |password: &str| {
        json!({ "auth": {
            "type": "m.login.password",
            "session": first.body["session"],
            "identifier": { "type": "m.id.user", "user": "ann" },
            "password": password,
        }})
    };
    let delete = Method::DELETE;
    let wrong = ann.send(delete.clone(), "/devices/other", Some(auth("wrong"))).await;
    wrong.fails(401, "M_FORBIDDEN");
    ann.send(delete, "/devices/other", Some(auth("sUp3rs3kr1t"))).await.ok();
    ann.get("/devices/other").await.fails(404, "M_NOT_FOUND");
}
