//! Restricted joins: whether a condition of the join rule lets a user in, and who vouches for it.
//!
//! Specification: client-server API, "Restricted rooms"; rooms/v8; server-server API, "Joining
//! Rooms", "Restricted rooms".

use std::collections::BTreeSet;

use exeunt_store::{Reader, tables};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::Value;

use crate::{
    RoomError,
    graph::{Graph, is_joined},
};

/// Most conditions of a join rule that are looked at.
const MAX_CONDITIONS: usize = 50;

/// How a user gets past the join rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// Nobody has to vouch for the user: the authorisation rules have the word.
    Unvouched,
    /// A condition is met, and this user of ours vouches for it.
    VouchedBy(OwnedUserId),
    /// No condition is met.
    Unmet,
    /// No condition is known to be met, but we do not reside in all the rooms that they name.
    Unknown,
    /// A condition is met, and no user of ours may let anybody in.
    Powerless,
}

impl Entrance {
    /// The user who vouches, or what other servers are told (server-server API, "make_join").
    pub fn authoriser(self) -> Result<Option<OwnedUserId>, RoomError> {
        match self {
            Self::Unvouched => Ok(None),
            Self::VouchedBy(user) => Ok(Some(user)),
            Self::Unmet => {
                Err(RoomError::Forbidden("You meet none of the room's conditions".into()))
            }
            Self::Unknown => Err(RoomError::UnableToAuthorise),
            Self::Powerless => Err(RoomError::UnableToGrant),
        }
    }
}

/// How a user who wants to join gets past the join rule, as far as this server can tell.
pub(crate) fn entrance(
    graph: &Graph<'_>,
    user: &UserId,
    ours: &ServerName,
) -> Result<Entrance, RoomError> {
    let Some(conditions) = conditions(graph)? else { return Ok(Entrance::Unvouched) };
    if matches!(graph.membership(user)?.as_deref(), Some("join" | "invite" | "ban")) {
        return Ok(Entrance::Unvouched);
    }
    match check_conditions(graph.reader, &conditions, user, ours)? {
        Conditions::Unmet => return Ok(Entrance::Unmet),
        Conditions::Unknown => return Ok(Entrance::Unknown),
        Conditions::Met => {}
    }
    for user in local_joined(graph.reader, &graph.room_id)? {
        if may_invite(graph, &user)? {
            return Ok(Entrance::VouchedBy(user));
        }
    }
    Ok(Entrance::Powerless)
}

/// Whether we may vouch for the join: a condition is met now.
pub(super) fn may_vouch(
    graph: &Graph<'_>,
    user: &UserId,
    ours: &ServerName,
) -> Result<bool, RoomError> {
    let Some(conditions) = conditions(graph)? else { return Ok(false) };
    Ok(check_conditions(graph.reader, &conditions, user, ours)? == Conditions::Met)
}

/// Other servers in the room; first those with users who are known to have the power to let others
/// in.
pub(crate) fn helpers(
    graph: &Graph<'_>,
    ours: &ServerName,
) -> Result<Vec<OwnedServerName>, RoomError> {
    let create = graph.create()?;
    let levels = graph.current("m.room.power_levels", "")?;
    let listed = levels.as_ref().and_then(|levels| levels.content().get("users")?.as_object());
    let creators = create.content().get("additional_creators").and_then(Value::as_array);
    let mut powerful: Vec<&UserId> = vec![create.sender()];
    let named = creators.into_iter().flatten().filter_map(Value::as_str);
    let named = named.chain(listed.into_iter().flat_map(|users| users.keys().map(String::as_str)));
    powerful.extend(named.filter_map(|user| <&UserId>::try_from(user).ok()));
    let mut servers = Vec::new();
    for user in powerful {
        if graph.membership(user)?.as_deref() == Some("join") && may_invite(graph, user)? {
            servers.push(user.server_name().to_owned());
        }
    }
    servers.extend(graph.joined_servers()?);
    let mut seen = BTreeSet::new();
    servers.retain(|server| server != ours && seen.insert(server.clone()));
    Ok(servers)
}

fn may_invite(graph: &Graph<'_>, user: &UserId) -> Result<bool, RoomError> {
    let levels = graph.power_levels(graph.room.state)?;
    // A malformed level (before room version 10) lets nobody in.
    Ok(match (levels.user(user), levels.invite()) {
        (Ok(level), Ok(needed)) => level >= needed,
        _ => false,
    })
}

/// The rooms of which membership lets one in; `None` where the join rule is no restricted one.
fn conditions(graph: &Graph<'_>) -> Result<Option<Vec<Value>>, RoomError> {
    if !graph.version.rules().authorization.restricted_join_rule {
        return Ok(None);
    }
    let rules = graph.current("m.room.join_rules", "")?;
    let rules = rules.filter(|rules| {
        matches!(rules.content_str("join_rule"), Some("restricted" | "knock_restricted"))
    });
    let Some(rules) = rules else { return Ok(None) };
    let allow = rules.content().get("allow").and_then(Value::as_array);
    Ok(Some(
        allow.map(|all| all.iter().take(MAX_CONDITIONS).cloned().collect()).unwrap_or_default(),
    ))
}

/// The room that a condition names.
fn condition_room(condition: &Value) -> Option<&RoomId> {
    let field = |name| condition.get(name).and_then(Value::as_str);
    let room = field("room_id").filter(|_| field("type") == Some("m.room_membership"))?;
    <&RoomId>::try_from(room).ok()
}

/// The rooms whose members the join rule lets in; none where it is no restricted one.
pub(crate) fn allowed_rooms(graph: &Graph<'_>) -> Result<Vec<OwnedRoomId>, RoomError> {
    let conditions = conditions(graph)?.unwrap_or_default();
    Ok(conditions.iter().filter_map(condition_room).map(ToOwned::to_owned).collect())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conditions {
    Met,
    Unmet,
    /// Of a room that we are not in we know nothing certain, but of our own users.
    Unknown,
}

fn check_conditions(
    reader: &Reader<'_>,
    conditions: &[Value],
    user: &UserId,
    ours: &ServerName,
) -> Result<Conditions, RoomError> {
    let mut found = Conditions::Unmet;
    for condition in conditions {
        let Some(room) = condition_room(condition) else { continue };
        if !is_joined(reader, room, ours)? {
            if user.server_name() != ours {
                found = Conditions::Unknown;
            }
        } else if Graph::of(reader, room)?.membership(user)?.as_deref() == Some("join") {
            return Ok(Conditions::Met);
        }
    }
    Ok(found)
}

fn local_joined(reader: &Reader<'_>, room_id: &RoomId) -> Result<Vec<OwnedUserId>, RoomError> {
    let rows = reader.scan::<tables::LocalMembers>(room_id.to_owned()).collect()?;
    Ok(rows.into_iter().filter(|(_, m)| m == "join").map(|((_, user), _)| user).collect())
}
