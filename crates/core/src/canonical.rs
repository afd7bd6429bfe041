//! Canonical JSON: shortest encoding, keys sorted by code point, integers within ±(2^53 − 1).
//!
//! Specification: appendices, "Canonical JSON"; strict since room version 6.

use std::fmt::Write as _;

use serde_json::{Number, Value};
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
    #[error("an integer beyond 64 bits, so that the signature cannot be verified")]
    LostInteger,
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
/// Numbers that strict canonical JSON forbids (callers in room versions that forbid them run
/// [`check_object`] first) are written as Synapse writes them, for whatever it sends must hash the
/// same here: floats as Python does, integers of up to 64 bits in full. Two spellings are lost when
/// the JSON is read, before this: an integer beyond 64 bits is a float from then on, and `-0` is
/// `-0.0`. The hashes of such an event do not hold here, so it is redacted or refused (decision
/// 0011). What is verified as text is not concerned, see [`text`](crate::text).
pub fn encode(object: &Object) -> String {
    encode_without(object, &[])
}

/// The canonical encoding of any value.
pub fn encode_value(value: &Value) -> String {
    let mut out = String::with_capacity(1024);
    write_value(&mut out, value);
    out
}

/// [`encode`] without some of the object's own keys.
pub(crate) fn encode_without(object: &Object, without: &[&str]) -> String {
    let mut out = String::with_capacity(1024);
    write_object(&mut out, object, without);
    out
}

/// Whether a number may have been an integer beyond 64 bits, so that its digits are lost.
pub fn has_lost_integer(value: &Value) -> bool {
    match value {
        Value::Number(n) => {
            n.is_f64() && n.as_f64().is_some_and(|float| float.abs() >= i64::MAX as f64)
        }
        Value::Array(items) => items.iter().any(has_lost_integer),
        Value::Object(object) => object.values().any(has_lost_integer),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

fn write_object(out: &mut String, object: &Object, without: &[&str]) {
    let kept = object.iter().filter(|(key, _)| !without.contains(&key.as_str()));
    // They are sorted already, unless some crate has switched that off for serde_json.
    if object.keys().is_sorted() {
        return write_entries(out, kept);
    }
    let mut entries: Vec<_> = kept.collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    write_entries(out, entries.into_iter());
}

fn write_entries<'a>(out: &mut String, entries: impl Iterator<Item = (&'a String, &'a Value)>) {
    out.push('{');
    for (i, (key, value)) in entries.enumerate() {
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
        Value::Object(object) => write_object(out, object, &[]),
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
        Value::Number(n) if n.is_f64() => write_float(out, n),
        scalar => write!(out, "{scalar}").expect("a string takes it"),
    }
}

/// Shortest digits that give the same float back, with an exponent of at least two digits below
/// 10^-4 and from 10^16 on: Python's `repr`.
pub(crate) fn write_float(out: &mut String, number: &Number) {
    let float = number.as_f64().expect("is_f64 said so");
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').expect("written with an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is an integer");
    if float == 0.0 || (-4..16).contains(&exponent) {
        out.push_str(&format!("{float:?}"));
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        out.push_str(&format!("{digits}e{sign}{:02}", exponent.abs()));
    }
}

/// serde_json escapes exactly what canonical JSON asks for: `"`, `\` and the control characters.
pub(crate) fn write_scalar(out: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        out.push_str(&serde_json::to_string(text).expect("a string is always JSON"));
        return;
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}
