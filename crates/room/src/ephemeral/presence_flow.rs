//! Who is there: changes, and whom they concern.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use exeunt_core::{Object, wire::ClientEvent};
use exeunt_store::{Batch, Reader, tables};
use ruma::{DeviceId, OwnedRoomId, OwnedServerName, OwnedUserId, UserId};
use serde_json::{Value, json};

use super::{
    Edu, News, Told,
    presence::{Entry, MAX_STATUS_BYTES, Presence},
};
use crate::{
    RoomError, Rooms,
    graph::{Graph, is_joined, joined_servers},
    views::{EventFilter, SyncView},
};

/// Servers that are told of a change.
pub const MAX_SERVERS: usize = 1_000;
/// How long a user is there who says so, without a sync.
const SAID_LASTS: Duration = Duration::from_secs(300);
/// How long a user is there after the end of a sync.
const LINGERS: Duration = Duration::from_secs(30);
/// How long news of who is there waits for more of it. Nobody is woken for each change: where a
/// thousand users share a room, a thousand would be, a thousand times.
const GATHERS: Duration = Duration::from_millis(500);

/// The rooms in which it is news who is there, and those who wait do not know yet.
#[derive(Default)]
pub(super) struct Due(Mutex<BTreeSet<OwnedRoomId>>);

impl Due {
    /// Whether nothing else was due.
    fn add(&self, rooms: Vec<OwnedRoomId>) -> bool {
        let mut due = self.lock();
        let is_first = due.is_empty() && !rooms.is_empty();
        due.extend(rooms);
        is_first
    }

