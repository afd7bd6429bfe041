//! Upgrading a room: a new one in another version that carries over what makes it the same room,
//! and a tombstone in the old one.
//!
//! Specification: client-server API, "Room Upgrades"; rooms/v12 and MSC4289 for creators.

use exeunt_core::{Object, Pdu, RoomVersion, StateKey};
use exeunt_state_res::{Level, PowerLevels};
use exeunt_store::tables::PublicRooms;
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId};
use serde_json::{Value, json};

use crate::{Intent, NewRoom, Preset, RoomError, Rooms, directory::aliases_of, graph::Graph};

/// State with an empty key that the new room gets as it is.
const TRANSFERABLE: [&str; 8] = [
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
];
/// Fields of the create event that the new room gets.
const TRANSFERABLE_CREATION: [&str; 2] = ["type", "m.federate"];
/// Most state events (bans, relations of spaces) that go along.
const MAX_CARRIED: usize = 10_000;
const MODERATOR: i64 = 50;

/// Who replaces which room by what.
#[derive(Debug, Clone)]
pub struct Upgrade {
    pub user: OwnedUserId,
    /// Profile for the user's member event.
    pub profile: Object,
    pub version: RoomVersion,
    /// The other creators of the new room, where its version knows any; those of the old one do
    /// not go along by themselves.
    pub additional_creators: Vec<OwnedUserId>,
}

/// What the old room gives.
struct Old {
    room: NewRoom,
    /// State of the new room; its power levels come last, so that nothing is refused for them.
    state: Vec<(String, String, Object)>,
    aliases: Vec<OwnedRoomAliasId>,
    canonical_alias: Option<Object>,
    published: bool,
    /// Power levels under which only moderators speak.
    closed: Option<Object>,
}

impl Rooms {
    /// Replaces a room. The user must be able to send a tombstone there. What comes after the
    /// tombstone (aliases, closing the old room) is done as far as the user may.
    pub async fn upgrade(
        &self,
        room_id: &RoomId,
        upgrade: Upgrade,
    ) -> Result<OwnedRoomId, RoomError> {
        let user = upgrade.user.clone();
        let id = room_id.to_owned();
        let old =
            self.inner.store.read(move |reader| survey(&Graph::of(reader, &id)?, upgrade)).await?;
        let new_id = self.create_with(old.room, old.state).await?;
        let tombstone = json!({
            "body": "This room has been replaced",
            "replacement_room": new_id,
        });
        self.append(room_id, state(&user, "m.room.tombstone", tombstone)).await?;

        for alias in old.aliases {
            self.move_alias(&alias, &new_id).await?;
        }
        if old.published {
            self.put_published(&new_id, true).await?;
            self.put_published(room_id, false).await?;
        }
        let mut last = Vec::new();
        if let Some(content) = old.canonical_alias {
            self.append(&new_id, state(&user, "m.room.canonical_alias", content.into())).await?;
            last.push(state(&user, "m.room.canonical_alias", json!({})));
        }
        last.extend(old.closed.map(|content| state(&user, "m.room.power_levels", content.into())));
        for intent in last {
            let kind = intent.kind.clone();
            if let Err(error) = self.append(room_id, intent).await {
                tracing::info!(%room_id, kind, %error, "an upgraded room keeps what it had");
            }
        }
        Ok(new_id)
    }

    /// The room that this one replaces, by the word of both: its create event names the other, and
    /// the other's tombstone names it (GHSA-cjh7-rcpx-xpf8).
    pub async fn replaced_room(&self, room_id: &RoomId) -> Result<Option<OwnedRoomId>, RoomError> {
        let room_id = room_id.to_owned();
        self.inner
            .store
            .read(move |reader| {
                let Some(graph) = Graph::open(reader, &room_id)? else { return Ok(None) };
                let create = graph.create()?;
                let old = create.content().get("predecessor").and_then(|p| p.get("room_id"));
                let old = old.and_then(Value::as_str).and_then(|id| RoomId::parse(id).ok());
                let Some(old) = old else { return Ok(None) };
                let Some(graph) = Graph::open(reader, &old)? else { return Ok(None) };
                let tombstone = graph.current("m.room.tombstone", "")?;
                let leads_here = tombstone.is_some_and(|tombstone| {
                    tombstone.content_str("replacement_room") == Some(room_id.as_str())
                });
                Ok(leads_here.then_some(old))
            })
            .await
    }
}

fn state(user: &OwnedUserId, kind: &str, content: Value) -> Intent {
    let content = content.as_object().cloned().unwrap_or_default();
    Intent::state(user.clone(), kind, "", content)
}

fn survey(graph: &Graph<'_>, upgrade: Upgrade) -> Result<Old, RoomError> {
    let Upgrade { user, profile, version, additional_creators } = upgrade;
    let levels = graph.power_levels(graph.room.state)?;
    check_entitled(graph, &user)?;
    let power = graph.current("m.room.power_levels", "")?;
    let power = power.map(|event| event.content().clone()).unwrap_or_default();
    let mut state = carried(graph, version)?;
    let carried_levels = carry_levels(&power, version, &user, &additional_creators);
    state.push(("m.room.power_levels".into(), String::new(), carried_levels));
    let room = NewRoom {
        creation_content: creation_content(graph, version, &additional_creators)?,
        profile,
        ..NewRoom::new(user, version, Preset::Private)
    };
    let canonical = graph.current("m.room.canonical_alias", "")?;
    Ok(Old {
        room,
        state,
        published: graph.reader.contains::<PublicRooms>(&graph.room_id)?,
        aliases: aliases_of(graph.reader, &graph.room_id)?,
        canonical_alias: canonical.map(|e| e.content().clone()).filter(|c| !c.is_empty()),
        closed: close(&power, &levels),
    })
}

