//! What clients read of rooms: sync, history, state and members. Apart from the write path: plain
//! functions over one snapshot of the store that return plain values.
//!
//! Two bounds hold for every read: how far a user may read a room ([`access`]), and which of its
//! events the user may see ([`visibility`]).

mod access;
mod aggregations;
mod context;
mod delta;
mod event;
mod fields;
mod filter;
mod members;
mod messages;
mod past;
mod peek;
mod relations;
mod render;
mod search;
mod state;
mod summary;
pub mod sync;
mod threads;
mod timeline;
mod timestamp;
mod token;
pub mod visibility;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use exeunt_store::{Reader, tables};
use ruma::{EventId, OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{RoomError, Rooms};

pub use context::{Context, ContextRequest};
pub use fields::FieldPath;
pub use filter::{EventFilter, EventFormat, Filter, RoomFilter};
pub use members::{MemberProfile, MembersRequest};
pub use messages::{Direction, MessagesPage, MessagesRequest};
pub use peek::{InitialSync, InitialSyncRequest, RoomEvents};
pub use relations::{MAX_DEPTH, RelationsPage, RelationsRequest};
pub use search::{
    ResultContext, SearchContext, SearchOrder, SearchPage, SearchRequest, SearchResult, SearchToken,
};
pub use summary::Summary;
pub use sync::{
    Counts, JoinedRoom, LeftRoom, PendingRoom, SyncRequest, SyncView, Timeline, Unread,
};
pub use threads::{ThreadsPage, ThreadsRequest};
use timeline::Gaps;
pub(crate) use timestamp::closest;
pub use timestamp::{Dated, TimestampRequest};
pub use token::Token;

/// Who reads, and when.
#[derive(Debug, Clone)]
pub struct Viewer {
    pub user: OwnedUserId,
    /// Whose transaction ids are shown.
    pub device: Option<OwnedDeviceId>,
    /// Milliseconds since the epoch, for the age of events.
    pub now: u64,
}

impl Rooms {
    /// Changes whenever something new concerns the user. Subscribe first, read then.
    pub fn subscribe(&self, user: &UserId) -> watch::Receiver<u64> {
        self.inner.notifier.subscribe(user)
    }

    /// Something outside rooms is new to the user, at that stream position.
    pub fn wake_user(&self, user: &UserId, position: u64) {
        self.inner.notifier.notify([&user.to_owned()], position);
    }

    /// The reader of this moment.
    pub fn viewer(&self, user: &UserId, device: Option<OwnedDeviceId>) -> Viewer {
        Viewer { user: user.to_owned(), device, now: self.now() }
    }

    /// Everything that is new to a user since a stream position.
    pub async fn sync(&self, request: SyncRequest) -> Result<SyncView, RoomError> {
        let user = request.viewer.user.clone();
        let is_anywhere = self.inner.notifier.is_anywhere(&user);
        let whose = user.clone();
        let memory = sync::Memory {
            news: self.inner.news.clone(),
            receipts: self.inner.ephemeral.receipts.clone(),
            lazy_members: self.inner.lazy_members.clone(),
            remembered: self.inner.remembered.clone(),
        };
        let is_first = request.since.is_none();
        let read = move |reader: &Reader<'_>| {
            let view = sync::sync(reader, request, &memory)?;
            // Who has an answer does not wait.
            let rooms = match is_anywhere && view.is_empty() {
                true => Some((concerning(reader, &whose)?, reader.position()?)),
                false => None,
            };
            Ok::<_, RoomError>((view, rooms))
        };
        let (view, rooms) = match is_first {
            true => self.inner.store.read_long(read).await?,
            false => self.view(read).await?,
        };
        if let Some((rooms, position)) = rooms {
            self.inner.notifier.place(&user, rooms, position);
        }
        Ok(view)
    }

    /// One page of a room's history. Other servers are asked for what is missing in it; where
    /// nobody has it, the page goes on behind.
    pub async fn messages(&self, request: MessagesRequest) -> Result<MessagesPage, RoomError> {
        let (mut fetches, mut asked) = (0, BTreeSet::new());
        loop {
            let (request, below) = (request.clone(), asked.clone());
            let room_id = request.room_id.clone();
            let page = self.view(move |reader| {
                let gaps = match below.len() >= messages::MAX_GAPS {
                    true => Gaps::Pass,
                    false => Gaps::StopBut(&below),
                };
                messages::messages(reader, &request, gaps)
            });
            let (page, gap) = page.await?;
            let Some(upper) = gap.filter(|_| fetches < messages::MAX_FETCHES) else {
                return Ok(page);
            };
            match self.fetch_history(&room_id, upper).await? {
                true => fetches += 1,
                false => drop(asked.insert(upper)),
            }
        }
    }

    /// The state and the newest events of a room, for whoever may read it.
    pub async fn initial_sync(
        &self,
        request: InitialSyncRequest,
    ) -> Result<InitialSync, RoomError> {
        self.view(move |reader| peek::initial_sync(reader, &request)).await
    }

    /// The events of a room after a place (now, where none is given), at once or as soon as there
    /// are some. Unlike a sync it waits without a subscription: those who look in from outside are
    /// told of no commit.
    pub async fn events_after(
        &self,
        viewer: Viewer,
        room_id: &RoomId,
        from: Option<Token>,
        timeout: Duration,
    ) -> Result<RoomEvents, RoomError> {
        let deadline = Instant::now() + timeout;
        let mut position = self.inner.store.position();
        let start = from.unwrap_or(Token::Stream(*position.borrow()));
        let mut from = start;
        loop {
            let read_at = *position.borrow_and_update();
            let (viewer, room) = (viewer.clone(), room_id.to_owned());
            let page = self.view(move |reader| peek::events_after(reader, &viewer, &room, from));
            let page = RoomEvents { start, ..page.await? };
            if !page.chunk.is_empty() || page.is_cut {
                return Ok(page);
            }
            from = page.end;
            loop {
                let Ok(Ok(())) = timeout_at(deadline, position.changed()).await else {
                    return Ok(page);
                };
                if self.inner.news.may_be_after(read_at, room_id) {
                    break;
                }
            }
        }
    }

    /// Member events of a room.
    pub async fn members(&self, request: MembersRequest) -> Result<Vec<Value>, RoomError> {
        self.view(move |reader| members::members(reader, &request)).await
    }

    /// Profiles of the users joined to a room that the viewer is joined to.
    pub async fn joined_members(
        &self,
        viewer: Viewer,
        room_id: &RoomId,
    ) -> Result<BTreeMap<OwnedUserId, MemberProfile>, RoomError> {
        let room_id = room_id.to_owned();
        self.view(move |reader| members::joined_members(reader, &viewer, &room_id)).await
    }

    /// The state events of a room; of a departed one, as of the departure.
    pub async fn state(&self, viewer: Viewer, room_id: &RoomId) -> Result<Vec<Value>, RoomError> {
        let room_id = room_id.to_owned();
        self.view(move |reader| state::state(reader, &viewer, &room_id)).await
    }

    /// One state event, in the form for clients.
    pub async fn state_event(
        &self,
        viewer: Viewer,
        room_id: &RoomId,
        kind: &str,
        key: &str,
    ) -> Result<Option<Value>, RoomError> {
        let room_id = room_id.to_owned();
        let key = exeunt_core::StateKey::new(kind, key);
        self.view(move |reader| state::state_event(reader, &viewer, &room_id, &key)).await
    }

    /// One event, if the viewer may see it.
    pub async fn event(
        &self,
        viewer: Viewer,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<Option<Value>, RoomError> {
        let (room_id, event_id) = (room_id.to_owned(), event_id.to_owned());
        self.view(move |reader| event::event(reader, &viewer, &room_id, &event_id)).await
    }

    /// One event with those around it, if the viewer may see it.
    pub async fn context(&self, request: ContextRequest) -> Result<Option<Context>, RoomError> {
        self.view(move |reader| context::context(reader, &request)).await
    }

    /// The events that relate to an event; `NotFound` if the viewer may not see it.
    pub async fn relations(&self, request: RelationsRequest) -> Result<RelationsPage, RoomError> {
        self.view(move |reader| relations::relations(reader, &request)).await
    }

    /// Threads of a room, the one with the newest event first.
    pub async fn threads(&self, request: ThreadsRequest) -> Result<ThreadsPage, RoomError> {
        self.view(move |reader| threads::threads(reader, &request)).await
    }

    /// What a search finds in all rooms that the viewer is or was in.
    pub async fn search(&self, request: SearchRequest) -> Result<SearchPage, RoomError> {
        self.view(move |reader| search::search(reader, &request)).await
    }

    /// The event of a room that is closest to a time, in a direction. Other servers are asked where
    /// theirs may be closer.
    pub async fn timestamp_to_event(
        &self,
        request: TimestampRequest,
    ) -> Result<Option<Dated>, RoomError> {
        let find = |request: TimestampRequest| {
            self.view(move |reader| timestamp::timestamp(reader, &request))
        };
        let (found, gap) = find(request.clone()).await?;
        if let Some(upper) = gap
            && self.fetch_around(&request, upper, found.as_ref().map(|found| found.ts)).await?
        {
            return Ok(find(request).await?.0);
        }
        Ok(found)
    }

    async fn view<R: Send + 'static>(
        &self,
        f: impl FnOnce(&Reader<'_>) -> Result<R, RoomError> + Clone + Send + 'static,
    ) -> Result<R, RoomError> {
        self.inner.store.read(f).await
    }
}

/// The rooms whose news concern a user: those joined, and those invited or knocked to.
fn concerning(reader: &Reader<'_>, user: &UserId) -> Result<Vec<OwnedRoomId>, RoomError> {
    let mut rooms = Vec::new();
    for row in reader.scan::<tables::Memberships>(user.to_owned()).iter() {
        let ((_, room_id), record) = row?;
        if matches!(record.membership.as_str(), "join" | "invite" | "knock") {
            rooms.push(room_id);
        }
    }
    Ok(rooms)
}
