//! Profiles of local users.

use exeunt_core::ruma::UserId;
use exeunt_core::{Object, canonical};
use exeunt_store::Batch;
use exeunt_store::records::ProfileRecord;
use exeunt_store::tables::{Accounts, Profiles};
use serde_json::Value;

use crate::error::bounded;
use crate::{Users, UsersError};

/// Longest display name in bytes.
pub const MAX_DISPLAYNAME: usize = 256;
/// Longest avatar URL in bytes.
pub const MAX_AVATAR_URL: usize = 1000;
/// Longest name of a field in bytes.
pub const MAX_PROFILE_KEY: usize = 255;
/// Largest profile, encoded.
pub const MAX_PROFILE: usize = 64 * 1024;

/// A profile as it is shown.
pub type Profile = ProfileRecord;

/// The fields that member events carry.
pub fn member_fields(profile: &Profile) -> Object {
    let fields = [("displayname", &profile.displayname), ("avatar_url", &profile.avatar_url)];
    let set = fields.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)));
    set.map(|(key, value)| (key.to_owned(), value.into())).collect()
}

/// Every field.
pub fn all_fields(profile: &Profile) -> Object {
    let mut fields = profile.fields.clone();
    fields.extend(member_fields(profile));
    fields
}

impl Users {
    /// The profile of an active local user; `None` when there is no such user.
    pub async fn profile(&self, user: &UserId) -> Result<Option<Profile>, UsersError> {
        let key = user.to_owned();
        let (account, profile) = self
            .inner
            .store
            .read(move |r| {
                Ok::<_, UsersError>((r.get::<Accounts>(&key)?, r.get::<Profiles>(&key)?))
            })
            .await?;
        match account {
            Some(account) if !account.deactivated => Ok(Some(profile.unwrap_or_default())),
            _ => Ok(None),
        }
    }

    /// Sets the display name; `None` removes it. Returns the profile as it is now.
    pub async fn set_displayname(
        &self,
        user: &UserId,
        displayname: Option<&str>,
    ) -> Result<Profile, UsersError> {
        if let Some(text) = displayname {
            bounded("displayname", text, MAX_DISPLAYNAME)?;
        }
        self.change_profile(user, |p| p.displayname = displayname.map(str::to_owned)).await
    }

    /// Sets the avatar; `None` removes it. Returns the profile as it is now.
    pub async fn set_avatar_url(
        &self,
        user: &UserId,
        avatar_url: Option<&str>,
    ) -> Result<Profile, UsersError> {
        if let Some(text) = avatar_url {
            bounded("avatar_url", text, MAX_AVATAR_URL)?;
        }
        self.change_profile(user, |p| p.avatar_url = avatar_url.map(str::to_owned)).await
    }

    /// Sets a field of another name; `None` removes it. Returns the profile as it is now.
    pub async fn set_profile_field(
        &self,
        user: &UserId,
        key: &str,
        value: Option<Value>,
    ) -> Result<Profile, UsersError> {
        if key.len() > MAX_PROFILE_KEY {
            return Err(UsersError::KeyTooLarge { max: MAX_PROFILE_KEY });
        }
        if !is_namespaced(key) {
            return Err(UsersError::InvalidKey);
        }
        self.change_profile(user, |p| match value {
            Some(value) => drop(p.fields.insert(key.to_owned(), value)),
            None => drop(p.fields.remove(key)),
        })
        .await
    }

    async fn change_profile(
        &self,
        user: &UserId,
        change: impl FnOnce(&mut Profile),
    ) -> Result<Profile, UsersError> {
        let _guard = self.lock(user).await;
        self.active_account(user).await?;
        let key = user.to_owned();
        let read_key = key.clone();
        let profile = self.inner.store.read(move |r| r.get::<Profiles>(&read_key)).await?;
        let mut profile = profile.unwrap_or_default();
        change(&mut profile);
        if canonical::encode(&all_fields(&profile)).len() > MAX_PROFILE {
            return Err(UsersError::ProfileTooLarge { max: MAX_PROFILE });
        }
        let mut batch = Batch::default();
        batch.put::<Profiles>(&key, &profile);
        self.inner.store.commit(batch).await?;
        Ok(profile)
    }
}

/// Appendices, "Common Namespaced Identifier Grammar".
fn is_namespaced(key: &str) -> bool {
    let is_letter =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    key.starts_with(|first: char| first.is_ascii_lowercase()) && key.bytes().all(is_letter)
}
