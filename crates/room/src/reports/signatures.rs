//! The journal of signatures: every event that our key was put on, for what, with whom.

use exeunt_store::{Reader, StoreError, tables};
use ruma::{OwnedEventId, OwnedServerName};
use serde::Serialize;

use super::{MAX_ROWS, Page};

/// Most rows of the journal that one question looks at.
const MAX_LOOKED_AT: usize = 100_000;

/// A use of the signing key on an event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Signature {
    pub position: u64,
    pub purpose: String,
    pub event_id: OwnedEventId,
    /// The server that the handshake ran with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<OwnedServerName>,
    /// Milliseconds since the epoch.
    pub at: u64,
}

/// Which signatures are asked for. What is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct SignatureQuery {
    pub purpose: Option<String>,
    pub event_id: Option<OwnedEventId>,
    pub peer: Option<OwnedServerName>,
    /// Only those at this stream position and later.
    pub from: u64,
    pub limit: usize,
}

/// Signatures in the order in which they were made.
pub fn signatures(
    reader: &Reader<'_>,
    query: &SignatureQuery,
) -> Result<Page<Signature>, StoreError> {
    let limit = query.limit.clamp(1, MAX_ROWS);
    let mut rows = Vec::new();
    let scan = reader.scan::<tables::SigningJournal>(()).from(query.from);
    for (looked_at, row) in scan.iter().enumerate() {
        let (key, record) = row?;
        if rows.len() == limit || looked_at == MAX_LOOKED_AT {
            return Ok(Page { rows, next: Some(key) });
        }
        let is_wanted = query.purpose.as_ref().is_none_or(|wanted| *wanted == record.purpose)
            && query.event_id.as_ref().is_none_or(|wanted| *wanted == record.event_id)
            && query.peer.as_ref().is_none_or(|wanted| Some(wanted) == record.peer.as_ref());
        if is_wanted {
            rows.push(Signature {
                position: key,
                purpose: record.purpose,
                event_id: record.event_id,
                peer: record.peer,
                at: record.at,
            });
        }
    }
    Ok(Page { rows, next: None })
}
