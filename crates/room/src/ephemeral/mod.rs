//! What is of the moment: who types, who has read what, who is there.
//!
//! Specification: client-server API, "Typing notifications", "Receipts", "Presence"; server-server
//! API, "EDUs". Who types and who is there is kept in memory, with the stream position of each
//! change: it is noted while the position is given out, so that no `/sync` passes it by. Receipts
//! are stored.

mod devices;
mod inbound;
mod newcomers;
pub mod presence;
mod presence_flow;
pub mod receipts;
mod sharing;
mod sweep;
pub mod typing;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use exeunt_core::Object;
use exeunt_store::{Batch, LastNews, Reader, records::OutboxItem, tables};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};

pub use presence::Presence;
pub use receipts::{Receipt, ReceiptKind};

use crate::{
    RoomError, Rooms,
    graph::joined_servers,
    locks::Locks,
    views::{Filter, SyncView},
};

/// The state of the moment.
pub(crate) struct Ephemeral {
    typing: typing::Typing,
    presence: presence::Table,
    presence_due: presence_flow::Due,
    newcomers: newcomers::Newcomers,
    pub receipts: LastNews<OwnedRoomId>,
    /// Held by the change of a room's typists or receipts.
    rooms: Locks<OwnedRoomId>,
    /// Held by the change of a user's presence.
    users: Locks<OwnedUserId>,
    sweeper: sweep::Sweeper,
}

impl Ephemeral {
    /// `position`: of the store at the start. What was before it is nobody's news in memory.
    pub fn new(position: u64) -> Self {
        Self {
            typing: typing::Typing::default(),
            presence: presence::Table::default(),
            presence_due: presence_flow::Due::default(),
            newcomers: newcomers::Newcomers::default(),
            receipts: LastNews::new(position),
            rooms: Locks::default(),
            users: Locks::default(),
            sweeper: sweep::Sweeper::default(),
        }
    }
}

/// Who came into a room and went: what is of the moment ends and begins with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passage {
    /// Users who are in the room no longer.
    pub left: BTreeSet<OwnedUserId>,
    /// Local users who are in it now.
    pub came: BTreeSet<OwnedUserId>,
    /// Servers whose first users are.
    pub arrived: BTreeSet<OwnedServerName>,
}

/// When other servers were told of a user of ours, and at which position of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    at: u64,
    position: u64,
}

/// What a `/sync` tells of the moment.
#[derive(Debug, Clone, Default)]
pub struct EphemeralView {
    /// Events by room.
    pub rooms: BTreeMap<OwnedRoomId, Vec<Value>>,
    pub presence: Vec<Value>,
}

impl EphemeralView {
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.presence.is_empty()
    }
}

/// A stretch of the stream: after `since` (`None`: from its beginning) and up to `until`.
#[derive(Debug, Clone, Copy)]
pub(super) struct News {
    pub since: Option<u64>,
    pub until: u64,
}

impl News {
    pub fn has(self, position: u64) -> bool {
        self.since.is_none_or(|since| position > since) && position <= self.until
    }

    /// The same of a room that may be new to the user: all of it is news then.
    pub fn of(self, is_new: bool) -> Self {
        Self { since: self.since.filter(|_| !is_new), ..self }
    }
}

impl Rooms {
    /// What follows for the moment from who came and went, of which a commit has told.
    pub(crate) async fn follow(&self, room_id: &RoomId, passage: Passage) -> Result<(), RoomError> {
        for user in &passage.left {
            if self.inner.ephemeral.typing.has(room_id, user) {
                self.end_typing(user, room_id).await?;
            }
        }
        self.introduce(room_id, passage);
        Ok(())
    }

    /// What of the moment is new to a user, beside the news of rooms. The receipts are those of the
    /// view, which is left without.
    pub async fn ephemeral(
        &self,
        user: &UserId,
        since: Option<u64>,
        view: &mut SyncView,
        filter: &Filter,
    ) -> Result<EphemeralView, RoomError> {
        let news = News { since, until: view.next_batch };
        let mut found = EphemeralView::default();
        for (room_id, event) in mem::take(&mut view.receipts) {
            found.rooms.insert(room_id, vec![event]);
        }
        let wanted = &filter.room.ephemeral;
        let rooms = view.joined.iter().filter(|(room_id, _)| wanted.allows_room(room_id));
        let rooms: Vec<_> = rooms.map(|(room_id, is_new)| (room_id, news.of(*is_new))).collect();
        if wanted.allows_kind("m.typing") {
            for (room_id, news) in self.inner.ephemeral.typing.rooms(&rooms) {
                if let Some(event) = self.inner.ephemeral.typing.event(room_id, news) {
                    found.rooms.entry(room_id.clone()).or_default().push(event);
                }
            }
        }
        if self.options().presence && filter.presence.allows_kind("m.presence") {
            found.presence = self.presence_events(user, news, view, &filter.presence).await?;
        }
        Ok(found)
    }

    /// The servers in a room beside this one.
    async fn servers_to_tell(
        &self,
        room_id: &RoomId,
    ) -> Result<BTreeSet<OwnedServerName>, RoomError> {
        let room_id = room_id.to_owned();
        let servers = self.store().read(move |reader| joined_servers(reader, &room_id)).await?;
        Ok(servers.into_iter().filter(|server| server != self.server_name()).collect())
    }

    /// A batch with an EDU for servers, and those that get it.
    async fn edu(&self, edu: Edu) -> Result<(Batch, Vec<OwnedServerName>), RoomError> {
        self.store().read(move |reader| edu.write(reader)).await
    }
}

/// An EDU on its way to the outbox.
#[derive(Clone)]
pub(super) struct Edu {
    pub kind: &'static str,
    pub content: Value,
    pub servers: BTreeSet<OwnedServerName>,
    /// The position of one that this one makes void: it goes if it waits still.
    pub replaces: Option<u64>,
    /// Not worth keeping for servers that cannot be reached.
    pub momentary: bool,
}

impl Edu {
    fn write(self, reader: &Reader<'_>) -> Result<(Batch, Vec<OwnedServerName>), RoomError> {
        let mut batch = Batch::default();
        let mut destinations = Vec::new();
        for server in self.servers {
            let record = reader.get::<tables::Destinations>(&server)?.unwrap_or_default();
            let sent = record.in_flight.map(|sent| sent.positions).unwrap_or_default();
            if let Some(position) = self.replaces.filter(|position| !sent.contains(position)) {
                batch.delete::<tables::Outbox>(&(server.clone(), position));
            }
            if !self.momentary || record.failures == 0 {
                destinations.push(server);
            }
        }
        let content = self.content;
        queue_edu(&mut batch, self.kind, destinations.clone(), || content);
        Ok((batch, destinations))
    }
}

/// Puts an EDU into the outbox, with what its content is when its position is given out.
fn queue_edu(
    batch: &mut Batch,
    kind: &'static str,
    to: Vec<OwnedServerName>,
    content: impl FnOnce() -> Value + Send + 'static,
) {
    batch.at_position(move |position, batch| {
        let mut edu = Object::new();
        edu.insert("edu_type".into(), kind.into());
        edu.insert("content".into(), content());
        let item = OutboxItem::Edu(edu);
        for server in to {
            batch.put::<tables::Outbox>(&(server, position), &item);
        }
    });
}

/// An event without a room id, as clients get it: the room is where it stands.
fn event(kind: &str, content: Value) -> Value {
    json!({ "type": kind, "content": content })
}
