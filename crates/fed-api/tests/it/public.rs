//! What anyone may ask.

use exeunt_core::{VerifyKey, ruma::server_name};
use exeunt_fed_api::Options;
use serde_json::json;

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

#[actix_web::test]
async fn version_and_well_known() {
    let options = Options {
        server_version: "1.2.3".into(),
        well_known_server: Some("matrix.a.example:443".into()),
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