    fn take(&self) -> Vec<OwnedRoomId> {
        std::mem::take(&mut *self.lock()).into_iter().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<OwnedRoomId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rooms {
    /// A local user says at a device whether they are there.
    pub async fn set_presence(
        &self,
        user: &UserId,
        device: &DeviceId,
        presence: Presence,
        status: Option<String>,
    ) -> Result<(), RoomError> {
        if status.as_ref().is_some_and(|status| status.len() > MAX_STATUS_BYTES) {
            return Err(RoomError::InvalidParam("The status message is too long".into()));
        }
        if !self.options().presence {
            return Ok(());
        }
        self.say_presence(user, device, presence, Some(status), SAID_LASTS).await
    }

    /// A local user syncs with a device, for at most that long.
    pub async fn present_by_sync(
        &self,
        user: &UserId,
        device: &DeviceId,
        presence: Presence,
        timeout: Duration,
    ) -> Result<(), RoomError> {
        if !self.options().presence || presence == Presence::Offline {
            return Ok(());
        }
        self.say_presence(user, device, presence, None, timeout + LINGERS).await
    }

    /// Whether somebody is there, as far as is known: for themselves and those who share a room.
    pub async fn presence(&self, viewer: &UserId, user: &UserId) -> Result<Object, RoomError> {
        let (who, whom) = (viewer.to_owned(), user.to_owned());
        let ours = self.server_name().to_owned();
        let is_shared = who == whom
            || self
                .store()
                .read(move |reader| {
                    let joined = joined(reader, &who)?;
                    Sharing::new(reader, &ours, &joined).has(&whom)
                })
                .await?;
        if !is_shared {
            return Err(RoomError::Forbidden(format!("You share no room with {user}")));
        }
        let entry = self.inner.ephemeral.presence.get(user).unwrap_or_default();
        Ok(entry.content(self.now()))
    }

    /// `status` `None`: it stays as it is.
    async fn say_presence(
        &self,
        user: &UserId,
        device: &DeviceId,
        presence: Presence,
        status: Option<Option<String>>,
        lasts: Duration,
    ) -> Result<(), RoomError> {
        let _turn = self.inner.ephemeral.users.lock(user.to_owned()).await;
        let now = self.now();
        let known = self.inner.ephemeral.presence.get(user);
        let mut entry = known.clone().unwrap_or_default();
        let until = now.saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
        entry.devices.note(device, presence, until, now);
        if presence != Presence::Offline {
            entry.active_at = Some(now);
        }
        entry.status = status.unwrap_or(entry.status);
        self.settle_presence(user, known, entry).await
    }

    /// Puts what the devices of a local user come to, and tells whom it concerns if it is another
    /// now; other servers also if they were told long ago. The caller holds the user's lock.
    async fn settle_presence(
        &self,
        user: &UserId,
        known: Option<Entry>,
        entry: Entry,
    ) -> Result<(), RoomError> {
        let ephemeral = &self.inner.ephemeral;
        let now = self.now();
        let (presence, until) = entry.devices.merged(now);
        let entry = Entry { presence, until, is_active: presence == Presence::Online, ..entry };
        let is_news = known.is_none_or(|known| entry.differs(&known));
        if !is_news && (!entry.is_there() || entry.due_at() > now) {
            ephemeral.presence.put(user, entry);
            return Ok(());
        }
        let (whose, ours) = (user.to_owned(), self.server_name().to_owned());
        let (rooms, servers) = self.store().read(move |r| concerned(r, &whose, &ours)).await?;
        let (mut batch, destinations) = match servers.is_empty() {
            true => (Batch::default(), Vec::new()),
            false => {
                let content = json!({ "push": [entry.update(user, now)] });
                let replaces = entry.told.map(|told| told.position);
                let kind = "m.presence";
                self.edu(Edu { kind, content, servers, replaces, momentary: true }).await?
            }
        };
        let (table, who) = (ephemeral.presence.clone(), user.to_owned());
        batch.at_position(move |position, _| {
            let told = Some(Told { at: now, position });
            let position = if is_news { position } else { entry.position };
            table.put(&who, Entry { position, told, ..entry });
        });
        let position = self.store().commit(batch).await?;
        self.inner.wake.wake(&destinations);
        if is_news {
            self.wake_for_presence(rooms, position);
        }
        self.stir_sweeper();
        Ok(())
    }

    /// Does what it is time for: somebody has not been heard of for too long, or other servers are
    /// to be told of a user of ours again.
    pub(super) async fn follow_up(&self, user: &UserId, known: Entry) -> Result<(), RoomError> {
        if user.server_name() == self.server_name() {
            let _turn = self.inner.ephemeral.users.lock(user.to_owned()).await;
            let known = self.inner.ephemeral.presence.get(user);
            let entry = known.clone().unwrap_or_default();
            return self.settle_presence(user, known, entry).await;
        }
        let entry = Entry { presence: Presence::Offline, is_active: false, ..known };
        let server = user.server_name().to_owned();
        self.remote_presence(&server, vec![(user.to_owned(), entry)]).await
    }

    /// Takes what another server says of its users. Checked by the caller.
    pub(super) async fn remote_presence(
        &self,
        origin: &OwnedServerName,
        users: Vec<(OwnedUserId, Entry)>,
    ) -> Result<(), RoomError> {
        let table = self.inner.ephemeral.presence.clone();
        let is_news = |(user, entry): &(OwnedUserId, Entry)| {
            table.get(user).is_none_or(|known| known.differs(entry))
        };
        let (news, rest): (Vec<_>, Vec<_>) = users.into_iter().partition(is_news);
        for (user, entry) in rest {
            table.renew(&user, entry.active_at, entry.until);
        }
        if news.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.at_position(move |position, _| {
            for (user, entry) in news {
                table.put(&user, Entry { position, ..entry });
            }
        });
        let position = self.store().commit(batch).await?;
        // After the commit: who begins to wait now reads it.
        let (waiting, origin) = (self.inner.notifier.waiting_rooms(), origin.clone());
        let rooms = self.store().read(move |reader| {
            let mut rooms = Vec::new();
            for room_id in waiting {
                if is_joined(reader, &room_id, &origin)? {
                    rooms.push(room_id);
                }
            }
            Ok::<_, RoomError>(rooms)
        });
        self.wake_for_presence(rooms.await?, position);
        self.stir_sweeper();
        Ok(())
    }

    /// Wakes those who wait in the rooms, with whatever else is news there by then.
    fn wake_for_presence(&self, rooms: Vec<OwnedRoomId>, position: u64) {
        if !self.inner.ephemeral.presence_due.add(rooms) {
            return;
        }
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            tokio::time::sleep(GATHERS).await;
            if let Some(inner) = inner.upgrade() {
                let rooms = inner.ephemeral.presence_due.take();
                inner.notifier.notify_rooms(&rooms, position);
            }
        });
    }

