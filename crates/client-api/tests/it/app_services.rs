//! Application services: who they are taken for, whom they register, what they date.

use std::time::Duration;

use exeunt_client_api::{Options, Rate, Rates};
use exeunt_users::{AppServices, RegistrationPolicy};
use ruma::server_name;
use serde_json::{Value, json};

use crate::common::{Client, Server, escape};

const TOKEN: &str = "token of irc";

/// A service `irc` with a namespace of its own and one that it shares, and `limited`, whose users
/// are limited.
async fn server(rates: Rates) -> Server {
    let files = ["irc", "limited"].map(|id| {
        let file = json!({
            "id": id,
            "url": "http://localhost:9000",
            "as_token": format!("token of {id}"),
            "hs_token": "ours",
            "sender_localpart": format!("{id}-bot"),
            "rate_limited": id == "limited",
            "namespaces": {
                "users": [
                    { "exclusive": true, "regex": format!("@_{id}_.*") },
                    { "exclusive": false, "regex": "@guest.*" },
                ],
                "aliases": [{ "exclusive": true, "regex": format!("#_{id}_.*") }],
                "rooms": [],
            },
        });
        serde_json::from_value(file).unwrap()
    });
    let app_services = AppServices::new(server_name!("example.org"), files.into()).unwrap();
    let registration = RegistrationPolicy { open: true, ..RegistrationPolicy::default() };
    let app = app_services.clone();
    let server = Server::with(Options { registration, app_services, rates, ..Options::default() });
    server.api.users.register_senders(&app).await.unwrap();
    server
}

fn registration(name: &str) -> Value {
    json!({ "type": "m.login.application_service", "username": name })
}

async fn event(client: &Client<'_>, room: &str, event_id: &Value) -> Value {
    let event_id = escape(event_id.as_str().unwrap());
    client.get(&format!("/rooms/{}/event/{event_id}", escape(room))).await.ok()
}

#[actix_web::test]
async fn a_service_acts_for_its_own_user_and_those_of_its_namespaces() {
    let server = server(Rates::default()).await;
    let irc = server.bearer(Some(TOKEN));
    let whoami = irc.get("/account/whoami").await.ok();
    assert_eq!(whoami, json!({ "user_id": "@irc-bot:example.org" }));

    irc.post("/register", registration("_irc_ann")).await.ok();
    server.user("guest1").await;
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    for user in ["@_irc_ann:example.org", "@guest1:example.org", "@irc-bot:example.org"] {
        let whoami = irc.get(&format!("/account/whoami?user_id={}", escape(user))).await.ok();
        assert_eq!(whoami["user_id"], user);
    }
    for other in [&*ann.user, "@_irc_bob:example.org", "@_irc_ann:elsewhere.org", "_irc_ann", ""] {
        let answer = irc.get(&format!("/account/whoami?user_id={}", escape(other))).await;
        answer.fails(403, "M_FORBIDDEN");
    }
    // Nobody else names users.
    let path = format!("/account/whoami?user_id={}", escape(&bob.user));
    assert_eq!(ann.get(&path).await.ok()["user_id"], ann.user);
    server.bearer(Some("a guess")).get(&path).await.fails(401, "M_UNKNOWN_TOKEN");

    // What it does is done by the user that it names.
    let room = ann.public_room().await;
    let join = format!("/join/{}?user_id=%40_irc_ann%3Aexample.org", escape(&room));
    irc.post(&join, json!({})).await.ok();
    let joined = ann.membership(&room, "@_irc_ann:example.org").await;
    assert_eq!(joined.as_deref(), Some("join"));
    server.api.users.deactivate(ruma::user_id!("@_irc_ann:example.org"), false).await.unwrap();
    irc.post(&join, json!({})).await.fails(403, "M_USER_DEACTIVATED");
}

#[actix_web::test]
async fn names_of_a_namespace_are_registered_by_its_service() {
    let server = server(Rates::default()).await;
    let (anyone, irc) = (server.anyone(), server.bearer(Some(TOKEN)));
    let login = irc.post("/register", registration("_irc_Ann")).await.ok();
    assert_eq!(login["user_id"], "@_irc_ann:example.org");
    let ann = server.bearer(login["access_token"].as_str());
    let whoami = ann.get("/account/whoami").await.ok();
    assert_eq!(whoami["device_id"], login["device_id"]);
    let mut quiet = registration("guest1");
    quiet["inhibit_login"] = true.into();
    let quiet = irc.post("/register", quiet).await.ok();
    assert!(quiet["access_token"].is_null() && quiet["user_id"] == "@guest1:example.org");

    for (name, status, errcode) in [
        ("_irc_ann", 400, "M_USER_IN_USE"),
        ("irc-bot", 400, "M_USER_IN_USE"),
        ("_limited_ann", 400, "M_EXCLUSIVE"),
        ("limited-bot", 400, "M_EXCLUSIVE"),
        ("ann", 400, "M_EXCLUSIVE"),
        ("_irc ann", 400, "M_INVALID_USERNAME"),
    ] {
        irc.post("/register", registration(name)).await.fails(status, errcode);
    }
    let nameless = json!({ "type": "m.login.application_service" });
    irc.post("/register", nameless).await.fails(400, "M_MISSING_PARAM");
    let guess = server.bearer(Some("a guess"));
    guess.post("/register", registration("_irc_bob")).await.fails(401, "M_UNKNOWN_TOKEN");

    // People have other names.
    for name in ["_irc_bob", "_IRC_BOB", "irc-bot"] {
        let available = format!("/register/available?username={name}");
        anyone.get(&available).await.fails(400, "M_EXCLUSIVE");
    }
    let body = json!({
        "auth": { "type": "m.login.dummy" }, "username": "_irc_bob", "password": "sUp3rs3kr1t",
    });
    anyone.post("/register", body).await.fails(400, "M_EXCLUSIVE");
    anyone.get("/register/available?username=guest2").await.ok();
}

