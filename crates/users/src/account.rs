//! Accounts: registering, proving who one is, going.

use exeunt_core::ruma::{DeviceId, OwnedUserId, UserId};
use exeunt_store::Batch;
use exeunt_store::records::{AccountRecord, DepartureJobRecord, ProfileRecord};
use exeunt_store::tables::{AccountData, Accounts, DepartureJobs, Filters, Profiles};

use crate::error::bounded;
use crate::profile::MAX_DISPLAYNAME;
use crate::{Login, NewSession, Users, UsersError, name, random};

const NAME_LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What an account starts with.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewAccount<'a> {
    /// `None`: the server makes one up.
    pub localpart: Option<&'a str>,
    /// `None`: nobody can log in with a password.
    pub password: Option<&'a str>,
    pub admin: bool,
    pub displayname: Option<&'a str>,
    /// The token that lets the account in, if one has to; it is used up with it.
    pub registration_token: Option<&'a str>,
}

/// What there is to know of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountInfo {
    pub admin: bool,
    pub deactivated: bool,
    pub has_password: bool,
    pub locked: bool,
    pub suspended: bool,
    /// Milliseconds since the epoch.
    pub created_at: u64,
}

impl Users {
    /// Creates an account. Whether the caller may is settled before, see [`crate::Uia`].
    pub async fn register(&self, new: NewAccount<'_>) -> Result<OwnedUserId, UsersError> {
        let user = match new.localpart {
            Some(localpart) => name::new_user_id(localpart, self.server_name())?,
            None => {
                let localpart = random::letters::<12>(&self.inner.rng, NAME_LETTERS)?;
                name::new_user_id(&localpart, self.server_name())?
            }
        };
        if let Some(displayname) = new.displayname {
            bounded("displayname", displayname, MAX_DISPLAYNAME)?;
        }
        if self.account_record(&user).await?.is_some() {
            return Err(UsersError::UserInUse(user));
        }
        let password = match new.password {
            Some(password) => Some(self.inner.passwords.hash(password).await?),
            None => None,
        };

        let mut batch = Batch::default();
        let _registering = match new.registration_token {
            Some(token) => {
                let guard = self.inner.registering.lock().await;
                self.use_registration_token(token, &mut batch).await?;
                Some(guard)
            }
            None => None,
        };
        let _guard = self.lock(&user).await;
        if self.account_record(&user).await?.is_some() {
            return Err(UsersError::UserInUse(user));
        }
        let account = AccountRecord {
            password,
            admin: new.admin,
            deactivated: false,
            created_at: self.now(),
            locked: false,
            suspended: false,
            erased: false,
        };
        let profile = ProfileRecord {
            displayname: new.displayname.map(str::to_owned),
            ..ProfileRecord::default()
        };
        batch.put::<Accounts>(&user, &account);
        batch.put::<Profiles>(&user, &profile);
        self.inner.store.commit(batch).await?;
        Ok(user)
    }

    /// The user id that a new account of that name would have.
    pub fn user_id(&self, localpart: &str) -> Result<OwnedUserId, UsersError> {
        name::new_user_id(localpart, self.server_name())
    }

    /// Whether a name could be registered now (`/register/available`).
    pub async fn check_available(&self, localpart: &str) -> Result<OwnedUserId, UsersError> {
        let user = self.user_id(localpart)?;
        match self.account_record(&user).await? {
            Some(_) => Err(UsersError::UserInUse(user)),
            None => Ok(user),
        }
    }

    /// Logs in by password. `user` is a full user id or a localpart.
    pub async fn login_password(
        &self,
        user: &str,
        password: &str,
        new: NewSession<'_>,
    ) -> Result<Login, UsersError> {
        let user = self.verify_password(user, password).await?;
        self.login(&user, new).await
    }

    /// The user whose password this is. Costs the same whether or not the user exists.
    pub async fn verify_password(
        &self,
        user: &str,
        password: &str,
    ) -> Result<OwnedUserId, UsersError> {
        let user = name::login_name(user, self.server_name());
        let account = match &user {
            Some(user) => self.account_record(user).await?,
            None => None,
        };
        let deactivated = account.as_ref().is_some_and(|account| account.deactivated);
        let stored = account.and_then(|account| account.password);
        let right = self.inner.passwords.verify(password, stored).await?;
        match user {
            Some(_) if deactivated => Err(UsersError::Deactivated),
            Some(user) if right => Ok(user),
            _ => Err(UsersError::WrongPassword),
        }
    }

