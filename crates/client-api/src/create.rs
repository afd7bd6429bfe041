//! `POST /createRoom`.

use std::collections::BTreeMap;

use exeunt_core::{Object, RoomVersion};
use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::{NewRoom, Preset, RoomError};
use exeunt_users::Session;
use ruma::{OwnedRoomAliasId, OwnedUserId, RoomAliasId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    ClientApi, body,
    directory::check_alias,
    limits::Class,
    membership::no_third_party,
    profile::{invited_profile, member_profile},
    public_rooms::Visibility,
    room_error,
};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::POST, "/_matrix/client/v3/createRoom", create)
}

#[derive(Deserialize)]
struct Body {
    visibility: Option<Visibility>,
    preset: Option<PresetName>,
    room_version: Option<String>,
    room_alias_name: Option<String>,
    name: Option<String>,
    topic: Option<String>,
    creation_content: Option<Object>,
    power_level_content_override: Option<Object>,
    initial_state: Option<Vec<InitialState>>,
    invite: Option<Vec<OwnedUserId>>,
    invite_3pid: Option<Vec<Value>>,
    is_direct: Option<bool>,
}

#[derive(Deserialize, Clone, Copy)]
enum PresetName {
    #[serde(rename = "private_chat")]
    Private,
    #[serde(rename = "trusted_private_chat")]
    TrustedPrivate,
    #[serde(rename = "public_chat")]
    Public,
}

#[derive(Deserialize)]
struct InitialState {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    state_key: String,
    content: Object,
}

/// `POST /_matrix/client/v3/createRoom`. `visibility` publishes the room, and chooses the preset
/// where none is named.
async fn create(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let body: Body = body::read(&call)?;
    let invites = body.invite.as_ref().map_or(0, Vec::len);
    if session.is_limited() {
        api.limits().take(Class::Invites, session.user_id.as_str(), invites)?;
    }
    let room = new_room(&api, session, body).await?;
    let room_id = api.rooms.create_room(room).await.map_err(room_error)?;
    Ok(Reply::json(json!({ "room_id": room_id })))
}

async fn new_room(api: &ClientApi, session: Session, body: Body) -> Result<NewRoom, MatrixError> {
    let creator = session.user_id.clone();
    if body.invite_3pid.is_some_and(|invites| !invites.is_empty()) {
        return Err(no_third_party());
    }
    let version = match &body.room_version {
        None => api.default_version(),
        Some(id) => RoomVersion::parse(id)
            .map_err(|error| room_error(RoomError::UnsupportedVersion(error.0)))?,
    };
    let creation_content = body.creation_content.unwrap_or_default();
    let power_level_override = body.power_level_content_override.unwrap_or_default();
    check_levels(version, &creator, &creation_content, &power_level_override)?;
    let alias = body.room_alias_name.map(|name| alias_of(api, &name)).transpose()?;
    if let Some(alias) = &alias {
        check_alias(api, &session, alias)?;
    }
    let mut invite = BTreeMap::new();
    for user in body.invite.unwrap_or_default() {
        let profile = invited_profile(api, &user).await?;
        invite.insert(user, profile);
    }
    let initial_state = body.initial_state.unwrap_or_default();
    Ok(NewRoom {
        published: matches!(body.visibility, Some(Visibility::Public)),
        profile: member_profile(api, &creator).await?,
        creator,
        version,
        preset: preset_of(body.preset, body.visibility),
        name: body.name,
        topic: body.topic,
        alias,
        invite,
        is_direct: body.is_direct.unwrap_or_default(),
        initial_state: initial_state
            .into_iter()
            .map(|event| (event.kind, event.state_key, event.content))
            .collect(),
        creation_content,
        power_level_override,
    })
}

fn preset_of(preset: Option<PresetName>, visibility: Option<Visibility>) -> Preset {
    match (preset, visibility) {
        (Some(PresetName::Private), _) => Preset::Private,
        (Some(PresetName::TrustedPrivate), _) => Preset::TrustedPrivate,
        (Some(PresetName::Public), _) | (None, Some(Visibility::Public)) => Preset::Public,
        (None, Some(Visibility::Private) | None) => Preset::Private,
    }
}

fn alias_of(api: &ClientApi, name: &str) -> Result<OwnedRoomAliasId, MatrixError> {
    let invalid = || MatrixError::invalid_param("room_alias_name makes no room alias");
    if name.is_empty() || name.contains([':', '\0']) {
        return Err(invalid());
    }
    RoomAliasId::parse(format!("#{name}:{}", api.server_name())).map_err(|_| invalid())
}

/// Creators whose power the room version makes infinite must not be listed with a level (room
/// version 12): the client is told which one is.
fn check_levels(
    version: RoomVersion,
    creator: &UserId,
    creation_content: &Object,
    levels: &Object,
) -> Result<(), MatrixError> {
    if !version.rules().authorization.explicitly_privilege_room_creators {
        return Ok(());
    }
    let named = creation_content.get("additional_creators").and_then(Value::as_array);
    let mut creators =
        named.into_iter().flatten().filter_map(Value::as_str).chain([creator.as_str()]);
    let listed = levels.get("users").and_then(Value::as_object);
    match creators.find(|creator| listed.is_some_and(|users| users.contains_key(*creator))) {
        None => Ok(()),
        Some(creator) => Err(MatrixError::bad_json(format!(
            "power_level_content_override lists {creator}, a creator of the room"
        ))),
    }
}
