//! Logging out, and asking who one is.

use exeunt_http::{MatrixError, Routes};
use exeunt_users::Session;
use ruma::api::client::{
    account::whoami::v3 as whoami,
    session::{logout::v3 as logout, logout_all::v3 as logout_all},
};

use crate::{ClientApi, users_error};

pub(super) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed(logout).authed(logout_all).authed(whoami)
}

/// `POST /_matrix/client/v3/logout`
async fn logout(
    api: ClientApi,
    session: Session,
    _: logout::Request,
) -> Result<logout::Response, MatrixError> {
    api.users.logout(&session).await.map_err(users_error)?;
    Ok(logout::Response::new())
}

/// `POST /_matrix/client/v3/logout/all`
async fn logout_all(
    api: ClientApi,
    session: Session,
    _: logout_all::Request,
) -> Result<logout_all::Response, MatrixError> {
    api.users.logout_all(&session.user_id).await.map_err(users_error)?;
    Ok(logout_all::Response::new())
}

/// `GET /_matrix/client/v3/account/whoami`
async fn whoami(
    _: ClientApi,
    session: Session,
    _: whoami::Request,
) -> Result<whoami::Response, MatrixError> {
    let mut response = whoami::Response::new(session.user_id, false);
    response.device_id = session.by_service.is_none().then_some(session.device_id);
    Ok(response)
}
