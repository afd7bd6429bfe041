//! The published room directory: which rooms are in it, and how they are listed.
//!
//! Specification: client-server API, "Published room directory".

use exeunt_store::{Batch, Reader, records::PublicRoomRecord, tables::PublicRooms};
use ruma::{RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Call, PublicRoom, RemoteError, RoomError, Rooms,
    describe::describe,
    directory::may_change_aliases,
    graph::{Graph, is_joined},
    spaces::server_may_know,
};

/// Most rooms in one page, and how many there are if the client does not say.
const MAX_PAGE: usize = 100;
/// Most rooms that one listing looks at.
const MAX_LISTED: usize = 10_000;
/// Longest token of another server, in bytes.
const MAX_TOKEN: usize = 1_024;

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

/// The same as it is in requests of clients and of servers.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct PublicRoomsBody {
    pub limit: Option<usize>,
    pub since: Option<String>,
    pub filter: Option<PublicRoomsFilter>,
    /// A network that an application service bridges to.
    pub third_party_instance_id: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct PublicRoomsFilter {
    pub generic_search_term: Option<String>,
    pub room_types: Option<Vec<Option<String>>>,
}

impl TryFrom<PublicRoomsBody> for PublicRoomsRequest {
    type Error = RoomError;

    fn try_from(body: PublicRoomsBody) -> Result<Self, RoomError> {
        let PublicRoomsBody { limit, since, filter, third_party_instance_id } = body;
        if third_party_instance_id.is_some_and(|id| !id.is_empty()) {
            let text = "There are no third-party networks here (third_party_instance_id)";
            return Err(RoomError::InvalidParam(text.into()));
        }
        let PublicRoomsFilter { generic_search_term, room_types } = filter.unwrap_or_default();
        Ok(Self { limit, since, search: generic_search_term, room_types })
    }
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

impl Rooms {
    /// One page of the rooms that this server publishes, those with most members first.
    pub async fn public_rooms(
        &self,
        request: PublicRoomsRequest,
    ) -> Result<PublicRoomsPage, RoomError> {
        let ours = self.server_name().to_owned();
        self.inner.store.read(move |reader| page(reader, &ours, &request, None)).await
    }

    /// The same for another server, which is not told of rooms that do not let it in.
    pub async fn public_rooms_for_server(
        &self,
        origin: &ServerName,
        request: PublicRoomsRequest,
    ) -> Result<PublicRoomsPage, RoomError> {
        let (ours, origin) = (self.server_name().to_owned(), origin.to_owned());
        self.inner.store.read(move |reader| page(reader, &ours, &request, Some(&origin))).await
    }

    /// One page of the rooms that another server publishes.
    pub async fn public_rooms_of(
        &self,
        server: &ServerName,
        request: PublicRoomsRequest,
    ) -> Result<PublicRoomsPage, RoomError> {
        let limit = request.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
        let request = PublicRoomsRequest { limit: Some(limit), ..request };
        let answer = self.call(server, Call::PublicRooms { request: &request }).await;
        let page = answer.and_then(|answer| told_page(answer, limit));
        page.map_err(|error| RoomError::Remote { server: server.to_owned(), error })
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
    origin: Option<&ServerName>,
) -> Result<PublicRoomsPage, RoomError> {
    let start = request.since.as_deref().map_or(Ok(0), read_token)?;
    let limit = request.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
    let mut rooms = Vec::new();
    for room_id in reader.scan::<PublicRooms>(()).limit(MAX_LISTED).keys()? {
        // The state of a room that everyone here has left is out of date.
        if !is_joined(reader, &room_id, ours)? {
            continue;
        }
        let graph = Graph::of(reader, &room_id)?;
        if let Some(origin) = origin
            && !server_may_know(&graph, origin)?
        {
            continue;
        }
        let room = describe(&graph)?;
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

/// The page that another server gives; what is no room of a directory is left out.
fn told_page(answer: Value, limit: usize) -> Result<PublicRoomsPage, RemoteError> {
    let chunk = answer.get("chunk").and_then(Value::as_array);
    let chunk = chunk.ok_or_else(|| RemoteError::Misbehaved("the answer lists no rooms".into()))?;
    let rooms = chunk.iter().filter_map(|room| PublicRoom::deserialize(room).ok());
    let chunk: Vec<_> = rooms.take(limit).collect();
    let token = |name| {
        let token = answer.get(name).and_then(Value::as_str);
        token.filter(|token| token.len() <= MAX_TOKEN).map(str::to_owned)
    };
    let total = answer.get("total_room_count_estimate").and_then(Value::as_u64);
    let total = total.and_then(|total| usize::try_from(total).ok());
    Ok(PublicRoomsPage {
        next_batch: token("next_batch"),
        prev_batch: token("prev_batch"),
        total_room_count_estimate: total.unwrap_or(chunk.len()),
        chunk,
    })
}

impl PublicRoomsRequest {
    /// The filter as it goes to another server; `None` if there is none.
    pub(crate) fn filter(&self) -> Option<Value> {
        let mut filter = json!({});
        if let Some(term) = &self.search {
            filter["generic_search_term"] = json!(term);
        }
        if let Some(types) = &self.room_types {
            filter["room_types"] = json!(types);
        }
        (filter != json!({})).then_some(filter)
    }

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
