//! Access tokens and refresh tokens: given out once, kept only as SHA-256.

use exeunt_core::ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use exeunt_store::Batch;
use exeunt_store::records::{DeviceRecord, RefreshTokenRecord, ReplacedTokens, TokenRecord};
use exeunt_store::tables::{Devices, RefreshTokens, Tokens};
use ring::digest;

use crate::device::{MAX_DEVICE_ID, MAX_DEVICE_NAME};
use crate::error::bounded;
use crate::{Users, UsersError, random};

/// How long an access token lives that comes with a refresh token.
pub const ACCESS_TOKEN_LIFE_MS: u64 = 60 * 60_000;
/// Tell our tokens from others, for secret scanners and for people.
const ACCESS_PREFIX: &str = "exs_";
const REFRESH_PREFIX: &str = "exr_";
/// Longest token that is worth a hash.
pub(crate) const MAX_TOKEN: usize = 256;
const DEVICE_LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

pub(crate) type TokenHash = [u8; 32];

/// What a login asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewSession<'a> {
    /// `None`: the server makes one up.
    pub device_id: Option<&'a DeviceId>,
    pub display_name: Option<&'a str>,
    /// Whether the access token shall run out, and a refresh token come with it.
    pub refreshable: bool,
}

/// A fresh session. The tokens are nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user_id: OwnedUserId,
    pub device_id: OwnedDeviceId,
    pub access_token: String,
    /// There if it was asked for; then the access token runs out.
    pub refresh_token: Option<String>,
    pub expires_in_ms: Option<u64>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({} {})", self.user_id, self.device_id)
    }
}

impl Users {
    /// Logs a user in whose identity is settled: right after registration, or by an admin.
    ///
    /// A known device id keeps its device and loses its old tokens.
    pub async fn login(&self, user: &UserId, new: NewSession<'_>) -> Result<Login, UsersError> {
        let device_id = self.device_id_for(new.device_id)?;
        if let Some(name) = new.display_name {
            bounded("device display name", name, MAX_DEVICE_NAME)?;
        }
        let _guard = self.lock(user).await;
        let account = self.active_account(user).await?;
        if account.locked {
            return Err(UsersError::Locked);
        }
        let key = (user.to_owned(), device_id);
        let device = self.device_record(&key).await?;
        let known = device.is_some();
        let mut device = device.unwrap_or(DeviceRecord {
            display_name: new.display_name.map(str::to_owned),
            token: None,
            created_at: self.now(),
            refresh_token: None,
            replaced: None,
            seen: None,
        });
        let mut batch = Batch::default();
        revoke(&device, &mut batch);
        device.replaced = None;
        let login = self.give_tokens(&key, &mut device, new.refreshable, &mut batch)?;
        self.inner.store.commit(batch).await?;
        if known {
            self.forget_sessions(user, |session| session.device_id == key.1);
        }
        Ok(login)
    }

    /// New tokens for a refresh token; `None` for one that is not valid (any more). The old refresh
    /// token stays good until one of the new tokens is used, as the answer may get lost.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Option<Login>, UsersError> {
        if refresh_token.len() > MAX_TOKEN {
            return Ok(None);
        }
        let hash = token_hash(refresh_token);
        let holder = self.inner.store.read(move |r| r.get::<RefreshTokens>(&hash)).await?;
        let Some(RefreshTokenRecord { user_id, device_id }) = holder else { return Ok(None) };
        let _guard = self.lock(&user_id).await;
        let key = (user_id, device_id);
        let Some(mut device) = self.device_record(&key).await? else { return Ok(None) };
        if self.active_account(&key.0).await?.locked {
            return Err(UsersError::Locked);
        }
        let mut batch = Batch::default();
        if device.refresh_token == Some(hash) {
            drop_replaced(&mut device, &mut batch);
            let token = device.token;
            device.replaced = Some(ReplacedTokens { token, refresh_token: hash });
        } else if device.replaced.as_ref().is_some_and(|old| old.refresh_token == hash) {
            // What the last refresh gave out was never used, so it never arrived.
            let lost = DeviceRecord { replaced: None, ..device.clone() };
            revoke(&lost, &mut batch);
        } else {
            return Ok(None);
        }
        let login = self.give_tokens(&key, &mut device, true, &mut batch)?;
        self.inner.store.commit(batch).await?;
        self.forget_sessions(&key.0, |session| session.device_id == key.1);
        Ok(Some(login))
    }

    /// Adds new tokens for a device, and the device, to the batch.
    fn give_tokens(
        &self,
        key: &(OwnedUserId, OwnedDeviceId),
        device: &mut DeviceRecord,
        refreshable: bool,
        batch: &mut Batch,
    ) -> Result<Login, UsersError> {
        let (user_id, device_id) = key.clone();
        let access_token = self.secret(ACCESS_PREFIX)?;
        let refresh_token = refreshable.then(|| self.secret(REFRESH_PREFIX)).transpose()?;
        let hash = token_hash(&access_token);
        device.token = Some(hash);
        let holder = TokenRecord {
            user_id: user_id.clone(),
            device_id: device_id.clone(),
            expires_at: refreshable.then(|| self.now() + ACCESS_TOKEN_LIFE_MS),
            unused: device.replaced.is_some(),
        };
        batch.put::<Tokens>(&hash, &holder);
        device.refresh_token = refresh_token.as_deref().map(token_hash);
        if let Some(hash) = &device.refresh_token {
            let holder =
                RefreshTokenRecord { user_id: user_id.clone(), device_id: device_id.clone() };
            batch.put::<RefreshTokens>(hash, &holder);
        }
        batch.put::<Devices>(key, device);
        let expires_in_ms = refreshable.then_some(ACCESS_TOKEN_LIFE_MS);
        Ok(Login { user_id, device_id, access_token, refresh_token, expires_in_ms })
    }

    fn secret(&self, prefix: &str) -> Result<String, UsersError> {
        Ok(format!("{prefix}{}", random::secret(&self.inner.rng)?))
    }

    async fn device_record(
        &self,
        key: &(OwnedUserId, OwnedDeviceId),
    ) -> Result<Option<DeviceRecord>, UsersError> {
        let key = key.clone();
        Ok(self.inner.store.read(move |r| r.get::<Devices>(&key)).await?)
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

/// Adds the end of every token of a device.
pub(crate) fn revoke(device: &DeviceRecord, batch: &mut Batch) {
    let replaced = device.replaced.as_ref();
    for token in device.token.iter().chain(replaced.and_then(|old| old.token.as_ref())) {
        batch.delete::<Tokens>(token);
    }
    for token in device.refresh_token.iter().chain(replaced.map(|old| &old.refresh_token)) {
        batch.delete::<RefreshTokens>(token);
    }
}

/// Adds the end of the tokens that the last refresh replaced.
pub(crate) fn drop_replaced(device: &mut DeviceRecord, batch: &mut Batch) {
    let Some(ReplacedTokens { token, refresh_token }) = device.replaced.take() else { return };
    if let Some(token) = token {
        batch.delete::<Tokens>(&token);
    }
    batch.delete::<RefreshTokens>(&refresh_token);
}

pub(crate) fn token_hash(token: &str) -> TokenHash {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}
