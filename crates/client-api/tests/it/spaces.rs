use actix_web::http::Method;
use exeunt_room::RemoteError;
use serde_json::{Value, json};

use crate::common::{Client, Server, escape};

/// A space, public unless the body says otherwise.
async fn space(client: &Client<'_>, body: Value) -> String {
    let mut room = json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } });
    room.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    client.create_room(room).await
}

async fn link(client: &Client<'_>, space: &str, child: &str, content: Value) {
    let path = format!("/rooms/{}/state/m.space.child/{}", escape(space), escape(child));
    client.put(&path, content).await.ok();
}

fn hierarchy(room: &str, query: &str) -> String {
    format!("/_matrix/client/v1/rooms/{}/hierarchy{query}", escape(room))
}

fn ids(page: &Value) -> Vec<&str> {
    let rooms = page["rooms"].as_array().unwrap();
    rooms.iter().map(|room| room["room_id"].as_str().unwrap()).collect()
}

fn via() -> Value {
    json!({ "via": ["example.org"] })
}

/// A room, then what is below it, in the order of the children; loops end.
#[actix_web::test]
async fn a_tree_is_walked_depth_first_and_in_pages() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let root = space(&ann, json!({ "name": "Root" })).await;
    let inner = space(&ann, json!({})).await;
    let (one, two, three) =
        (ann.public_room().await, ann.public_room().await, ann.public_room().await);
    // By `order`, though the clock stands still.
    for (child, order) in [(&two, "c"), (&inner, "b"), (&one, "a")] {
        let suggested = *order == *"b";
        let content = json!({ "via": ["example.org"], "order": order, "suggested": suggested });
        link(&ann, &root, child, content).await;
    }
    link(&ann, &inner, &three, via()).await;
    link(&ann, &inner, &root, via()).await;
    // No space: what it names is nothing.
    link(&ann, &two, &three, via()).await;

    let whole = ann.get(&hierarchy(&root, "")).await.ok();
    assert_eq!(ids(&whole), [&root, &one, &inner, &three, &two]);
    assert_eq!(whole.get("next_batch"), None);
    let first = &whole["rooms"][0];
    assert_eq!((&first["name"], &first["room_type"]), (&json!("Root"), &json!("m.space")));
    let children: Vec<_> = first["children_state"].as_array().unwrap().iter().collect();
    assert_eq!(children[0]["state_key"], one);
    let mut keys: Vec<_> = children[0].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["content", "origin_server_ts", "sender", "state_key", "type"]);
    assert_eq!(whole["rooms"][4]["children_state"], json!([]));

    let near = ann.get(&hierarchy(&root, "?max_depth=1")).await.ok();
    assert_eq!(ids(&near), [&root, &one, &inner, &two]);
    assert_eq!(near["rooms"][2]["children_state"].as_array().unwrap().len(), 2);
    assert_eq!(ids(&ann.get(&hierarchy(&root, "?max_depth=0")).await.ok()), [&root]);
    let suggested = ann.get(&hierarchy(&root, "?suggested_only=true")).await.ok();
    assert_eq!(ids(&suggested), [&root, &inner]);

    let page = ann.get(&hierarchy(&root, "?limit=2&max_depth=2")).await.ok();
    assert_eq!(ids(&page), [&root, &one]);
    let from = page["next_batch"].as_str().unwrap();
    // What changes meanwhile is for the next walk, and a page can be asked for again.
    link(&ann, &root, &two, json!({})).await;
    for query in [format!("?limit=2&from={from}"), format!("?limit=2&max_depth=2&from={from}")] {
        let page = ann.get(&hierarchy(&root, &query)).await.ok();
        assert_eq!(ids(&page), [&inner, &three]);
        let from = page["next_batch"].as_str().unwrap();
        let last = ann.get(&hierarchy(&root, &format!("?from={from}"))).await.ok();
        assert_eq!((ids(&last), last.get("next_batch")), (vec![&*two], None));
    }
    let bob = server.user("bob").await;
    for (client, room, query) in [
        (&ann, &root, format!("?max_depth=1&from={from}")),
        (&ann, &root, format!("?suggested_only=true&from={from}")),
        (&ann, &inner, format!("?from={from}")),
        (&bob, &root, format!("?from={from}")),
        (&ann, &root, "?from=h1".into()),
        (&ann, &root, "?from=nonsense".into()),
        (&ann, &root, "?limit=0".into()),
        (&ann, &root, "?limit=-1".into()),
        (&ann, &root, "?suggested_only=maybe".into()),
    ] {
        client.get(&hierarchy(room, &query)).await.fails(400, "M_INVALID_PARAM");
    }
    server.anyone().get(&hierarchy(&root, "")).await.fails(401, "M_MISSING_TOKEN");
}

