//! The admin API: who gets in, and what the reports hold.

use serde_json::json;

use crate::common::{Server, escape};

/// continuwuity 0.5.6.
#[actix_web::test]
async fn only_administrators_get_in() {
    let server = Server::new();
    let (ann, root) = (server.user("ann").await, server.admin("root").await);
    let room = format!("/_exeunt/admin/v1/rooms/{}/timeline", escape("!r:example.org"));
    let others = ["departures", "invites", "signatures"].map(|p| format!("/_exeunt/admin/v1/{p}"));
    for path in others.iter().chain([&room]) {
        server.anyone().get(path).await.fails(401, "M_MISSING_TOKEN");
        ann.get(path).await.fails(403, "M_FORBIDDEN");
        assert_eq!(root.get(path).await.ok(), json!({ "rows": [] }), "{path}");
    }
}

#[actix_web::test]
async fn the_timeline_tells_every_change() {
    let server = Server::new();
    let (ann, bob, root) =
        (server.user("ann").await, server.user("bob").await, server.admin("root").await);
    let room = ann.public_room().await;
    bob.join(&room).await;
    let kick = json!({ "user_id": bob.user, "reason": "tired" });
    ann.post(&format!("/rooms/{}/kick", escape(&room)), kick).await.ok();

    let path = format!("/_exeunt/admin/v1/rooms/{}/timeline", escape(&room));
    let all = root.get(&path).await.ok();
    let line = |row: &serde_json::Value| {
        let field = |name: &str| row[name].as_str().unwrap().to_owned();
        (field("user_id"), field("membership"), field("sender"), field("via"))
    };
    let lines: Vec<_> = all["rows"].as_array().unwrap().iter().map(line).collect();
    let expected = [
        (&ann.user, "join", &ann.user),
        (&bob.user, "join", &bob.user),
        (&bob.user, "leave", &ann.user),
    ];
    let expected = expected.map(|(user, membership, sender)| {
        (user.clone(), membership.to_owned(), sender.clone(), "local".to_owned())
    });
    assert_eq!(lines, expected);
    assert_eq!(all["rows"][2]["signed_by"], json!(["example.org"]));
    assert_eq!(all["rows"][2]["decided_by"], "the authorisation rules");

    // Page by page, and one user alone.
    let first = root.get(&format!("{path}?limit=2")).await.ok();
    assert_eq!(first["rows"].as_array().unwrap()[..], all["rows"].as_array().unwrap()[..2]);
    let rest = root.get(&format!("{path}?limit=2&from={}", first["next"])).await.ok();
    assert_eq!(rest, json!({ "rows": [all["rows"][2]] }));
    let of_bob = root.get(&format!("{path}?user_id={}", escape(&bob.user))).await.ok();
    assert_eq!(of_bob["rows"].as_array().unwrap()[..], all["rows"].as_array().unwrap()[1..]);
    root.get(&format!("{path}?from=x")).await.fails(400, "M_INVALID_PARAM");
}

#[actix_web::test]
async fn every_signature_can_be_asked_for() {
    let server = Server::new();
    let (ann, root) = (server.user("ann").await, server.admin("root").await);
    let room = ann.public_room().await;
    let sent = ann.put(&format!("/rooms/{}/send/m.room.message/1", escape(&room)), json!({})).await;
    let event_id = sent.ok()["event_id"].as_str().unwrap().to_owned();
    let path = "/_exeunt/admin/v1/signatures";
    let found = root.get(&format!("{path}?event_id={}", escape(&event_id))).await.ok();
    assert_eq!(found["rows"][0]["event_id"], *event_id);
    assert_eq!(found["rows"].as_array().unwrap().len(), 1);
    let events = root.get(&format!("{path}?purpose=event")).await.ok();
    assert_eq!(events["rows"].as_array().unwrap().last(), found["rows"].get(0));
    assert_eq!(root.get(&format!("{path}?peer=b.example")).await.ok(), json!({ "rows": [] }));
}
