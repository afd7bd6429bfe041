//! Joins, leaves and invites over HTTP: paths, wrapped answers, errcodes.

use exeunt_core::Draft;
use exeunt_sim::events::member_draft;
use exeunt_store::tables;
use serde_json::{Value, json};

use crate::common::{Site, site};

fn path(site: &Site, endpoint: &str, rest: &str) -> String {
    let room = site.room.as_str().replace('!', "%21");
    let rest = rest.replace('$', "%24").replace('@', "%40").replace(':', "%3A");
    format!("/_matrix/federation/{endpoint}/{room}/{rest}")
}

#[actix_web::test]
async fn join_and_leave_in_both_versions() {
    let site = site().await;
    let b = site.b();
    for version in ["v1", "v2"] {
        let unwrap = |answer: Value| match version {
            "v1" => {
                assert_eq!(answer[0], 200);
                answer[1].clone()
            }
            _ => answer,
        };
        let bob = b.user(&format!("bob-{version}"));
        let make = path(&site, "v1/make_join", bob.as_str());
        site.get(b, &make).await.expect(400, "M_INCOMPATIBLE_ROOM_VERSION");
        let refused = site.get(b, &format!("{make}?ver=11")).await;
        assert_eq!(refused.body["room_version"], "12");
        let template = site.get(b, &format!("{make}?ver=11&ver=12")).await.ok();
        assert_eq!(template["event"]["sender"], bob.as_str());
        let join = b.sign(member_draft(site.a(), &site.room, &bob, &bob, "join"));
        let send = path(&site, &format!("{version}/send_join"), join.event_id().as_str());
        let answer = unwrap(site.put(b, &send, json!(join.object())).await.ok());
        assert!(!answer["state"].as_array().unwrap().is_empty());
        let make = path(&site, "v1/make_leave", bob.as_str());
        assert_eq!(site.get(b, &make).await.ok()["room_version"], "12");
        let leave = b.sign(member_draft(site.a(), &site.room, &bob, &bob, "leave"));
        let send = path(&site, &format!("{version}/send_leave"), leave.event_id().as_str());
        for _ in 0..2 {
            let answer = site.put(b, &send, json!(leave.object())).await.ok();
            assert_eq!(unwrap(answer), json!({}));
        }
        let answer = site.get(b, &make).await;
        answer.expect(403, "M_FORBIDDEN");
        assert_eq!(answer.body["error"], "User is not in the room.");
        let wrong = path(&site, &format!("{version}/send_leave"), "$wrong");
        site.put(b, &wrong, json!(leave.object())).await.expect(400, "M_INVALID_PARAM");
        site.put(b, &send, json!({})).await.expect(400, "M_BAD_JSON");
        site.put(b, &send, json!([])).await.expect(400, "M_BAD_JSON");
    }
}

#[actix_web::test]
async fn a_knock_by_its_one_version() {
    let site = site().await;
    let b = site.b();
    let bob = b.user("bob");
    let make = path(&site, "v1/make_knock", bob.as_str());
    let with_version = format!("{make}?ver=7&ver=12");
    site.get(b, &make).await.expect(400, "M_INCOMPATIBLE_ROOM_VERSION");
    site.get(b, &with_version).await.expect(403, "M_FORBIDDEN");
    let rule = json!({ "join_rule": "knock" });
    site.a().set(&site.ann, &site.room, "m.room.join_rules", rule).await;
    let template = site.get(b, &with_version).await.ok();
    assert_eq!(template["event"]["content"]["membership"], "knock");
    let knock = b.sign(member_draft(site.a(), &site.room, &bob, &bob, "knock"));
    let send = path(&site, "v1/send_knock", knock.event_id().as_str());
    let answer = site.put(b, &send, json!(knock.object())).await.ok();
    assert_eq!(answer["knock_room_state"][0]["type"], "m.room.create");
    assert!(answer["knock_room_state"][0]["signatures"].is_object());
    let leave = b.sign(member_draft(site.a(), &site.room, &bob, &bob, "leave"));
    let send = path(&site, "v1/send_knock", leave.event_id().as_str());
    site.put(b, &send, json!(leave.object())).await.expect(400, "M_INVALID_PARAM");
}

#[actix_web::test]
async fn a_handshake_about_an_unknown_room_is_404() {
    let site = site().await;
    let room = "%21nowhere%3Aa.example";
    let make = format!("/_matrix/federation/v1/make_leave/{room}/%40bob%3Ab.example");
    site.get(site.b(), &make).await.expect(404, "M_NOT_FOUND");
    let send = format!("/_matrix/federation/v2/send_leave/{room}/%24x");
    site.put(site.b(), &send, json!({})).await.expect(404, "M_NOT_FOUND");
}

