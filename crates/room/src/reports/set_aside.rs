//! What other servers would not have of us, with their words.

use exeunt_store::{Reader, StoreError, tables};
use ruma::{OwnedEventId, OwnedServerName, ServerName};
use serde::Serialize;

use super::MAX_ROWS;

/// Something that a server refused, taken out of its queue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SetAside {
    pub server: OwnedServerName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<OwnedEventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edu_type: Option<String>,
    pub why: String,
    /// Milliseconds since the epoch.
    pub at: u64,
}

/// What was set aside: of one server, or of all; at most [`MAX_ROWS`].
pub fn set_aside(
    reader: &Reader<'_>,
    server: Option<&ServerName>,
) -> Result<Vec<SetAside>, StoreError> {
    let rows = match server {
        Some(server) => reader.scan::<tables::SetAside>(server.to_owned()),
        None => reader.scan::<tables::SetAside>(()),
    };
    let described = rows.limit(MAX_ROWS).iter().map(|row| {
        let ((server, _), record) = row?;
        let (event_id, edu_type) = (record.event_id, record.edu_type);
        Ok(SetAside { server, event_id, edu_type, why: record.why, at: record.at })
    });
    described.collect()
}
