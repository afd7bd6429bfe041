//! `GET /sync`: what is new, at once or as soon as there is something.

mod poll;
mod request;
mod response;

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;

use crate::ClientApi;

use poll::{Answer, poll};
pub(crate) use request::MAX_TIMEOUT;
use request::SyncCall;

pub fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::GET, "/_matrix/client/v3/sync", sync)
}

/// `GET /_matrix/client/v3/sync`
async fn sync(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let call = request::read(&api, &session, &call.head).await?;
    let answer = poll(&api, &session, &call).await?;
    Ok(Reply::json(response::body(answer, &call)))
}
