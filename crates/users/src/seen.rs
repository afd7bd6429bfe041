//! When and from where devices were used: exact in memory, written now and then.

use std::collections::HashMap;
use std::net::IpAddr;

use exeunt_core::ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use exeunt_store::Batch;
use exeunt_store::records::SeenRecord;
use exeunt_store::tables::Devices;

use crate::{Session, Users, UsersError};

/// Devices that are remembered. Beyond that all are forgotten: the store is not far behind.
const MAX_SEEN: usize = 8192;
/// How far the store may be behind.
const WRITTEN_EVERY_MS: u64 = 60 * 60_000;
/// Longest part of a user agent that is kept, in characters.
const MAX_USER_AGENT: usize = 256;

pub(crate) type Seen = HashMap<(OwnedUserId, OwnedDeviceId), Sighting>;

pub(crate) struct Sighting {
    last: SeenRecord,
    /// When the store was last known to be up to date.
    written_at: Option<u64>,
}

impl Users {
    /// Notes that a session was used.
    pub async fn seen(
        &self,
        session: &Session,
        ip: Option<IpAddr>,
        user_agent: Option<&str>,
    ) -> Result<(), UsersError> {
        let now = self.now();
        let user_agent = user_agent.map(|text| text.chars().take(MAX_USER_AGENT).collect());
        let last = SeenRecord { at: now, ip: ip.map(|ip| ip.to_string()), user_agent };
        let key = (session.user_id.clone(), session.device_id.clone());
        {
            let mut seen = self.sightings();
            if seen.len() >= MAX_SEEN && !seen.contains_key(&key) {
                seen.clear();
            }
            let sighting = seen
                .entry(key.clone())
                .or_insert_with(|| Sighting { last: last.clone(), written_at: None });
            sighting.last = last.clone();
            if sighting.written_at.is_some_and(|at| now.saturating_sub(at) < WRITTEN_EVERY_MS) {
                return Ok(());
            }
            // Now, so that no other request writes too.
            sighting.written_at = Some(now);
        }
        let _guard = self.lock(&session.user_id).await;
        let read_key = key.clone();
        let device = self.inner.store.read(move |r| r.get::<Devices>(&read_key)).await?;
        let Some(mut device) = device else { return Ok(()) };
        let is_new = |seen: &SeenRecord| now.saturating_sub(seen.at) < WRITTEN_EVERY_MS;
        if device.seen.as_ref().is_some_and(is_new) {
            return Ok(());
        }
        device.seen = Some(last);
        let mut batch = Batch::default();
        batch.put::<Devices>(&key, &device);
        self.inner.store.commit(batch).await?;
        Ok(())
    }

    pub(crate) fn seen_lately(&self, user: &UserId, device: &DeviceId) -> Option<SeenRecord> {
        let key = (user.to_owned(), device.to_owned());
        self.sightings().get(&key).map(|sighting| sighting.last.clone())
    }

    fn sightings(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.inner.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
