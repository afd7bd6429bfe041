//! Who is there: changes, and whom they concern.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use exeunt_core::{Object, wire::ClientEvent};
use exeunt_store::{Batch, Reader};
use ruma::{DeviceId, OwnedRoomId, OwnedServerName, OwnedUserId, UserId};
use serde_json::{Value, json};

use super::{
    Edu, News, Told,
    presence::{Entry, MAX_STATUS_BYTES, Presence},
    sharing::{Sharing, joined},
};
use crate::{
    RoomError, Rooms,
    graph::{is_joined, joined_servers},
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
        let wanted = Wanted {
            viewer: viewer.to_owned(),
            filter: filter.clone(),
            news,
            is_any_new: view.joined.values().any(|is_new| *is_new),
            newcomers: newly_joined(view),
        };
        let table = self.inner.ephemeral.presence.clone();
        let users = table.count(|user, entry| wanted.has(user, entry));
        if users == 0 {
            return Ok(Vec::new());
        }
        let joined: BTreeSet<_> = view.joined.keys().cloned().collect();
        let (ours, now) = (self.server_name().to_owned(), self.now());
        // Entries are copied in the read alone: thousands of clients may wait for their turn, each with
        // thousands of users to hear of.
        self.store()
            .read(move |reader| {
                let mut sharing = Sharing::new(reader, &ours, &joined);
                sharing.read_members(users)?;
                let is_wanted = |user: &UserId, entry: &Entry| {
                    wanted.has(user, entry) && sharing.may_have(user)
                };
                let mut events = Vec::new();
                for (user, entry) in table.those(is_wanted) {
                    if sharing.has(&user)? {
                        events.push(entry.event(&user, now));
                    }
                }
                Ok(events)
            })
            .await
    }
}

/// Whose presence a sync tells, as far as it is theirs to see.
#[derive(Clone)]
struct Wanted {
    viewer: OwnedUserId,
    filter: EventFilter,
    news: News,
    /// Whether the viewer has newly joined a room.
    is_any_new: bool,
    newcomers: BTreeSet<OwnedUserId>,
}

impl Wanted {
    fn has(&self, user: &UserId, entry: &Entry) -> bool {
        let is_first = self.is_any_new && entry.is_there() && entry.position <= self.news.until;
        (self.news.has(entry.position) || is_first || self.newcomers.contains(user))
            && user != self.viewer
            && self.filter.allows_sender(user)
    }
}

/// Users whose join the answer shows.
fn newly_joined(view: &SyncView) -> BTreeSet<OwnedUserId> {
    let events = view.join.values().flat_map(|room| room.state.iter().chain(&room.timeline.events));
    let events = events.filter_map(ClientEvent::event);
    let joins = events.filter(|event| event.membership() == Some("join"));
    joins.filter_map(|join| join.target().map(ToOwned::to_owned)).collect()
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
