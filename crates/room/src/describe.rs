//! What a room is to those who are not in it: its entry in a directory, its summary in a space.
//!
//! Specification: client-server API, "PublicRoomsChunk", "RoomSummary".

use exeunt_store::{Reader, StoreError, tables::JoinedServers};
use ruma::{OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};

use crate::{
    RoomError, graph::Graph, inbound::restricted::allowed_rooms,
    views::visibility::HistoryVisibility,
};

/// `PublicRoomsChunk` of the client-server API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicRoom {
    pub room_id: OwnedRoomId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canonical_alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    #[serde(default)]
    pub num_joined_members: u64,
    #[serde(default)]
    pub world_readable: bool,
    #[serde(default)]
    pub guest_can_join: bool,
    /// Other servers may leave it out where it is `public`.
    #[serde(default = "public")]
    pub join_rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_type: Option<String>,
}

fn public() -> String {
    "public".into()
}

/// `RoomSummary` of the client-server API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomSummary {
    #[serde(flatten)]
    pub room: PublicRoom,
    /// The rooms whose members a restricted join rule lets in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_room_ids: Vec<OwnedRoomId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_version: Option<String>,
}

impl RoomSummary {
    pub(crate) fn is_space(&self) -> bool {
        self.room.room_type.as_deref() == Some("m.space")
    }
}

/// A room of ours, by its current state.
pub(crate) fn describe(graph: &Graph<'_>) -> Result<PublicRoom, RoomError> {
    let text = |kind, field| current_text(graph, kind, field);
    let visibility = text("m.room.history_visibility", "history_visibility")?;
    Ok(PublicRoom {
        room_id: graph.room_id.clone(),
        name: text("m.room.name", "name")?,
        topic: text("m.room.topic", "topic")?,
        canonical_alias: text("m.room.canonical_alias", "alias")?,
        avatar_url: text("m.room.avatar", "url")?,
        num_joined_members: joined_members(graph.reader, &graph.room_id)?,
        world_readable: HistoryVisibility::parse(visibility.as_deref()).is_world_readable(),
        guest_can_join: text("m.room.guest_access", "guest_access")?
            .is_some_and(|g| g == "can_join"),
        join_rule: text("m.room.join_rules", "join_rule")?.unwrap_or_else(|| "invite".into()),
        room_type: graph.create()?.content_str("type").map(str::to_owned),
    })
}

pub(crate) fn summarize(graph: &Graph<'_>) -> Result<RoomSummary, RoomError> {
    Ok(RoomSummary {
        room: describe(graph)?,
        allowed_room_ids: allowed_rooms(graph)?,
        encryption: current_text(graph, "m.room.encryption", "algorithm")?,
        room_version: Some(graph.version.as_str().into()),
    })
}

/// A text of the state event with an empty key, unless it is empty.
fn current_text(graph: &Graph<'_>, kind: &str, field: &str) -> Result<Option<String>, RoomError> {
    let event = graph.current(kind, "")?;
    let text = event.and_then(|event| event.content_str(field).map(str::to_owned));
    Ok(text.filter(|text| !text.is_empty()))
}

fn joined_members(reader: &Reader<'_>, room_id: &RoomId) -> Result<u64, StoreError> {
    let servers = reader.scan::<JoinedServers>(room_id.to_owned()).collect()?;
    Ok(servers.into_iter().map(|(_, users)| users).sum())
}
