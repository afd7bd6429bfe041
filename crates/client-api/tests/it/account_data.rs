//! Account data, and what it says about invites.

use serde_json::{Value, json};

use crate::common::{Client, Server, escape};

fn path(client: &Client<'_>, kind: &str) -> String {
    format!("/user/{}/account_data/{kind}", client.user)
}

async fn say(client: &Client<'_>, kind: &str, content: Value) {
    client.put(&path(client, kind), content).await.ok();
}

async fn invites(client: &Client<'_>) -> Vec<String> {
    let sync = client.get("/sync").await.ok();
    let invites = sync["rooms"]["invite"].as_object();
    invites.into_iter().flat_map(|rooms| rooms.keys().cloned()).collect()
}

#[actix_web::test]
async fn account_data_is_stored_and_synced() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    let of_room = format!("/user/{}/rooms/{}/account_data/org.example.x", ann.user, escape(&room));
    let global = path(&ann, "org.example.x");
    let since = ann.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    for (path, content) in [(&global, json!({ "a": 1 })), (&of_room, json!({ "b": [2] }))] {
        ann.get(path).await.fails(404, "M_NOT_FOUND");
        assert_eq!(ann.put(path, content.clone()).await.ok(), json!({}));
        assert_eq!(ann.get(path).await.ok(), content);
        bob.get(path).await.fails(403, "M_FORBIDDEN");
        bob.put(path, json!({})).await.fails(403, "M_FORBIDDEN");
        server.anyone().get(path).await.fails(401, "M_MISSING_TOKEN");
        ann.put(path, json!([])).await.fails(400, "M_BAD_JSON");
        assert_eq!(ann.get(path).await.ok(), content);
    }
    for sync in ["/sync".to_owned(), format!("/sync?since={since}")] {
        let sync = ann.get(&sync).await.ok();
        let global = sync["account_data"]["events"].as_array().unwrap().iter();
        let own: Vec<_> = global.filter(|event| event["type"] != "m.push_rules").collect();
        assert_eq!(own, [&json!({ "type": "org.example.x", "content": { "a": 1 } })]);
        let of_room = json!([{ "type": "org.example.x", "content": { "b": [2] } }]);
        assert_eq!(sync["rooms"]["join"][&room]["account_data"]["events"], of_room);
    }
    let bobs = bob.get("/sync").await.ok()["account_data"]["events"].to_string();
    assert!(!bobs.contains("org.example.x"), "{bobs}");
    let no_room = format!("/user/{}/rooms/tea/account_data/x", ann.user);
    ann.put(&no_room, json!({})).await.fails(400, "M_INVALID_PARAM");
    for kind in ["m.fully_read", "m.push_rules"] {
        ann.put(&path(&ann, kind), json!({})).await.fails(405, "M_BAD_JSON");
    }
    ann.put(&path(&ann, "large"), json!({ "x": "x".repeat(300_000) }))
        .await
        .fails(400, "M_TOO_LARGE");
}

