//! Leaves of our users that a server would not have, as one whose room's ACL denies us: they go on
//! as departures, which are tried until the server says that the user is out (decision 0012).

use exeunt_core::ruma::{OwnedEventId, OwnedServerName, ServerName};
use exeunt_core::{Pdu, PendingMembership, RoomVersion};
use exeunt_store::records::DepartureRecord;
use exeunt_store::tables::{Departures, Events, Memberships};
use exeunt_store::{Batch, Reader, Store, StoreError};

/// Adds a departure for each of the events that is a leave by a user of ours and their last word,
/// or adds the server to the one that there is.
pub(crate) async fn keep(
    store: &Store,
    ours: &ServerName,
    server: &OwnedServerName,
    refused: Vec<OwnedEventId>,
    now: u64,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    if refused.is_empty() {
        return Ok(());
    }
    let (ours, server) = (ours.to_owned(), server.clone());
    let departures = store.read(move |r: &Reader<'_>| {
        let mut departures = Vec::new();
        for id in refused {
            departures.extend(departure(r, &ours, &server, &id, now)?);
        }
        Ok::<_, StoreError>(departures)
    });
    for departure in departures.await? {
        let PendingMembership { user_id, room_id, .. } = &departure.pending;
        batch.put::<Departures>(&(user_id.clone(), room_id.clone()), &departure);
    }
    Ok(())
}

fn departure(
    r: &Reader<'_>,
    ours: &ServerName,
    server: &OwnedServerName,
    id: &OwnedEventId,
    now: u64,
) -> Result<Option<DepartureRecord>, StoreError> {
    let Some(record) = r.get::<Events>(id)? else { return Ok(None) };
    let version = RoomVersion::parse(&record.room_version).ok();
    let parsed = version.map(|version| Pdu::parse(version, record.json.get().as_bytes()));
    let Some(Ok(event)) = parsed else { return Ok(None) };
    let user = event.sender();
    let is_leave = event.membership() == Some("leave") && event.target() == Some(user);
    if !is_leave || user.server_name() != ours {
        return Ok(None);
    }
    let key = (user.to_owned(), record.room_id);
    if r.get::<Memberships>(&key)?.is_none_or(|row| row.event_id != *id) {
        return Ok(None);
    }
    if let Some(mut departure) = r.get::<Departures>(&key)? {
        let is_its = departure.pending.event == *event.object();
        let is_new = is_its && !departure.candidates.contains(server);
        departure.candidates.push(server.clone());
        return Ok(is_new.then_some(departure));
    }
    Ok(Some(DepartureRecord::of_leave(&event, now, server, now)))
}