/// What may be shown to whom: members, invited users, those who could join, knock or peek.
#[actix_web::test]
async fn a_private_room_is_shown_to_nobody_else() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let root = space(&ann, json!({})).await;
    let with_rule = async |version: &str, rule: Value| {
        let rule = json!({ "type": "m.room.join_rules", "content": rule });
        ann.create_room(json!({ "room_version": version, "initial_state": [rule] })).await
    };
    let allow = json!([{ "type": "m.room_membership", "room_id": root }]);
    let private = with_rule("12", json!({ "join_rule": "invite" })).await;
    let knock = with_rule("12", json!({ "join_rule": "knock" })).await;
    let restricted = with_rule("12", json!({ "join_rule": "restricted", "allow": allow })).await;
    // A rule that the version does not know lets nobody in.
    let old = with_rule("6", json!({ "join_rule": "knock" })).await;
    let odd = with_rule("7", json!({ "join_rule": "restricted", "allow": allow })).await;
    let visible = json!({
        "type": "m.room.history_visibility",
        "content": { "history_visibility": "world_readable" },
    });
    let peek = ann.create_room(json!({ "initial_state": [visible] })).await;
    let all = [&private, &knock, &restricted, &old, &odd, &peek];
    for (index, room) in all.iter().enumerate() {
        let content = json!({ "via": ["example.org"], "order": index.to_string() });
        link(&ann, &root, room, content).await;
    }
    let shown = async |client: &Client<'_>| {
        let page = client.get(&hierarchy(&root, "")).await.ok();
        ids(&page)[1..].iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&ann).await.iter().collect::<Vec<_>>(), all);
    assert_eq!(shown(&bob).await, [&*knock, &*peek]);
    bob.join(&root).await;
    assert_eq!(shown(&bob).await, [&*knock, &*restricted, &*peek]);
    let invite = json!({ "user_id": bob.user });
    ann.post(&format!("/rooms/{}/invite", escape(&private)), invite.clone()).await.ok();
    ann.post(&format!("/rooms/{}/ban", escape(&knock)), invite.clone()).await.ok();
    ann.post(&format!("/rooms/{}/ban", escape(&peek)), invite).await.ok();
    assert_eq!(shown(&bob).await, [&*private, &*restricted, &*peek]);

    let refused = bob.get(&hierarchy(&old, "")).await;
    refused.fails(403, "M_FORBIDDEN");
    bob.get(&hierarchy("!none:example.org", "")).await.fails(403, "M_FORBIDDEN");
}

#[actix_web::test]
async fn a_summary_says_what_the_room_is() {
    let server = Server::new();
    let (ann, bob) = (server.user("ann").await, server.user("bob").await);
    let root = space(&ann, json!({ "room_alias_name": "root" })).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": root }, { "type": "other" }]);
    let rule = json!({ "join_rule": "restricted", "allow": allow });
    let club = ann
        .create_room(json!({
            "room_version": "8",
            "name": "Club",
            "initial_state": [
                { "type": "m.room.join_rules", "content": rule },
                { "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
            ],
        }))
        .await;
    let expected = json!({
        "room_id": club,
        "name": "Club",
        "num_joined_members": 1,
        "world_readable": false,
        "guest_can_join": true,
        "join_rule": "restricted",
        "allowed_room_ids": [root],
        "encryption": "m.megolm.v1.aes-sha2",
        "room_version": "8",
        "membership": "join",
    });
    for path in [
        format!("/_matrix/client/v1/room_summary/{}", escape(&club)),
        format!("/_matrix/client/unstable/im.nheko.summary/summary/{}", escape(&club)),
        format!("/_matrix/client/unstable/im.nheko.summary/rooms/{}/summary", escape(&club)),
    ] {
        assert_eq!(ann.get(&path).await.ok(), expected);
        bob.get(&path).await.fails(404, "M_NOT_FOUND");
        server.anyone().get(&path).await.fails(404, "M_NOT_FOUND");
        server.bearer(Some("x")).get(&path).await.fails(401, "M_UNKNOWN_TOKEN");
    }
    let path = "/_matrix/client/v1/room_summary/%23root:example.org";
    let summary = server.anyone().get(path).await.ok();
    assert_eq!((&summary["room_id"], summary.get("membership")), (&json!(root), None));
    assert_eq!(summary.get("allowed_room_ids"), None);
    assert_eq!(bob.get(path).await.ok()["membership"], "leave");
    ann.get("/_matrix/client/v1/room_summary/nonsense").await.fails(400, "M_INVALID_PARAM");
    let unknown = "/_matrix/client/v1/room_summary/%23none:example.org";
    ann.get(unknown).await.fails(404, "M_NOT_FOUND");
}

/// GHSA-95fh-hv8c-chvq: whatever another server says of a room, it is not found, or not shown.
#[actix_web::test]
async fn another_servers_failure_hides_a_room() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let root = space(&ann, json!({})).await;
    link(&ann, &root, "!far:else.org", json!({ "via": ["else.org", "a.example"] })).await;
    let unauthorised = || RemoteError::Refused {
        status: 401,
        errcode: "M_UNKNOWN_TOKEN".into(),
        message: "no".into(),
    };
    for failure in [unauthorised(), RemoteError::Misbehaved("not JSON".into())] {
        server.others_fail_with(failure);
        assert_eq!(ids(&ann.get(&hierarchy(&root, "")).await.ok()), [&root]);
        ann.get(&hierarchy("!far:else.org", "")).await.fails(403, "M_FORBIDDEN");
        let path = "/_matrix/client/v1/room_summary/!far:else.org?via=else.org";
        ann.get(path).await.fails(404, "M_NOT_FOUND");
        ann.get(&format!("{path}&via=no%20name")).await.fails(400, "M_INVALID_PARAM");
        for via in ["via", "org.matrix.msc4235.via"] {
            let path = hierarchy("!far:else.org", &format!("?{via}=no%20name"));
            ann.get(&path).await.fails(400, "M_INVALID_PARAM");
        }
        // Nobody makes us ask others but our users.
        server.anyone().get(path).await.fails(404, "M_NOT_FOUND");
        let alias = "/_matrix/client/v1/room_summary/%23a:else.org";
        server.anyone().get(alias).await.fails(401, "M_MISSING_TOKEN");
    }
    let wrong = ann.send(Method::POST, &hierarchy(&root, ""), Some(json!({}))).await;
    wrong.fails(405, "M_UNRECOGNIZED");
}
