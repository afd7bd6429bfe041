//! Power levels as one value: the event, or the defaults where there is none.
//!
//! Specification: client-server API, `m.room.power_levels`; rooms/v1 (strings, floats), v10
//! (integers only), v12 (creators).

use std::{fmt, sync::Arc};

use exeunt_core::{Object, Pdu, RoomVersion};
use ruma::{OwnedUserId, UserId};
use serde_json::Value;
use thiserror::Error;

/// A power level. Creators have an infinite one since room version 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Finite(i64),
    Infinite,
}

impl From<i64> for Level {
    fn from(level: i64) -> Self {
        Level::Finite(level)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Level::Finite(level) => level.fmt(f),
            Level::Infinite => f.write_str("infinite"),
        }
    }
}

/// A power levels event has something that is no level where one is needed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0} of the power levels is malformed")]
pub struct MalformedLevel(pub String);

/// Power of a creator where the room has no power levels event.
const CREATOR_LEVEL: i64 = 100;

/// The power levels in force; clones share what was parsed. Fields are read when asked for: before
/// room version 10 an accepted event may have malformed ones, which matter only to events that
/// need them.
#[derive(Debug, Clone)]
pub struct PowerLevels {
    version: RoomVersion,
    creators: Arc<[OwnedUserId]>,
    event: Option<Pdu>,
}

impl PowerLevels {
    /// The levels of a room with this create event and this power levels event, if it has one.
    pub fn from_state(version: RoomVersion, create: &Pdu, event: Option<&Pdu>) -> Self {
        Self::new(version, super::creators(create), event.cloned())
    }

    pub(crate) fn new(
        version: RoomVersion,
        creators: Vec<OwnedUserId>,
        event: Option<Pdu>,
    ) -> Self {
        Self { version, creators: creators.into(), event }
    }

    /// The level of a user.
    pub fn user(&self, user: &UserId) -> Result<Level, MalformedLevel> {
        let creator = self.is_creator(user);
        if creator && self.version.rules().authorization.explicitly_privilege_room_creators {
            return Ok(Level::Infinite);
        }
        if creator && self.event.is_none() {
            return Ok(CREATOR_LEVEL.into());
        }
        match self.entry("users", user.as_str())? {
            Some(level) => Ok(level.into()),
            None => self.field("users_default", 0),
        }
    }

    /// The level needed to send events of a type, member and third-party invite events apart.
    pub fn event(&self, kind: &str, is_state: bool) -> Result<Level, MalformedLevel> {
        match self.entry("events", kind)? {
            Some(level) => Ok(level.into()),
            None if is_state => self.field("state_default", 50),
            None => self.field("events_default", 0),
        }
    }

    pub fn invite(&self) -> Result<Level, MalformedLevel> {
        self.field("invite", 0)
    }

    pub fn kick(&self) -> Result<Level, MalformedLevel> {
        self.field("kick", 50)
    }

    pub fn ban(&self) -> Result<Level, MalformedLevel> {
        self.field("ban", 50)
    }

    pub fn redact(&self) -> Result<Level, MalformedLevel> {
        self.field("redact", 50)
    }

    /// The level needed for a notification such as `room` (for `@room`).
    pub fn notification(&self, key: &str) -> Result<Level, MalformedLevel> {
        Ok(self.entry("notifications", key)?.unwrap_or(50).into())
    }

    /// Whether the user is one of the room's creators.
    pub fn is_creator(&self, user: &UserId) -> bool {
        self.creators.iter().any(|creator| creator == user)
    }

    pub(super) fn creators(&self) -> &[OwnedUserId] {
        &self.creators
    }

    /// The event's content, if there is an event.
    pub(super) fn content(&self) -> Option<&Object> {
        self.event.as_ref().map(Pdu::content)
    }

    fn field(&self, name: &str, default: i64) -> Result<Level, MalformedLevel> {
        let Some(content) = self.content() else { return Ok(default.into()) };
        Ok(level_field(self.version, content, name)?.unwrap_or(default).into())
    }

    fn entry(&self, map: &str, key: &str) -> Result<Option<i64>, MalformedLevel> {
        let Some(content) = self.content() else { return Ok(None) };
        let Some(map_value) = level_map(content, map)? else { return Ok(None) };
        map_value.get(key).map(|value| level(self.version, map, value)).transpose()
    }
}

/// A level at the top of the content, `None` where absent.
pub(super) fn level_field(
    version: RoomVersion,
    content: &Object,
    name: &str,
) -> Result<Option<i64>, MalformedLevel> {
    content.get(name).map(|value| level(version, name, value)).transpose()
}

/// `events`, `users` or `notifications`, `None` where absent.
pub(super) fn level_map<'a>(
    content: &'a Object,
    name: &str,
) -> Result<Option<&'a Object>, MalformedLevel> {
    let object = |value: &'a Value| value.as_object().ok_or_else(|| MalformedLevel(name.into()));
    content.get(name).map(object).transpose()
}

/// Reads a level: an integer; before room version 10 also a string of one, and where canonical
/// JSON is not enforced a float, which is truncated. What 64 bits cannot hold is saturated, so
/// that it still compares as very large or very small.
pub(super) fn level(
    version: RoomVersion,
    name: &str,
    value: &Value,
) -> Result<i64, MalformedLevel> {
    let rules = &version.rules().authorization;
    let read = match value {
        Value::Number(number) if number.is_i64() => number.as_i64(),
        Value::Number(number) if number.is_u64() => Some(i64::MAX),
        Value::Number(number) if !rules.strict_canonical_json => {
            number.as_f64().filter(|float| float.is_finite()).map(|float| float as i64)
        }
        Value::String(text) if !rules.integer_power_levels => level_from_text(text),
        _ => None,
    };
    read.ok_or_else(|| MalformedLevel(name.into()))
}

/// An optional sign and digits, with whitespace around (rooms/v1, "m.room.power_levels events
/// accept values as strings").
fn level_from_text(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let limit = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    Some(text.parse().unwrap_or(limit))
}
