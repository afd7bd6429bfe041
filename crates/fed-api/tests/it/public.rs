//! What anyone may ask.

use exeunt_core::{Object, VerifyKey, ruma::server_name};
use exeunt_fed_api::Options;
use exeunt_room::{MAX_NOTARY_SERVERS, RemoteError};
use exeunt_sim::{Fault, Server};
use serde_json::{Value, json};

use crate::common::{plain, site, site_with};

#[actix_web::test]
async fn the_key_document_is_signed_and_valid_for_a_week() {
    let site = site().await;
    let answer = site.send(plain("GET", "/_matrix/key/v2/server", None)).await.ok();
    assert_eq!(answer["server_name"], "a.example");
    assert_eq!(answer["old_verify_keys"], json!({}));
    let week = 7 * 24 * 60 * 60 * 1000;
    let left = answer["valid_until_ts"].as_u64().unwrap() - site.mesh.clock.now();
    assert!(week - 1000 < left && left <= week);
    let key = answer["verify_keys"]["ed25519:sim"]["key"].as_str().unwrap();
    let key = VerifyKey::from_base64(key).unwrap();
    let name = server_name!("a.example").as_str();
    let signature = answer["signatures"][name]["ed25519:sim"].as_str().unwrap();
    assert!(key.verifies(answer.as_object().unwrap(), signature));
}

/// Whether `by` signed the document, by the key that its own document lists.
fn is_signed_by(document: &Value, by: &Server) -> bool {
    let own = by.rooms.key_document(0);
    let key = own["verify_keys"]["ed25519:sim"]["key"].as_str().unwrap();
    let signature = document["signatures"][by.name.as_str()]["ed25519:sim"].as_str().unwrap();
    VerifyKey::from_base64(key).unwrap().verifies(document.as_object().unwrap(), signature)
}

#[actix_web::test]
async fn a_notary_signs_the_keys_of_others() {
    let site = site().await;
    let query = async |path: &str| {
        let path = format!("/_matrix/key/v2/query{path}");
        site.send(plain("GET", &path, None)).await
    };
    let found = query("/b.example").await.ok();
    let [document] = &found["server_keys"].as_array().unwrap()[..] else { panic!("{found}") };
    assert_eq!(document["server_name"], "b.example");
    assert!(is_signed_by(document, site.a()) && is_signed_by(document, site.b()));
    // Of ourselves there is one signature.
    let own = query("/a.example?minimum_valid_until_ts=1").await.ok();
    let own = &own["server_keys"][0];
    assert!(is_signed_by(own, site.a()) && own["signatures"].as_object().unwrap().len() == 1);
    assert_eq!(query("/unknown.example").await.ok(), json!({ "server_keys": [] }));
    query("/b.example?minimum_valid_until_ts=x").await.expect(400, "M_INVALID_PARAM");
    query("/b%20example").await.expect(400, "M_INVALID_PARAM");
    site.send(plain("PUT", "/_matrix/key/v2/query", None)).await.expect(405, "M_UNRECOGNIZED");
}

#[actix_web::test]
async fn a_notary_is_asked_about_many() {
    let site = site().await;
    let query =
        async |body: Value| site.send(plain("POST", "/_matrix/key/v2/query", Some(&body))).await;
    let body = json!({ "server_keys": {
        "a.example": {},
        "b.example": { "ed25519:sim": { "minimum_valid_until_ts": 1 } },
        "c.example": { "ed25519:other": {} },
        "unknown.example": {},
    } });
    let found = query(body).await.ok();
    let found = found["server_keys"].as_array().unwrap();
    let names: Vec<_> = found.iter().map(|d| d["server_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a.example", "b.example", "c.example"]);
    assert!(found.iter().all(|document| is_signed_by(document, site.a())));
    assert!(is_signed_by(&found[1], site.b()) && is_signed_by(&found[2], site.c()));
    assert_eq!(query(json!({ "server_keys": {} })).await.ok(), json!({ "server_keys": [] }));
    query(json!({})).await.expect(400, "M_BAD_JSON");
    query(json!({ "server_keys": { "not a name": {} } })).await.expect(400, "M_BAD_JSON");
    let many: Object =
        (0..=MAX_NOTARY_SERVERS).map(|i| (format!("s{i}.example"), json!({}))).collect();
    query(json!({ "server_keys": many })).await.expect(400, "M_INVALID_PARAM");
}

/// A server that went away is vouched for by what it said before; one that never spoke is not.
#[actix_web::test]
async fn a_notary_remembers() {
    let site = site().await;
    let path = "/_matrix/key/v2/query/b.example?minimum_valid_until_ts=99999999999999";
    let first = site.send(plain("GET", path, None)).await.ok();
    let down = || Fault::Answer(RemoteError::Unreachable("down".into()));
    site.mesh.net.fail_next(&site.b().name, "keys", down());
    site.mesh.clock.advance(3_600_000);
    assert_eq!(site.send(plain("GET", path, None)).await.ok(), first);
    site.mesh.net.fail_next(&site.c().name, "keys", down());
    let other = "/_matrix/key/v2/query/c.example";
    assert_eq!(site.send(plain("GET", other, None)).await.ok()["server_keys"], json!([]));
    site.mesh.clock.advance(3_600_000);
    let found = site.send(plain("GET", other, None)).await.ok();
    assert_eq!(found["server_keys"][0]["server_name"], "c.example");
}

#[actix_web::test]
async fn version_and_well_known() {
    let options = Options {
        server_version: "1.2.3".into(),
        well_known_server: Some("matrix.a.example:443".into()),
        ..Options::default()
    };
    let site = site_with(options).await;
    let version = site.send(plain("GET", "/_matrix/federation/v1/version", None)).await.ok();
    assert_eq!(version, json!({ "server": { "name": "Exeunt", "version": "1.2.3" } }));
    let well_known = site.send(plain("GET", "/.well-known/matrix/server", None)).await.ok();
    assert_eq!(well_known, json!({ "m.server": "matrix.a.example:443" }));
    let site = self::site().await;
    let well_known = site.send(plain("GET", "/.well-known/matrix/server", None)).await;
    well_known.expect(404, "M_NOT_FOUND");
}
