//! Rate limits, and accounts that are locked or suspended.

use std::time::Duration;

use actix_web::http::Method;
use exeunt_client_api::{Options, Rate, Rates};
use exeunt_users::{NewAccount, RegistrationPolicy};
use serde_json::{Value, json};

use crate::common::{Answer, Client, Server, escape};

/// Three requests of each class at once, and one in every minute.
fn limited() -> Server {
    let rate = Some(Rate { requests: 3, per: Duration::from_secs(180) });
    let rates = Rates {
        login: rate,
        registration: rate,
        sending: rate,
        joins: rate,
        invites: rate,
        others: None,
    };
    let registration = RegistrationPolicy { open: true, ..RegistrationPolicy::default() };
    Server::with(Options { registration, rates, ..Options::default() })
}

fn is_limited(answer: Answer) {
    let retry = answer.body["retry_after_ms"].as_u64();
    answer.fails(429, "M_LIMIT_EXCEEDED");
    assert!(retry.is_some_and(|ms| ms > 0 && ms <= 180_000), "{retry:?}");
}

async fn say(client: &Client<'_>, room: &str, txn: &str) -> Answer {
    let path = format!("/rooms/{}/send/m.room.message/{txn}", escape(room));
    client.put(&path, json!({ "msgtype": "m.text", "body": "hello" })).await
}

#[actix_web::test]
async fn each_class_has_its_limit() {
    let server = limited();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    for txn in ["1", "2", "3"] {
        say(&ann, &room, txn).await.ok();
    }
    is_limited(say(&ann, &room, "4").await);
    let topic = format!("/rooms/{}/state/m.room.topic/", escape(&room));
    is_limited(ann.put(&topic, json!({ "topic": "x" })).await);
    // Somebody else, and later on.
    bob.join(&room).await;
    say(&bob, &room, "1").await.ok();
    server.later(60_000);
    say(&ann, &room, "4").await.ok();
    is_limited(say(&ann, &room, "5").await);

    // Joins. Leaving is never limited, by any endpoint.
    for _ in 0..3 {
        bob.public_room().await;
    }
    let join = format!("/join/{}", escape(&room));
    is_limited(bob.post(&join, json!({})).await);
    is_limited(bob.post("/createRoom", json!({})).await);
    is_limited(bob.post(&format!("/knock/{}", escape(&room)), json!({})).await);
    let state = format!("/rooms/{}/state/m.room.member/{}", escape(&room), escape(&ann.user));
    ann.put(&state, json!({ "membership": "leave" })).await.ok();
    let leave = format!("/rooms/{}/leave", escape(&room));
    bob.post(&leave, json!({})).await.ok();
    for _ in 0..20 {
        assert_ne!(bob.post(&leave, json!({})).await.status, 429);
    }
}

#[actix_web::test]
async fn invites_are_limited_and_rejecting_is_not() {
    let server = limited();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    for other in ["cat", "dan", "eve"] {
        server.user(other).await;
    }
    let room = ann.create_room(json!({ "invite": [bob.user, "@cat:example.org"] })).await;
    let invite = format!("/rooms/{}/invite", escape(&room));
    ann.post(&invite, json!({ "user_id": "@dan:example.org" })).await.ok();
    is_limited(ann.post(&invite, json!({ "user_id": "@eve:example.org" })).await);
    is_limited(ann.post("/createRoom", json!({ "invite": [bob.user] })).await);
    ann.post("/createRoom", json!({})).await.ok();
    bob.post(&format!("/rooms/{}/leave", escape(&room)), json!({})).await.ok();
    assert_eq!(ann.membership(&room, &bob.user).await.as_deref(), Some("leave"));
}

