//! Wakes the long polls of the users that a commit concerns.

use std::{collections::HashMap, sync::Mutex};

use ruma::{OwnedUserId, UserId};
use tokio::sync::watch;

/// Stream positions by user, for those who wait.
#[derive(Default)]
pub struct Notifier(Mutex<HashMap<OwnedUserId, watch::Sender<u64>>>);

impl Notifier {
    /// Changes whenever something new concerns the user. Subscribe first, read the store then:
    /// what comes in between is not lost.
    pub fn subscribe(&self, user: &UserId) -> watch::Receiver<u64> {
        let mut waiting = self.0.lock().unwrap_or_else(|e| e.into_inner());
        waiting.retain(|_, sender| sender.receiver_count() > 0);
        waiting.entry(user.to_owned()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    pub(crate) fn notify<'a>(
        &self,
        users: impl IntoIterator<Item = &'a OwnedUserId>,
        position: u64,
    ) {
        let waiting = self.0.lock().unwrap_or_else(|e| e.into_inner());
        for user in users {
            if let Some(sender) = waiting.get(user) {
                sender.send_replace(position);
            }
        }
    }
}
