//! The redaction algorithm: what is left of an event, per room version.
//!
//! Specification: rooms/v1, v6, v8, v9, v11, "Redactions".

use serde_json::Value;

use crate::{Object, RoomVersion};

const ALWAYS_KEPT: [&str; 12] = [
    "event_id",
    "type",
    "room_id",
    "sender",
    "state_key",
    "content",
    "hashes",
    "signatures",
    "depth",
    "prev_events",
    "auth_events",
    "origin_server_ts",
];
const KEPT_BEFORE_V11: [&str; 3] = ["origin", "membership", "prev_state"];

/// Redacts an event object. Hashes and signatures stay.
pub fn redact(version: RoomVersion, event: &Object) -> Object {
    let rules = &version.rules().redaction;
    let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
    let mut out: Object = event
        .iter()
        .filter(|(key, _)| {
            ALWAYS_KEPT.contains(&key.as_str())
                || rules.keep_origin_membership_prev_state
                    && KEPT_BEFORE_V11.contains(&key.as_str())
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if let Some(content) = out.get_mut("content") {
        let kept = match content.as_object() {
            Some(object) => redact_content(version, kind, object),
            None => Object::new(),
        };
        *content = Value::Object(kept);
    }
    out
}

/// Redacts the content of an event of type `kind`.
pub fn redact_content(version: RoomVersion, kind: &str, content: &Object) -> Object {
    let rules = &version.rules().redaction;
    let keep = |keys: &[&str]| -> Object {
        keys.iter()
            .filter_map(|key| Some(((*key).to_owned(), content.get(*key)?.clone())))
            .collect()
    };
    match kind {
        "m.room.member" => {
            let mut kept = keep(&["membership"]);
            if rules.keep_room_member_join_authorised_via_users_server {
                kept.extend(keep(&["join_authorised_via_users_server"]));
            }
            if rules.keep_room_member_third_party_invite_signed
                && let Some(invite) = content.get("third_party_invite").and_then(Value::as_object)
            {
                // Also an empty object stays: event ids depend on it.
                let signed = invite.get("signed").map(|signed| ("signed".into(), signed.clone()));
                let invite = signed.into_iter().collect();
                kept.insert("third_party_invite".into(), Value::Object(invite));
            }
            kept
        }
        "m.room.create" if rules.keep_room_create_content => content.clone(),
        "m.room.create" => keep(&["creator"]),
        "m.room.join_rules" if rules.keep_room_join_rules_allow => keep(&["join_rule", "allow"]),
        "m.room.join_rules" => keep(&["join_rule"]),
        "m.room.power_levels" => {
            let mut kept = keep(&[
                "ban",
                "events",
                "events_default",
                "kick",
                "redact",
                "state_default",
                "users",
                "users_default",
            ]);
            if rules.keep_room_power_levels_invite {
                kept.extend(keep(&["invite"]));
            }
            kept
        }
        "m.room.aliases" if rules.keep_room_aliases_aliases => keep(&["aliases"]),
        "m.room.history_visibility" => keep(&["history_visibility"]),
        "m.room.redaction" if rules.keep_room_redaction_redacts => keep(&["redacts"]),
        _ => Object::new(),
    }
}