#[actix_web::test]
async fn guesses_are_limited() {
    let server = limited();
    let anyone = server.anyone();
    let auth = json!({ "type": "m.login.dummy" });
    let body = json!({ "auth": auth, "username": "ann", "password": "sUp3rs3kr1t" });
    let login = anyone.post("/register", body.clone()).await.ok();
    for _ in 0..2 {
        anyone.post("/register", body.clone()).await.fails(400, "M_USER_IN_USE");
    }
    is_limited(anyone.post("/register", body).await);

    let by_password = |user: &str, password: &str| {
        let identifier = json!({ "type": "m.id.user", "user": user });
        json!({ "type": "m.login.password", "identifier": identifier, "password": password })
    };
    for user in ["ann", "@ANN:example.org", "@ann:example.org"] {
        anyone.post("/login", by_password(user, "wrong")).await.fails(403, "M_FORBIDDEN");
    }
    is_limited(anyone.post("/login", by_password("ann", "sUp3rs3kr1t")).await);
    // A stolen session guesses no faster.
    let ann = server.bearer(login["access_token"].as_str());
    let body = json!({ "devices": [], "auth": by_password("ann", "wrong") });
    is_limited(ann.post("/delete_devices", body).await);
    ann.post("/logout", json!({})).await.ok();
}

async fn admin(server: &Server) -> Client<'_> {
    let account = NewAccount { localpart: Some("root"), admin: true, ..NewAccount::default() };
    let user = server.api.users.register(account).await.unwrap();
    server.login(&user).await
}

fn standing(verb: &str, user: &str) -> String {
    format!("/_matrix/client/v1/admin/{verb}/{user}")
}

#[actix_web::test]
async fn a_locked_account_serves_for_nothing() {
    let server = Server::new();
    let (root, ann) = (admin(&server).await, server.user("ann").await);
    ann.get("/account/whoami").await.ok();
    let path = standing("lock", &ann.user);
    assert_eq!(root.get(&path).await.ok(), json!({ "locked": false }));
    assert_eq!(root.put(&path, json!({ "locked": true })).await.ok(), json!({ "locked": true }));
    assert_eq!(root.get(&path).await.ok(), json!({ "locked": true }));
    for path in ["/account/whoami", "/sync"] {
        let answer = ann.get(path).await;
        assert_eq!(answer.body["soft_logout"], true);
        answer.fails(401, "M_USER_LOCKED");
    }
    let refused = server.api.users.login(ruma::user_id!("@ann:example.org"), Default::default());
    assert!(matches!(refused.await, Err(exeunt_users::UsersError::Locked)));
    root.put(&path, json!({ "locked": false })).await.ok();
    ann.get("/account/whoami").await.ok();
    root.put(&path, json!({ "locked": true })).await.ok();
    ann.post("/logout", json!({})).await.ok();
    ann.get("/account/whoami").await.fails(401, "M_UNKNOWN_TOKEN");
}

#[actix_web::test]
async fn a_suspended_user_may_read_and_go() {
    let server = Server::new();
    let (root, ann, bob) =
        (admin(&server).await, server.user("ann").await, server.user("bob").await);
    let (room, other) = (ann.public_room().await, bob.public_room().await);
    bob.join(&room).await;
    let own = say(&ann, &room, "1").await.ok()["event_id"].as_str().unwrap().to_owned();
    let bobs = say(&bob, &room, "1").await.ok()["event_id"].as_str().unwrap().to_owned();
    let invited = bob.create_room(json!({ "invite": [ann.user] })).await;
    let path = standing("suspend", &ann.user);
    let answer = root.put(&path, json!({ "suspended": true })).await.ok();
    assert_eq!(answer, json!({ "suspended": true }));
    assert_eq!(root.get(&path).await.ok(), json!({ "suspended": true }));

    let suspended = |answer: Answer| drop(answer.fails(403, "M_USER_SUSPENDED"));
    suspended(say(&ann, &room, "2").await);
    let in_room = |end: &str| format!("/rooms/{}/{end}", escape(&room));
    suspended(ann.put(&in_room("state/m.room.topic/"), json!({ "topic": "x" })).await);
    suspended(ann.post("/createRoom", json!({})).await);
    suspended(ann.post(&format!("/join/{}", escape(&other)), json!({})).await);
    suspended(ann.post(&format!("/join/{}", escape(&invited)), json!({})).await);
    suspended(ann.post(&format!("/knock/{}", escape(&other)), json!({})).await);
    for verb in ["invite", "kick", "ban", "unban"] {
        suspended(ann.post(&in_room(verb), json!({ "user_id": bob.user })).await);
    }
    let member = |user: &str| in_room(&format!("state/m.room.member/{}", escape(user)));
    suspended(ann.put(&member(&bob.user), json!({ "membership": "leave" })).await);
    suspended(ann.put(&member(&ann.user), json!({ "membership": "join" })).await);
    let name = format!("/profile/{}/displayname", ann.user);
    suspended(ann.put(&name, json!({ "displayname": "x" })).await);
    suspended(ann.delete(&name).await);
    suspended(ann.put(&in_room(&format!("redact/{}/1", escape(&bobs))), json!({})).await);

    ann.get("/sync").await.ok();
    ann.get(&in_room("messages?dir=b")).await.ok();
    ann.put(&in_room(&format!("redact/{}/2", escape(&own))), json!({})).await.ok();
    ann.post(&format!("/rooms/{}/leave", escape(&invited)), json!({})).await.ok();
    ann.put(&member(&ann.user), json!({ "membership": "leave" })).await.ok();
    assert_eq!(bob.membership(&room, &ann.user).await.as_deref(), Some("leave"));
    server.login(ruma::user_id!("@ann:example.org")).await.get("/sync").await.ok();
    root.put(&path, json!({ "suspended": false })).await.ok();
    ann.join(&room).await;
}

