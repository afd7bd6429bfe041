//! Changes of power levels.
//!
//! Specification: rooms/v1, v6 (`notifications`), v10 (integers), v12, rule 10.

use std::collections::BTreeSet;

use exeunt_core::Object;
use ruma::UserId;

use super::power_levels::{level, level_field, level_map};
use super::{AuthError, Check, Level, MalformedLevel, PowerLevels};

const FIELDS: [&str; 7] =
    ["users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"];

impl Check<'_> {
    /// Rule 10: `current` are the levels in force, `sender` the sender's.
    pub(super) fn check_power_levels(
        &self,
        current: &PowerLevels,
        sender: Level,
    ) -> Result<(), AuthError> {
        self.check_shape()?;
        self.check_users(current)?;
        let Some(old) = current.content() else { return Ok(()) };
        for field in FIELDS {
            self.check_field(old, field, sender)?;
        }
        self.check_map(old, "events", sender)?;
        if self.version.rules().authorization.limit_notifications_power_levels {
            self.check_map(old, "notifications", sender)?;
        }
        self.check_map(old, "users", sender)
    }

    /// Rules 10.1 and 10.2: every level is an integer, since room version 10.
    fn check_shape(&self) -> Result<(), AuthError> {
        if !self.version.rules().authorization.integer_power_levels {
            return Ok(());
        }
        for field in FIELDS {
            level_field(self.version, self.pdu.content(), field)?;
        }
        for map in ["events", "notifications"] {
            for value in level_map(self.pdu.content(), map)?.into_iter().flat_map(Object::values) {
                level(self.version, map, value)?;
            }
        }
        Ok(())
    }

    /// Rules 10.3 and 10.4: `users` has user ids and levels, and no creators where these are
    /// privileged.
    fn check_users(&self, current: &PowerLevels) -> Result<(), AuthError> {
        let Some(users) = level_map(self.pdu.content(), "users")? else { return Ok(()) };
        for (user, value) in users {
            level(self.version, "users", value)?;
            UserId::parse(user).map_err(|_| MalformedLevel("users".into()))?;
        }
        let privileged = self.version.rules().authorization.explicitly_privilege_room_creators;
        if privileged && current.creators().iter().any(|user| users.contains_key(user.as_str())) {
            return Err(AuthError::CreatorInUsers);
        }
        Ok(())
    }

    /// Rule 10.6. A level that is absent has no value to compare, as in Synapse.
    fn check_field(&self, old: &Object, field: &str, sender: Level) -> Result<(), AuthError> {
        let old = level_field(self.version, old, field)?;
        let new = level_field(self.version, self.pdu.content(), field)?;
        if old == new || !(exceeds(old, sender) || exceeds(new, sender)) {
            return Ok(());
        }
        Err(AuthError::AlterPower(field.into()))
    }

    /// Rules 10.7 to 10.10.
    fn check_map(&self, old: &Object, map: &str, sender: Level) -> Result<(), AuthError> {
        let empty = Object::new();
        let old = level_map(old, map)?.unwrap_or(&empty);
        let new = level_map(self.pdu.content(), map)?.unwrap_or(&empty);
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let read = |levels: &Object, key: &str| {
            levels.get(key).map(|value| level(self.version, map, value)).transpose()
        };
        for key in keys {
            let (was, is) = (read(old, key)?, read(new, key)?);
            if was == is {
                continue;
            }
            let of_other_user = map == "users" && key != self.pdu.sender().as_str();
            let equal = of_other_user && was.map(Level::from) == Some(sender);
            if equal || exceeds(was, sender) || exceeds(is, sender) {
                return Err(AuthError::AlterPower(format!("{map} {key}")));
            }
        }
        Ok(())
    }
}

fn exceeds(level: Option<i64>, sender: Level) -> bool {
    level.is_some_and(|level| Level::from(level) > sender)
}
