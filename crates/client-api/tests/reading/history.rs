//! Relations, threads, dates and search, as clients ask for them.

use serde_json::{Value, json};

use crate::common::{Server, escape};

fn ids(chunk: &Value) -> Vec<Value> {
    chunk.as_array().unwrap().iter().map(|event| event["event_id"].clone()).collect()
}

#[actix_web::test]
async fn relations_and_threads() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.public_room().await;
    let send = async |txn: &str, kind: &str, content: Value| {
        let path = format!("/rooms/{}/send/{kind}/{txn}", escape(&room));
        ann.put(&path, content).await
    };
    let sent = send("1", "m.room.message", json!({ "body": "root" })).await.ok();
    let root = sent["event_id"].as_str().unwrap().to_owned();
    let relates = |rel_type: &str, key: Option<&str>| {
        let relation = json!({ "event_id": root, "rel_type": rel_type, "key": key });
        json!({ "body": "child", "m.relates_to": relation })
    };
    let reply = send("2", "m.room.message", relates("m.thread", None)).await.ok();
    let reply = reply["event_id"].clone();
    let dummy = send("3", "m.dummy", relates("m.thread", None)).await.ok()["event_id"].clone();
    let reaction = send("4", "m.reaction", relates("m.annotation", Some("+"))).await.ok();
    let reaction = reaction["event_id"].clone();
    let again = send("5", "m.reaction", relates("m.annotation", Some("+"))).await;
    again.fails(400, "M_DUPLICATE_ANNOTATION");
    // The same request again is no second one.
    assert_eq!(
        send("4", "m.reaction", relates("m.annotation", Some("+"))).await.ok()["event_id"],
        reaction
    );
    let nested = json!({ "m.relates_to": { "event_id": reply, "rel_type": "m.thread" } });
    send("6", "m.room.message", nested).await.fails(400, "M_UNKNOWN");

    let v1 = format!("/_matrix/client/v1/rooms/{}", escape(&room));
    let at = format!("{v1}/relations/{}", escape(&root));
    let all = ann.get(&at).await.ok();
    assert_eq!(ids(&all["chunk"]), [reaction, dummy.clone(), reply.clone()]);
    assert_eq!(all.as_object().unwrap().len(), 1);
    let found = ann.get(&format!("{at}/m.thread")).await.ok();
    assert_eq!(ids(&found["chunk"]), [dummy.clone(), reply.clone()]);
    let found = ann.get(&format!("{at}/m.thread/m.room.message")).await.ok();
    assert_eq!(ids(&found["chunk"]), vec![reply.clone()]);
    let page = ann.get(&format!("{at}/m.thread?limit=1&dir=f&recurse=true")).await.ok();
    assert_eq!((ids(&page["chunk"]), &page["recursion_depth"]), (vec![reply], &json!(3)));
    let next = page["next_batch"].as_str().unwrap();
    let page = ann.get(&format!("{at}/m.thread?limit=1&dir=f&from={next}")).await.ok();
    assert_eq!((ids(&page["chunk"]), &page["prev_batch"]), (vec![dummy.clone()], &json!(next)));
    for query in ["dir=x", "limit=x", "from=x", "recurse=maybe"] {
        ann.get(&format!("{at}?{query}")).await.fails(400, "M_INVALID_PARAM");
    }
    ann.get(&format!("{v1}/relations/%24nowhere")).await.fails(404, "M_NOT_FOUND");

    let threads = ann.get(&format!("{v1}/threads?include=participated&limit=5")).await.ok();
    assert_eq!(ids(&threads["chunk"]), [json!(root)]);
    let summary = &threads["chunk"][0]["unsigned"]["m.relations"]["m.thread"];
    assert_eq!((&summary["count"], &summary["latest_event"]["event_id"]), (&json!(2), &dummy));
    for query in ["limit=0", "include=some", "from=x"] {
        ann.get(&format!("{v1}/threads?{query}")).await.fails(400, "M_INVALID_PARAM");
    }
    let bob = server.user("bob").await;
    bob.get(&at).await.fails(404, "M_NOT_FOUND");
    bob.get(&format!("{v1}/threads")).await.fails(403, "M_FORBIDDEN");
}

