//! `GET /sync`: what is new, at once or as soon as there is something.

mod poll;
mod request;
mod response;

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;

use crate::{ClientApi, room_error};

use poll::{Answer, poll};
pub(crate) use request::MAX_TIMEOUT;
use request::SyncCall;

pub fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::GET, "/_matrix/client/v3/sync", sync)
}

/// `GET /_matrix/client/v3/sync`
async fn sync(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let call = Box::pin(request::read(&api, &session, call)).await?;
    let answer = poll(&api, &session, &call).await?;
    if answer.view.join.len() <= response::FEW {
        return Ok(Reply::raw_json(response::body(answer, &call)));
    }
    let write = move || response::body(answer, &call);
    let body = api.rooms.store().off_thread(write).await;
    Ok(Reply::raw_json(body.map_err(|e| room_error(e.into()))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thousands of clients wait at once, each in a future of its own.
    #[test]
    fn a_request_that_waits_is_small() {
        fn size<F>(_: impl Fn(ClientApi, Session, RawCall) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(sync) < 3_000, "{}", size(sync));
    }
}
