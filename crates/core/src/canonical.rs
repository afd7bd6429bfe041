//! Canonical JSON: shortest encoding, keys sorted by code point, integers within ±(2^53 − 1).
//!
//! Specification: appendices, "Canonical JSON"; strict since room version 6.

use serde_json::Value;
use thiserror::Error;

use crate::Object;

/// Largest integer that canonical JSON allows: 2^53 − 1.
pub const MAX_INT: i64 = (1 << 53) - 1;

/// A value that canonical JSON cannot express.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CanonicalError {
    #[error("a number is not an integer")]
    Float,
    #[error("an integer is outside ±(2^53 − 1)")]
    IntegerRange,
}

/// Checks that `value` holds only what strict canonical JSON allows (room versions 6 and later).
pub fn check(value: &Value) -> Result<(), CanonicalError> {
    match value {
        Value::Number(n) => match n.as_i64() {
            Some(i) if (-MAX_INT..=MAX_INT).contains(&i) => Ok(()),
            Some(_) => Err(CanonicalError::IntegerRange),
            None if n.is_u64() => Err(CanonicalError::IntegerRange),
            None => Err(CanonicalError::Float),
        },
        Value::Array(items) => items.iter().try_for_each(check),
        Value::Object(object) => check_object(object),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

/// [`check`] for an object.
pub fn check_object(object: &Object) -> Result<(), CanonicalError> {
    object.values().try_for_each(check)
}

/// The canonical encoding of an object.
///
/// Numbers that strict canonical JSON forbids are written as serde_json does; callers in room
/// versions that forbid them run [`check_object`] first.
pub fn encode(object: &Object) -> String {
    let mut out = String::with_capacity(256);
    write_object(&mut out, object);
    out
}

fn write_object(out: &mut String, object: &Object) {
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    out.push('{');
    for (i, (key, value)) in entries.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_scalar(out, key);
        out.push(':');
        write_value(out, value);
    }
    out.push('}');
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Object(object) => write_object(out, object),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::String(text) => write_scalar(out, text),
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// serde_json escapes exactly what canonical JSON asks for: `"`, `\` and the control characters.
fn write_scalar(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).expect("a string is always JSON"));
}
