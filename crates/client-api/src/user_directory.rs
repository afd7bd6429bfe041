//! Finding users: `POST /user_directory/search` and `GET /mutual_rooms`.

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::json;

use crate::{ClientApi, body, room_error};

/// Rooms in one answer.
const MAX_PAGE: usize = 100;

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    const MUTUAL: &str = "/_matrix/client/v1/mutual_rooms";
    /// MSC2666 had other names for the tokens, and clients ask here.
    const UNSTABLE: &str = "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms";
    routes
        .authed_raw(Method::POST, "/_matrix/client/v3/user_directory/search", search)
        .authed_raw(Method::GET, MUTUAL, |api, session, call| {
            mutual_rooms(api, session, call, ["from", "next_batch"])
        })
        .authed_raw(Method::GET, UNSTABLE, |api, session, call| {
            mutual_rooms(api, session, call, ["batch_token", "next_batch_token"])
        })
}

#[derive(Deserialize)]
struct Search {
    search_term: String,
    limit: Option<usize>,
}

/// `POST /_matrix/client/v3/user_directory/search`
async fn search(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let Search { search_term, limit } = body::read(&call)?;
    let found = api.rooms.search_users(&session.user_id, &search_term, limit).await;
    Ok(Reply::json(json!(found.map_err(room_error)?)))
}

/// `GET /_matrix/client/v1/mutual_rooms?user_id=&from=`: `from` is the last room of the page before.
/// `names` are those of the tokens, in the query and in the answer.
async fn mutual_rooms(
    api: ClientApi,
    session: Session,
    call: RawCall,
    names: [&str; 2],
) -> Result<Reply, MatrixError> {
    let other = call.head.query("user_id");
    let other = other.ok_or_else(|| MatrixError::invalid_param("user_id is missing"))?;
    let other: OwnedUserId = other
        .try_into()
        .map_err(|_| MatrixError::invalid_param("user_id is not a valid user id"))?;
    if other == session.user_id {
        return Err(MatrixError::invalid_param("user_id is your own"));
    }
    let [from_name, next_name] = names;
    let from = call.head.query(from_name).map(OwnedRoomId::try_from).transpose();
    let from = from
        .map_err(|_| MatrixError::invalid_param(format!("{from_name} is not one of our tokens")))?;
    let rooms = api.rooms.mutual_rooms(&session.user_id, &other).await.map_err(room_error)?;
    let start = from.map_or(0, |from| rooms.partition_point(|room| *room <= from));
    let page: Vec<_> = rooms.iter().skip(start).take(MAX_PAGE).collect();
    let mut answer = json!({ "joined": page, "count": rooms.len() });
    if let Some(last) = page.last().filter(|_| start + page.len() < rooms.len()) {
        answer[next_name] = last.as_str().into();
    }
    Ok(Reply::json(answer))
}
