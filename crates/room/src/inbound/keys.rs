//! The document of our keys.
//!
//! Specification: server-server API, "Publishing Keys".

use exeunt_core::Object;
use serde_json::json;

use crate::Rooms;

/// How long others may trust the document.
pub const KEY_VALIDITY_MS: u64 = 7 * 24 * 60 * 60 * 1000;

impl Rooms {
    /// The document of `GET key/v2/server`, signed.
    pub fn key_document(&self, now: u64) -> Object {
        let signer = self.signer();
        let mut document = Object::new();
        let mut put = |key: &str, value| document.insert(key.into(), value);
        put("server_name", json!(signer.server()));
        put("valid_until_ts", json!(now + KEY_VALIDITY_MS));
        put("verify_keys", json!({ signer.key_id(): { "key": signer.public() } }));
        put("old_verify_keys", json!({}));
        signer.sign_object(&mut document);
        document
    }
}
