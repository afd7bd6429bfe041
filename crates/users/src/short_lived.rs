//! Tokens for one purpose and a short time: logging in by token, and OpenID. They live in memory:
//! whoever holds one asks for another after a restart.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use exeunt_core::ruma::{OwnedUserId, UserId};

use crate::token::{TokenHash, token_hash};
use crate::{Login, NewSession, Users, UsersError, random};

/// Tokens out at once, of each kind. A new one beyond that takes the place of the oldest.
const MAX_TOKENS: usize = 4096;
/// How long a token for `m.login.token` is good for, as the specification recommends.
pub const LOGIN_TOKEN_LIFE_MS: u64 = 2 * 60_000;
/// How long an OpenID token is good for.
pub const OPENID_TOKEN_LIFE_MS: u64 = 60 * 60_000;

/// Tokens of one kind, by hash: whose, and until when (ms).
pub(crate) struct ShortLived {
    prefix: &'static str,
    life_ms: u64,
    tokens: Mutex<HashMap<TokenHash, (OwnedUserId, u64)>>,
}

impl ShortLived {
    pub(crate) fn for_login() -> Self {
        Self { prefix: "exl_", life_ms: LOGIN_TOKEN_LIFE_MS, tokens: Mutex::default() }
    }

    pub(crate) fn for_openid() -> Self {
        Self { prefix: "exo_", life_ms: OPENID_TOKEN_LIFE_MS, tokens: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenHash, (OwnedUserId, u64)>> {
        self.tokens.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn forget(&self, user: &UserId) {
        self.lock().retain(|_, (owner, _)| owner != user);
    }
}

impl Users {
    /// A token that logs the user in once (`/login/get_token`).
    pub fn login_token(&self, user: &UserId) -> Result<String, UsersError> {
        self.issue(&self.inner.login_tokens, user)
    }

    /// Logs in by such a token.
    pub async fn login_by_token(
        &self,
        token: &str,
        new: NewSession<'_>,
    ) -> Result<Login, UsersError> {
        let entry = self.inner.login_tokens.lock().remove(&token_hash(token));
        match entry {
            Some((user, until)) if self.now() < until => self.login(&user, new).await,
            _ => Err(UsersError::WrongToken),
        }
    }

    /// A token by which others learn who the user is.
    pub fn openid_token(&self, user: &UserId) -> Result<String, UsersError> {
        self.issue(&self.inner.openid_tokens, user)
    }

    /// Whose OpenID token this is.
    pub fn openid_user(&self, token: &str) -> Option<OwnedUserId> {
        let tokens = self.inner.openid_tokens.lock();
        let (user, until) = tokens.get(&token_hash(token))?;
        (self.now() < *until).then(|| user.clone())
    }

    /// The account is closed, or its password is another.
    pub(crate) fn forget_short_lived(&self, user: &UserId) {
        self.inner.login_tokens.forget(user);
        self.inner.openid_tokens.forget(user);
    }

    fn issue(&self, kind: &ShortLived, user: &UserId) -> Result<String, UsersError> {
        let token = format!("{}{}", kind.prefix, random::secret(&self.inner.rng)?);
        let now = self.now();
        let mut tokens = kind.lock();
        if tokens.len() >= MAX_TOKENS {
            tokens.retain(|_, (_, until)| now < *until);
        }
        if tokens.len() >= MAX_TOKENS {
            let oldest = tokens.iter().min_by_key(|(_, (_, until))| *until).map(|(hash, _)| *hash);
            oldest.map(|hash| tokens.remove(&hash));
        }
        tokens.insert(token_hash(&token), (user.to_owned(), now + kind.life_ms));
        Ok(token)
    }
}
