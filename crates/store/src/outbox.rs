//! What the outbox can be asked as a whole.

use std::collections::BTreeSet;

use ruma::{OwnedEventId, OwnedServerName};

use crate::records::OutboxItem;
use crate::tables::Outbox;
use crate::{Reader, StoreError};

/// The servers that something waits for, in order, behind `after` and at most `limit`: one look at
/// the index for each.
pub fn waiting_servers(
    reader: &Reader<'_>,
    mut after: Option<OwnedServerName>,
    limit: usize,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let mut servers = Vec::new();
    while servers.len() < limit {
        let scan = reader.scan::<Outbox>(()).limit(1);
        let keys = match after.take() {
            Some(server) => scan.after(server).keys()?,
            None => scan.keys()?,
        };
        let Some((server, _)) = keys.into_iter().next() else { break };
        after = Some(server.clone());
        servers.push(server);
    }
    Ok(servers)
}

/// The events that wait for any server.
pub fn waiting_events(reader: &Reader<'_>) -> Result<BTreeSet<OwnedEventId>, StoreError> {
    let mut waiting = BTreeSet::new();
    for row in reader.scan::<Outbox>(()).iter() {
        if let (_, OutboxItem::Pdu(id)) = row? {
            waiting.insert(id);
        }
    }
    Ok(waiting)
}
