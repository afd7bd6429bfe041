//! Power levels: whole ones, and small changes of those in force.

use exeunt_core::{Object, RoomVersion};
use serde_json::{Value, json};

use crate::Rng;
use crate::build::object;
use crate::shapes::USERS;

const FIELDS: [(&str, i64); 7] = [
    ("users_default", 0),
    ("events_default", 0),
    ("state_default", 50),
    ("ban", 50),
    ("kick", 50),
    ("redact", 50),
    ("invite", 0),
];
const LEVELS: [i64; 9] = [0, 0, 10, 25, 50, 50, 75, 100, -1];
const KINDS: [&str; 5] =
    ["m.room.topic", "m.room.name", "m.room.join_rules", "m.room.power_levels", "m.room.message"];
/// Largest integer in canonical JSON.
const MAX: i64 = (1 << 53) - 1;

/// Levels with some of the fields. `users` come beside the founder, who is a user where creators
/// have no power of their own.
pub fn fresh(rng: &mut Rng, version: RoomVersion, users: &[(&str, i64)]) -> Value {
    let mut map = Object::new();
    if !version.room_id_is_create_hash() {
        map.insert(USERS[0].into(), any(rng, version, 100));
    }
    for (user, level) in users {
        map.insert((*user).to_owned(), any(rng, version, *level));
    }
    let mut content = object(json!({"users": map}));
    for (field, usual) in FIELDS {
        if rng.percent(70) {
            let level = if rng.percent(70) { usual } else { rng.pick(&LEVELS) };
            content.insert(field.into(), any(rng, version, level));
        }
    }
    for map in ["events", "notifications"] {
        if rng.percent(60) {
            content.insert(map.into(), entries(rng, version, map));
        }
    }
    content.into()
}

/// The levels in force with one to three changes.
pub fn changed(rng: &mut Rng, version: RoomVersion, current: &Object) -> Value {
    let mut content = current.clone();
    for _ in 0..1 + rng.below(3) {
        let pick = rng.pick(&LEVELS);
        let level = any(rng, version, pick);
        match rng.below(10) {
            0..6 => {
                let user = rng.pick(&USERS);
                change(rng, &mut content, "users", user, level);
            }
            6 => {
                let kind = rng.pick(&KINDS);
                change(rng, &mut content, "events", kind, level);
            }
            7 => change(rng, &mut content, "notifications", "room", level),
            _ => {
                let (field, _) = rng.pick(&FIELDS);
                if rng.percent(20) {
                    content.remove(field);
                } else {
                    content.insert(field.into(), level);
                }
            }
        }
    }
    if rng.percent(1) {
        change(rng, &mut content, "users", "not a user", json!(0));
    }
    content.into()
}

fn change(rng: &mut Rng, content: &mut Object, map: &str, key: &str, level: Value) {
    let entry = content.entry(map).or_insert_with(|| json!({}));
    let Some(entry) = entry.as_object_mut() else { return };
    if rng.percent(25) {
        entry.remove(key);
    } else {
        entry.insert(key.to_owned(), level);
    }
}

fn entries(rng: &mut Rng, version: RoomVersion, map: &str) -> Value {
    let keys: &[&str] = if map == "events" { &KINDS } else { &["room", "other"] };
    let mut out = Object::new();
    for _ in 0..rng.below(3) {
        let (key, level) = (rng.pick(keys), rng.pick(&LEVELS));
        out.insert(key.to_owned(), any(rng, version, level));
    }
    out.into()
}

/// A level, now and then as a string (room versions 1 to 9 take it), or as large as can be.
fn any(rng: &mut Rng, version: RoomVersion, level: i64) -> Value {
    let text = if version.rules().authorization.integer_power_levels { 1 } else { 10 };
    if rng.percent(text) {
        let padded = rng.percent(50);
        return if padded { json!(format!(" {level} ")) } else { json!(level.to_string()) };
    }
    if rng.percent(1) { json!(MAX) } else { json!(level) }
}
