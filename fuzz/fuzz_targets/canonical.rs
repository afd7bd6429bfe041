//! Canonical JSON: a fixed point, and the same as ruma's wherever that accepts the value.

#![no_main]

use exeunt_core::ruma::CanonicalJsonValue;
use exeunt_core::{Object, canonical};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(object) = serde_json::from_slice::<Object>(data) else {
        return;
    };
    let ours = canonical::encode(&object);
    let again: Object = serde_json::from_str(&ours).expect("canonical JSON is JSON");
    assert_eq!(canonical::encode(&again), ours);

    let theirs = CanonicalJsonValue::try_from(Value::Object(object.clone()));
    assert_eq!(canonical::check_object(&object).is_ok(), theirs.is_ok());
    if let Ok(theirs) = theirs {
        assert_eq!(again, object);
        assert_eq!(theirs.to_string(), ours);
    }
});
