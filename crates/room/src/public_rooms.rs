//! The published room directory: which rooms are in it, and how they are listed.
//!
//! Specification: client-server API, "Published room directory".

use exeunt_store::{
    Batch, Reader, StoreError,
    records::PublicRoomRecord,
    tables::{JoinedServers, PublicRooms},
};
use ruma::{OwnedRoomId, RoomId, ServerName, UserId};
use serde::Serialize;

use crate::{
    RoomError, Rooms,
    directory::may_change_aliases,
    graph::{Graph, is_joined},
};

/// Most rooms in one page, and how many there are if the client does not say.
const MAX_PAGE: usize = 100;
/// Most rooms that one listing looks at.
const MAX_LISTED: usize = 10_000;

/// What a client wants to see of the directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicRoomsRequest {
    pub limit: Option<usize>,
    /// `next_batch` or `prev_batch` of an earlier page.
    pub since: Option<String>,
    /// Part of a name, topic or canonical alias.
    pub search: Option<String>,
    /// Types of rooms, `None` for rooms without one; all if absent.
    pub room_types: Option<Vec<Option<String>>>,
}

/// A page of the directory, as clients get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublicRoomsPage {
    pub chunk: Vec<PublicRoom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
    pub total_room_count_estimate: usize,
}

/// `PublicRoomsChunk` of the client-server API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    pub num_joined_members: u64,
    pub world_readable: bool,
    pub guest_can_join: bool,
    pub join_rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_type: Option<String>,
}

impl Rooms {
    /// One page of the rooms that this server publishes, those with most members first.
    pub async fn public_rooms(
        &self,
        request: PublicRoomsRequest,
    ) -> Result<PublicRoomsPage, RoomError> {
        let ours = self.server_name().to_owned();
        self.inner.store.read(move |reader| page(reader, &ours, &request)).await
    }

    /// Whether a room is published; `NotFound` if there is no such room here.
    pub async fn is_published(&self, room_id: &RoomId) -> Result<bool, RoomError> {
        let room_id = room_id.to_owned();
        self.inner
            .store
            .read(move |reader| {
                Graph::of(reader, &room_id)?;
                Ok(reader.contains::<PublicRooms>(&room_id)?)
            })
            .await
    }

    /// Publishes a room or takes it out of the directory, for a member who may change its
    /// canonical alias.
    pub async fn set_published(
        &self,
        room_id: &RoomId,
        user: &UserId,
        published: bool,
    ) -> Result<(), RoomError> {
        let (room, user) = (room_id.to_owned(), user.to_owned());
        let may = self
            .inner
            .store
            .read(move |reader| may_change_aliases(&Graph::of(reader, &room)?, &user))
            .await?;
        if !may {
            let why = "You have no power over the room's place in the directory";
            return Err(RoomError::Forbidden(why.into()));
        }
        self.put_published(room_id, published).await
    }

    pub(crate) async fn put_published(
        &self,
        room_id: &RoomId,
        published: bool,
    ) -> Result<(), RoomError> {
        let (mut batch, key) = (Batch::default(), room_id.to_owned());
        match published {
            true => {
                batch.put::<PublicRooms>(&key, &PublicRoomRecord { published_at: self.now() });
            }
            false => batch.delete::<PublicRooms>(&key),
        }
        self.inner.store.commit(batch).await?;
        Ok(())
    }
}

fn page(
    reader: &Reader<'_>,
    ours: &ServerName,
    request: &PublicRoomsRequest,
) -> Result<PublicRoomsPage, RoomError> {
    let start = request.since.as_deref().map_or(Ok(0), read_token)?;
    let limit = request.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
    let mut rooms = Vec::new();
    for room_id in reader.scan::<PublicRooms>(()).limit(MAX_LISTED).keys()? {
        // The state of a room that everyone here has left is out of date.
        if !is_joined(reader, &room_id, ours)? {
            continue;
        }
        let room = describe(&Graph::of(reader, &room_id)?)?;
        if request.wants(&room) {
            rooms.push(room);
        }
    }
    rooms.sort_by(|a, b| {
        let by_members = b.num_joined_members.cmp(&a.num_joined_members);
        by_members.then_with(|| a.room_id.cmp(&b.room_id))
    });
    let total = rooms.len();
    let end = start.saturating_add(limit);
    Ok(PublicRoomsPage {
        chunk: rooms.into_iter().skip(start).take(limit).collect(),
        next_batch: (end < total).then(|| token(end)),
        prev_batch: (start > 0).then(|| token(start.saturating_sub(limit))),
        total_room_count_estimate: total,
    })
}

impl PublicRoomsRequest {
    fn wants(&self, room: &PublicRoom) -> bool {
        let of_type = self.room_types.as_ref().is_none_or(|types| types.contains(&room.room_type));
        let Some(term) = self.search.as_deref().filter(|term| !term.is_empty()) else {
            return of_type;
        };
        let term = term.to_lowercase();
        let texts = [&room.name, &room.topic, &room.canonical_alias];
        of_type && texts.into_iter().flatten().any(|text| text.to_lowercase().contains(&term))
    }
}

fn describe(graph: &Graph<'_>) -> Result<PublicRoom, RoomError> {
    let text = |kind: &str, field: &str| {
        let event = graph.current(kind, "")?;
        let text = event.and_then(|event| event.content_str(field).map(str::to_owned));
        Ok::<_, RoomError>(text.filter(|text| !text.is_empty()))
    };
    let is = |kind: &str, field: &str, value: &str| {
        Ok::<_, RoomError>(text(kind, field)?.is_some_and(|found| found == value))
    };
    Ok(PublicRoom {
        room_id: graph.room_id.clone(),
        name: text("m.room.name", "name")?,
        topic: text("m.room.topic", "topic")?,
        canonical_alias: text("m.room.canonical_alias", "alias")?,
        avatar_url: text("m.room.avatar", "url")?,
        num_joined_members: joined_members(graph.reader, &graph.room_id)?,
        world_readable: is("m.room.history_visibility", "history_visibility", "world_readable")?,
        guest_can_join: is("m.room.guest_access", "guest_access", "can_join")?,
        join_rule: text("m.room.join_rules", "join_rule")?.unwrap_or_else(|| "invite".into()),
        room_type: graph.create()?.content_str("type").map(str::to_owned),
    })
}

fn joined_members(reader: &Reader<'_>, room_id: &RoomId) -> Result<u64, StoreError> {
    let servers = reader.scan::<JoinedServers>(room_id.to_owned()).collect()?;
    Ok(servers.into_iter().map(|(_, users)| users).sum())
}

/// The place in the directory before the room with that number.
fn token(start: usize) -> String {
    format!("p{start}")
}

fn read_token(text: &str) -> Result<usize, RoomError> {
    let start = text.strip_prefix('p').and_then(|number| number.parse().ok());
    start
        .filter(|start| token(*start) == text)
        .ok_or_else(|| RoomError::InvalidParam("The token is not one of ours".into()))
}
