//! Who holds an access token, and logging out.

use exeunt_core::ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use exeunt_store::Batch;
use exeunt_store::records::TokenRecord;
use exeunt_store::tables::{Accounts, Devices, Tokens};

use crate::app_service::ByService;
use crate::cache::Cached;
use crate::token::{MAX_TOKEN, TokenHash, drop_replaced, token_hash};
use crate::{Users, UsersError};

/// Who holds a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub user_id: OwnedUserId,
    pub device_id: OwnedDeviceId,
    /// The account is locked: the session serves for nothing but logging out.
    pub locked: bool,
    /// The account is suspended: it may read and go, and no more.
    pub suspended: bool,
    /// An application service acts for the user: the device is none.
    pub by_service: Option<ByService>,
}

impl Session {
    /// Whether rate limits hold for it.
    pub fn is_limited(&self) -> bool {
        self.by_service.as_ref().is_none_or(|service| service.rate_limited)
    }
}

impl Users {
    /// Who holds the token; `None` for a token that is not valid (any more). One that has run out
    /// and can be refreshed is [`UsersError::Expired`].
    pub async fn session(&self, token: &str) -> Result<Option<Session>, UsersError> {
        if token.len() > MAX_TOKEN {
            return Ok(None);
        }
        let hash = token_hash(token);
        let epoch = {
            let mut cache = self.sessions();
            if let Some(cached) = cache.get(&hash) {
                return self.unless_expired(cached).map(Some);
            }
            cache.epoch()
        };
        let row = self
            .inner
            .store
            .read(move |r| {
                let Some(token) = r.get::<Tokens>(&hash)? else { return Ok(None) };
                let account = r.get::<Accounts>(&token.user_id)?;
                Ok::<_, UsersError>(account.map(|account| (token, account)))
            })
            .await?;
        let Some((token, account)) = row else { return Ok(None) };
        let TokenRecord { user_id, device_id, expires_at, unused } = token;
        let (locked, suspended) = (account.locked, account.suspended);
        let session = Session { user_id, device_id, locked, suspended, by_service: None };
        let session = self.unless_expired(Cached { session, expires_at })?;
        if unused {
            self.first_use(hash, &session).await?;
        }
        self.sessions().insert(epoch, hash, Cached { session: session.clone(), expires_at });
        Ok(Some(session))
    }

    fn unless_expired(&self, cached: Cached) -> Result<Session, UsersError> {
        match cached.expires_at {
            Some(at) if at <= self.now() => Err(UsersError::Expired),
            _ => Ok(cached.session),
        }
    }

    /// The client has the tokens of its last refresh: those before go (client-server API,
    /// "Refreshing access tokens").
    async fn first_use(&self, hash: TokenHash, session: &Session) -> Result<(), UsersError> {
        let Session { user_id, device_id, .. } = session;
        let _guard = self.lock(user_id).await;
        let key = (user_id.clone(), device_id.clone());
        let read_key = key.clone();
        let read = self.inner.store.read(move |r| {
            Ok::<_, UsersError>((r.get::<Devices>(&read_key)?, r.get::<Tokens>(&hash)?))
        });
        let (Some(mut device), Some(token)) = read.await? else { return Ok(()) };
        let mut batch = Batch::default();
        drop_replaced(&mut device, &mut batch);
        batch.put::<Devices>(&key, &device);
        batch.put::<Tokens>(&hash, &TokenRecord { unused: false, ..token });
        self.inner.store.commit(batch).await?;
        self.forget_sessions(user_id, |other| other.device_id == *device_id);
        Ok(())
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
}
