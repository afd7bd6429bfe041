//! X-Matrix: who is let in, and who is not.

use exeunt_core::{encoding, request_object, request_text, ruma::server_name};
use ring::signature::Ed25519KeyPair;
use serde_json::json;

use crate::common::{header, object, plain, signed, site};

const PATH: &str = "/_matrix/federation/v1/query/profile?user_id=%40ann%3Aa.example";

#[actix_web::test]
async fn a_signed_request_is_served_and_shows_life() {
    let site = site().await;
    site.get(site.b(), PATH).await.ok();
    assert_eq!(*site.alive.lock().unwrap(), ["b.example"]);
}

#[actix_web::test]
async fn what_is_wrong_with_a_signature_is_401() {
    let site = site().await;
    let (b, c) = (site.b(), site.c());
    let right = header(b, object(b, "GET", PATH, None));
    let other = |header: String| plain("GET", PATH, None).insert_header(("Authorization", header));
    let requests = [
        plain("GET", PATH, None),
        other("Bearer token".into()),
        other("X-Matrix".into()),
        // Of another path, method, body, server or key.
        other(header(b, object(b, "GET", &PATH.replace("ann", "bob"), None))),
        other(header(b, object(b, "PUT", PATH, None))),
        other(header(b, object(b, "GET", PATH, Some(&json!({}))))),
        other(header(c, object(b, "GET", PATH, None)).replace("c.example", "b.example")),
        other(right.replace("ed25519:sim", "ed25519:other")),
        other(right.replace("b.example", "nowhere.example")),
        other(right.replace("sig=\"", "sig=\"AAAA")),
        // Not for us, though the signature holds.
        other(header(b, request_object("GET", PATH, &b.name, Some(&c.name), None))),
        // As if from ourselves.
        signed(site.a(), "GET", PATH, None),
    ];
    for (index, request) in requests.into_iter().enumerate() {
        let answer = site.send(request).await;
        assert_eq!(answer.status, 401, "request {index}: {}", answer.body);
        answer.expect(401, "M_UNAUTHORIZED");
    }
    assert!(site.alive.lock().unwrap().is_empty());
}

/// Servers from before specification 1.3 name no destination.
#[actix_web::test]
async fn a_destination_may_be_absent() {
    let site = site().await;
    let b = site.b();
    let header = header(b, request_object("GET", PATH, &b.name, None, None));
    let request = plain("GET", PATH, None).insert_header(("Authorization", header));
    site.send(request).await.ok();
}

#[actix_web::test]
async fn the_body_is_signed_too() {
    let site = site().await;
    let b = site.b();
    let path = "/_matrix/federation/v1/send/1";
    let body = json!({ "pdus": [], "edus": [] });
    assert_eq!(site.put(b, path, body.clone()).await.ok(), json!({ "pdus": {} }));
    let header = header(b, object(b, "PUT", path, Some(&body)));
    let swapped = json!({ "pdus": [{}] });
    let request =
        plain("PUT", path, Some(&swapped)).insert_header(("Authorization", header.clone()));
    site.send(request).await.expect(401, "M_UNAUTHORIZED");
    let request =
        plain("PUT", path, None).insert_header(("Authorization", header)).set_payload("{");
    site.send(request).await.expect(400, "M_NOT_JSON");
}

#[actix_web::test]
async fn a_server_without_keys_is_401() {
    let site = site().await;
    site.mesh.net.cut(server_name!("a.example"), server_name!("b.example"));
    site.get(site.b(), PATH).await.expect(401, "M_UNAUTHORIZED");
}

/// What is signed is the text: no integer is too large for it, be it in an EDU or in an old room.
#[actix_web::test]
async fn integers_are_verified_in_full() {
    let site = site().await;
    let b = site.b();
    let path = "/_matrix/federation/v1/send/1";
    let content =
        r#"{"edus":[{"content":{"n":123456789012345678901234567890},"edu_type":"x"}],"pdus":[]}"#;
    let text = request_text("PUT", path, &b.name, Some(&site.a().name), Some(content));
    // The second server of the mesh has the seed 2.
    let pair = Ed25519KeyPair::from_seed_unchecked(&[2; 32]).unwrap();
    let signature = encoding::to_base64(pair.sign(text.as_bytes()).as_ref());
    let header = format!(
        "X-Matrix origin=\"b.example\",destination=\"a.example\",key=\"ed25519:sim\",sig=\"{signature}\""
    );
    let send = |body: String| {
        plain("PUT", path, None).insert_header(("Authorization", header.clone())).set_payload(body)
    };
    site.send(send(content.replace("890}", "891}"))).await.expect(401, "M_UNAUTHORIZED");
    site.send(send(content.replace(":", " : "))).await.ok();
}
