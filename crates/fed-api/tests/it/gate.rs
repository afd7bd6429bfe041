//! Every route about one room passes the ACL gate: spec-map 4.10. A new route is in the walk as
//! soon as it is declared.

use std::collections::BTreeSet;

use serde_json::json;

use crate::common::{signed, site};

/// What stands for an argument in the walk.
fn argument(name: &str, room: &str) -> String {
    match name {
        "{room_id}" => room.replace('!', "%21"),
        "{event_id}" => format!("%24{}", "A".repeat(43)),
        "{user_id}" => "%40cat%3Ac.example".into(),
        "{txn_id}" => "1".into(),
        "{server_name}" => "b.example".into(),
        other => panic!("say whether {other} is about a room, and what stands for it here"),
    }
}

/// What is behind the ACL: the routes that the specification lists, as far as they are served, and
/// three more that are about a room (decision 0037).
const PROTECTED: [&str; 18] = [
    "GET /_matrix/federation/v1/backfill/",
    "GET /_matrix/federation/v1/event_auth/",
    "GET /_matrix/federation/v1/hierarchy/",
    "GET /_matrix/federation/v1/make_join/",
    "GET /_matrix/federation/v1/make_knock/",
    "GET /_matrix/federation/v1/make_leave/",
    "GET /_matrix/federation/v1/state/",
    "GET /_matrix/federation/v1/state_ids/",
    "GET /_matrix/federation/v1/timestamp_to_event/",
    "POST /_matrix/federation/v1/get_missing_events/",
    "PUT /_matrix/federation/v1/exchange_third_party_invite/",
    "PUT /_matrix/federation/v1/invite/",
    "PUT /_matrix/federation/v1/send_join/",
    "PUT /_matrix/federation/v1/send_leave/",
    "PUT /_matrix/federation/v1/send_knock/",
    "PUT /_matrix/federation/v2/invite/",
    "PUT /_matrix/federation/v2/send_join/",
    "PUT /_matrix/federation/v2/send_leave/",
];

#[actix_web::test]
async fn every_route_about_a_room_is_closed_to_a_denied_server() {
    let site = site().await;
    let acl = json!({ "allow": ["*"], "deny": ["c.example"] });
    site.a().set(&site.ann, &site.room, "m.room.server_acl", acl).await;
    let endpoints: Vec<_> =
        site.service.endpoints().map(|(method, path)| (method.to_owned(), path)).collect();
    let mut walked = BTreeSet::new();
    for (method, template) in endpoints {
        let segments: Vec<_> = template
            .split('/')
            .map(|segment| match segment.starts_with('{') {
                true => argument(segment, site.room.as_str()),
                false => segment.to_owned(),
            })
            .collect();
        if !template.contains("{room_id}") {
            continue;
        }
        let path = segments.join("/");
        let body = (method != "GET").then(|| json!({}));
        let answer = site.send(signed(site.c(), &method, &path, body.clone())).await;
        answer.expect(403, "M_FORBIDDEN");
        assert_eq!(answer.body["error"], "Server is banned from the room", "{method} {template}");
        // A server that is not denied gets further, and nobody gets here without a signature.
        let answer = site.send(signed(site.b(), &method, &path, body.clone())).await;
        assert_ne!(answer.body["error"], "Server is banned from the room", "{method} {template}");
        let answer = site.send(crate::common::plain(&method, &path, body.as_ref())).await;
        answer.expect(401, "M_UNAUTHORIZED");
        let prefix = template.split('{').next().unwrap_or_default();
        walked.insert(format!("{method} {prefix}"));
    }
    for route in PROTECTED {
        assert!(walked.contains(route), "{route} is not declared as a route about a room");
    }
}

#[actix_web::test]
async fn no_route_hides_a_room_under_another_name() {
    let site = site().await;
    for (_, template) in site.service.endpoints() {
        let arguments: Vec<_> = template.split('/').filter(|s| s.starts_with('{')).collect();
        for argument in &arguments {
            self::argument(argument, "!r");
        }
        if arguments.contains(&"{room_id}") {
            assert_eq!(arguments[0], "{room_id}", "{template}");
        }
    }
}

/// GHSA-hgcg-p9gx-fq5f, GHSA-vh4c-pqh4-w3wq.
#[actix_web::test]
async fn paths_are_exact() {
    let site = site().await;
    let path = "/_matrix/federation/v1/version";
    site.send(crate::common::plain("POST", path, None)).await.expect(405, "M_UNRECOGNIZED");
    for path in ["/_matrix/federation/v1/nope", "/_matrix/federation/v1/version/", "//"] {
        site.send(crate::common::plain("GET", path, None)).await.expect(404, "M_UNRECOGNIZED");
    }
    let bad = "/_matrix/federation/v1/make_leave/nonsense/%40cat%3Ac.example";
    site.get(site.c(), bad).await.expect(400, "M_INVALID_PARAM");
    let room = site.room.as_str().replace('!', "%21");
    let bad = format!("/_matrix/federation/v1/make_leave/{room}/nonsense");
    site.get(site.c(), &bad).await.expect(400, "M_INVALID_PARAM");
}
