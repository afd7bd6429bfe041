//! `event_fields`: which parts of an event a client wants. Specification: client-server API,
//! "POST /user/{userId}/filter".

use serde::Deserialize;
use serde_json::{Map, Value};

/// The way to a field: names parted by dots. A backslash takes the meaning from a dot or from
/// another backslash.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct FieldPath(Vec<String>);

impl From<String> for FieldPath {
    fn from(text: String) -> Self {
        let mut path = vec![String::new()];
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            let escaped = match c {
                '\\' => rest.next_if(|next| matches!(next, '.' | '\\')),
                _ => None,
            };
            match (c, path.last_mut()) {
                ('.', _) => path.push(String::new()),
                (c, Some(name)) => name.push(escaped.unwrap_or(c)),
                (_, None) => {}
            }
        }
        Self(path)
    }
}

impl FieldPath {
    /// The parts of an event that any of the paths leads to.
    pub fn pick(paths: &[Self], event: &Value) -> Value {
        let mut picked = Value::Object(Map::new());
        for Self(path) in paths {
            let found = path.iter().try_fold(event, |value, name| value.as_object()?.get(name));
            if let Some(found) = found {
                let place = path.iter().fold(&mut picked, |value, name| &mut value[name.as_str()]);
                *place = found.clone();
            }
        }
        picked
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_picked() {
        let event = json!({
            "type": "m.x", "sender": "@a:x",
            "content": { "body": "hi", "a.b": { "c\\d": 1, "e": 2 }, "list": [1] },
        });
        for (paths, expected) in [
            (vec![], json!({})),
            (vec!["type", "absent", "content.absent.x"], json!({ "type": "m.x" })),
            (vec!["content.body"], json!({ "content": { "body": "hi" } })),
            (vec!["content.body", "content"], json!({ "content": event["content"] })),
            (vec!["content", "content.body"], json!({ "content": event["content"] })),
            (vec![r"content.a\.b.c\\d"], json!({ "content": { "a.b": { "c\\d": 1 } } })),
            (vec![r"content.a\.b.c\d"], json!({ "content": { "a.b": { "c\\d": 1 } } })),
            (vec!["content.list.0", "sender.x", ""], json!({})),
        ] {
            let paths: Vec<_> = paths.into_iter().map(|p| FieldPath::from(p.to_owned())).collect();
            assert_eq!(FieldPath::pick(&paths, &event), expected, "{paths:?}");
        }
    }
}