    /// Sets a new password; with `logout_but`, all other devices go: `Some(None)` takes every one.
    pub async fn change_password(
        &self,
        user: &UserId,
        password: &str,
        logout_but: Option<Option<&DeviceId>>,
    ) -> Result<(), UsersError> {
        let hash = self.inner.passwords.hash(password).await?;
        let _guard = self.lock(user).await;
        let mut account = self.active_account(user).await?;
        account.password = Some(hash);
        let mut batch = Batch::default();
        batch.put::<Accounts>(&user.to_owned(), &account);
        if let Some(keep) = logout_but {
            self.drop_devices(user, keep, &mut batch).await?;
        }
        self.inner.store.commit(batch).await?;
        if let Some(keep) = logout_but {
            self.forget_sessions(user, |session| Some(&*session.device_id) != keep);
        }
        self.forget_short_lived(user);
        Ok(())
    }

    /// Closes an account for good: no password, devices, tokens, profile, account data or filters.
    /// The id stays taken. With `erase`, what the user sent is hidden from those who came later
    /// (`erase` of `POST /account/deactivate`); that is never taken back. The job that takes the
    /// user out of every room is noted in the same batch; whoever has the rooms starts it, now or
    /// after the next start.
    pub async fn deactivate(&self, user: &UserId, erase: bool) -> Result<(), UsersError> {
        let _guard = self.lock(user).await;
        let mut account = self.account_record(user).await?.ok_or(UsersError::UnknownUser)?;
        account.deactivated = true;
        account.erased |= erase;
        account.password = None;
        let whose = user.to_owned();
        let (data, filters) = self
            .inner
            .store
            .read(move |r| {
                let data = r.scan::<AccountData>(whose.clone()).keys()?;
                Ok::<_, UsersError>((data, r.scan::<Filters>(whose).keys()?))
            })
            .await?;
        let mut batch = Batch::default();
        data.iter().for_each(|key| batch.delete::<AccountData>(key));
        filters.iter().for_each(|key| batch.delete::<Filters>(key));
        batch.put::<Accounts>(&user.to_owned(), &account);
        batch.delete::<Profiles>(&user.to_owned());
        let job = DepartureJobRecord { started_at: self.now(), ..DepartureJobRecord::default() };
        batch.put::<DepartureJobs>(&user.to_owned(), &job);
        self.drop_devices(user, None, &mut batch).await?;
        self.inner.store.commit(batch).await?;
        self.forget_sessions(user, |_| true);
        self.forget_short_lived(user);
        Ok(())
    }

    /// Locks an account, or unlocks it: its sessions stay and serve for nothing meanwhile.
    pub async fn set_locked(&self, user: &UserId, locked: bool) -> Result<(), UsersError> {
        self.change_account(user, |account| account.locked = locked).await
    }

    /// Suspends an account, or takes that back: its user may read and go, and no more meanwhile.
    pub async fn set_suspended(&self, user: &UserId, suspended: bool) -> Result<(), UsersError> {
        self.change_account(user, |account| account.suspended = suspended).await
    }

    async fn change_account(
        &self,
        user: &UserId,
        change: impl FnOnce(&mut AccountRecord),
    ) -> Result<(), UsersError> {
        let _guard = self.lock(user).await;
        let mut account = self.active_account(user).await?;
        change(&mut account);
        let mut batch = Batch::default();
        batch.put::<Accounts>(&user.to_owned(), &account);
        self.inner.store.commit(batch).await?;
        self.forget_sessions(user, |_| true);
        Ok(())
    }

    /// Whether there is an account that has not been deactivated.
    pub async fn exists(&self, user: &UserId) -> Result<bool, UsersError> {
        Ok(self.account_record(user).await?.is_some_and(|account| !account.deactivated))
    }

    pub async fn account(&self, user: &UserId) -> Result<Option<AccountInfo>, UsersError> {
        let record = self.account_record(user).await?;
        Ok(record.map(|record| AccountInfo {
            admin: record.admin,
            deactivated: record.deactivated,
            has_password: record.password.is_some(),
            locked: record.locked,
            suspended: record.suspended,
            created_at: record.created_at,
        }))
    }

    pub(crate) async fn active_account(&self, user: &UserId) -> Result<AccountRecord, UsersError> {
        let account = self.account_record(user).await?.ok_or(UsersError::UnknownUser)?;
        if account.deactivated { Err(UsersError::Deactivated) } else { Ok(account) }
    }

    async fn account_record(&self, user: &UserId) -> Result<Option<AccountRecord>, UsersError> {
        let key = user.to_owned();
        Ok(self.inner.store.read(move |r| r.get::<Accounts>(&key)).await?)
    }
}
