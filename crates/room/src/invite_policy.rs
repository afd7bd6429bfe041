//! Whose invites a user of ours wants: blocked ones are refused, ignored ones are kept and not
//! shown. The invites that the user sends are nobody's business here.
//!
//! Specification: client-server API, "Invite permission" (MSC4380), "Ignoring Users"; MSC4155.

use std::collections::BTreeSet;

use exeunt_acl::{Glob, Name};
use exeunt_core::Object;
use exeunt_store::{Reader, StoreError, tables};
use ruma::{OwnedUserId, UserId};
use serde_json::Value;

use crate::{RoomError, Rooms};

/// Account data with `default_action`, under its name and the one that it had before.
const PERMISSION: [&str; 2] =
    ["m.invite_permission_config", "org.matrix.msc4380.invite_permission_config"];
/// Account data with lists of users and servers.
const FILTER: &str = "org.matrix.msc4155.invite_permission_config";
const IGNORED_USERS: &str = "m.ignored_user_list";

/// What becomes of an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteFate {
    Shown,
    /// Taken, and not shown.
    Ignored,
    /// Refused; not shown if it is there already.
    Blocked,
}

/// Whom a user ignores.
pub(crate) fn ignored_users(
    reader: &Reader<'_>,
    user: &UserId,
) -> Result<BTreeSet<OwnedUserId>, StoreError> {
    let key = (user.to_owned(), String::new(), IGNORED_USERS.to_owned());
    let Some(row) = reader.get::<tables::AccountData>(&key)? else { return Ok(BTreeSet::new()) };
    let users = row.content.get("ignored_users").and_then(Value::as_object).into_iter().flatten();
    let users = users.filter_map(|(user, _)| UserId::parse(user).ok());
    Ok(users.filter(|ignored| ignored != user).collect())
}

/// What a user has said about invites.
#[derive(Debug, Default)]
pub(crate) struct InvitePolicy {
    blocks_all: bool,
    ignored_users: Object,
    users: Lists,
    servers: Lists,
    /// Stream position of the last change.
    pub changed_at: u64,
}

/// Globs, in the order in which they are asked.
#[derive(Debug, Default)]
struct Lists {
    allowed: Vec<Glob>,
    ignored: Vec<Glob>,
    blocked: Vec<Glob>,
}

impl InvitePolicy {
    pub fn of(reader: &Reader<'_>, user: &UserId) -> Result<Self, StoreError> {
        let mut changed_at = 0;
        let mut content = |kind: &str| -> Result<Object, StoreError> {
            let key = (user.to_owned(), String::new(), kind.to_owned());
            let Some(row) = reader.get::<tables::AccountData>(&key)? else {
                return Ok(Object::new());
            };
            changed_at = row.position.max(changed_at);
            Ok(row.content)
        };
        let permissions = [content(PERMISSION[0])?, content(PERMISSION[1])?];
        let (filter, ignored) = (content(FILTER)?, content(IGNORED_USERS)?);
        Ok(Self { changed_at, ..Self::new(&permissions, &filter, ignored) })
    }

    /// What is not as it should be in the contents counts as absent.
    fn new(permissions: &[Object], filter: &Object, mut ignored: Object) -> Self {
        let blocks = |content: &Object| content.get("default_action") == Some(&"block".into());
        let is_on = filter.get("enabled") != Some(&Value::Bool(false));
        let lists = |of: &str| match is_on {
            true => Lists {
                allowed: globs(filter, &format!("allowed_{of}")),
                ignored: globs(filter, &format!("ignored_{of}")),
                blocked: globs(filter, &format!("blocked_{of}")),
            },
            false => Lists::default(),
        };
        let ignored_users = match ignored.remove("ignored_users") {
            Some(Value::Object(users)) => users,
            _ => Object::new(),
        };
        Self {
            blocks_all: permissions.iter().any(blocks),
            ignored_users,
            users: lists("users"),
            servers: lists("servers"),
            changed_at: 0,
        }
    }

    /// The fate of an invite by `inviter`. Users are asked before servers, what is allowed before
    /// what is not; an ignored user's invites are not shown, whatever else is said.
    pub fn judge(&self, inviter: &UserId) -> InviteFate {
        if self.blocks_all {
            return InviteFate::Blocked;
        }
        let server = inviter.server_name();
        let listed = self
            .users
            .judge(&[inviter.as_str()])
            .or_else(|| self.servers.judge(&[server.host(), server.as_str()]));
        match listed.unwrap_or(InviteFate::Shown) {
            InviteFate::Shown if self.ignored_users.contains_key(inviter.as_str()) => {
                InviteFate::Ignored
            }
            fate => fate,
        }
    }
}

impl Lists {
    /// The first list that one of the names is on.
    fn judge(&self, names: &[&str]) -> Option<InviteFate> {
        let names: Vec<_> = names.iter().filter_map(|name| Name::new(name)).collect();
        let matches =
            |globs: &[Glob]| globs.iter().any(|glob| names.iter().any(|name| glob.matches(name)));
        [
            (&self.allowed, InviteFate::Shown),
            (&self.ignored, InviteFate::Ignored),
            (&self.blocked, InviteFate::Blocked),
        ]
        .into_iter()
        .find_map(|(globs, fate)| matches(globs).then_some(fate))
    }
}

