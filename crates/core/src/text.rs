//! The canonical form of JSON as it came, with every integer in full.
//!
//! Python, and so Synapse, knows integers of any size, and room versions before 6 and EDUs set no
//! bound. A [`Value`](serde_json::Value) holds 64 bits: of a larger integer it keeps the nearest
//! float. What is signed as text is therefore verified as text. Decision 0011.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use thiserror::Error;

use crate::canonical;

/// Deepest nesting that is read, which is also serde_json's limit.
const MAX_DEPTH: usize = 128;

/// Why text has no canonical form.
#[derive(Debug, Error)]
pub enum TextError {
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not JSON")]
    Syntax,
    #[error("nested more than {MAX_DEPTH} deep")]
    Depth,
}

/// The canonical form of any JSON value: integers keep their digits, floats are written as
/// [`canonical::encode`] writes them.
pub fn canonical(json: &[u8]) -> Result<String, TextError> {
    // The grammar is checked here, once; what follows only takes it apart.
    let whole: &RawValue = serde_json::from_slice(json)?;
    let mut scanner = Scanner { rest: whole.get() };
    let node = scanner.value(0)?;
    let mut out = String::with_capacity(json.len());
    node.write(&mut out)?;
    Ok(out)
}

enum Node<'a> {
    Object(BTreeMap<String, Node<'a>>),
    Array(Vec<Node<'a>>),
    Text(String),
    /// A number, or one of the three names.
    Token(&'a str),
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn value(&mut self, depth: usize) -> Result<Node<'a>, TextError> {
        if depth > MAX_DEPTH {
            return Err(TextError::Depth);
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.text().map(Node::Text),
            _ => {
                let end = |c: char| matches!(c, ',' | ']' | '}') || c.is_ascii_whitespace();
                self.take(self.rest.find(end).unwrap_or(self.rest.len())).map(Node::Token)
            }
        }
    }

    /// Of a key that comes twice the last value counts, as for others.
    fn object(&mut self, depth: usize) -> Result<Node<'a>, TextError> {
        self.take(1)?;
        let mut entries = BTreeMap::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    let key = self.text()?;
                    if self.peek() != Some(b':') {
                        return Err(TextError::Syntax);
                    }
                    self.take(1)?;
                    entries.insert(key, self.value(depth + 1)?);
                }
                Some(b',') => drop(self.take(1)?),
                _ => {
                    self.take(1)?;
                    return Ok(Node::Object(entries));
                }
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Node<'a>, TextError> {
        self.take(1)?;
        let mut items = Vec::new();
        loop {
            match self.peek() {
                Some(b']') => {
                    self.take(1)?;
                    return Ok(Node::Array(items));
                }
                Some(b',') => drop(self.take(1)?),
                Some(_) => items.push(self.value(depth + 1)?),
                None => return Err(TextError::Syntax),
            }
        }
    }

    fn text(&mut self) -> Result<String, TextError> {
        let mut escaped = false;
        let inner = self.rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        let length = inner.ok_or(TextError::Syntax)? + 2;
        Ok(serde_json::from_str(self.take(length)?)?)
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.bytes().next()
    }

    fn take(&mut self, length: usize) -> Result<&'a str, TextError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(TextError::Syntax)?;
        self.rest = rest;
        Ok(taken)
    }
}

impl Node<'_> {
    fn write(&self, out: &mut String) -> Result<(), TextError> {
        match self {
            Node::Text(text) => canonical::write_scalar(out, text),
            Node::Token(token) => write_token(out, token)?,
            Node::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(out)?;
                }
                out.push(']');
            }
            Node::Object(entries) => {
                out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    canonical::write_scalar(out, key);
                    out.push(':');
                    value.write(out)?;
                }
                out.push('}');
            }
        }
        Ok(())
    }
}

fn write_token(out: &mut String, token: &str) -> Result<(), TextError> {
    let digits = token.strip_prefix('-').unwrap_or(token);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        out.push_str(token);
    } else if digits == "0" {
        out.push('0');
    } else if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        out.push_str(token);
    } else {
        canonical::write_float(out, &serde_json::from_str(token)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(canonical(text.as_bytes()).unwrap(), expected, "{text}");
    }

    #[test]
    fn integers_keep_their_digits() {
        let large = "123456789012345678901234567890";
        check(
            &format!(" {{ \"b\" : [ {large}, -{large} ] }} "),
            &format!("{{\"b\":[{large},-{large}]}}"),
        );
        check("[0, -0, 1, -1, 18446744073709551616]", "[0,0,1,-1,18446744073709551616]");
        check(
            "[1.0, 1e2, -0.0, 1E30, true,false , null]",
            "[1.0,100.0,-0.0,1e+30,true,false,null]",
        );
    }

    #[test]
    fn keys_are_sorted_and_the_last_of_two_counts() {
        check(r#"{"b":1,"a":{"d":[],"c":{}},"b":2}"#, r#"{"a":{"c":{},"d":[]},"b":2}"#);
        check(r#"{"\u0061\"\\":"\u00e4\/\n"}"#, "{\"a\\\"\\\\\":\"ä/\\n\"}");
    }

    #[test]
    fn what_is_not_json_has_no_form() {
        for text in ["", "{", "{\"a\":1,}", "[1 2]", "01", "\"\\ud800\"", "1e999", "{}{}"] {
            assert!(canonical(text.as_bytes()).is_err(), "{text}");
        }
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(canonical(deep(MAX_DEPTH).as_bytes()).is_ok());
        assert!(matches!(canonical(deep(100_000).as_bytes()), Err(TextError::Depth)));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e20f64..1e20).prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,3}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Where a value holds all there is, both ways lead to the same.
        #[test]
        fn it_is_the_canonical_form_of_the_value(value in any_json()) {
            let object = json!({ "it": value }).as_object().cloned().unwrap();
            for text in [json!(object).to_string(), serde_json::to_string_pretty(&object).unwrap()] {
                prop_assert_eq!(canonical(text.as_bytes()).unwrap(), canonical::encode(&object));
            }
        }

        #[test]
        fn any_text_has_a_form_or_an_error(text in r#"[\[\]{}",:0-9eE.\\ ntrue-]{0,20}"#) {
            let _ = canonical(text.as_bytes());
        }
    }
}
