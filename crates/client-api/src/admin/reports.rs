//! Reports: the membership timeline, departures, pending invites, the journal of signatures.

use exeunt_http::{MatrixError, Method, RawCall};
use exeunt_room::reports::{self, MAX_ROWS, SignatureQuery, TimelineQuery};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use serde_json::{Value, json};

use super::AdminRoutes;
use crate::{ClientApi, body, room_error};

/// Rows of an answer where the request does not say.
const DEFAULT_ROWS: usize = 100;

pub(super) fn routes(routes: AdminRoutes) -> AdminRoutes {
    const TIMELINE: &str = "/_exeunt/admin/v1/rooms/{room_id}/timeline";
    routes
        .on(Method::GET, TIMELINE, timeline)
        .on(Method::GET, "/_exeunt/admin/v1/departures", departures)
        .on(Method::GET, "/_exeunt/admin/v1/invites", invites)
        .on(Method::POST, "/_exeunt/admin/v1/invites/check", check_invites)
        .on(Method::GET, "/_exeunt/admin/v1/signatures", signatures)
        .on(Method::GET, "/_exeunt/admin/v1/set_aside", set_aside)
        .on(Method::GET, "/_exeunt/admin/v1/reports", content_reports)
        .on(Method::DELETE, "/_exeunt/admin/v1/reports/{user_id}/{id}", drop_report)
}

/// `GET rooms/{roomId}/timeline?user_id=&from=&limit=`
async fn timeline(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let query = TimelineQuery {
        room_id: body::id(&call, 0)?,
        user_id: parameter(&call, "user_id")?,
        from: parameter::<Number>(&call, "from")?.map_or(0, |n| n.0),
        limit: limit(&call)?,
    };
    let page = api.rooms.report(move |reader| reports::timeline(reader, &query)).await;
    Ok(json!(page.map_err(room_error)?))
}

/// `GET departures`
async fn departures(api: ClientApi, _: RawCall) -> Result<Value, MatrixError> {
    let rows = api.rooms.report(reports::departures).await.map_err(room_error)?;
    Ok(json!({ "rows": rows }))
}

/// `GET invites?after_user=&after_room=`: the next ones follow the last of an answer.
async fn invites(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let after = after(&call)?;
    let now = api.now();
    let rows = api.rooms.report(move |reader| reports::invites(reader, after, now)).await;
    Ok(json!({ "rows": rows.map_err(room_error)? }))
}

/// `POST invites/check?after_user=&after_room=`: the same, with what the servers say that must know.
async fn check_invites(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let rows = api.rooms.check_invites(after(&call)?).await.map_err(room_error)?;
    Ok(json!({ "rows": rows }))
}

fn after(call: &RawCall) -> Result<Option<(OwnedUserId, OwnedRoomId)>, MatrixError> {
    match (parameter(call, "after_user")?, parameter(call, "after_room")?) {
        (Some(user), Some(room)) => Ok(Some((user, room))),
        (None, None) => Ok(None),
        _ => Err(MatrixError::missing_param("after_user and after_room go together")),
    }
}

/// `GET signatures?purpose=&event_id=&peer=&from=&limit=`
async fn signatures(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let query = SignatureQuery {
        purpose: call.head.query("purpose"),
        event_id: parameter(&call, "event_id")?,
        peer: parameter(&call, "peer")?,
        from: parameter::<Number>(&call, "from")?.map_or(0, |n| n.0),
        limit: limit(&call)?,
    };
    let page = api.rooms.report(move |reader| reports::signatures(reader, &query)).await;
    Ok(json!(page.map_err(room_error)?))
}

/// `GET set_aside?server=`: what other servers would not have of us.
async fn set_aside(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let server: Option<OwnedServerName> = parameter(&call, "server")?;
    let rows = api.rooms.report(move |reader| reports::set_aside(reader, server.as_deref())).await;
    Ok(json!({ "rows": rows.map_err(room_error)? }))
}

/// `GET reports?from=&limit=`: what users have reported.
async fn content_reports(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let from = parameter::<Number>(&call, "from")?.map_or(0, |n| n.0);
    let limit = limit(&call)?;
    let page = api.rooms.report(move |reader| reports::content_reports(reader, from, limit)).await;
    Ok(json!(page.map_err(room_error)?))
}

/// `DELETE reports/{userId}/{id}`: a report that has been dealt with, by its reporter and id.
async fn drop_report(api: ClientApi, call: RawCall) -> Result<Value, MatrixError> {
    let (reporter, id): (OwnedUserId, Number) = (body::id(&call, 0)?, body::id(&call, 1)?);
    api.rooms.drop_report(&reporter, id.0).await.map_err(room_error)?;
    Ok(json!({}))
}

struct Number(u64);

impl TryFrom<&str> for Number {
    type Error = std::num::ParseIntError;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

fn limit(call: &RawCall) -> Result<usize, MatrixError> {
    let wanted = parameter::<Number>(call, "limit")?;
    let wanted = wanted.and_then(|n| usize::try_from(n.0).ok()).unwrap_or(DEFAULT_ROWS);
    Ok(wanted.clamp(1, MAX_ROWS))
}

/// A parameter of the query, if it is there.
fn parameter<T: for<'a> TryFrom<&'a str>>(
    call: &RawCall,
    name: &str,
) -> Result<Option<T>, MatrixError> {
    let Some(text) = call.head.query(name) else { return Ok(None) };
    match T::try_from(&text) {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(MatrixError::invalid_param(format!("{name} is malformed: {text:?}"))),
    }
}
