//! Withdrawals that cannot be acted on when they come: those that are here before their invite
//! (row RS6), and those whose sender cannot be seen to have the right (row RS3).
//!
//! Both are kept in one table, a row per server that sent them. The first kind is weighed when the
//! invite comes. The second marks the invite as perhaps withdrawn, and has the inviter's server
//! asked whether it stands.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use exeunt_core::{CheckedPdu, Object, Pdu, PendingMembership, RoomVersion, canonical};
use exeunt_membership::{
    Probed, Rescission, check_rescission, judge_probe, probe_request, probe_servers,
};
use exeunt_store::{
    Batch, Reader, StoreError,
    records::{HeldWithdrawal, WithdrawalRecord},
    tables,
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::Value;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use super::withdrawal::{Concerned, expelled_of};
use crate::{Call, RoomError, Rooms};

/// Most rows that are kept for a server; the oldest goes first.
pub const MAX_DOUBTS_PER_SERVER: usize = 100;
/// Most withdrawals that are kept for an invite and a server; the oldest goes first.
pub const MAX_WITHDRAWALS_PER_INVITE: usize = 4;
/// Largest event that is kept.
pub const MAX_WITHDRAWAL_BYTES: usize = 16 * 1024;
/// For how long a withdrawal is kept.
pub const WITHDRAWAL_LIFE_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Most invites that are being asked about. Beyond that the mark stays, and nobody is asked.
pub const MAX_PROBES: usize = 1024;
/// Of these, most that one server has cast doubt on: a question may wait for days.
pub const MAX_PROBES_PER_SERVER: usize = 16;
/// Questions that are being asked at the same time.
const ASKED_AT_ONCE: usize = 16;
/// When the inviter's server is asked, since the time before, and ever after at the last of these:
/// at first it may not have heard of the withdrawal itself.
const PROBES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(5 * 60),
    PROBE_EVERY,
];
const PROBE_EVERY: Duration = Duration::from_secs(60 * 60);
/// How long after its word that there is no invite it is asked again. It may not have heard of that
/// either, while it is fresh: the word counts when it is said twice in a row.
const CONFIRM_AFTER: Duration = Duration::from_secs(5);

type Key = (OwnedServerName, OwnedUserId, OwnedRoomId);

type Invite = (OwnedUserId, OwnedRoomId);

/// The invites that are being asked about, each with the server that cast doubt on it.
pub(crate) struct Probes {
    under_way: Mutex<BTreeMap<Invite, OwnedServerName>>,
    ended: Notify,
    asking: Semaphore,
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            under_way: Mutex::default(),
            ended: Notify::default(),
            asking: Semaphore::new(ASKED_AT_ONCE),
        }
    }
}

impl Probes {
    /// Whether the invite may be asked about: nobody does so yet, and there is room.
    fn begin(&self, key: &Invite, from: &OwnedServerName) -> bool {
        let mut under_way = self.lock();
        let of_server = under_way.values().filter(|server| *server == from).count();
        let may = under_way.len() < MAX_PROBES
            && of_server < MAX_PROBES_PER_SERVER
            && !under_way.contains_key(key);
        if may {
            under_way.insert(key.clone(), from.clone());
        }
        may
    }

