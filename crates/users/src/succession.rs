//! What follows a user from a room to the one that replaces it.
//!
//! Specification: client-server API, "Room Upgrades", "Server behaviour".

use exeunt_core::Object;
use exeunt_core::ruma::{RoomId, UserId};
use serde_json::Value;

use crate::{Users, UsersError};

const TAGS: &str = "m.tag";
const DIRECT: &str = "m.direct";

impl Users {
    /// Copies the tags of the old room to the new one, unless that has some, makes the new one a
    /// direct chat where the old one is, and lets the old one's push rule hold for it. Returns the
    /// stream position of the last change, if there was anything to change.
    pub async fn succeed(
        &self,
        user: &UserId,
        old: &RoomId,
        new: &RoomId,
    ) -> Result<Option<u64>, UsersError> {
        let data = self.succeed_in_data(user, old, new).await?;
        let rules = self.push_rules(user).await?;
        let has = |id: &RoomId| rules.room.iter().find(|rule| rule.rule_id == id).cloned();
        let (Some(mut rule), None) = (has(old), has(new)) else { return Ok(data) };
        rule.rule_id = new.to_owned();
        let changed = self.change_push_rules(user, |rules| {
            rules.room.insert(rule);
            Ok::<_, std::convert::Infallible>(())
        });
        let Ok(position) = changed.await?;
        Ok(Some(position))
    }

    async fn succeed_in_data(
        &self,
        user: &UserId,
        old: &RoomId,
        new: &RoomId,
    ) -> Result<Option<u64>, UsersError> {
        let _guard = self.lock(user).await;
        let mut position = None;
        if self.stored_account_data(user, Some(new), TAGS).await?.is_none()
            && let Some(tags) = self.stored_account_data(user, Some(old), TAGS).await?
        {
            position = Some(self.write_account_data(user, Some(new), TAGS, tags).await?);
        }
        let direct = self.stored_account_data(user, None, DIRECT).await?;
        if let Some(direct) = direct.and_then(|direct| with_successor(direct, old, new)) {
            position = Some(self.write_account_data(user, None, DIRECT, direct).await?);
        }
        Ok(position)
    }
}

/// `m.direct` with the new room after the old one; `None` where that changes nothing.
fn with_successor(mut direct: Object, old: &RoomId, new: &RoomId) -> Option<Object> {
    let mut changed = false;
    for rooms in direct.values_mut().filter_map(Value::as_array_mut) {
        let has = |id: &RoomId| rooms.iter().any(|room| room.as_str() == Some(id.as_str()));
        if has(old) && !has(new) {
            rooms.push(new.as_str().into());
            changed = true;
        }
    }
    changed.then_some(direct)
}
