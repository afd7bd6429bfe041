//! Ends what its time is up for: typing, and the presence of those who do not sync any more; and
//! tells other servers what they do not know, or will not know for much longer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, Notify},
    time::timeout,
};

use crate::{RoomError, Rooms};

/// The longest and the shortest wait between two looks.
const LONGEST: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_millis(50);

/// The task that sweeps, which begins when there is something of the moment.
#[derive(Default)]
pub(super) struct Sweeper {
    runs: AtomicBool,
    stirred: Arc<Notify>,
    /// Held by who sweeps.
    turn: Mutex<()>,
}

impl Rooms {
    /// Something new has a time that runs out, or is to be told.
    pub(super) fn stir_sweeper(&self) {
        let sweeper = &self.inner.ephemeral.sweeper;
        sweeper.stirred.notify_one();
        if sweeper.runs.swap(true, Ordering::SeqCst) {
            return;
        }
        let (inner, stirred) = (Arc::downgrade(&self.inner), sweeper.stirred.clone());
        tokio::spawn(async move {
            let mut wait = SHORTEST;
            loop {
                let _ = timeout(wait, stirred.notified()).await;
                let Some(inner) = inner.upgrade() else { return };
                let rooms = Rooms { inner };
                wait = match rooms.sweep_ephemeral().await {
                    Ok(next) => {
                        let ms = next.map_or(u64::MAX, |next| next.saturating_sub(rooms.now()));
                        Duration::from_millis(ms).clamp(SHORTEST, LONGEST)
                    }
                    Err(error) => {
                        tracing::error!(%error, "what is of the moment cannot be swept");
                        LONGEST
                    }
                };
            }
        });
    }

    /// Does what it is time for; says when it is for the next.
    pub async fn sweep_ephemeral(&self) -> Result<Option<u64>, RoomError> {
        let _turn = self.inner.ephemeral.sweeper.turn.lock().await;
        let now = self.now();
        let (expired, next_typist) = self.inner.ephemeral.typing.expired(now);
        for (room_id, user) in expired {
            self.end_typing(&user, &room_id).await?;
        }
        let (due, next_due) = self.inner.ephemeral.presence.due(now);
        for (user, known) in due {
            self.follow_up(&user, known).await?;
        }
        self.tell_newcomers().await?;
        Ok([next_typist, next_due].into_iter().flatten().min())
    }
}
