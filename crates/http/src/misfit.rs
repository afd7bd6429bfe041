//! What a caller is told of a request that does not fit its endpoint: the value that is wrong where
//! it is an identifier, and never the name of a type of ours.

use ruma::{EventId, RoomId, RoomOrAliasId, ServerName, UserId};
use serde_json::Value;

use crate::{MatrixError, RawCall};

/// Of an identifier's name in a path or body: what it should be, and whether it is.
type Kind = (&'static str, fn(&str) -> bool);

fn kind_of(name: &str) -> Option<Kind> {
    Some(match name {
        "user_id" | "invite" | "additional_creators" => {
            ("a user id", |text| <&UserId>::try_from(text).is_ok())
        }
        "room_id" => ("a room id", |text| <&RoomId>::try_from(text).is_ok()),
        "room_id_or_alias" => {
            ("a room id or alias", |text| <&RoomOrAliasId>::try_from(text).is_ok())
        }
        "event_id" | "m.fully_read" | "m.read" | "m.read.private" => {
            ("an event id", |text| <&EventId>::try_from(text).is_ok())
        }
        "server_name" => ("a server name", |text| <&ServerName>::try_from(text).is_ok()),
        _ => return None,
    })
}

/// The first identifier of the path, or of the body's own fields, that is none.
pub(crate) fn wrong_id(call: &RawCall) -> Option<MatrixError> {
    let names = call.head.template.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?;
        name.strip_suffix('}')
    });
    for (name, text) in names.zip(&call.args) {
        if let Some(error) = check(name, text) {
            return Some(error);
        }
    }
    let body: Value = serde_json::from_slice(&call.body).ok()?;
    body.as_object()?.iter().find_map(|(name, value)| match value {
        Value::String(text) => check(name, text),
        Value::Array(list) => list.iter().find_map(|entry| check(name, entry.as_str()?)),
        _ => None,
    })
}

fn check(name: &str, text: &str) -> Option<MatrixError> {
    let (what, holds) = kind_of(name)?;
    (!holds(text)).then(|| MatrixError::invalid_param(format!("{text:?} is not {what}")))
}

/// The words of a reader, without names of types.
pub(crate) fn plain(text: &str) -> String {
    let (what, place) = text.split_at(text.rfind(" at line ").unwrap_or(text.len()));
    let end = what.rfind("expected ").unwrap_or(0);
    let (found, expected) = what.split_at(end);
    if expected.contains("struct ") {
        format!("{found}expected an object{place}")
    } else if expected.contains("enum ") {
        format!("The body has none of the forms that are known here{place}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_type_is_named() {
        let check = |text: &str, told: &str| assert_eq!(plain(text), told);
        check(
            "data did not match any variant of untagged enum InvitationRecipient",
            "The body has none of the forms that are known here",
        );
        check(
            "invalid type: sequence, expected struct RequestBody at line 1 column 1",
            "invalid type: sequence, expected an object at line 1 column 1",
        );
        check(
            "invalid length 0, expected struct Body with 2 elements",
            "invalid length 0, expected an object",
        );
        check(
            "invalid type: string \"enum A\", expected a map",
            "invalid type: string \"enum A\", expected a map",
        );
        check("missing field `user_id`", "missing field `user_id`");
        check(
            "unknown variant `x`, expected `a` or `b`",
            "unknown variant `x`, expected `a` or `b`",
        );
    }
}
