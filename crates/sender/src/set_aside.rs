//! What a server would not have: taken out of its queue and kept with the server's words, for an
//! admin to see (pains G3, "poison").

use exeunt_core::ruma::OwnedServerName;
use exeunt_store::records::SetAsideRecord;
use exeunt_store::tables::SetAside;
use exeunt_store::{Batch, Reader, Store, StoreError};

/// Rows kept for one server; beyond that the oldest goes.
pub const MAX_SET_ASIDE: usize = 100;
/// Longest text of a server that is kept.
pub const MAX_WHY_BYTES: usize = 512;

/// Adds rows for a server, and takes as many of the oldest as are too many then.
pub(crate) async fn put(
    store: &Store,
    server: &OwnedServerName,
    rows: Vec<(u64, SetAsideRecord)>,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let key = server.clone();
    let known = store.read(move |r: &Reader<'_>| r.scan::<SetAside>(key).keys()).await?;
    let skip = rows.len().saturating_sub(MAX_SET_ASIDE);
    let rows: Vec<_> = rows.into_iter().skip(skip).collect();
    let excess = (known.len() + rows.len()).saturating_sub(MAX_SET_ASIDE);
    for key in known.iter().take(excess) {
        batch.delete::<SetAside>(key);
    }
    for (position, mut record) in rows {
        let mut end = record.why.len().min(MAX_WHY_BYTES);
        while !record.why.is_char_boundary(end) {
            end -= 1;
        }
        record.why.truncate(end);
        batch.put::<SetAside>(&(server.clone(), position), &record);
    }
    Ok(())
}
