//! Templates of make_leave, make_knock and make_join: checked, then discarded.
//!
//! A server that signs what it is handed is a signing oracle (CVE-2026-24471). A template must say
//! exactly what we asked for; even then only the event's place in the graph survives the check.

use exeunt_core::canonical::MAX_INT;
use exeunt_core::pdu::{MAX_AUTH_EVENTS, MAX_PREV_EVENTS};
use exeunt_core::ruma::{OwnedUserId, RoomId, ServerName, UserId};
use exeunt_core::version::EventIdFormatVersion;
use exeunt_core::{Object, Reference, RoomVersion};
use serde_json::Value;
use thiserror::Error;

use crate::Membership;

/// A room version that is not named means this one (server-server API, "make_leave").
const DEFAULT_VERSION: &str = "1";
/// SHA-256 in unpadded base64.
const HASH_CHARS: usize = 43;

/// What we asked for.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub room_id: &'a RoomId,
    pub user_id: &'a UserId,
    pub membership: Membership,
    /// Where we know it, from an invite for example.
    pub room_version: Option<RoomVersion>,
}

/// The place of a future event in the graph: all that we take from a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphPosition {
    pub version: RoomVersion,
    pub prev_events: Vec<Reference>,
    pub auth_events: Vec<Reference>,
    pub depth: u64,
}

/// The same for a join, with who lets us in to a restricted room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinPosition {
    pub position: GraphPosition,
    /// `join_authorised_via_users_server`: always a user of the answering server.
    pub authorised_via: Option<OwnedUserId>,
}

