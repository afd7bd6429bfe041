//! What the devices of a user say of whether the user is there. One that says nothing more counts
//! until its time is up; of the others, the one that is there most speaks for the user.

use std::collections::BTreeMap;

use ruma::{DeviceId, OwnedDeviceId};

use super::Presence;

/// Devices of a user whose word is kept.
const MAX_DEVICES: usize = 100;

/// The devices at which a user is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Devices(BTreeMap<OwnedDeviceId, Device>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Device {
    presence: Presence,
    /// Milliseconds since the epoch.
    until: u64,
}

impl Devices {
    /// A device says so, and that holds until then.
    pub fn note(&mut self, device: &DeviceId, presence: Presence, until: u64, now: u64) {
        self.0.retain(|_, known| known.until > now);
        let known = self.0.remove(device);
        if presence == Presence::Offline {
            return;
        }
        if self.0.len() >= MAX_DEVICES {
            let first = self.0.iter().min_by_key(|(_, known)| known.until);
            if let Some(first) = first.map(|(device, _)| device.clone()) {
                self.0.remove(&first);
            }
        }
        let until = known.map_or(until, |known| known.until.max(until));
        self.0.insert(device.to_owned(), Device { presence, until });
    }

    /// What the user is by the word of all of them, and until when if no more is heard.
    pub fn merged(&self, now: u64) -> (Presence, u64) {
        let live = self.0.values().filter(|device| device.until > now);
        live.map(|device| (device.presence, device.until)).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use Presence::{Offline, Online, Unavailable};
    use ruma::device_id;

    use super::*;

    #[test]
    fn the_device_that_is_there_most_speaks_for_the_user() {
        let (phone, laptop, mut devices) =
            (device_id!("PHONE"), device_id!("LAPTOP"), Devices::default());
        assert_eq!(devices.merged(0), (Offline, 0));
        devices.note(laptop, Unavailable, 50, 0);
        devices.note(phone, Online, 30, 0);
        assert_eq!(devices.merged(0), (Online, 30));
        devices.note(laptop, Unavailable, 60, 10);
        assert_eq!(devices.merged(10), (Online, 30));
        // Its time is up.
        assert_eq!(devices.merged(30), (Unavailable, 60));
        assert_eq!(devices.merged(60), (Offline, 0));
        // Its own last word counts, for as long as the longest one.
        devices.note(laptop, Online, 20, 10);
        assert_eq!(devices.merged(10), (Online, 60));
        devices.note(laptop, Offline, 0, 11);
        assert_eq!(devices.merged(11), (Online, 30));
        devices.note(phone, Unavailable, 12, 11);
        assert_eq!(devices.merged(11), (Unavailable, 30));
    }

    #[test]
    fn so_many_devices_count() {
        let mut devices = Devices::default();
        for n in 0..MAX_DEVICES + 5 {
            let device = OwnedDeviceId::from(format!("D{n}"));
            devices.note(&device, Online, 1_000 + n as u64, 0);
        }
        assert_eq!(devices.0.len(), MAX_DEVICES);
        assert_eq!(devices.merged(0), (Online, 1_000 + MAX_DEVICES as u64 + 4));
        devices.note(device_id!("D"), Unavailable, 9_000, 8_000);
        assert_eq!(devices.0.len(), 1, "those whose time is up are forgotten");
    }
}
