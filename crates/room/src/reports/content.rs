//! What users have reported, and nobody has dealt with.

use exeunt_store::{Reader, StoreError, records::Reported, tables};
use ruma::OwnedUserId;
use serde::Serialize;

use super::{MAX_ROWS, Page};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContentReport {
    /// With the reporter, what the report is dropped by.
    pub id: u64,
    pub reporter: OwnedUserId,
    #[serde(flatten)]
    pub reported: Reported,
    pub reason: Option<String>,
    /// Milliseconds since the epoch.
    pub at: u64,
}

/// Reports in the order in which they came, with ids not below `from`.
pub fn content_reports(
    reader: &Reader<'_>,
    from: u64,
    limit: usize,
) -> Result<Page<ContentReport>, StoreError> {
    let mut rows = Vec::new();
    for row in reader.scan::<tables::ContentReports>(()).iter() {
        let ((reporter, id), record) = row?;
        if id >= from {
            let (reported, reason, at) = (record.reported, record.reason, record.at);
            rows.push(ContentReport { id, reporter, reported, reason, at });
        }
    }
    rows.sort_by_key(|row| row.id);
    let next = rows.get(limit.clamp(1, MAX_ROWS)).map(|row| row.id);
    rows.truncate(limit.clamp(1, MAX_ROWS));
    Ok(Page { rows, next })
}