    fn end(&self, key: &Invite) {
        self.lock().remove(key);
        self.ended.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Invite, OwnedServerName>> {
        self.under_way.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Rooms {
    /// Keeps what may be the withdrawal of an invite that has yet to come: a leave or ban of a
    /// user of ours, by a user of the server that sends it. Whether it was kept.
    pub(super) async fn hold_early(
        &self,
        from: &OwnedServerName,
        room_id: &RoomId,
        object: &Object,
    ) -> Result<bool, RoomError> {
        let sender = object.get("sender").and_then(Value::as_str);
        let sender = sender.and_then(|sender| <&UserId>::try_from(sender).ok());
        let Some(target) = expelled_of(self.server_name(), object)
            .filter(|_| sender.is_some_and(|sender| sender.server_name() == from))
        else {
            return Ok(false);
        };
        let key = (from.clone(), target.to_owned(), room_id.to_owned());
        self.hold(key, object.clone(), None).await
    }

    /// Keeps a withdrawal. `false` for one that is too large to be kept.
    async fn hold(
        &self,
        key: Key,
        event: Object,
        about: Option<OwnedEventId>,
    ) -> Result<bool, RoomError> {
        if canonical::encode(&event).len() > MAX_WITHDRAWAL_BYTES {
            return Ok(false);
        }
        let _guard = self.inner.locks.lock(&key.2).await;
        let now = self.now();
        let batch = self
            .store()
            .read(move |reader| {
                let mut batch = Batch::default();
                let rows = reader.scan::<tables::Withdrawals>(key.0.clone()).collect()?;
                let mut record = WithdrawalRecord::default();
                let mut others = Vec::new();
                for (other, row) in rows {
                    let newest = row.events.iter().map(|held| held.at).max().unwrap_or(0);
                    if other == key {
                        record = row;
                    } else {
                        others.push((newest, other));
                    }
                }
                others.sort();
                let excess = (others.len() + 1).saturating_sub(MAX_DOUBTS_PER_SERVER);
                for (index, (newest, other)) in others.into_iter().enumerate() {
                    if index < excess || is_over(newest, now) {
                        batch.delete::<tables::Withdrawals>(&other);
                    }
                }
                record.events.retain(|held| !is_over(held.at, now) && held.event != event);
                record.events.push(HeldWithdrawal { event, at: now, about });
                let excess = record.events.len().saturating_sub(MAX_WITHDRAWALS_PER_INVITE);
                record.events.drain(..excess);
                batch.put::<tables::Withdrawals>(&key, &record);
                Ok::<_, RoomError>(batch)
            })
            .await?;
        self.store().commit(batch).await?;
        Ok(true)
    }

    /// The withdrawals by a server of an invite of the user.
    pub(super) async fn held(
        &self,
        from: &ServerName,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<Vec<Object>, RoomError> {
        let key = (from.to_owned(), user.to_owned(), room_id.to_owned());
        let now = self.now();
        let record =
            self.store().read(move |reader| reader.get::<tables::Withdrawals>(&key)).await?;
        let held = record.unwrap_or_default().events.into_iter();
        Ok(held.filter(|held| !is_over(held.at, now)).map(|held| held.event).collect())
    }

    /// The one among the withdrawals that takes back the invite, if there is one.
    pub(super) async fn withdrawal_among(
        &self,
        held: &[Object],
        pending: &PendingMembership,
    ) -> Result<Option<CheckedPdu>, RoomError> {
        let Ok(version) = RoomVersion::parse(&pending.room_version) else { return Ok(None) };
        for object in held {
            let Ok(pdu) = Pdu::from_object(version, object.clone()) else { continue };
            match self.checked(pdu).await {
                Ok(event) if check_rescission(pending, &event) == Rescission::Withdrawn => {
                    return Ok(Some(event));
                }
                Err(error @ RoomError::Store(_)) => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(None)
    }

    /// Marks an invite as perhaps withdrawn, and asks behind the caller's back whether it stands.
    pub(super) async fn doubt(
        &self,
        from: &OwnedServerName,
        concerned: Concerned,
        event: CheckedPdu,
    ) -> Result<(), RoomError> {
        let Concerned { user, pending, .. } = &concerned;
        let key = (from.clone(), user.clone(), pending.room_id.clone());
        let about = concerned.event_id(&pending.event);
        if self.hold(key, event.object().clone(), about).await? {
            self.probe(from.clone(), concerned, event);
        }
        Ok(())
    }

    /// Takes up the questions that a restart interrupted, in the background.
    pub fn start_probes(&self) {
        let rooms = self.clone();
        tokio::spawn(async move {
            if let Err(error) = rooms.resume_probes().await {
                tracing::error!(%error, "doubtful invites could not be asked about");
            }
        });
    }

    /// Waits until no invite is being asked about.
    pub async fn probes_idle(&self) {
        loop {
            let ended = self.inner.probes.ended.notified();
            if self.inner.probes.lock().is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// The same as [`Self::start_probes`], done when this returns but for the asking.
    pub async fn resume_probes(&self) -> Result<(), RoomError> {
        let rows =
            self.store().read(|reader| reader.scan::<tables::Withdrawals>(()).collect()).await?;
        let now = self.now();
        for ((from, _, room_id), record) in rows {
            for held in record.events {
                let Some(concerned) = self.concerned(&room_id, &held.event).await? else {
                    continue;
                };
                let pending = concerned.event_id(&concerned.pending.event);
                if !counts(&held, pending.as_ref(), now) {
                    continue;
                }
                let Ok(pdu) = Pdu::from_object(concerned.version, held.event) else { continue };
                // Of those that marked an invite, which is there, the signatures were checked; the
                // others were of an invite that has not come.
                match self.checked(pdu).await {
                    Ok(event) => self.probe(from.clone(), concerned, event),
                    Err(error @ RoomError::Store(_)) => return Err(error),
                    Err(error) => tracing::debug!(%error, "a withdrawal is not to be believed"),
                }
            }
        }
        Ok(())
    }

    fn probe(&self, from: OwnedServerName, concerned: Concerned, event: CheckedPdu) {
        let key = (concerned.user.clone(), concerned.pending.room_id.clone());
        if !self.inner.probes.begin(&key, &from) {
            return;
        }
        let rooms = self.clone();
        tokio::spawn(async move {
            if let Err(error) = rooms.ask_until_clear(&from, &concerned, &event).await {
                let (user, room_id) = &key;
                tracing::error!(%user, %room_id, %error, "an invite could not be asked about");
            }
            rooms.inner.probes.end(&key);
        });
    }

    async fn ask_until_clear(
        &self,
        from: &OwnedServerName,
        concerned: &Concerned,
        event: &CheckedPdu,
    ) -> Result<(), RoomError> {
        let (user, pending) = (&concerned.user, &concerned.pending);
        let (mut last, mut waits) = (Probed::Unknown, PROBES.into_iter());
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(WITHDRAWAL_LIFE_MS) {
            let wait = match last {
                Probed::Gone => CONFIRM_AFTER,
                Probed::Live | Probed::Unknown => waits.next().unwrap_or(PROBE_EVERY),
            };
            tokio::time::sleep(wait).await;
            let row = (user.clone(), pending.room_id.clone());
            let there =
                self.store().read(move |reader| reader.get::<tables::Pending>(&row)).await?;
            if there.as_ref() != Some(pending) {
                let key = (from.clone(), user.clone(), pending.room_id.clone());
                return self.drop_settled(&key).await;
            }
            let said = self.ask_whether_it_stands(pending).await;
            if (last, said) == (Probed::Gone, Probed::Gone) {
                return self.end(from, concerned, event, "probe").await;
            }
            last = said;
            if last == Probed::Live && waits.len() == 0 {
                let key = (from.clone(), user.clone(), pending.room_id.clone());
                let mut batch = Batch::default();
                batch.delete::<tables::Withdrawals>(&key);
                self.store().commit(batch).await?;
                return Ok(());
            }
        }
        tracing::info!(%user, room_id = %pending.room_id, "an invite may be withdrawn, or not");
        Ok(())
    }

    /// Drops the withdrawals that are too old to count, and those of invites that were answered.
    pub async fn sweep_withdrawals(&self) -> Result<(), RoomError> {
        let keys = self.store().read(|reader| reader.scan::<tables::Withdrawals>(()).keys());
        for key in keys.await? {
            self.drop_settled(&key).await?;
        }
        Ok(())
    }

    /// The same of one row.
    async fn drop_settled(&self, key: &Key) -> Result<(), RoomError> {
        let _guard = self.inner.locks.lock(&key.2).await;
        let (key, now) = (key.clone(), self.now());
        let batch = self.store().read(move |reader| {
            let mut batch = Batch::default();
            let Some(mut record) = reader.get::<tables::Withdrawals>(&key)? else {
                return Ok(batch);
            };
            let pending = pending_id(reader, &key.1, &key.2)?;
            let before = record.events.len();
            record.events.retain(|held| counts(held, pending.as_ref(), now));
            if record.events.is_empty() {
                batch.delete::<tables::Withdrawals>(&key);
            } else if record.events.len() < before {
                batch.put::<tables::Withdrawals>(&key, &record);
            }
            Ok::<_, StoreError>(batch)
        });
        let batch = batch.await?;
        self.store().commit(batch).await?;
        Ok(())
    }

    async fn ask_whether_it_stands(&self, pending: &PendingMembership) -> Probed {
        let _turn = self.inner.probes.asking.acquire().await;
        for server in probe_servers(pending, self.server_name()) {
            let request = probe_request(pending, server.clone());
            let answer = self.call(&server, Call::Make(&request)).await;
            let said = judge_probe(pending, &answer);
            let (user, room_id) = (&pending.user_id, &pending.room_id);
            tracing::debug!(%user, %room_id, %server, ?said, ?answer, "whether an invite stands");
            match said {
                Probed::Unknown => {}
                clear => return clear,
            }
        }
        Probed::Unknown
    }
}

/// The invite or knock that waits for the user's answer.
pub(crate) fn pending_id(
    reader: &Reader<'_>,
    user: &UserId,
    room_id: &RoomId,
) -> Result<Option<OwnedEventId>, StoreError> {
    let key = (user.to_owned(), room_id.to_owned());
    let pending = reader.contains::<tables::Pending>(&key)?;
    let row = reader.get::<tables::Memberships>(&key)?;
    Ok(row.filter(|_| pending).map(|row| row.event_id))
}

/// Whether a withdrawal may still say something: of what waits for the user's answer now or, where
/// nothing does, of what has yet to come. One that came early and did not end the invite that came
/// then is about another one.
pub(crate) fn counts(held: &HeldWithdrawal, pending: Option<&OwnedEventId>, now: u64) -> bool {
    !is_over(held.at, now) && held.about.as_ref() == pending
}

fn is_over(at: u64, now: u64) -> bool {
    at.saturating_add(WITHDRAWAL_LIFE_MS) <= now
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One server's doubts leave room for those of others.
    #[test]
    fn a_server_casts_doubt_on_a_few_invites_at_a_time() {
        let probes = Probes::default();
        let server = |name: &str| ServerName::parse(name).unwrap();
        let invite = |number: usize| -> Invite {
            let room = RoomId::parse(format!("!r{number}:x.example")).unwrap();
            (UserId::parse("@bob:b.example").unwrap(), room)
        };
        let hostile = server("hostile.example");
        let begun = (0..100).filter(|number| probes.begin(&invite(*number), &hostile)).count();
        assert_eq!(begun, MAX_PROBES_PER_SERVER);
        let other = server("other.example");
        assert!(!probes.begin(&invite(0), &other), "it is being asked about");
        assert!(probes.begin(&invite(100), &other));
        probes.end(&invite(0));
        assert!(probes.begin(&invite(101), &hostile));
    }
}
