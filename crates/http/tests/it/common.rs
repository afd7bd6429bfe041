//! A small API to send requests to.

use exeunt_core::ruma::{
    OwnedUserId,
    api::client::{
        account::whoami, discovery::get_supported_versions, profile::set_display_name,
        session::get_login_types, state::get_state_event_for_key,
    },
    api::federation::membership::create_leave_event,
    user_id,
};
use exeunt_http::{
    Authenticator, MatrixError, Method, RawCall, Reply, RequestHead, Routes, Service, access_token,
};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

/// The limit of `/small`.
pub const SMALL: usize = 16;

#[derive(Clone)]
pub struct Api;

impl Authenticator for Api {
    type Identity = OwnedUserId;

    async fn authenticate(&self, head: &RequestHead, _: &[u8]) -> Result<OwnedUserId, MatrixError> {
        match access_token(head) {
            None => Err(MatrixError::missing_token()),
            Some("secret") => Ok(user_id!("@ann:example.org").to_owned()),
            Some(_) => Err(MatrixError::unknown_token(true)),
        }
    }
}

async fn whoami(
    _: Api,
    user: OwnedUserId,
    _: whoami::v3::Request,
) -> Result<whoami::v3::Response, MatrixError> {
    Ok(whoami::v3::Response::new(user, false))
}

async fn versions(
    _: Api,
    _: get_supported_versions::Request,
) -> Result<get_supported_versions::Response, MatrixError> {
    Ok(get_supported_versions::Response::new(vec!["v1.11".to_owned()]))
}

async fn echo(_: Api, call: RawCall) -> Result<Reply, MatrixError> {
    let query = call.head.query("q");
    Ok(Reply::json(json!({"args": call.args, "query": query, "body": call.object()?})))
}

async fn panics(_: Api, _: RawCall) -> Result<Reply, MatrixError> {
    panic!("on purpose")
}

async fn fails(_: Api, _: RawCall) -> Result<Reply, MatrixError> {
    Err(MatrixError::internal(&std::io::Error::other("the disk is on fire")))
}

/// A list that is made while it is sent, to its end or to a failure.
fn streamed(whole: bool) -> Reply {
    let end = async move {
        // What there is so far goes out.
        tokio::task::yield_now().await;
        if whole { Ok("2]") } else { Err(std::io::Error::other("gone")) }
    };
    Reply::json_stream(stream::iter([Ok("[1,")]).chain(stream::once(end)))
}

pub fn service() -> Service {
    let client =
        Routes::new(Api)
            .authed(whoami)
            .public(versions)
            .authed(async |_: Api, user: OwnedUserId, request: set_display_name::v3::Request| {
                match user == request.user_id {
                    true => Ok(set_display_name::v3::Response::new()),
                    false => Err(MatrixError::forbidden("Not your profile")),
                }
            })
            .public(async |_: Api, request: get_state_event_for_key::v3::Request| {
                let text = json!([request.event_type.to_string(), request.state_key]).to_string();
                let raw = serde_json::value::RawValue::from_string(text)
                    .map_err(|error| MatrixError::internal(&error))?;
                Ok(get_state_event_for_key::v3::Response::new(raw))
            })
            .public_with_head(async |_: Api, head: RequestHead, _: get_login_types::v3::Request| {
                Err(MatrixError::limit_exceeded(1500).with("peer", head.peer.is_some()))
            })
            .public_raw(Method::PUT, "/_matrix/client/v3/echo/{one}/{two}", echo)
            .public_raw(Method::PUT, "/_matrix/client/v3/echo/literal/{two}", fails)
            .public_raw(Method::DELETE, "/_matrix/client/v3/echo/{one}/{two}", echo)
            .public_raw(Method::GET, "/_matrix/client/v3/panic", panics)
            .public_raw(Method::POST, "/_matrix/client/v3/panic", panics)
            .public_raw(Method::GET, "/_matrix/client/v3/stream", async |_, _| Ok(streamed(true)))
            .public_raw(Method::GET, "/_matrix/client/v3/cut_off", async |_, _| Ok(streamed(false)))
            .planned(Method::POST, "/_matrix/media/v3/upload")
            .planned(Method::GET, "/_matrix/client/v3/echo/{one}/{two}")
            .body_limit(SMALL)
            .public_raw(Method::POST, "/_matrix/client/v3/small", echo);
    let federation = Routes::new(Api).authed(
        async |_: Api, _: OwnedUserId, request: create_leave_event::v2::Request| {
            assert_eq!(request.event_id.as_str(), "$leave");
            Ok(create_leave_event::v2::Response::new())
        },
    );
    Service::new().mount(client).mount(federation)
}
