//! Devices of local users.

use exeunt_core::ruma::{DeviceId, OwnedDeviceId, UserId};
use exeunt_store::Batch;
use exeunt_store::records::{DeviceRecord, SeenRecord};
use exeunt_store::tables::Devices;

use crate::error::bounded;
use crate::token::revoke;
use crate::{Users, UsersError};

/// Longest device id in bytes.
pub const MAX_DEVICE_ID: usize = 512;
/// Longest display name of a device in bytes.
pub const MAX_DEVICE_NAME: usize = 256;

/// A device as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub device_id: OwnedDeviceId,
    pub display_name: Option<String>,
    /// Milliseconds since the epoch.
    pub created_at: u64,
    /// When and from where it was used last, as far as is known.
    pub seen: Option<SeenRecord>,
}

impl Users {
    fn describe(&self, user: &UserId, device_id: OwnedDeviceId, record: DeviceRecord) -> Device {
        let seen = self.seen_lately(user, &device_id).or(record.seen);
        let DeviceRecord { display_name, created_at, .. } = record;
        Device { device_id, display_name, created_at, seen }
    }
}

impl Users {
    pub async fn devices(&self, user: &UserId) -> Result<Vec<Device>, UsersError> {
        let rows = self.device_rows(user).await?;
        Ok(rows.into_iter().map(|(id, record)| self.describe(user, id, record)).collect())
    }

    pub async fn device(
        &self,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<Option<Device>, UsersError> {
        let key = (user.to_owned(), device.to_owned());
        let record = self.inner.store.read(move |r| r.get::<Devices>(&key)).await?;
        Ok(record.map(|record| self.describe(user, device.to_owned(), record)))
    }

    /// Renames a device; `None` takes the name away.
    pub async fn rename_device(
        &self,
        user: &UserId,
        device: &DeviceId,
        name: Option<&str>,
    ) -> Result<(), UsersError> {
        if let Some(name) = name {
            bounded("device display name", name, MAX_DEVICE_NAME)?;
        }
        let _guard = self.lock(user).await;
        let key = (user.to_owned(), device.to_owned());
        let read_key = key.clone();
        let record = self.inner.store.read(move |r| r.get::<Devices>(&read_key)).await?;
        let mut record = record.ok_or(UsersError::UnknownDevice)?;
        record.display_name = name.map(str::to_owned);
        let mut batch = Batch::default();
        batch.put::<Devices>(&key, &record);
        self.inner.store.commit(batch).await?;
        Ok(())
    }

    /// Removes devices and their tokens; unknown ones are passed over. Returns how many there were.
    pub async fn delete_devices(
        &self,
        user: &UserId,
        devices: &[OwnedDeviceId],
    ) -> Result<usize, UsersError> {
        let _guard = self.lock(user).await;
        let mut batch = Batch::default();
        let mut deleted = 0;
        for (id, record) in self.device_rows(user).await? {
            if devices.contains(&id) {
                drop_device(user, id, &record, &mut batch);
                deleted += 1;
            }
        }
        if deleted > 0 {
            self.inner.store.commit(batch).await?;
            self.forget_sessions(user, |session| devices.contains(&session.device_id));
        }
        Ok(deleted)
    }

    /// Adds the removal of all devices but `keep`. The caller holds the user's lock.
    pub(crate) async fn drop_devices(
        &self,
        user: &UserId,
        keep: Option<&DeviceId>,
        batch: &mut Batch,
    ) -> Result<(), UsersError> {
        for (id, record) in self.device_rows(user).await? {
            if Some(&*id) != keep {
                drop_device(user, id, &record, batch);
            }
        }
        Ok(())
    }

    async fn device_rows(
        &self,
        user: &UserId,
    ) -> Result<Vec<(OwnedDeviceId, DeviceRecord)>, UsersError> {
        let user = user.to_owned();
        let rows = self.inner.store.read(move |r| r.scan::<Devices>(user).collect()).await?;
        Ok(rows.into_iter().map(|((_, id), record)| (id, record)).collect())
    }
}

fn drop_device(user: &UserId, id: OwnedDeviceId, record: &DeviceRecord, batch: &mut Batch) {
    revoke(record, batch);
    batch.delete::<Devices>(&(user.to_owned(), id));
}
