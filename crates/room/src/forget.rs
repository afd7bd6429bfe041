//! Forgetting rooms, and freeing what is left of those that every local user has forgotten.
//!
//! Specification: client-server API, "Leaving rooms"; spec-map rows FG1 to FG5.
//!
//! A purge takes the room's graph. The departures of its users stay a while without it, for devices
//! that have not heard of them (row FG3), and go with a later sweep. So do rejected invites to rooms
//! that nobody of ours was ever in (pain A13).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use exeunt_store::{
    Batch, PurgeError, Reader, drop_delivered, purge_room,
    records::{MembershipRecord, OutboxItem},
    rooms_with_kept, tables,
};
use futures_util::{FutureExt, StreamExt, TryFutureExt, TryStreamExt, stream};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::{
    RoomError, Rooms,
    graph::{is_joined, load_event},
    leave::last_line,
};

/// Time between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// For how long a forgotten room is kept for servers that have yet to get events of it.
const MAX_WAIT_MS: u64 = 7 * 24 * 3600 * 1000;
/// For how long devices may be away and still hear of a departure from a room that is gone, unless
/// the operator says otherwise ([`Options::keep_departures`](crate::Options)).
pub const KEEP_DEPARTURES_MS: u64 = 30 * 24 * 3600 * 1000;
/// Rooms whose old memberships are dropped at once.
const DROPPED_AT_ONCE: usize = 64;

impl Rooms {
    /// Makes a local user forget a room that they have left. To forget what one never knew, or has
    /// forgotten, is no error.
    pub async fn forget(&self, user: &UserId, room_id: &RoomId) -> Result<(), RoomError> {
        let guard = self.inner.locks.lock(room_id).await;
        let key = (user.to_owned(), room_id.to_owned());
        let row = key.clone();
        let record = self.store().read(move |reader| reader.get::<tables::Memberships>(&row));
        let Some(record) = record.await? else { return Ok(()) };
        if !has_ended(&record) {
            return Err(RoomError::NotLeft(record.membership));
        }
        if !record.forgotten {
            let mut batch = Batch::default();
            batch.put::<tables::Memberships>(&key, &MembershipRecord { forgotten: true, ..record });
            self.store().commit(batch).await?;
        }
        drop(guard);
        let (rooms, room_id) = (self.clone(), key.1);
        tokio::spawn(async move { rooms.purge_or_complain(&room_id).await });
        Ok(())
    }

    /// From now on, purges forgotten rooms, also those of earlier days, sends leaves again that were
    /// undone, judges events again whose servers were let in, and drops withdrawals of invites that are
    /// over and signatures that are old. Within a runtime, once, at the start.
    pub fn start_sweeps(&self) {
        let rooms = self.clone();
        tokio::spawn(async move {
            loop {
                let sweeps = [
                    ("old signatures could not be dropped", rooms.sweep_journal().boxed()),
                    ("forgotten rooms could not be swept", rooms.sweep_forgotten().boxed()),
                    (
                        "events of denied servers were not judged again",
                        rooms.sweep_denied().boxed(),
                    ),
                    (
                        "undone leaves could not be sought",
                        rooms.sweep_undone_leaves().map_ok(drop).boxed(),
                    ),
                    ("old withdrawals could not be dropped", rooms.sweep_withdrawals().boxed()),
                ];
                for (failure, sweep) in sweeps {
                    if let Err(error) = sweep.await {
                        tracing::error!(%error, "{failure}");
                    }
                }
                tokio::time::sleep(SWEEP_EVERY).await;
            }
        });
    }

    /// Purges the rooms that can be, deletes what earlier purges kept for servers that have it by now,
    /// and drops departures that every device has had the time to hear of.
    pub async fn sweep_forgotten(&self) -> Result<(), RoomError> {
        let forgotten = self
            .store()
            .read(|reader| {
                let mut rooms: BTreeSet<OwnedRoomId> = BTreeSet::new();
                for row in reader.scan::<tables::Memberships>(()).iter() {
                    let ((_, room_id), record) = row?;
                    if record.forgotten {
                        rooms.insert(room_id);
                    }
                }
                // A creation that was cut off leaves a room that nobody is in.
                for room_id in reader.scan::<tables::Rooms>(()).keys()? {
                    if reader.scan::<tables::LocalMembers>(room_id.clone()).first()?.is_none() {
                        rooms.insert(room_id);
                    }
                }
                Ok::<_, RoomError>(rooms)
            })
            .await?;
        for room_id in forgotten {
            self.purge_or_complain(&room_id).await;
        }
        for room_id in rooms_with_kept(self.store()).await? {
            let _no_join = self.inner.joins.turn(&room_id).await;
            let _guard = self.inner.locks.lock(&room_id).await;
            drop_delivered(self.store(), &room_id).await?;
        }
        self.drop_old_departures().await
    }

    async fn purge_or_complain(&self, room_id: &RoomId) {
        match self.purge_forgotten(room_id).await {
            Ok(true) => tracing::info!(%room_id, "a forgotten room was purged"),
            Ok(false) => {}
            Err(error) => tracing::error!(%room_id, %error, "a room could not be purged"),
        }
    }

