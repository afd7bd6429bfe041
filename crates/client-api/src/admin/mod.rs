//! What administrators see and do: `/_exeunt/admin/v1`, for accounts with the admin flag, and for
//! whoever can reach the operator's socket.

mod jobs;
mod notices;
mod reports;
mod standing;

use std::sync::Arc;

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;
use serde_json::Value;

use crate::{ClientApi, accounts::registration_tokens, users_error};

pub(super) fn routes(routes: Routes<ClientApi>, gate: Gate) -> Routes<ClientApi> {
    let families =
        [reports::routes, jobs::routes, notices::routes, standing::routes, registration_tokens];
    let routes = match gate {
        Gate::Administrators => standing::whois_routes(routes),
        Gate::Operator => routes,
    };
    families.into_iter().fold(AdminRoutes(routes, gate), |routes, family| family(routes)).0
}

/// Who is let in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Administrators, and nobody else.
    Administrators,
    /// Everybody: it is the listener that lets nobody in but the operator.
    Operator,
}

/// Declares endpoints behind the gate.
pub(crate) struct AdminRoutes(Routes<ClientApi>, Gate);

impl AdminRoutes {
    pub fn on<F, Fut>(self, method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(ClientApi, RawCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, MatrixError>> + 'static,
    {
        self.by(method, path, move |api, _, call| handler(api, call))
    }

    /// As [`Self::on`], for a handler that wants to know which administrator it is; `None`: the
    /// operator.
    fn by<F, Fut>(self, method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(ClientApi, Option<Session>, RawCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, MatrixError>> + 'static,
    {
        let handler = Arc::new(handler);
        if self.1 == Gate::Operator {
            let open = move |api: ClientApi, call: RawCall| {
                let handler = Arc::clone(&handler);
                async move { Ok(Reply::json(handler(api, None, call).await?)) }
            };
            return Self(self.0.public_raw(method, path, open), self.1);
        }
        let gated = move |api: ClientApi, session: Session, call: RawCall| {
            let handler = Arc::clone(&handler);
            async move {
                if !is_admin(&api, &session).await? {
                    return Err(MatrixError::forbidden("You are not an administrator"));
                }
                Ok(Reply::json(handler(api, Some(session), call).await?))
            }
        };
        Self(self.0.authed_raw(method, path, gated), self.1)
    }
}

/// Whether an administrator asks. What a service does for one is not the administrator's word.
pub(crate) async fn is_admin(api: &ClientApi, session: &Session) -> Result<bool, MatrixError> {
    if session.by_service.is_some() {
        return Ok(false);
    }
    let account = api.users.account(&session.user_id).await.map_err(users_error)?;
    Ok(account.is_some_and(|account| account.admin))
}