fn check_entitled(graph: &Graph<'_>, user: &OwnedUserId) -> Result<(), RoomError> {
    let refused = |why: &str| Err(RoomError::Forbidden(why.into()));
    if graph.membership(user)?.as_deref() != Some("join") {
        return refused("You are not in the room");
    }
    if !graph.has_power_to_set(user, "m.room.tombstone")? {
        return refused("You may not replace this room");
    }
    Ok(())
}

fn creation_content(
    graph: &Graph<'_>,
    version: RoomVersion,
    additional_creators: &[OwnedUserId],
) -> Result<Object, RoomError> {
    let create = graph.create()?;
    let mut content = Object::new();
    for field in TRANSFERABLE_CREATION {
        if let Some(value) = create.content().get(field) {
            content.insert(field.into(), value.clone());
        }
    }
    let rules = &version.rules().authorization;
    let mut predecessor = json!({ "room_id": graph.room_id });
    if !rules.room_create_event_id_as_room_id
        && let Some(last) = graph.room.extremities.last()
    {
        predecessor["event_id"] = last.as_str().into();
    }
    content.insert("predecessor".into(), predecessor);
    if rules.additional_room_creators && !additional_creators.is_empty() {
        content.insert("additional_creators".into(), json!(additional_creators));
    }
    Ok(content)
}

/// Bans, the children and parents of a space, and what is [`TRANSFERABLE`].
fn carried(
    graph: &Graph<'_>,
    version: RoomVersion,
) -> Result<Vec<(String, String, Object)>, RoomError> {
    let mut carried = Vec::new();
    let mut carry = |event: &Pdu| {
        let mut content = event.content().clone();
        if event.kind() == "m.room.join_rules" {
            keep_join_rule(&mut content, version);
        }
        let key = event.state_key().unwrap_or_default();
        carried.push((event.kind().to_owned(), key.to_owned(), content));
    };
    for kind in TRANSFERABLE {
        if let Some(event) = graph.current(kind, "")? {
            carry(&event);
        }
    }
    let mut more = 0;
    for (StateKey { kind, .. }, id) in graph.state_ids(graph.room.state)? {
        let is_relation = matches!(&*kind, "m.space.child" | "m.space.parent");
        if more >= MAX_CARRIED || !(is_relation || kind == "m.room.member") {
            continue;
        }
        let event = graph.event_here(&id)?.pdu;
        if event.membership() == Some("ban") || (is_relation && has_servers(&event)) {
            carry(&event);
            more += 1;
        }
    }
    Ok(carried)
}

/// A relation without servers is one that was taken back.
fn has_servers(event: &Pdu) -> bool {
    event.content().get("via").and_then(Value::as_array).is_some_and(|via| !via.is_empty())
}

/// A join rule that the new version does not know would let nobody in: whoever could knock or was
/// a member elsewhere has to be invited.
fn keep_join_rule(content: &mut Object, version: RoomVersion) {
    let rules = &version.rules().authorization;
    let is_known = match content.get("join_rule").and_then(Value::as_str) {
        Some("knock") => rules.knocking,
        Some("restricted") => rules.restricted_join_rule,
        Some("knock_restricted") => rules.knock_restricted_join_rule,
        _ => true,
    };
    if !is_known {
        *content = Object::from_iter([("join_rule".to_owned(), "invite".into())]);
    }
}

/// The old room's levels. Creators have no entry where their power is infinite (rooms/v12); else
/// who replaces the room can govern the new one.
fn carry_levels(
    old: &Object,
    version: RoomVersion,
    user: &OwnedUserId,
    additional_creators: &[OwnedUserId],
) -> Object {
    let mut levels = old.clone();
    if version.rules().authorization.integer_power_levels {
        levels.values_mut().for_each(integers);
    }
    let users = levels.entry("users").or_insert_with(|| json!({}));
    let mut users = users.as_object().cloned().unwrap_or_default();
    if version.rules().authorization.explicitly_privilege_room_creators {
        users.retain(|id, _| id != user.as_str());
        users.retain(|id, _| additional_creators.iter().all(|creator| creator != id.as_str()));
    } else {
        let level = users.get(user.as_str()).and_then(Value::as_i64).unwrap_or(0);
        users.insert(user.to_string(), level.max(100).into());
    }
    levels.insert("users".into(), users.into());
    levels
}

/// Makes numbers of levels that are texts, which versions before 10 allow.
fn integers(level: &mut Value) {
    match level {
        Value::Object(levels) => levels.values_mut().for_each(integers),
        Value::String(text) => {
            if let Ok(number) = text.trim().parse::<i64>() {
                *level = number.into();
            }
        }
        _ => {}
    }
}

/// The levels with which only those above the others speak and invite; `None` if they are so.
fn close(old: &Object, levels: &PowerLevels) -> Option<Object> {
    let default = old.get("users_default").and_then(Value::as_i64).unwrap_or(0);
    let needed = default.saturating_add(1).max(MODERATOR);
    let mut closed = old.clone();
    for (field, now) in [("events_default", levels.event("", false)), ("invite", levels.invite())] {
        if now.is_ok_and(|level| level < Level::Finite(needed)) {
            closed.insert(field.into(), needed.into());
        }
    }
    (closed != *old).then_some(closed)
}