/// MSC3391.
#[actix_web::test]
async fn account_data_is_deleted() {
    use actix_web::http::Method;
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    let unstable = "/_matrix/client/unstable/org.matrix.msc3391";
    let of_room = format!("/user/{}/rooms/{}/account_data/org.example.x", ann.user, escape(&room));
    for path in [path(&ann, "org.example.x"), of_room] {
        for method in [Method::PUT, Method::DELETE] {
            ann.put(&path, json!({ "a": 1 })).await.ok();
            let since = ann.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
            if method == Method::PUT {
                ann.put(&path, json!({})).await.ok();
            } else {
                bob.delete(&format!("{unstable}{path}")).await.fails(403, "M_FORBIDDEN");
                assert_eq!(ann.delete(&format!("{unstable}{path}")).await.ok(), json!({}));
            }
            ann.get(&path).await.fails(404, "M_NOT_FOUND");
            let sync = ann.get(&format!("/sync?since={since}")).await.ok().to_string();
            assert!(sync.contains(r#"{"content":{},"type":"org.example.x"}"#), "{sync}");
            let initial = ann.get("/sync").await.ok().to_string();
            assert!(!initial.contains("org.example.x"), "{initial}");
        }
    }
    let own = format!("{unstable}{}", path(&ann, "m.push_rules"));
    ann.delete(&own).await.fails(405, "M_BAD_JSON");
}

#[actix_web::test]
async fn tags() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.public_room().await;
    let all = format!("/user/{}/rooms/{}/tags", ann.user, escape(&room));
    let one = |tag: &str| format!("{all}/{}", escape(tag));
    assert_eq!(ann.get(&all).await.ok(), json!({ "tags": {} }));
    let since = ann.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    ann.put(&one("m.favourite"), json!({ "order": 0.25 })).await.ok();
    ann.put(&one("u.Work/Home"), json!({ "order": 1, "org.example.colour": "red" })).await.ok();
    ann.put(&one("u.gone"), json!({})).await.ok();
    assert_eq!(ann.delete(&one("u.gone")).await.ok(), json!({}));
    ann.delete(&one("u.gone")).await.ok();
    let tags = json!({ "tags": {
        "m.favourite": { "order": 0.25 },
        "u.Work/Home": { "order": 1, "org.example.colour": "red" },
    }});
    assert_eq!(ann.get(&all).await.ok(), tags);
    let sync = ann.get(&format!("/sync?since={since}")).await.ok();
    let told = json!([{ "type": "m.tag", "content": tags }]);
    assert_eq!(sync["rooms"]["join"][&room]["account_data"]["events"], told);

    for order in [json!(-0.1), json!(1.5)] {
        let body = json!({ "order": order });
        ann.put(&one("u.x"), body).await.fails(400, "M_INVALID_PARAM");
    }
    ann.put(&one("u.x"), json!({ "order": "0.5" })).await.fails(400, "M_BAD_JSON");
    ann.put(&one(&"x".repeat(256)), json!({})).await.fails(400, "M_INVALID_PARAM");
    bob.get(&all).await.fails(403, "M_FORBIDDEN");
    bob.put(&one("u.x"), json!({})).await.fails(403, "M_FORBIDDEN");
    bob.delete(&one("m.favourite")).await.fails(403, "M_FORBIDDEN");
    assert_eq!(ann.get(&all).await.ok(), tags);
}

/// IN5: refused to everyone who invites, by every endpoint; a new room comes without the invite.
#[actix_web::test]
async fn a_user_who_takes_no_invites() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let room = ann.create_room(json!({})).await;
    let shown = ann.create_room(json!({ "invite": [bob.user] })).await;
    assert!(invites(&bob).await.iter().eq([&shown]));
    say(&bob, "m.invite_permission_config", json!({ "default_action": "block" })).await;
    let body = json!({ "user_id": bob.user });
    let invite = format!("/rooms/{}/invite", escape(&room));
    ann.post(&invite, body.clone()).await.fails(403, "M_INVITE_BLOCKED");
    let state = format!("/rooms/{}/state/m.room.member/{}", escape(&room), bob.user);
    ann.put(&state, json!({ "membership": "invite" })).await.fails(403, "M_INVITE_BLOCKED");
    assert_eq!(ann.membership(&room, &bob.user).await, None);
    let without = ann.create_room(json!({ "invite": [bob.user] })).await;
    assert_eq!(ann.membership(&without, &bob.user).await, None);
    // The one that was there is hidden, and can be rejected.
    assert!(invites(&bob).await.is_empty());
    // Bob's own invites go out.
    let bobs = bob.create_room(json!({ "invite": [ann.user] })).await;
    assert_eq!(ann.membership(&bobs, &ann.user).await.as_deref(), Some("invite"));
    say(&bob, "m.invite_permission_config", json!({})).await;
    ann.post(&invite, body).await.ok();
    let mut both = [room, shown];
    both.sort();
    assert_eq!(invites(&bob).await, both);
}

/// IN12: the invites of ignored users are there, not shown, and can be rejected.
#[actix_web::test]
async fn invites_of_ignored_users_are_not_shown() {
    for (kind, content) in [
        ("m.ignored_user_list", json!({ "ignored_users": { "@ann:example.org": {} } })),
        (
            "org.matrix.msc4155.invite_permission_config",
            json!({ "ignored_users": ["@an?:example.*"], "blocked_users": null }),
        ),
    ] {
        let server = Server::new();
        let (ann, bob) = (server.user("ann").await, server.user("bob").await);
        let cat = server.user("cat").await;
        say(&bob, kind, content).await;
        let since = bob.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
        let anns = ann.create_room(json!({ "invite": [bob.user] })).await;
        let cats = cat.create_room(json!({ "invite": [bob.user] })).await;
        assert_eq!(ann.membership(&anns, &bob.user).await.as_deref(), Some("invite"));
        assert!(invites(&bob).await.iter().eq([&cats]));
        let news = bob.get(&format!("/sync?since={since}")).await.ok();
        assert_eq!(news["rooms"]["invite"].as_object().unwrap().len(), 1);
        bob.post(&format!("/rooms/{}/leave", escape(&anns)), json!({})).await.ok();
        assert_eq!(ann.membership(&anns, &bob.user).await.as_deref(), Some("leave"));
    }
}

/// MSC4155: by users and servers.
#[actix_web::test]
async fn filtered_invites() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let cat = server.user("cat").await;
    let content = json!({ "allowed_users": [cat.user], "blocked_servers": ["example.*"] });
    say(&bob, "org.matrix.msc4155.invite_permission_config", content).await;
    for (client, blocked) in [(&ann, true), (&cat, false)] {
        let room = client.create_room(json!({})).await;
        let invite = format!("/rooms/{}/invite", escape(&room));
        let answer = client.post(&invite, json!({ "user_id": bob.user })).await;
        match blocked {
            true => drop(answer.fails(403, "M_INVITE_BLOCKED")),
            false => drop(answer.ok()),
        }
    }
}
