//! Leaves of our users that a server would not have, as one whose room's ACL denies us: they go on
//! as departures, which are tried until the server says that the user is out (decision 0012).

use exeunt_core::ruma::{OwnedEventId, OwnedServerName, OwnedUserId, ServerName, UserId};
use exeunt_core::{Object, PendingMembership};
use exeunt_store::records::DepartureRecord;
use exeunt_store::tables::{Departures, Events, Memberships};
use exeunt_store::{Batch, Reader, Store, StoreError};
use serde_json::Value;

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
    let Ok(event) = serde_json::from_str::<Object>(record.json.get()) else { return Ok(None) };
    let Some(user) = leaver(&event).filter(|user| user.server_name() == ours) else {
        return Ok(None);
    };
    let key = (user.clone(), record.room_id);
    if r.get::<Memberships>(&key)?.is_none_or(|row| row.event_id != *id) {
        return Ok(None);
    }
    if let Some(mut departure) = r.get::<Departures>(&key)? {
        let is_its = departure.pending.event == event && !departure.candidates.contains(server);
        departure.candidates.push(server.clone());
        return Ok(is_its.then_some(departure));
    }
    Ok(Some(DepartureRecord {
        pending: PendingMembership {
            user_id: user.clone(),
            room_id: key.1,
            membership: "join".into(),
            room_version: record.room_version,
            event,
            stripped_state: Vec::new(),
            sender: user,
            delivered_by: Some(server.clone()),
            candidates: Vec::new(),
            received_at: now,
        },
        reason: None,
        candidates: vec![server.clone()],
        departed_at: now,
        attempts: 0,
        retry_at: now,
        last: Vec::new(),
    }))
}

/// The user whom a member event takes out by their own word.
fn leaver(event: &Object) -> Option<OwnedUserId> {
    let text = |field: &str| event.get(field).and_then(Value::as_str);
    let membership = event.get("content")?.get("membership")?.as_str()?;
    let user = <&UserId>::try_from(text("sender")?).ok()?;
    let leaves = text("type") == Some("m.room.member")
        && text("state_key") == Some(user.as_str())
        && membership == "leave";
    leaves.then(|| user.to_owned())
}