    /// The presence that is news to a user: of those who share a room with them. Of a room that
    /// they have newly joined, and of users who have newly joined theirs, all is.
    pub(super) async fn presence_events(
        &self,
        viewer: &UserId,
        news: News,
        view: &SyncView,
        filter: &EventFilter,
    ) -> Result<Vec<Value>, RoomError> {
        let table = &self.inner.ephemeral.presence;
        let mut candidates: BTreeMap<_, _> = match view.joined.values().any(|is_new| *is_new) {
            true => {
                let all = News { since: None, ..news };
                let there = |(_, entry): &(_, Entry)| entry.is_there() || news.has(entry.position);
                table.changed(all).into_iter().filter(there).collect()
            }
            false => table.changed(news).into_iter().collect(),
        };
        for user in newly_joined(view) {
            if let Some(entry) = table.get(&user) {
                candidates.insert(user, entry);
            }
        }
        candidates.retain(|user, _| user != viewer && filter.allows_sender(user));
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let joined: BTreeSet<_> = view.joined.keys().cloned().collect();
        let (ours, now) = (self.server_name().to_owned(), self.now());
        self.store()
            .read(move |reader| {
                let mut sharing = Sharing::new(reader, &ours, &joined);
                let mut events = Vec::new();
                for (user, entry) in candidates {
                    if sharing.has(&user)? {
                        events.push(entry.event(&user, now));
                    }
                }
                Ok(events)
            })
            .await
    }
}

/// Users whose join the answer shows.
fn newly_joined(view: &SyncView) -> BTreeSet<OwnedUserId> {
    let events = view.join.values().flat_map(|room| room.state.iter().chain(&room.timeline.events));
    let events = events.filter_map(ClientEvent::event);
    let joins = events.filter(|event| event.membership() == Some("join"));
    joins.filter_map(|join| join.target().map(ToOwned::to_owned)).collect()
}

/// The rooms that a local user is in.
fn joined(reader: &Reader<'_>, user: &UserId) -> Result<BTreeSet<OwnedRoomId>, RoomError> {
    let rows = reader.scan::<tables::Memberships>(user.to_owned()).collect()?;
    let joined = rows.into_iter().filter(|(_, record)| record.membership == "join");
    Ok(joined.map(|((_, room_id), _)| room_id).collect())
}

/// The rooms of a local user, and the other servers in them.
fn concerned(
    reader: &Reader<'_>,
    user: &UserId,
    ours: &OwnedServerName,
) -> Result<(Vec<OwnedRoomId>, BTreeSet<OwnedServerName>), RoomError> {
    let rooms: Vec<_> = joined(reader, user)?.into_iter().collect();
    let mut servers = BTreeSet::new();
    for room_id in &rooms {
        for server in joined_servers(reader, room_id)? {
            if server != *ours && servers.len() < MAX_SERVERS {
                servers.insert(server);
            }
        }
    }
    Ok((rooms, servers))
}

/// Who shares one of these rooms.
struct Sharing<'a> {
    reader: &'a Reader<'a>,
    ours: &'a OwnedServerName,
    rooms: &'a BTreeSet<OwnedRoomId>,
    /// Those of the rooms that a server is in.
    by_server: BTreeMap<OwnedServerName, Vec<Graph<'a>>>,
}

impl<'a> Sharing<'a> {
    fn new(
        reader: &'a Reader<'a>,
        ours: &'a OwnedServerName,
        rooms: &'a BTreeSet<OwnedRoomId>,
    ) -> Self {
        Self { reader, ours, rooms, by_server: BTreeMap::new() }
    }

    fn has(&mut self, user: &UserId) -> Result<bool, RoomError> {
        let server = user.server_name();
        if server == self.ours {
            return Ok(!joined(self.reader, user)?.is_disjoint(self.rooms));
        }
        if !self.by_server.contains_key(server) {
            let mut graphs = Vec::new();
            for room_id in self.rooms {
                if is_joined(self.reader, room_id, server)? {
                    graphs.push(Graph::of(self.reader, room_id)?);
                }
            }
            self.by_server.insert(server.to_owned(), graphs);
        }
        for graph in self.by_server.get(server).into_iter().flatten() {
            if graph.membership(user)?.as_deref() == Some("join") {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
