//! Access tokens: given out once, kept only as SHA-256.

use exeunt_core::ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use exeunt_store::Batch;
use exeunt_store::records::{DeviceRecord, TokenRecord};
use exeunt_store::tables::{Accounts, Devices, Tokens};
use ring::digest;

use crate::device::{MAX_DEVICE_ID, MAX_DEVICE_NAME};
use crate::error::bounded;
use crate::{Users, UsersError, random};

/// Tells our tokens from others, for secret scanners and for people.
const TOKEN_PREFIX: &str = "exs_";
/// Longest token that is worth a hash.
const MAX_TOKEN: usize = 256;
const DEVICE_LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

pub(crate) type TokenHash = [u8; 32];

/// Who holds a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub user_id: OwnedUserId,
    pub device_id: OwnedDeviceId,
}

/// A fresh session. The token is nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user_id: OwnedUserId,
    pub device_id: OwnedDeviceId,
    pub access_token: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({} {})", self.user_id, self.device_id)
    }
}

impl Users {
    /// Logs a user in whose identity is settled: right after registration, or by an admin.
    ///
    /// A known device id keeps its device and loses its old token.
    pub async fn login(
        &self,
        user: &UserId,
        device_id: Option<&DeviceId>,
        display_name: Option<&str>,
    ) -> Result<Login, UsersError> {
        let device_id = self.device_id_for(device_id)?;
        if let Some(name) = display_name {
            bounded("device display name", name, MAX_DEVICE_NAME)?;
        }
        let access_token = format!("{TOKEN_PREFIX}{}", random::secret(&self.inner.rng)?);
        let hash = token_hash(&access_token);

        let _guard = self.lock(user).await;
        let account_key = user.to_owned();
        let device_key = (user.to_owned(), device_id.clone());
        let read_key = device_key.clone();
        let (account, device) = self
            .inner
            .store
            .read(move |r| {
                Ok::<_, UsersError>((
                    r.get::<Accounts>(&account_key)?,
                    r.get::<Devices>(&read_key)?,
                ))
            })
            .await?;
        if account.ok_or(UsersError::UnknownUser)?.deactivated {
            return Err(UsersError::Deactivated);
        }

        let mut batch = Batch::default();
        let known = device.is_some();
        let mut device = device.unwrap_or(DeviceRecord {
            display_name: display_name.map(str::to_owned),
            token: None,
            created_at: self.now(),
        });
        if let Some(old) = device.token.replace(hash) {
            batch.delete::<Tokens>(&old);
        }
        batch.put::<Devices>(&device_key, &device);
        let holder = TokenRecord { user_id: user.to_owned(), device_id: device_id.clone() };
        batch.put::<Tokens>(&hash, &holder);
        self.inner.store.commit(batch).await?;
        if known {
            self.forget_sessions(user, |session| session.device_id == device_id);
        }
        Ok(Login { user_id: user.to_owned(), device_id, access_token })
    }

    /// Who holds the token; `None` for a token that is not valid (any more).
    pub async fn session(&self, token: &str) -> Result<Option<Session>, UsersError> {
        if token.len() > MAX_TOKEN {
            return Ok(None);
        }
        let hash = token_hash(token);
        let epoch = {
            let mut cache = self.sessions();
            if let Some(session) = cache.get(&hash) {
                return Ok(Some(session));
            }
            cache.epoch()
        };
        let row = self.inner.store.read(move |r| r.get::<Tokens>(&hash)).await?;
        let Some(TokenRecord { user_id, device_id }) = row else { return Ok(None) };
        let session = Session { user_id, device_id };
        self.sessions().insert(epoch, hash, session.clone());
        Ok(Some(session))
    }

    /// Ends a session and removes its device (`/logout`).
    pub async fn logout(&self, session: &Session) -> Result<(), UsersError> {
        self.delete_devices(&session.user_id, std::slice::from_ref(&session.device_id)).await?;
        Ok(())
    }

    /// Ends every session of a user and removes the devices (`/logout/all`).
    pub async fn logout_all(&self, user: &UserId) -> Result<(), UsersError> {
        self.logout_others(user, None).await
    }

    /// Ends every session but that of `keep`.
    pub async fn logout_others(
        &self,
        user: &UserId,
        keep: Option<&DeviceId>,
    ) -> Result<(), UsersError> {
        let _guard = self.lock(user).await;
        let mut batch = Batch::default();
        self.drop_devices(user, keep, &mut batch).await?;
        self.inner.store.commit(batch).await?;
        self.forget_sessions(user, |session| Some(&*session.device_id) != keep);
        Ok(())
    }

    /// After the commit: the cache forgets what the store has lost.
    pub(crate) fn forget_sessions(&self, user: &UserId, gone: impl Fn(&Session) -> bool) {
        self.sessions().forget(user, gone);
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, crate::cache::SessionCache> {
        self.inner.sessions.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn device_id_for(&self, wanted: Option<&DeviceId>) -> Result<OwnedDeviceId, UsersError> {
        let Some(wanted) = wanted else {
            return Ok(random::letters::<10>(&self.inner.rng, DEVICE_LETTERS)?.into());
        };
        if wanted.as_str().is_empty() {
            return Err(UsersError::Empty("device id"));
        }
        bounded("device id", wanted.as_str(), MAX_DEVICE_ID)?;
        Ok(wanted.to_owned())
    }
}

fn token_hash(token: &str) -> TokenHash {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}