#[actix_web::test]
async fn aliases_of_a_namespace_are_its_services() {
    let server = server(Rates::default()).await;
    let (irc, ann) = (server.bearer(Some(TOKEN)), server.user("ann").await);
    let room = ann.public_room().await;
    let path = "/directory/room/%23_irc_rust%3Aexample.org";
    ann.put(path, json!({ "room_id": room })).await.fails(400, "M_EXCLUSIVE");
    let named = json!({ "room_alias_name": "_irc_rust" });
    ann.post("/createRoom", named.clone()).await.fails(400, "M_EXCLUSIVE");
    irc.post("/createRoom", named).await.ok();
    let other = json!({ "room_alias_name": "_limited_rust" });
    irc.post("/createRoom", other).await.fails(400, "M_EXCLUSIVE");
}

/// "Timestamp massaging": messages and state that are older than they are.
#[actix_web::test]
async fn a_service_dates_its_events_and_nobody_else_does() {
    let server = server(Rates::default()).await;
    let (irc, ann) = (server.bearer(Some(TOKEN)), server.user("ann").await);
    let room = irc.public_room().await;
    ann.join(&room).await;
    let send = format!("/rooms/{}/send/m.room.message/1?ts=1600000000000", escape(&room));
    let sent = irc.put(&send, json!({ "body": "old" })).await.ok()["event_id"].clone();
    assert_eq!(event(&irc, &room, &sent).await["origin_server_ts"], 1_600_000_000_000_u64);
    let state = format!("/rooms/{}/state/m.room.topic?ts=1500000000000", escape(&room));
    let set = irc.put(&state, json!({ "topic": "old" })).await.ok()["event_id"].clone();
    assert_eq!(event(&irc, &room, &set).await["origin_server_ts"], 1_500_000_000_000_u64);
    // The order of the room is what it was.
    let messages = ann.get(&format!("/rooms/{}/messages?dir=b&limit=2", escape(&room))).await.ok();
    let ids = [&messages["chunk"][0]["event_id"], &messages["chunk"][1]["event_id"]];
    assert_eq!(ids, [&set, &sent]);

    let sent = ann.put(&send, json!({ "body": "now" })).await.ok()["event_id"].clone();
    assert!(event(&ann, &room, &sent).await["origin_server_ts"].as_u64() > Some(1_600_000_000_000));
    // Others could not verify it.
    let far = format!("/rooms/{}/send/m.room.message/2?ts=1700003700000", escape(&room));
    irc.put(&far, json!({ "body": "late" })).await.fails(400, "M_INVALID_PARAM");
    // Memberships are dated by us: resolution goes by that.
    let member = format!("/rooms/{}/state/m.room.member/{}", escape(&room), escape(&ann.user));
    let ban = irc.put(&format!("{member}?ts=1500000000000"), json!({ "membership": "ban" })).await;
    let ban = ban.ok()["event_id"].clone();
    assert!(event(&irc, &room, &ban).await["origin_server_ts"].as_u64() > Some(1_600_000_000_000));
}

#[actix_web::test]
async fn limits_hold_for_the_users_of_a_service_that_says_so() {
    let rate = Some(Rate { requests: 1, per: Duration::from_secs(180) });
    let server = server(Rates { registration: rate, sending: rate, ..Rates::default() }).await;
    let room = server.user("ann").await.public_room().await;
    for (id, limited) in [("irc", false), ("limited", true)] {
        let service = server.bearer(Some(&format!("token of {id}")));
        for name in ["a", "b", "c"] {
            service.post("/register", registration(&format!("_{id}_{name}"))).await.ok();
        }
        let user = format!("%40_{id}_a%3Aexample.org");
        service.post(&format!("/join/{}?user_id={user}", escape(&room)), json!({})).await.ok();
        service.post(&format!("/join/{}", escape(&room)), json!({})).await.ok();
        let send = async |txn: &str| {
            let path = format!("/rooms/{}/send/m.room.message/{txn}", escape(&room));
            service.put(&path, json!({ "body": "hi" })).await
        };
        for txn in ["1", "2", "3"] {
            send(txn).await.ok();
        }
        send(&format!("4?user_id={user}")).await.ok();
        let answer = send(&format!("5?user_id={user}")).await;
        assert_eq!(answer.status, if limited { 429 } else { 200 }, "{id}");
    }
}

/// A namespace of everybody makes no administrator of a service.
#[actix_web::test]
async fn a_service_is_no_administrator() {
    let server = server(Rates::default()).await;
    let (irc, root) = (server.bearer(Some(TOKEN)), server.admin("guest-root").await);
    let (path, user) = ("/_exeunt/admin/v1/departures", escape(&root.user));
    root.get(path).await.ok();
    irc.get(&format!("{path}?user_id={user}")).await.fails(403, "M_FORBIDDEN");
    let room = server.user("ann").await.create_room(json!({ "room_alias_name": "tea" })).await;
    let alias = "/directory/room/%23tea%3Aexample.org";
    irc.delete(&format!("{alias}?user_id={user}")).await.fails(403, "M_FORBIDDEN");
    assert_eq!(root.get(alias).await.ok()["room_id"], room);
    root.delete(alias).await.ok();
}