/// An invite of `user` into a room on `b`, as its body.
async fn invite(site: &Site, user: &str) -> (String, Value) {
    invite_in("12", site, user).await
}

async fn invite_in(version: &str, site: &Site, user: &str) -> (String, Value) {
    let b = site.b();
    let bea = b.user("bea");
    let room = b.room(&bea, exeunt_room::Preset::Private, version).await;
    let target = site.a().user(user);
    let draft = member_draft(b, &room, &bea, &target, "invite");
    let event = b.sign(Draft { origin_server_ts: 7, ..draft });
    let room_id = room.clone();
    let (room, id) =
        (room.as_str().replace('!', "%21"), event.event_id().as_str().replace('$', "%24"));
    let create = b.graph(&room_id, |graph| graph.create().unwrap());
    let state = json!([create.object()]);
    let body =
        json!({ "room_version": version, "event": event.object(), "invite_room_state": state });
    (format!("/_matrix/federation/v2/invite/{room}/{id}"), body)
}

#[actix_web::test]
async fn invites_of_accounts_are_signed() {
    let site = site().await;
    let (path, body) = invite(&site, "ann").await;
    let answer = site.put(site.b(), &path, body.clone()).await.ok();
    assert!(answer["event"]["signatures"]["a.example"]["ed25519:sim"].is_string());
    assert_eq!(answer["event"]["content"], body["event"]["content"]);
    // The older endpoint is for versions 1 and 2, whose events carry their ids.
    let v1 = path.replace("/v2/", "/v1/");
    site.put(site.b(), &v1, body["event"].clone()).await.expect(400, "M_BAD_JSON");
    let mut future = body.clone();
    future["room_version"] = "13".into();
    let answer = site.put(site.b(), &path, future).await;
    answer.expect(400, "M_INCOMPATIBLE_ROOM_VERSION");
    assert_eq!(answer.body["room_version"], "13");
    // CVE-2019-18835: handed in by another server than the inviter's.
    site.put(site.c(), &path, body).await.expect(400, "M_INVALID_PARAM");
}

/// The v1 endpoint: the body is the event, the state is in `unsigned`, the answer is wrapped.
#[actix_web::test]
async fn invites_by_the_older_endpoint() {
    let site = site().await;
    let (path, body) = invite_in("2", &site, "ann").await;
    let v1 = path.replace("/v2/", "/v1/");
    let mut event = body["event"].clone();
    let name = json!({ "type": "m.room.name", "state_key": "", "sender": "@bea:b.example",
        "content": { "name": "old" } });
    event["unsigned"] = json!({ "invite_room_state": [name] });
    let answer = site.put(site.b(), &v1, event).await.ok();
    assert_eq!(answer[0], 200);
    let signed = &answer[1]["event"];
    assert!(signed["signatures"]["a.example"]["ed25519:sim"].is_string());
    assert_eq!(signed["event_id"], body["event"]["event_id"]);
    assert!(signed.get("unsigned").is_none());
    let room = exeunt_core::ruma::RoomId::parse(signed["room_id"].as_str().unwrap()).unwrap();
    let key = (site.ann.clone(), room);
    let pending = site.a().store.reader().get::<tables::Pending>(&key).unwrap().unwrap();
    assert_eq!(pending.stripped_state[0]["content"]["name"], "old");
    // The id of the path is the event's.
    let elsewhere = v1.replace("%24", "%24x");
    site.put(site.b(), &elsewhere, body["event"].clone()).await.expect(400, "M_INVALID_PARAM");
}

/// IN13: no account, or one that is gone.
#[actix_web::test]
async fn in13_only_accounts_are_invited() {
    let site = site().await;
    let (path, body) = invite(&site, "nobody").await;
    site.put(site.b(), &path, body).await.expect(403, "M_FORBIDDEN");
    let room = path.split('/').nth(5).unwrap().replace("%21", "!");
    let room = exeunt_core::ruma::RoomId::parse(room).unwrap();
    assert_eq!(site.a().row(&site.a().user("nobody"), &room), None);
    let gone = site.a().register("gone").await;
    site.a().users.deactivate(&gone, false).await.unwrap();
    let (path, body) = invite(&site, "gone").await;
    site.put(site.b(), &path, body).await.expect(403, "M_FORBIDDEN");
}

/// IN5: a user who takes no invites.
#[actix_web::test]
async fn in5_blocked_invites_are_refused() {
    let site = site().await;
    let ann = site.a().user("ann");
    let content = exeunt_sim::events::object(json!({ "default_action": "block" }));
    let kind = "m.invite_permission_config";
    site.a().users.put_account_data(&ann, None, kind, content).await.unwrap();
    let (path, body) = invite(&site, "ann").await;
    site.put(site.b(), &path, body).await.expect(403, "M_INVITE_BLOCKED");
}