fn globs(content: &Object, field: &str) -> Vec<Glob> {
    let list = content.get(field).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).filter_map(Glob::compile).collect()
}

impl Rooms {
    /// Refuses an invite that the user of ours blocks.
    pub(crate) async fn check_not_blocked(
        &self,
        inviter: &UserId,
        user: &UserId,
    ) -> Result<(), RoomError> {
        let (inviter, user) = (inviter.to_owned(), user.to_owned());
        self.store()
            .read(move |reader| match InvitePolicy::of(reader, &user)?.judge(&inviter) {
                InviteFate::Blocked => Err(RoomError::InviteBlocked),
                InviteFate::Shown | InviteFate::Ignored => Ok(()),
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use InviteFate::{Blocked, Ignored, Shown};

    fn object(value: Value) -> Object {
        value.as_object().unwrap().clone()
    }

    fn fate(filter: Value, inviter: &str) -> InviteFate {
        let policy = InvitePolicy::new(&[], &object(filter), Object::new());
        policy.judge(<&UserId>::try_from(inviter).unwrap())
    }

    #[test]
    fn users_come_before_servers_and_what_is_allowed_before_what_is_not() {
        let bob = "@bob:hs2";
        for (filter, expected) in [
            (json!({}), Shown),
            (json!({ "blocked_users": [bob] }), Blocked),
            (json!({ "ignored_users": [bob] }), Ignored),
            (json!({ "ignored_users": [bob], "blocked_users": [bob] }), Ignored),
            (json!({ "allowed_users": [bob], "ignored_users": [bob] }), Shown),
            (json!({ "allowed_users": [bob], "blocked_servers": ["hs2"] }), Shown),
            (json!({ "blocked_users": [bob], "allowed_servers": ["hs2"] }), Blocked),
            (json!({ "ignored_users": [bob], "blocked_servers": ["hs2"] }), Ignored),
            (json!({ "blocked_servers": ["hs2"] }), Blocked),
            (json!({ "ignored_servers": ["hs2"], "blocked_servers": ["*"] }), Ignored),
            (json!({ "allowed_servers": ["hs2"], "blocked_servers": ["*"] }), Shown),
            (json!({ "blocked_servers": ["hs3"], "blocked_users": ["@bo:hs2"] }), Shown),
            (json!({ "blocked_users": [bob], "enabled": true }), Blocked),
            (json!({ "blocked_users": [bob], "enabled": false }), Shown),
        ] {
            assert_eq!(fate(filter.clone(), bob), expected, "{filter}");
        }
    }

    #[test]
    fn lists_hold_globs() {
        let users = json!({ "blocked_users": ["@user-?*"] });
        assert_eq!(fate(users.clone(), "@user-1-bob:hs1"), Blocked);
        assert_eq!(fate(users, "@user-:hs1"), Blocked);
        assert_eq!(fate(json!({ "blocked_users": ["@user-?"] }), "@user-1:hs1"), Shown);
        let servers = json!({ "blocked_servers": ["hs*", "*.evil.example"] });
        assert_eq!(fate(servers.clone(), "@bob:hs2:8448"), Blocked);
        assert_eq!(fate(servers.clone(), "@bob:very.evil.example"), Blocked);
        assert_eq!(fate(servers, "@bob:evil.example"), Shown);
        assert_eq!(fate(json!({ "blocked_servers": ["hs2:8448"] }), "@bob:hs2:8448"), Blocked);
    }

    #[test]
    fn what_is_malformed_says_nothing() {
        for filter in [
            json!({ "blocked_users": null, "allowed_servers": null }),
            json!({ "blocked_users": "@bob:hs2", "blocked_servers": { "hs2": {} } }),
            json!({ "blocked_users": [1, null, ["@bob:hs2"]] }),
        ] {
            assert_eq!(fate(filter.clone(), "@bob:hs2"), Shown, "{filter}");
        }
        let ignored = object(json!({ "ignored_users": ["@bob:hs2"] }));
        let policy = InvitePolicy::new(&[], &Object::new(), ignored);
        assert_eq!(policy.judge(<&UserId>::try_from("@bob:hs2").unwrap()), Shown);
    }

    #[test]
    fn blocking_all_goes_first_and_ignored_users_are_ignored_though_allowed() {
        let bob = <&UserId>::try_from("@bob:hs2").unwrap();
        let allows = object(json!({ "allowed_users": ["@bob:hs2"] }));
        let ignores = object(json!({ "ignored_users": { "@bob:hs2": {} } }));
        let blocks = object(json!({ "default_action": "block" }));
        let allow = object(json!({ "default_action": "allow" }));
        let judge = |permission: &Object, ignored: &Object| {
            let permissions = [Object::new(), permission.clone()];
            InvitePolicy::new(&permissions, &allows, ignored.clone()).judge(bob)
        };
        assert_eq!(judge(&blocks, &Object::new()), Blocked);
        assert_eq!(judge(&blocks, &ignores), Blocked);
        assert_eq!(judge(&allow, &Object::new()), Shown);
        assert_eq!(judge(&allow, &ignores), Ignored);
    }
}