#[actix_web::test]
async fn who_may_lock_whom() {
    let server = Server::new();
    let (root, ann) = (admin(&server).await, server.user("ann").await);
    server.user("gone").await;
    server.api.users.deactivate(ruma::user_id!("@gone:example.org"), false).await.unwrap();
    for (verb, field) in [("lock", "locked"), ("suspend", "suspended")] {
        let body = json!({ field: true });
        let both = async |client: &Client<'_>, user: &str, status: u16, code: &str| {
            client.get(&standing(verb, user)).await.fails(status, code);
            client.put(&standing(verb, user), body.clone()).await.fails(status, code);
        };
        // Whether there is such a user is not told to others.
        both(&ann, "@nobody:example.org", 403, "M_FORBIDDEN").await;
        both(&root, "@nobody:example.org", 404, "M_NOT_FOUND").await;
        both(&root, "@gone:example.org", 404, "M_NOT_FOUND").await;
        both(&root, "@ann:elsewhere.org", 400, "M_INVALID_PARAM").await;
        both(&root, &root.user, 403, "M_FORBIDDEN").await;
        root.put(&standing(verb, &ann.user), json!({})).await.fails(400, "M_MISSING_PARAM");
    }
    let moderation = async |client: &Client<'_>| {
        client.get("/capabilities").await.ok()["capabilities"]["m.account_moderation"].clone()
    };
    assert_eq!(moderation(&root).await, json!({ "lock": true, "suspend": true }));
    assert_eq!(moderation(&ann).await, Value::Null);
}

#[actix_web::test]
async fn who_is_it() {
    let server = Server::new();
    let (root, ann) = (admin(&server).await, server.user("ann").await);
    let bob = server.user("bob").await;
    ann.get("/account/whoami").await.ok();
    let path = format!("/admin/whois/{}", ann.user);
    let who = root.get(&path).await.ok();
    assert_eq!(who, ann.get(&path).await.ok());
    assert_eq!(who["user_id"], *ann.user);
    let devices = who["devices"].as_object().unwrap();
    let device = devices.values().next().unwrap();
    let connection = &device["sessions"][0]["connections"][0];
    assert_eq!(connection["last_seen"], 1_700_000_000_000_u64);
    bob.get(&path).await.fails(403, "M_FORBIDDEN");
    root.get("/admin/whois/@nobody:example.org").await.fails(404, "M_NOT_FOUND");
    root.get("/admin/whois/@ann:elsewhere.org").await.fails(400, "M_INVALID_PARAM");
    let unseen = root.get(&format!("/admin/whois/{}", bob.user)).await.ok();
    assert!(unseen["devices"].is_object());
    root.send(Method::PATCH, &path, None).await.fails(405, "M_UNRECOGNIZED");
}
