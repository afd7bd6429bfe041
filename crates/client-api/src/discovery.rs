//! What there is to know of the server before anything else.

use exeunt_core::{Object, RoomVersion};
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_users::Session;
use ruma::api::client::discovery::get_supported_versions as versions;
use serde_json::json;

use crate::{ClientApi, admin::is_admin};

/// Versions of the client-server API. Clients ask for one that they know, so the list begins with
/// the oldest that is still in use; what is missing of one answers `M_UNRECOGNIZED`.
const VERSIONS: [&str; 17] = [
    "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10",
    "v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16",
];

/// What clients ask for by name, because it was in no version or is in a later one.
const UNSTABLE: [&str; 3] = [
    "org.matrix.msc3391",
    "uk.half-shot.msc2666.query_mutual_rooms",
    "uk.half-shot.msc2666.query_mutual_rooms.stable",
];

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .public(versions)
        .public_raw(Method::GET, "/.well-known/matrix/client", well_known)
        .authed_raw(Method::GET, "/_matrix/client/v3/capabilities", capabilities)
}

/// `GET /_matrix/client/versions`
async fn versions(_: ClientApi, _: versions::Request) -> Result<versions::Response, MatrixError> {
    let mut answer = versions::Response::new(VERSIONS.map(str::to_owned).to_vec());
    answer.unstable_features.extend(UNSTABLE.map(|feature| (feature.to_owned(), true)));
    Ok(answer)
}

/// `GET /.well-known/matrix/client`
async fn well_known(api: ClientApi, _: RawCall) -> Result<Reply, MatrixError> {
    let none = || MatrixError::not_found("No client information is served here");
    let base_url = api.options().well_known_client.as_ref().ok_or_else(none)?;
    Ok(Reply::json(json!({ "m.homeserver": { "base_url": base_url } })))
}

/// `GET /_matrix/client/v3/capabilities`. What is not said is enabled, but some clients want to hear
/// it of the password.
async fn capabilities(api: ClientApi, session: Session, _: RawCall) -> Result<Reply, MatrixError> {
    let available: Object =
        RoomVersion::all().map(|version| (version.id().to_string(), "stable".into())).collect();
    let mut all = json!({
        "m.change_password": { "enabled": true },
        "m.room_versions": { "default": api.default_version().id(), "available": available },
        "m.3pid_changes": { "enabled": false },
        "m.get_login_token": { "enabled": true },
        "m.profile_fields": { "enabled": true },
    });
    if is_admin(&api, &session).await? {
        all["m.account_moderation"] = json!({ "lock": true, "suspend": true });
    }
    Ok(Reply::json(json!({ "capabilities": all })))
}