/// GHSA-22fw-4jq7-g8r8 over HTTP: whatever is handed in, only an invite comes back signed.
#[actix_web::test]
async fn nothing_but_invites_is_signed() {
    let site = site().await;
    let (path, body) = invite(&site, "ann").await;
    for (field, value) in [
        ("type", json!("m.room.server_acl")),
        ("state_key", json!("@ann:b.example")),
        ("sender", json!("@ann:a.example")),
        ("content", json!({ "membership": "leave" })),
        ("room_id", json!(site.room)),
        ("depth", json!(9_000)),
    ] {
        let mut changed = body.clone();
        changed["event"][field] = value;
        let answer = site.put(site.b(), &path, changed).await;
        assert!(matches!(answer.status, 400 | 403), "{field}: {}", answer.body);
    }
}

/// The handshakes' last requests, with the body of each.
async fn puts(site: &Site) -> Vec<(String, Value)> {
    let (a, b) = (site.a(), site.b());
    let rule = json!({ "join_rule": "knock" });
    a.set(&site.ann, &site.room, "m.room.join_rules", rule).await;
    let bob = b.user("bob");
    let mut puts = Vec::new();
    for (endpoint, membership) in [
        ("v1/send_join", "join"),
        ("v2/send_join", "join"),
        ("v1/send_leave", "leave"),
        ("v2/send_leave", "leave"),
        ("v1/send_knock", "knock"),
    ] {
        let event = b.sign(member_draft(a, &site.room, &bob, &bob, membership));
        let body = json!(event.object());
        puts.push((path(site, endpoint, event.event_id().as_str()), body));
    }
    puts.push(invite(site, "ann").await);
    let (old, body) = invite_in("2", site, "ann").await;
    puts.push((old.replace("/v2/", "/v1/"), body["event"].clone()));
    puts
}

/// The event in a body: invites of the newer endpoint wrap it.
fn event_of(body: &mut Value) -> &mut Value {
    match body.get("event").is_some() {
        true => &mut body["event"],
        false => body,
    }
}

/// CVE-2020-26257 on every route: the ids of the path are the event's.
#[actix_web::test]
async fn the_ids_of_the_path_are_those_of_the_event() {
    let site = site().await;
    let other = site.a().room(&site.ann, exeunt_room::Preset::Public, "12").await;
    let other = other.as_str().replace('!', "%21");
    for (path, body) in puts(&site).await {
        let (front, id) = path.rsplit_once('/').unwrap();
        let (endpoint, _) = front.rsplit_once('/').unwrap();
        let wrong = format!("{front}/%24{}", "A".repeat(43));
        let answer = site.put(site.b(), &wrong, body.clone()).await;
        assert_eq!(
            (answer.status, &answer.body["errcode"]),
            (400, &json!("M_INVALID_PARAM")),
            "{wrong}"
        );
        let elsewhere = format!("{endpoint}/{other}/{id}");
        let answer = site.put(site.b(), &elsewhere, body).await;
        assert_eq!(answer.status, 400, "{elsewhere}: {}", answer.body);
    }
    let signed = site.a().store.reader().scan::<tables::SigningJournal>(()).collect().unwrap();
    assert!(signed.iter().all(|(_, line)| line.purpose != "invite"), "nothing was co-signed");
}

/// CVE-2019-18835 on every route: the event has its sender's server's own signature, and comes from
/// that server.
#[actix_web::test]
async fn an_event_comes_signed_and_from_its_sender() {
    let site = site().await;
    for (path, body) in puts(&site).await {
        let signature = event_of(&mut body.clone())["signatures"]["b.example"].clone();
        for signatures in [
            json!({}),
            json!({ "c.example": signature }),
            json!({ "b.example": { "ed25519:sim": "A".repeat(86) } }),
        ] {
            let mut body = body.clone();
            event_of(&mut body)["signatures"] = signatures.clone();
            let answer = site.put(site.b(), &path, body).await;
            assert_eq!(answer.status, 403, "{path} with {signatures}: {}", answer.body);
            assert_eq!(answer.body["errcode"], "M_FORBIDDEN");
        }
        let answer = site.put(site.c(), &path, body).await;
        assert!(matches!(answer.status, 400 | 403), "{path}: {}", answer.body);
        assert!(matches!(answer.body["errcode"].as_str(), Some("M_FORBIDDEN" | "M_INVALID_PARAM")));
    }
    let bob = site.b().user("bob");
    assert_eq!(site.a().in_state(&bob, &site.room), None);
    let signed = site.a().store.reader().scan::<tables::SigningJournal>(()).collect().unwrap();
    assert!(signed.iter().all(|(_, line)| line.purpose != "invite"), "nothing was co-signed");
}
