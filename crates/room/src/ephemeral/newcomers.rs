//! Who is there, for servers that hear of it for the first time: a room now has users of theirs
//! and of ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use exeunt_store::{Batch, Reader, records::DestinationRecord, tables};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId};
use serde_json::json;

use super::{Passage, inbound::MAX_PRESENCE, presence_flow::MAX_SERVERS, queue_edu};
use crate::{RoomError, Rooms, graph::joined_servers};

/// Rooms with newcomers. Servers that are not told of one for that hear of it when everyone is told
/// again.
const MAX_ROOMS: usize = 1_000;

/// Those who came into rooms, and have not been introduced yet.
#[derive(Default)]
pub(super) struct Newcomers(Mutex<BTreeMap<OwnedRoomId, Passage>>);

impl Newcomers {
    fn add(&self, room_id: &RoomId, passage: Passage) {
        let mut rooms = self.lock();
        if rooms.len() < MAX_ROOMS || rooms.contains_key(room_id) {
            let known = rooms.entry(room_id.to_owned()).or_default();
            known.came.extend(passage.came);
            known.arrived.extend(passage.arrived);
        }
    }

    fn take(&self) -> BTreeMap<OwnedRoomId, Passage> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OwnedRoomId, Passage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is told of whom.
struct Introduction {
    users: BTreeSet<OwnedUserId>,
    servers: BTreeSet<OwnedServerName>,
}

impl Rooms {
    /// Has those told who came into a room with somebody of ours who is there, or who were in it
    /// when such a one came. That takes place behind the caller's back.
    pub(super) fn introduce(&self, room_id: &RoomId, mut passage: Passage) {
        let ephemeral = &self.inner.ephemeral;
        passage.came.retain(|user| ephemeral.presence.has(user));
        passage.arrived.remove(self.server_name());
        let concerns_any = !passage.came.is_empty()
            || !passage.arrived.is_empty() && ephemeral.presence.has_ours();
        if concerns_any {
            ephemeral.newcomers.add(room_id, passage);
            self.stir_sweeper();
        }
    }

    /// Tells servers of those whom they share a room with from now on.
    pub(super) async fn tell_newcomers(&self) -> Result<(), RoomError> {
        for (room_id, passage) in self.inner.ephemeral.newcomers.take() {
            let ours = self.server_name().to_owned();
            let introductions = self.store().read(move |reader| {
                let mut servers = BTreeSet::from_iter(joined_servers(reader, &room_id)?);
                servers.remove(&ours);
                introductions(reader, &room_id, &passage, servers)
            });
            for introduction in introductions.await? {
                self.push_presence(introduction).await?;
            }
        }
        Ok(())
    }

    /// What is said is what holds when its position is given out: it crosses no change.
    async fn push_presence(&self, introduction: Introduction) -> Result<(), RoomError> {
        let Introduction { mut users, servers } = introduction;
        users.retain(|user| self.inner.ephemeral.presence.has(user));
        if users.is_empty() || servers.is_empty() {
            return Ok(());
        }
        let servers = self.store().read(move |reader| reachable(reader, &servers)).await?;
        for users in Vec::from_iter(users).chunks(MAX_PRESENCE) {
            let (table, now) = (self.inner.ephemeral.presence.clone(), self.now());
            let users = users.to_vec();
            let mut batch = Batch::default();
            queue_edu(&mut batch, "m.presence", servers.clone(), move || {
                let updates =
                    users.iter().filter_map(|user| Some(table.get(user)?.update(user, now)));
                json!({ "push": updates.collect::<Vec<_>>() })
            });
            self.store().commit(batch).await?;
        }
        self.inner.wake.wake(&servers);
        Ok(())
    }
}

/// Whoever came is new to all servers of the room; to those that arrived, everyone of ours is.
fn introductions(
    reader: &Reader<'_>,
    room_id: &RoomId,
    passage: &Passage,
    servers: BTreeSet<OwnedServerName>,
) -> Result<Vec<Introduction>, RoomError> {
    let is_new = |server: &OwnedServerName| passage.arrived.contains(server);
    let (arrived, known): (BTreeSet<_>, BTreeSet<_>) = servers.into_iter().partition(is_new);
    let known = known.into_iter().take(MAX_SERVERS).collect();
    let mut came = BTreeSet::new();
    for user in &passage.came {
        let key = (room_id.to_owned(), user.clone());
        if reader.get::<tables::LocalMembers>(&key)?.as_deref() == Some("join") {
            came.insert(user.clone());
        }
    }
    let mut introductions = vec![Introduction { users: came, servers: known }];
    if !arrived.is_empty() {
        let members = reader.scan::<tables::LocalMembers>(room_id.to_owned()).collect()?;
        let joined = members.into_iter().filter(|(_, membership)| membership == "join");
        let users = joined.map(|((_, user), _)| user).collect();
        introductions.push(Introduction { users, servers: arrived });
    }
    Ok(introductions)
}

/// Those that nothing keeps waiting: of the moment is not worth keeping.
fn reachable(
    reader: &Reader<'_>,
    servers: &BTreeSet<OwnedServerName>,
) -> Result<Vec<OwnedServerName>, RoomError> {
    let mut reachable = Vec::new();
    for server in servers {
        let record: DestinationRecord =
            reader.get::<tables::Destinations>(server)?.unwrap_or_default();
        if record.failures == 0 {
            reachable.push(server.clone());
        }
    }
    Ok(reachable)
}