    /// Deletes a room that every local user has forgotten. `false` where somebody has not, where
    /// there is nothing to delete, or where other servers have yet to get events of it.
    pub async fn purge_forgotten(&self, room_id: &RoomId) -> Result<bool, RoomError> {
        let _one_at_a_time = self.inner.purges.lock().await;
        // Joins lay events of the room aside without its lock.
        let _no_join = self.inner.joins.turn(room_id).await;
        self.inbound_idle_in(room_id).await;
        let _guard = self.inner.locks.lock(room_id).await;
        let (room, ours, now) = (room_id.to_owned(), self.server_name().to_owned(), self.now());
        let may_go = self
            .store()
            .read(move |reader| {
                let known = reader.contains::<tables::Rooms>(&room)?;
                if !known || is_joined(reader, &room, &ours)? {
                    return Ok(false);
                }
                match forgotten_since(reader, &room)? {
                    Some(since) if since.saturating_add(MAX_WAIT_MS) > now => {
                        Ok(!is_awaited(reader, &room)?)
                    }
                    since => Ok::<_, RoomError>(since.is_some()),
                }
            })
            .await?;
        if !may_go {
            return Ok(false);
        }
        match purge_room(self.store(), room_id).await {
            Ok(purged) => {
                tracing::debug!(%room_id, ?purged, "purged");
                Ok(true)
            }
            Err(PurgeError::Occupied(_)) => Ok(false),
            Err(PurgeError::Store(error)) => Err(error.into()),
        }
    }

    /// Drops the memberships that ended in rooms of which there is nothing else here: those that
    /// nobody of ours was ever in, and those that were purged. Devices have had the time to hear of
    /// them (decision 0020).
    pub async fn drop_old_departures(&self) -> Result<(), RoomError> {
        let before = self.now().saturating_sub(millis(self.options().keep_departures));
        let old = self.store().read(move |reader| {
            let mut old: BTreeMap<OwnedRoomId, Vec<OwnedUserId>> = BTreeMap::new();
            for row in reader.scan::<tables::Memberships>(()).iter() {
                let (key, record) = row?;
                if has_ended(&record) && is_old(reader, &key, before)? {
                    old.entry(key.1).or_default().push(key.0);
                }
            }
            Ok::<_, RoomError>(old)
        });
        let drops = old.await?.into_iter().map(|(room, users)| self.drop_from(room, users, before));
        stream::iter(drops).buffer_unordered(DROPPED_AT_ONCE).try_collect().await
    }

    async fn drop_from(
        &self,
        room: OwnedRoomId,
        users: Vec<OwnedUserId>,
        before: u64,
    ) -> Result<(), RoomError> {
        let _guard = self.inner.locks.lock(&room).await;
        let batch = self.store().read(move |reader| {
            let mut batch = Batch::default();
            for user in users {
                let key = (user, room.clone());
                let record = reader.get::<tables::Memberships>(&key)?;
                if !record.is_some_and(|record| has_ended(&record))
                    || !is_old(reader, &key, before)?
                {
                    continue;
                }
                batch.delete::<tables::Memberships>(&key);
                let (user, room) = key;
                batch.delete::<tables::LocalMembers>(&(room.clone(), user.clone()));
                // How somebody came to be in the room, and out of it, stays on record.
                let whose = (room, user);
                let lines = reader.scan::<tables::MembershipLog>(whose.clone()).collect()?;
                if lines.iter().all(|(_, line)| line.membership != "join") {
                    lines.iter().for_each(|(key, _)| batch.delete::<tables::MembershipLog>(key));
                    let invites = reader.scan::<tables::Invites>(whose).keys()?;
                    invites.iter().for_each(|key| batch.delete::<tables::Invites>(key));
                }
            }
            Ok::<_, RoomError>(batch)
        });
        let batch = batch.await?;
        self.store().commit(batch).await?;
        Ok(())
    }
}

fn has_ended(record: &MembershipRecord) -> bool {
    matches!(record.membership.as_str(), "leave" | "ban")
}

type Member = (OwnedUserId, OwnedRoomId);

/// Whether a membership that ended did so before that time, with nothing under way, in a room that
/// is not here.
fn is_old(reader: &Reader<'_>, key: &Member, before: u64) -> Result<bool, RoomError> {
    Ok(!reader.contains::<tables::Rooms>(&key.1)?
        && departed_at(reader, key)? <= before
        && !is_under_way(reader, key)?)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Whether something about the membership has yet to reach the room, or waits for the user.
fn is_under_way(reader: &Reader<'_>, key: &Member) -> Result<bool, RoomError> {
    Ok(reader.contains::<tables::Departures>(key)? || reader.contains::<tables::Pending>(key)?)
}

/// When the last local user left the room, if each of them has left and forgotten it.
fn forgotten_since(reader: &Reader<'_>, room_id: &RoomId) -> Result<Option<u64>, RoomError> {
    let mut since = 0;
    for (room, user) in reader.scan::<tables::LocalMembers>(room_id.to_owned()).keys()? {
        let key = (user, room);
        let record = reader.get::<tables::Memberships>(&key)?;
        if record.is_some_and(|record| !record.forgotten || !has_ended(&record))
            || is_under_way(reader, &key)?
        {
            return Ok(None);
        }
        since = since.max(departed_at(reader, &key)?);
    }
    Ok(Some(since))
}

/// When the user's membership last changed, as far as is written down.
pub(crate) fn departed_at(reader: &Reader<'_>, (user, room): &Member) -> Result<u64, RoomError> {
    Ok(last_line(reader, user, room)?.map_or(0, |(_, line)| line.at))
}

/// Whether an event of the room waits for another server.
fn is_awaited(reader: &Reader<'_>, room_id: &RoomId) -> Result<bool, RoomError> {
    for row in reader.scan::<tables::Outbox>(()).iter() {
        if let (_, OutboxItem::Pdu(id)) = row?
            && load_event(reader, &id)?.is_some_and(|known| known.pdu.room_id() == room_id)
        {
            return Ok(true);
        }
    }
    Ok(false)
}