#[actix_web::test]
async fn the_event_at_a_date() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.public_room().await;
    let send = format!("/rooms/{}/send/m.room.message/1", escape(&room));
    let sent = ann.put(&send, json!({ "body": "hello" })).await.ok()["event_id"].clone();
    let event = format!("/rooms/{}/event/{}", escape(&room), escape(sent.as_str().unwrap()));
    let ts = ann.get(&event).await.ok()["origin_server_ts"].as_u64().unwrap();
    let at = format!("/_matrix/client/v1/rooms/{}/timestamp_to_event", escape(&room));
    let found = ann.get(&format!("{at}?ts={}&dir=b", ts + 1_000)).await.ok();
    assert_eq!(found, json!({ "event_id": sent, "origin_server_ts": ts }));
    ann.get(&format!("{at}?ts={}&dir=f", ts + 1_000)).await.fails(404, "M_NOT_FOUND");
    ann.get(&format!("{at}?ts=-5&dir=b")).await.fails(404, "M_NOT_FOUND");
    ann.get(&format!("{at}?ts=-5&dir=f")).await.ok();
    ann.get(&format!("{at}?ts=5")).await.fails(400, "M_MISSING_PARAM");
    ann.get(&format!("{at}?dir=f")).await.fails(400, "M_MISSING_PARAM");
    ann.get(&format!("{at}?ts=soon&dir=f")).await.fails(400, "M_INVALID_PARAM");
    ann.get(&format!("{at}?ts=5&dir=up")).await.fails(400, "M_INVALID_PARAM");
    server.user("bob").await.get(&format!("{at}?ts=5&dir=f")).await.fails(403, "M_FORBIDDEN");
}

#[actix_web::test]
async fn search() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let room = ann.public_room().await;
    for number in 0..3 {
        let path = format!("/rooms/{}/send/m.room.message/{number}", escape(&room));
        ann.put(&path, json!({ "body": format!("hello {number}") })).await.ok();
    }
    let criteria = json!({
        "search_term": "hello",
        "keys": ["content.body"],
        "order_by": "recent",
        "filter": { "limit": 2, "rooms": [room] },
        "event_context": { "before_limit": 1, "after_limit": 0, "include_profile": true },
        "include_state": true,
        "groupings": { "group_by": [{ "key": "room_id" }, { "key": "sender" }] },
    });
    let body = json!({ "search_categories": { "room_events": criteria } });
    let page = ann.post("/search", body.clone()).await.ok();
    let page = &page["search_categories"]["room_events"];
    assert_eq!((&page["count"], &page["highlights"]), (&json!(3), &json!(["hello"])));
    let results = page["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    assert_eq!(results[0]["result"]["content"]["body"], "hello 2");
    assert!(results[0]["rank"].as_f64().unwrap() > 0.0);
    let context = &results[0]["context"];
    assert_eq!(context["events_before"][0]["content"]["body"], "hello 1");
    assert_eq!(context["events_after"], json!([]));
    assert!(context["profile_info"].get(&ann.user).is_some());
    let found: Vec<_> = results.iter().map(|one| one["result"]["event_id"].clone()).collect();
    for (name, value) in [("room_id", &room), ("sender", &ann.user)] {
        let group = &page["groups"][name][value];
        assert_eq!(*group, json!({ "order": 1, "results": found }), "{name}");
    }
    assert!(page["state"][&room].as_array().unwrap().len() > 3);
    let next = page["next_batch"].as_str().unwrap();
    let path = format!("/search?next_batch={next}");
    let page = ann.post(&path, body.clone()).await.ok();
    let page = &page["search_categories"]["room_events"];
    assert_eq!((&page["count"], page.get("next_batch")), (&json!(3), None));
    assert_eq!(page["results"].as_array().unwrap().len(), 1);
    ann.post("/search?next_batch=x", body).await.fails(400, "M_INVALID_PARAM");
    ann.post("/search", json!({})).await.fails(400, "M_MISSING_PARAM");
    let bad = json!({ "search_categories": { "room_events": { "search_term": 1 } } });
    ann.post("/search", bad).await.fails(400, "M_BAD_JSON");
    let none = ann.post("/search", json!({ "search_categories": {} })).await.ok();
    assert_eq!(none, json!({ "search_categories": {} }));
}
