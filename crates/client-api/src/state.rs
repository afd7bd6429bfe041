//! What handlers work with, and who is calling.

use std::sync::Arc;

use exeunt_core::RoomVersion;
use exeunt_http::{Authenticator, MatrixError, RequestHead, access_token, header};
use exeunt_room::Rooms;
use exeunt_users::{Clock, RegistrationPolicy, Session, SharedSecret, Uia, Users};
use ring::rand::SystemRandom;
use ruma::ServerName;

use crate::{error::users_error, notices::NoticeOptions, support::Support, voip::Turn};

/// From the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub registration: RegistrationPolicy,
    /// Base URL that `/.well-known/matrix/client` names; `None`: somebody else serves it.
    pub well_known_client: Option<String>,
    pub support: Support,
    pub notices: NoticeOptions,
    pub turn: Turn,
}

/// State of the client API. Cheap to clone.
#[derive(Clone)]
pub struct ClientApi {
    pub rooms: Rooms,
    pub users: Users,
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    uia: Uia,
    shared_secret: Option<SharedSecret>,
    clock: Clock,
}

impl ClientApi {
    pub fn new(
        rooms: Rooms,
        users: Users,
        options: Options,
        clock: Clock,
        rng: SystemRandom,
    ) -> Self {
        let uia = Uia::new(options.registration.clone(), clock.clone(), rng.clone());
        let secret = options.registration.shared_secret.as_deref();
        let shared_secret = secret.map(|secret| SharedSecret::new(secret, clock.clone(), rng));
        Self { rooms, users, inner: Arc::new(Inner { options, uia, shared_secret, clock }) }
    }

    pub fn server_name(&self) -> &ServerName {
        self.users.server_name()
    }

    /// The version of new rooms whose creator does not name one.
    pub fn default_version(&self) -> RoomVersion {
        self.rooms.options().default_version
    }

    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Milliseconds since the epoch.
    pub(crate) fn now(&self) -> u64 {
        (self.inner.clock)()
    }

    pub(crate) fn uia(&self) -> &Uia {
        &self.inner.uia
    }

    pub(crate) fn shared_secret(&self) -> Option<&SharedSecret> {
        self.inner.shared_secret.as_ref()
    }
}

impl Authenticator for ClientApi {
    type Identity = Session;

    async fn authenticate(&self, head: &RequestHead, _: &[u8]) -> Result<Session, MatrixError> {
        let token = access_token(head).ok_or_else(MatrixError::missing_token)?;
        let session = self.users.session(token).await.map_err(users_error)?;
        let session = session.ok_or_else(|| MatrixError::unknown_token(false))?;
        let user_agent = head.header(header::USER_AGENT.as_str());
        self.users.seen(&session, head.client_ip(), user_agent).await.map_err(users_error)?;
        Ok(session)
    }
}
