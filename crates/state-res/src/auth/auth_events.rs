//! The events that an event cites: which they should be, and whether they are.
//!
//! Specification: server-server API, "Auth events selection"; rooms/v12, rules 2 and 3.

use std::collections::BTreeMap;

use exeunt_core::{Object, Pdu, RoomVersion, StateKey};
use ruma::{EventId, UserId};
use serde_json::Value;

use super::{AuthError, check_create};

/// An auth event and the verdict on it.
#[derive(Debug, Clone)]
pub struct AuthEvent {
    pub pdu: Pdu,
    pub rejected: bool,
}

impl AuthEvent {
    pub fn accepted(pdu: Pdu) -> Self {
        Self { pdu, rejected: false }
    }
}

/// The state that an event of this shape cites, where the state has it. No key comes twice.
pub fn auth_types(
    version: RoomVersion,
    kind: &str,
    sender: &UserId,
    state_key: Option<&str>,
    content: &Object,
) -> Vec<StateKey> {
    if kind == "m.room.create" {
        return Vec::new();
    }
    let mut keys = Vec::new();
    if version.rules().event_format.allow_room_create_in_auth_events {
        keys.push(StateKey::single("m.room.create"));
    }
    keys.push(StateKey::single("m.room.power_levels"));
    keys.push(StateKey::member(sender));
    if kind == "m.room.member" {
        for key in member_auth_types(version, state_key, content) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    keys
}

/// What member events cite besides.
fn member_auth_types(
    version: RoomVersion,
    state_key: Option<&str>,
    content: &Object,
) -> Vec<StateKey> {
    let mut keys = Vec::new();
    let membership = content.get("membership").and_then(Value::as_str);
    keys.extend(state_key.map(|target| StateKey::new("m.room.member", target)));
    if matches!(membership, Some("join" | "invite" | "knock")) {
        keys.push(StateKey::single("m.room.join_rules"));
    }
    if membership == Some("invite") {
        let signed = content.get("third_party_invite").and_then(|invite| invite.get("signed"));
        let token = signed.and_then(|signed| signed.get("token")).and_then(Value::as_str);
        keys.extend(token.map(|token| StateKey::new("m.room.third_party_invite", token)));
    }
    if membership == Some("join") && version.rules().authorization.restricted_join_rule {
        let user = content.get("join_authorised_via_users_server").and_then(Value::as_str);
        keys.extend(user.map(|user| StateKey::new("m.room.member", user)));
    }
    keys
}

/// The rules that do not depend on state: those of create events, else those on `auth_events`.
///
/// `auth_events` holds the events that `pdu` cites, in any order. `create` is the create event
/// that the room id names; only room versions whose room id is its hash look at it.
pub fn check_auth_events(
    pdu: &Pdu,
    create: Option<&AuthEvent>,
    auth_events: &[AuthEvent],
) -> Result<(), AuthError> {
    if pdu.kind() == "m.room.create" {
        return check_create(pdu);
    }
    let version = pdu.version();
    if version.room_id_is_create_hash() {
        check_room_create(pdu, create)?;
    }
    let by_id: BTreeMap<&EventId, &AuthEvent> =
        auth_events.iter().map(|event| (event.pdu.event_id(), event)).collect();
    let expected = auth_types(version, pdu.kind(), pdu.sender(), pdu.state_key(), pdu.content());
    let mut seen: Vec<StateKey> = Vec::new();
    for id in pdu.auth_events() {
        let event = by_id.get(&**id).ok_or_else(|| AuthError::MissingAuthEvent(id.clone()))?;
        seen.push(check_one(pdu, event, &expected, &seen)?);
    }
    let cites_create = seen.contains(&StateKey::single("m.room.create"));
    if version.rules().event_format.allow_room_create_in_auth_events && !cites_create {
        return Err(AuthError::NoCreate);
    }
    Ok(())
}

/// Rule 3 for one auth event; its key.
fn check_one(
    pdu: &Pdu,
    event: &AuthEvent,
    expected: &[StateKey],
    seen: &[StateKey],
) -> Result<StateKey, AuthError> {
    let id = || event.pdu.event_id().to_owned();
    let key = event.pdu.key().ok_or_else(|| AuthError::UnexpectedAuthEvent(id()))?;
    if seen.contains(&key) {
        return Err(AuthError::DuplicateAuthEvent(id()));
    }
    if !expected.contains(&key) {
        return Err(AuthError::UnexpectedAuthEvent(id()));
    }
    if event.rejected {
        return Err(AuthError::RejectedAuthEvent(id()));
    }
    if event.pdu.room_id() != pdu.room_id() {
        return Err(AuthError::ForeignAuthEvent(id()));
    }
    Ok(key)
}

/// Rule 2: the room id is the id of an accepted create event (MSC4291).
fn check_room_create(pdu: &Pdu, create: Option<&AuthEvent>) -> Result<(), AuthError> {
    let named = pdu.version().create_event_id(pdu.room_id());
    match create {
        Some(AuthEvent { pdu: create, rejected: false })
            if create.kind() == "m.room.create" && named.as_deref() == Some(create.event_id()) =>
        {
            Ok(())
        }
        _ => Err(AuthError::NoCreate),
    }
}
