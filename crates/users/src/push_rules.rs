//! Push rules, kept as the account data `m.push_rules`. Specification: client-server API, "Push
//! Rules".

use exeunt_core::Object;
use exeunt_core::ruma::UserId;
use exeunt_core::ruma::events::push_rules::PushRulesEventContent;
use exeunt_core::ruma::push::Ruleset;
use serde_json::Value;

use crate::{Users, UsersError};

/// Type of the account data.
pub(crate) const PUSH_RULES: &str = "m.push_rules";

impl Users {
    /// The predefined rules, with what the user has changed and added.
    pub async fn push_rules(&self, user: &UserId) -> Result<Ruleset, UsersError> {
        let Some(stored) = self.stored_account_data(user, None, PUSH_RULES).await? else {
            return Ok(Ruleset::server_default(user));
        };
        let content: PushRulesEventContent = serde_json::from_value(Value::Object(stored))?;
        let mut rules = content.global;
        // Rules that were predefined after the user's last change.
        rules.update_with_server_default(Ruleset::server_default(user));
        Ok(rules)
    }

    /// Changes the rules and returns the stream position, or what `change` refuses with.
    pub async fn change_push_rules<E>(
        &self,
        user: &UserId,
        change: impl FnOnce(&mut Ruleset) -> Result<(), E>,
    ) -> Result<Result<u64, E>, UsersError> {
        let _guard = self.lock(user).await;
        let mut rules = self.push_rules(user).await?;
        if let Err(refusal) = change(&mut rules) {
            return Ok(Err(refusal));
        }
        let content = content(rules)?;
        Ok(Ok(self.write_account_data(user, None, PUSH_RULES, content).await?))
    }

    /// Content of the account data, of a user who has changed nothing too.
    pub(crate) async fn push_rules_content(&self, user: &UserId) -> Result<Object, UsersError> {
        content(self.push_rules(user).await?)
    }
}

fn content(rules: Ruleset) -> Result<Object, UsersError> {
    let rules = serde_json::to_value(rules)?;
    Ok(Object::from_iter([("global".to_owned(), rules)]))
}
