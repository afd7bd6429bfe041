//! Create events and the creators that they name.
//!
//! Specification: rooms/v1, v11, v12, rule 1.

use exeunt_core::{Pdu, RoomVersion};
use ruma::{OwnedUserId, UserId};
use serde_json::Value;

use super::AuthError;

/// Rule 1. That a create event of room version 12 has no room id is part of its format.
pub fn check_create(pdu: &Pdu) -> Result<(), AuthError> {
    let rules = &pdu.version().rules().authorization;
    let content = pdu.content();
    if !pdu.prev_events().is_empty() {
        return Err(AuthError::CreateHasPrevEvents);
    }
    if !rules.room_create_event_id_as_room_id && pdu.room_id().server_name() != Some(pdu.origin()) {
        return Err(AuthError::CreateRoomIdServer);
    }
    if content.get("room_version").is_some_and(|version| !is_known(version)) {
        return Err(AuthError::CreateRoomVersion);
    }
    if !rules.use_room_create_sender && !content.contains_key("creator") {
        return Err(AuthError::CreateWithoutCreator);
    }
    if rules.additional_room_creators {
        additional_creators(pdu)?;
    }
    Ok(())
}

fn is_known(version: &Value) -> bool {
    RoomVersion::all().any(|known| version.as_str() == Some(known.as_str()))
}

/// `additional_creators`, empty where absent.
fn additional_creators(create: &Pdu) -> Result<Vec<OwnedUserId>, AuthError> {
    let malformed = || AuthError::AdditionalCreators;
    let Some(list) = create.content().get("additional_creators") else {
        return Ok(Vec::new());
    };
    let users = list.as_array().ok_or_else(malformed)?.iter();
    users
        .map(|user| UserId::parse(user.as_str().ok_or_else(malformed)?).map_err(|_| malformed()))
        .collect()
}

/// The room's creators: `content.creator`, since room version 11 the sender of the create event,
/// since 12 the additional creators besides.
///
/// An accepted create event of versions 1 to 10 can name a creator that is no user id; it has
/// no creator then.
pub(crate) fn creators(create: &Pdu) -> Vec<OwnedUserId> {
    let rules = &create.version().rules().authorization;
    let mut creators = Vec::new();
    if rules.use_room_create_sender {
        creators.push(create.sender().to_owned());
    } else {
        creators.extend(create.content_str("creator").and_then(|user| UserId::parse(user).ok()));
    }
    if rules.additional_room_creators {
        // Malformed lists were refused by check_create.
        creators.extend(additional_creators(create).unwrap_or_default());
    }
    creators
}