/// Why a template is not what we asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    #[error("the answer is not an object")]
    NotAnObject,
    #[error("{0} is missing or not of its type")]
    Field(&'static str),
    #[error("unsupported room version {0:?}")]
    UnsupportedVersion(String),
    #[error("the room has version {known}, not {claimed}")]
    OtherVersion { known: RoomVersion, claimed: RoomVersion },
    #[error("a template for another type of event")]
    Type,
    #[error("a template for another room")]
    RoomId,
    #[error("a template with another sender")]
    Sender,
    #[error("a template for another user")]
    StateKey,
    #[error("a template for another membership")]
    Membership,
    #[error("prev_events is empty")]
    NoPrevEvents,
    #[error("{0} prev_events, at most {MAX_PREV_EVENTS} are allowed")]
    TooManyPrevEvents(usize),
    #[error("{0} auth_events, at most {MAX_AUTH_EVENTS} are allowed")]
    TooManyAuthEvents(usize),
    #[error("{0} holds something that is no event id of the room version")]
    EventId(&'static str),
    #[error("{0} names an event twice")]
    Duplicate(&'static str),
    #[error("depth is missing or not an integer from 0 to 2^53 - 1")]
    Depth,
    #[error("join_authorised_via_users_server is not a user of the answering server")]
    Authoriser,
}

/// Checks the answer to a make_leave (or make_knock): `{ room_version, event }`.
pub fn check_template(
    expect: &Expected<'_>,
    answer: &Value,
) -> Result<GraphPosition, TemplateError> {
    Ok(check(expect, answer)?.0)
}

/// Checks the answer of `server` to a make_join.
pub fn check_join_template(
    expect: &Expected<'_>,
    server: &ServerName,
    answer: &Value,
) -> Result<JoinPosition, TemplateError> {
    let (position, content) = check(expect, answer)?;
    let restricted = position.version.rules().authorization.restricted_join_rule;
    let authorised_via = match content.get("join_authorised_via_users_server") {
        Some(value) if restricted => {
            let user = value.as_str().and_then(|text| UserId::parse(text).ok());
            let user = user.filter(|user| user.server_name() == server);
            Some(user.ok_or(TemplateError::Authoriser)?)
        }
        _ => None,
    };
    Ok(JoinPosition { position, authorised_via })
}

fn check<'a>(
    expect: &Expected<'_>,
    answer: &'a Value,
) -> Result<(GraphPosition, &'a Object), TemplateError> {
    let answer = answer.as_object().ok_or(TemplateError::NotAnObject)?;
    let version = version(expect, answer)?;
    let event = object(answer, "event")?;
    let same = |field, expected: &str, error| {
        if text(event, field)? == expected { Ok(()) } else { Err(error) }
    };
    same("type", "m.room.member", TemplateError::Type)?;
    same("room_id", expect.room_id.as_str(), TemplateError::RoomId)?;
    same("sender", expect.user_id.as_str(), TemplateError::Sender)?;
    same("state_key", expect.user_id.as_str(), TemplateError::StateKey)?;
    let content = object(event, "content")?;
    let membership = content.get("membership").and_then(Value::as_str);
    if membership.ok_or(TemplateError::Field("membership"))? != expect.membership.as_str() {
        return Err(TemplateError::Membership);
    }
    let prev_events = array(event, "prev_events")?;
    if prev_events.is_empty() {
        return Err(TemplateError::NoPrevEvents);
    }
    if prev_events.len() > MAX_PREV_EVENTS {
        return Err(TemplateError::TooManyPrevEvents(prev_events.len()));
    }
    let auth_events = array(event, "auth_events")?;
    if auth_events.len() > MAX_AUTH_EVENTS {
        return Err(TemplateError::TooManyAuthEvents(auth_events.len()));
    }
    let depth = event.get("depth").and_then(Value::as_u64).ok_or(TemplateError::Depth)?;
    if depth > MAX_INT as u64 {
        return Err(TemplateError::Depth);
    }
    let position = GraphPosition {
        version,
        prev_events: references(version, prev_events, "prev_events")?,
        auth_events: references(version, auth_events, "auth_events")?,
        depth,
    };
    Ok((position, content))
}

fn version(expect: &Expected<'_>, answer: &Object) -> Result<RoomVersion, TemplateError> {
    let claimed = match answer.get("room_version") {
        None => DEFAULT_VERSION,
        Some(_) => text(answer, "room_version")?,
    };
    let claimed = RoomVersion::parse(claimed)
        .map_err(|unsupported| TemplateError::UnsupportedVersion(unsupported.0))?;
    match expect.room_version {
        // An invite by the v1 endpoint is of version 1 or 2, and does not say which.
        Some(known) if !known.shares_events_with(claimed) => {
            Err(TemplateError::OtherVersion { known, claimed })
        }
        _ => Ok(claimed),
    }
}

fn text<'a>(object: &'a Object, field: &'static str) -> Result<&'a str, TemplateError> {
    object.get(field).and_then(Value::as_str).ok_or(TemplateError::Field(field))
}

fn object<'a>(object: &'a Object, field: &'static str) -> Result<&'a Object, TemplateError> {
    object.get(field).and_then(Value::as_object).ok_or(TemplateError::Field(field))
}

fn array<'a>(object: &'a Object, field: &'static str) -> Result<&'a [Value], TemplateError> {
    let array = object.get(field).and_then(Value::as_array);
    array.map(Vec::as_slice).ok_or(TemplateError::Field(field))
}

fn references(
    version: RoomVersion,
    entries: &[Value],
    field: &'static str,
) -> Result<Vec<Reference>, TemplateError> {
    let mut references: Vec<Reference> = Vec::with_capacity(entries.len());
    for entry in entries {
        let reference = Reference::from_wire(version, entry)
            .filter(|reference| is_event_id(version, reference.id().as_str()))
            .ok_or(TemplateError::EventId(field))?;
        if references.iter().any(|known| known.id() == reference.id()) {
            return Err(TemplateError::Duplicate(field));
        }
        references.push(reference);
    }
    Ok(references)
}

/// Since room version 3 an event id is `$` and a hash (rooms/v3 and v4, "Event IDs"); before that
/// it is a server's own choice, and [`Reference::from_wire`] has seen to its form.
fn is_event_id(version: RoomVersion, id: &str) -> bool {
    let specials = match version.rules().event_id_format {
        EventIdFormatVersion::V2 => ['+', '/'],
        EventIdFormatVersion::V3 => ['-', '_'],
        _ => return true,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || specials.contains(&c);
    id.strip_prefix('$').is_some_and(|hash| hash.len() == HASH_CHARS && hash.chars().all(plain))
}
