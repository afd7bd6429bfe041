//! Accounts, devices, tokens, profiles, filters, account data, application services, and who may
//! register.
//!
//! No HTTP and no rooms here. Clock and randomness are passed in; what is acknowledged is durable.

mod account;
mod account_data;
mod app_service;
mod cache;
mod device;
mod error;
mod filter;
mod name;
mod notices;
mod password;
mod policy;
mod profile;
mod push_rules;
mod random;
mod registration_token;
mod seen;
mod session;
mod shared_secret;
mod short_lived;
mod succession;
mod token;
mod uia;

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::{Arc, Mutex};

use exeunt_core::ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use exeunt_store::{LastNews, Store};
use ring::rand::SystemRandom;
use tokio::sync::MutexGuard;

pub use account::{AccountInfo, NewAccount};
pub use account_data::{AccountData, MAX_ACCOUNT_DATA};
pub use app_service::{
    AppService, AppServices, ByService, Namespace, Namespaces, Registration, RegistrationError,
};
pub use device::{Device, MAX_DEVICE_ID, MAX_DEVICE_NAME};
pub use error::UsersError;
pub use filter::{MAX_FILTER, MAX_FILTERS};
pub use name::MAX_USER_ID;
pub use password::{MAX_HASHES_AT_ONCE, MAX_HASHES_WAITING, MAX_PASSWORD};
pub use policy::RegistrationPolicy;
pub use profile::{
    MAX_AVATAR_URL, MAX_DISPLAYNAME, MAX_PROFILE, MAX_PROFILE_KEY, Profile, all_fields,
    member_fields,
};
pub use registration_token::{RegistrationToken, TokenTerms};
pub use session::Session;
pub use shared_secret::{
    MAX_NONCES, NONCE_LIFE_MS, SharedSecret, SharedSecretError, SharedSecretRequest,
};
pub use short_lived::{LOGIN_TOKEN_LIFE_MS, OPENID_TOKEN_LIFE_MS};
pub use token::{ACCESS_TOKEN_LIFE_MS, Login, NewSession};
pub use uia::{
    Challenge, MAX_UIA_SESSIONS, Purpose, UIA_SESSION_LIFE_MS, Uia, UiaFailure, UiaOutcome,
};

/// Milliseconds since the epoch.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Locks that keep two changes of one user apart, shared by all users.
const USER_LOCKS: usize = 64;

/// The local users of this server. Cheap to clone.
#[derive(Clone)]
pub struct Users {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    server_name: OwnedServerName,
    clock: Clock,
    rng: SystemRandom,
    passwords: password::Hasher,
    sessions: Mutex<cache::SessionCache>,
    seen: Mutex<seen::Seen>,
    login_tokens: short_lived::ShortLived,
    openid_tokens: short_lived::ShortLived,
    /// Held while a registration token changes.
    registering: tokio::sync::Mutex<()>,
    locks: Vec<tokio::sync::Mutex<()>>,
    /// The last changes of users' account data.
    account_data: LastNews<OwnedUserId>,
}

impl Users {
    pub fn new(
        store: Store,
        server_name: OwnedServerName,
        clock: Clock,
        rng: SystemRandom,
    ) -> Self {
        let position = *store.position().borrow();
        let inner = Inner {
            store,
            server_name,
            clock,
            passwords: password::Hasher::new(rng.clone()),
            rng,
            sessions: Mutex::new(cache::SessionCache::default()),
            seen: Mutex::default(),
            login_tokens: short_lived::ShortLived::for_login(),
            openid_tokens: short_lived::ShortLived::for_openid(),
            registering: tokio::sync::Mutex::default(),
            locks: (0..USER_LOCKS).map(|_| tokio::sync::Mutex::new(())).collect(),
            account_data: LastNews::new(position),
        };
        Self { inner: Arc::new(inner) }
    }

    pub fn server_name(&self) -> &ServerName {
        &self.inner.server_name
    }

    /// Whether a user id belongs to this server; says nothing about the account.
    pub fn is_local(&self, user: &UserId) -> bool {
        user.server_name() == self.server_name()
    }

    fn now(&self) -> u64 {
        (self.inner.clock)()
    }

    /// Held from the read to the commit of a change to a user's rows.
    async fn lock(&self, user: &UserId) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        user.as_str().hash(&mut hasher);
        let slot = hasher.finish() as usize % self.inner.locks.len();
        self.inner.locks[slot].lock().await
    }
}
