//! What handlers work with, and who is calling.

use std::sync::Arc;

use exeunt_core::RoomVersion;
use exeunt_http::{Authenticator, MatrixError, RequestHead, access_token, header};
use exeunt_room::Rooms;
use exeunt_users::{
    AppService, AppServices, Clock, RegistrationPolicy, Session, SharedSecret, Uia, Users,
};
use ring::rand::SystemRandom;
use ruma::ServerName;

use crate::{
    error::users_error,
    gate,
    limits::{Limits, Rates},
    notices::NoticeOptions,
    support::Support,
    voip::Turn,
};

/// From the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub registration: RegistrationPolicy,
    pub app_services: AppServices,
    /// Base URL that `/.well-known/matrix/client` names; `None`: somebody else serves it.
    pub well_known_client: Option<String>,
    pub support: Support,
    pub notices: NoticeOptions,
    pub turn: Turn,
    /// None by default.
    pub rates: Rates,
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
    limits: Limits,
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
        let limits = Limits::new(options.rates.clone(), clock.clone());
        let secret = options.registration.shared_secret.as_deref();
        let shared_secret = secret.map(|secret| SharedSecret::new(secret, clock.clone(), rng));
        let inner = Inner { options, uia, limits, shared_secret, clock };
        Self { rooms, users, inner: Arc::new(inner) }
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

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// The application service whose token the request carries.
    pub(crate) fn app_service(&self, head: &RequestHead) -> Option<&AppService> {
        access_token(head).and_then(|token| self.options().app_services.by_token(token))
    }

    pub(crate) fn shared_secret(&self) -> Option<&SharedSecret> {
        self.inner.shared_secret.as_ref()
    }
}

impl Authenticator for ClientApi {
    type Identity = Session;

    async fn authenticate(&self, head: &RequestHead, body: &[u8]) -> Result<Session, MatrixError> {
        let token = access_token(head).ok_or_else(MatrixError::missing_token)?;
        if let Some(service) = self.app_service(head) {
            let named = head.query("user_id");
            let session = self.users.service_session(service, named.as_deref()).await;
            let session = session.map_err(users_error)?;
            gate::pass(self, &session, head, body)?;
            return Ok(session);
        }
        let session = self.users.session(token).await.map_err(users_error)?;
        let session = session.ok_or_else(|| MatrixError::unknown_token(false))?;
        gate::pass(self, &session, head, body)?;
        let user_agent = head.header(header::USER_AGENT.as_str());
        self.users.seen(&session, head.client_ip(), user_agent).await.map_err(users_error)?;
        Ok(session)
    }

    fn admit(&self, head: &RequestHead) -> Result<(), MatrixError> {
        match self.app_service(head) {
            Some(_) => Ok(()),
            None => gate::pass_anyone(self, head),
        }
    }
}
