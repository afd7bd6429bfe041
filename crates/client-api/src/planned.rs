//! The endpoints of the specification that are not built. They answer like unknown paths; that they
//! are known shows in the answer to a wrong method. An entry goes when its endpoint comes: the
//! routes do not take both.

use exeunt_http::{Method, Routes};

use crate::ClientApi;

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    PLANNED.into_iter().fold(routes, |routes, (method, path)| routes.planned(method, path))
}

/// Client-server API, in the order of its chapters.
#[rustfmt::skip]
const PLANNED: [(Method, &str); 61] = [
    (Method::GET, "/.well-known/matrix/policy_server"),
    (Method::GET, "/_matrix/client/v1/auth_metadata"),
    (Method::GET, "/_matrix/client/v3/login/sso/redirect"),
    (Method::GET, "/_matrix/client/v3/login/sso/redirect/{idp_id}"),
    (Method::POST, "/_matrix/client/v3/register/email/requestToken"),
    (Method::POST, "/_matrix/client/v3/register/msisdn/requestToken"),
    (Method::POST, "/_matrix/client/v3/account/password/email/requestToken"),
    (Method::POST, "/_matrix/client/v3/account/password/msisdn/requestToken"),
    (Method::POST, "/_matrix/client/v3/account/3pid"),
    (Method::POST, "/_matrix/client/v3/account/3pid/add"),
    (Method::POST, "/_matrix/client/v3/account/3pid/bind"),
    (Method::POST, "/_matrix/client/v3/account/3pid/delete"),
    (Method::POST, "/_matrix/client/v3/account/3pid/unbind"),
    (Method::POST, "/_matrix/client/v3/account/3pid/email/requestToken"),
    (Method::POST, "/_matrix/client/v3/account/3pid/msisdn/requestToken"),
    (Method::GET, "/_matrix/client/v3/initialSync"),
    (Method::GET, "/_matrix/client/v3/events/{event_id}"),
    (Method::PUT, "/_matrix/client/v3/directory/list/appservice/{network_id}/{room_id}"),
    (Method::POST, "/_matrix/client/v3/keys/upload"),
    (Method::POST, "/_matrix/client/v3/keys/query"),
    (Method::POST, "/_matrix/client/v3/keys/claim"),
    (Method::GET, "/_matrix/client/v3/keys/changes"),
    (Method::POST, "/_matrix/client/v3/keys/device_signing/upload"),
    (Method::POST, "/_matrix/client/v3/keys/signatures/upload"),
    (Method::PUT, "/_matrix/client/v3/sendToDevice/{event_type}/{txn_id}"),
    (Method::POST, "/_matrix/client/v3/room_keys/version"),
    (Method::GET, "/_matrix/client/v3/room_keys/version"),
    (Method::GET, "/_matrix/client/v3/room_keys/version/{version}"),
    (Method::PUT, "/_matrix/client/v3/room_keys/version/{version}"),
    (Method::DELETE, "/_matrix/client/v3/room_keys/version/{version}"),
    (Method::PUT, "/_matrix/client/v3/room_keys/keys/{room_id}/{session_id}"),
    (Method::GET, "/_matrix/client/v3/room_keys/keys/{room_id}/{session_id}"),
    (Method::DELETE, "/_matrix/client/v3/room_keys/keys/{room_id}/{session_id}"),
    (Method::PUT, "/_matrix/client/v3/room_keys/keys/{room_id}"),
    (Method::GET, "/_matrix/client/v3/room_keys/keys/{room_id}"),
    (Method::DELETE, "/_matrix/client/v3/room_keys/keys/{room_id}"),
    (Method::PUT, "/_matrix/client/v3/room_keys/keys"),
    (Method::GET, "/_matrix/client/v3/room_keys/keys"),
    (Method::DELETE, "/_matrix/client/v3/room_keys/keys"),
    (Method::GET, "/_matrix/client/v3/pushers"),
    (Method::POST, "/_matrix/client/v3/pushers/set"),
    (Method::GET, "/_matrix/client/v3/notifications"),
    (Method::GET, "/_matrix/client/v1/media/download/{server_name}/{media_id}"),
    (Method::GET, "/_matrix/client/v1/media/download/{server_name}/{media_id}/{file_name}"),
    (Method::GET, "/_matrix/client/v1/media/thumbnail/{server_name}/{media_id}"),
    (Method::GET, "/_matrix/client/v1/media/preview_url"),
    (Method::GET, "/_matrix/client/v1/media/config"),
    (Method::POST, "/_matrix/media/v3/upload"),
    (Method::PUT, "/_matrix/media/v3/upload/{server_name}/{media_id}"),
    (Method::POST, "/_matrix/media/v1/create"),
    (Method::GET, "/_matrix/media/v3/download/{server_name}/{media_id}"),
    (Method::GET, "/_matrix/media/v3/download/{server_name}/{media_id}/{file_name}"),
    (Method::GET, "/_matrix/media/v3/thumbnail/{server_name}/{media_id}"),
    (Method::GET, "/_matrix/media/v3/preview_url"),
    (Method::GET, "/_matrix/media/v3/config"),
    (Method::GET, "/_matrix/client/v3/thirdparty/protocol/{protocol}"),
    (Method::GET, "/_matrix/client/v3/thirdparty/location/{protocol}"),
    (Method::GET, "/_matrix/client/v3/thirdparty/user/{protocol}"),
    (Method::GET, "/_matrix/client/v3/thirdparty/location"),
    (Method::GET, "/_matrix/client/v3/thirdparty/user"),
    (Method::POST, "/_matrix/client/v1/appservice/{appservice_id}/ping"),
];
