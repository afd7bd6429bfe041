//! What an administrator wants to know: the membership timeline, departures that wait, pending
//! invites, the journal of signatures, what users reported. Read from the store, beside a running server too.

mod content;
mod departures;
mod invites;
mod set_aside;
mod signatures;
mod timeline;

use exeunt_store::{Reader, StoreError};

pub use content::{ContentReport, content_reports};
pub use departures::{Departure, departures};
pub(crate) use invites::pending;
pub use invites::{Invite, invites};
pub use set_aside::{SetAside, set_aside};
pub use signatures::{Signature, SignatureQuery, signatures};
pub use timeline::{TimelineEntry, TimelineQuery, timeline};

use crate::{RoomError, Rooms};

/// Most rows of one answer.
pub const MAX_ROWS: usize = 1_000;

/// Rows of an answer, and where the next one begins.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// Give it as `from` for what follows; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

impl Rooms {
    /// Reads a report from a snapshot of the store.
    pub async fn report<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, RoomError> {
        self.inner.store.read_long(move |reader| Ok(read(reader)?)).await
    }
}
