//! Deletes a room: every row that is about it and that nothing else needs.
//!
//! Goes: the head, events, edges, redactions, timeline with its indices, what is unread, states with
//! their trees, arrivals, queued events, records of delivery, receipts, aliases, the entry in the
//! directory. An event is of one room, so no other room's state has a node in common with this one's.
//!
//! Stays: what users and admins have of the room without its graph. Departures, pending invites and
//! knocks, the membership log and the signing journal; memberships that ended, with their event
//! beside the graph, until they are old; account data and transaction ids, which are the users'; and
//! events that wait for a server, as outliers, until it has them ([`drop_delivered`]).

use std::collections::BTreeSet;

use exeunt_core::{Object, Pdu, RoomVersion};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use thiserror::Error;

use crate::records::{EventRecord, MembershipRecord, OutboxItem};
use crate::snapshot::Node;
use crate::tables::{
    Aliases, Arrivals, AuthChildren, Children, Deliveries, Denied, DepartedServers, Departures,
    EventTimes, EventTransactions, Events, InboundQueue, JoinedServers, Kept, LocalMembers,
    Memberships, Notable, OlderHeads, Outbox, Pending, PublicRooms, Purges, Receipts, Redactions,
    Relations, RoomAliases, RoomStates, Rooms, SignedInvites, StateNodes, ThreadEvents, Timeline,
    Words,
};
use crate::{Batch, Prefix, Reader, Root, RowOf, Store, StoreError, Table, waiting_events};

/// Rows that are looked at between two commits.
const PAGE: usize = 1_000;

/// What a purge did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    pub events: u64,
    /// Events that stay because a server has yet to get them.
    pub waiting: u64,
}

#[derive(Debug, Error)]
pub enum PurgeError {
    #[error("{0} is in the room")]
    Occupied(OwnedUserId),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Deletes a room that no local user is in. Nobody else may write to the room until this has come
/// to its end. From the first batch on the room is unknown; what a crash leaves, [`resume_purges`]
/// deletes. Looks at every event of the store; memory follows the events that wait for servers.
pub async fn purge_room(store: &Store, room_id: &RoomId) -> Result<Purged, PurgeError> {
    let room = room_id.to_owned();
    match occupant(store, &room, PAGE).await? {
        Some(user) => Err(PurgeError::Occupied(user)),
        None => Ok(purge_by(store, room, PAGE).await?),
    }
}

/// Ends the purges that a crash cut off. Before anyone else writes.
pub async fn resume_purges(store: &Store) -> Result<(), StoreError> {
    for room in store.read(|reader| reader.scan::<Purges>(()).keys()).await? {
        purge_by(store, room, PAGE).await?;
    }
    Ok(())
}

/// Rooms of which purges have kept events for servers.
pub async fn rooms_with_kept(store: &Store) -> Result<BTreeSet<OwnedRoomId>, StoreError> {
    let rows = store.read(|reader| reader.scan::<Kept>(()).keys()).await?;
    Ok(rows.into_iter().map(|(room, _)| room).collect())
}

/// Deletes those of a room's kept events that no server waits for any more. Where the room is here
/// again they are of its graph, and stay. Nobody else may write to the room meanwhile.
pub async fn drop_delivered(store: &Store, room_id: &RoomId) -> Result<(), StoreError> {
    let room = room_id.to_owned();
    let read = store.read_long(move |reader| {
        let waiting = waiting_events(reader)?;
        let (mut batch, is_back) = (Batch::default(), reader.contains::<Rooms>(&room)?);
        for key in reader.scan::<Kept>(room).keys()? {
            if !is_back {
                if waiting.contains(&key.1) {
                    continue;
                }
                if let Some(event) = reader.get::<Events>(&key.1)? {
                    delete_outlier(&mut batch, &key.1, &event)?;
                }
            }
            batch.delete::<Kept>(&key);
        }
        Ok::<_, StoreError>(batch)
    });
    store.commit(read.await?).await?;
    Ok(())
}

async fn purge_by(store: &Store, room: OwnedRoomId, page: usize) -> Result<Purged, StoreError> {
    let head = room.clone();
    let start = store.read(move |reader| {
        let mut batch = Batch::default();
        if let Some(record) = reader.get::<Rooms>(&head)? {
            delete_tree(reader, &mut batch, record.state)?;
        }
        batch.put::<Purges>(&head, &());
        batch.delete::<Rooms>(&head);
        batch.delete::<PublicRooms>(&head);
        Ok::<_, StoreError>(batch)
    });
    store.commit(start.await?).await?;
    delete_rows::<OlderHeads>(store, &room, page).await?;
    for_each::<RoomStates, _>(store, room.clone(), page, (), delete_state).await?;
    delete_rows::<JoinedServers>(store, &room, page).await?;
    delete_rows::<DepartedServers>(store, &room, page).await?;
    delete_rows::<SignedInvites>(store, &room, page).await?;
    delete_rows::<Children>(store, &room, page).await?;
    delete_rows::<Redactions>(store, &room, page).await?;
    delete_rows::<Denied>(store, &room, page).await?;
    delete_rows::<Relations>(store, &room, page).await?;
    delete_rows::<ThreadEvents>(store, &room, page).await?;
    delete_rows::<EventTimes>(store, &room, page).await?;
    delete_rows::<Words>(store, &room, page).await?;
    delete_rows::<Timeline>(store, &room, page).await?;
    delete_rows::<Notable>(store, &room, page).await?;
    delete_rows::<Arrivals>(store, &room, page).await?;
    delete_rows::<InboundQueue>(store, &room, page).await?;
    delete_rows::<Deliveries>(store, &room, page).await?;
    delete_rows::<Receipts>(store, &room, page).await?;
    for_each::<RoomAliases, _>(store, room.clone(), page, (), delete_alias).await?;
    for_each::<LocalMembers, _>(store, room.clone(), page, (), keep_or_delete_member).await?;
    // Before the events go, for they say which of those that wait are of the room.
    let waiting = (room.clone(), BTreeSet::new());
    let (_, waiting) = for_each::<Outbox, _>(store, (), page, waiting, note_waiting).await?;
    let events = Gone { room, waiting, purged: Purged::default() };
    let Gone { room, purged, .. } =
        for_each::<Events, _>(store, (), page, events, delete_event).await?;
    let mut batch = Batch::default();
    batch.delete::<Purges>(&room);
    store.commit(batch).await?;
    Ok(purged)
}

/// Visits the rows of a prefix, page by page: each in a snapshot of its own, with a batch of its
/// own. `all` is what the visits share.
async fn for_each<T, A>(
    store: &Store,
    prefix: impl Prefix<T::Key> + Clone + Send + 'static,
    page: usize,
    mut all: A,
    visit: fn(&mut A, &Reader<'_>, &mut Batch, RowOf<T>) -> Result<(), StoreError>,
) -> Result<A, StoreError>
where
    T: Table<Key: Prefix<T::Key> + Clone + Send>,
    A: Send + 'static,
{
    let mut after: Option<T::Key> = None;
    loop {
        let (prefix, from) = (prefix.clone(), after.take());
        let read = store.read_long(move |reader| {
            let mut scan = reader.scan::<T>(prefix).limit(page);
            if let Some(key) = from {
                scan = scan.after(key);
            }
            let (mut batch, mut last, mut seen) = (Batch::default(), None, 0);
            for row in scan.iter() {
                let row = row?;
                (last, seen) = (Some(row.0.clone()), seen + 1);
                visit(&mut all, reader, &mut batch, row)?;
            }
            Ok::<_, StoreError>((all, batch, last.filter(|_| seen == page)))
        });
        let (visited, batch, last) = read.await?;
        store.commit(batch).await?;
        (all, after) = (visited, last);
        if after.is_none() {
            return Ok(all);
        }
    }
}

/// Deletes the rows of the room in a table whose keys begin with it.
async fn delete_rows<T>(store: &Store, room: &OwnedRoomId, page: usize) -> Result<(), StoreError>
where
    T: Table<Key: Prefix<T::Key> + Clone + Send>,
    OwnedRoomId: Prefix<T::Key>,
{
    for_each::<T, _>(store, room.clone(), page, (), |(), _, batch, (key, _)| {
        batch.delete::<T>(&key);
        Ok(())
    })
    .await
}

fn delete_state(
    (): &mut (),
    reader: &Reader<'_>,
    batch: &mut Batch,
    (key, root): RowOf<RoomStates>,
) -> Result<(), StoreError> {
    batch.delete::<RoomStates>(&key);
    delete_tree(reader, batch, root)
}

/// Deletes the nodes of a state tree. Where one is gone, so is all that is below it.
fn delete_tree(reader: &Reader<'_>, batch: &mut Batch, root: Root) -> Result<(), StoreError> {
    let mut open = vec![root];
    while let Some(Root(id)) = open.pop() {
        if batch.pending::<StateNodes>(&id)?.is_some() {
            continue;
        }
        let Some(node) = reader.get::<StateNodes>(&id)? else { continue };
        batch.delete::<StateNodes>(&id);
        if let Node::Branch(_, children) = node {
            open.extend(children.iter().flatten());
        }
    }
    Ok(())
}

/// A local user who is in the room.
async fn occupant(
    store: &Store,
    room: &OwnedRoomId,
    page: usize,
) -> Result<Option<OwnedUserId>, StoreError> {
    let visit =
        |joined: &mut Option<_>, _: &Reader<'_>, _: &mut Batch, row: RowOf<LocalMembers>| {
            let ((_, user), membership) = row;
            if membership == "join" {
                joined.get_or_insert(user);
            }
            Ok(())
        };
    for_each::<LocalMembers, _>(store, room.clone(), page, None, visit).await
}

fn delete_alias(
    (): &mut (),
    reader: &Reader<'_>,
    batch: &mut Batch,
    ((room, alias), ()): RowOf<RoomAliases>,
) -> Result<(), StoreError> {
    if reader.get::<Aliases>(&alias)?.is_some_and(|record| record.room_id == room) {
        batch.delete::<Aliases>(&alias);
    }
    batch.delete::<RoomAliases>(&(room, alias));
    Ok(())
}

/// A departure stays, for devices that have not heard of it, and so does what waits for the user's
/// answer.
fn keep_or_delete_member(
    (): &mut (),
    reader: &Reader<'_>,
    batch: &mut Batch,
    ((room, user), _): RowOf<LocalMembers>,
) -> Result<(), StoreError> {
    let key = (user, room);
    let record = reader.get::<Memberships>(&key)?;
    let under_way = reader.contains::<Pending>(&key)? || reader.contains::<Departures>(&key)?;
    let kept =
        record.filter(|record| under_way || matches!(record.membership.as_str(), "leave" | "ban"));
    let Some(record) = kept else {
        batch.delete::<Memberships>(&key);
        batch.delete::<LocalMembers>(&(key.1, key.0));
        return Ok(());
    };
    if record.local_event.is_none()
        && let Some(event) = reader.get::<Events>(&record.event_id)?
    {
        let object: Object = serde_json::from_str(event.json.get())
            .map_err(|_| damaged(&record.event_id, "not a JSON object"))?;
        let (local_event, room_version) = (Some(object), Some(event.room_version));
        let record = MembershipRecord { local_event, room_version, ..record };
        batch.put::<Memberships>(&key, &record);
    }
    Ok(())
}

/// Notes events of the room that wait for a server.
fn note_waiting(
    (room, waiting): &mut (OwnedRoomId, BTreeSet<OwnedEventId>),
    reader: &Reader<'_>,
    _: &mut Batch,
    (_, item): RowOf<Outbox>,
) -> Result<(), StoreError> {
    if let OutboxItem::Pdu(id) = item
        && reader.get::<Events>(&id)?.is_some_and(|event| event.room_id == *room)
    {
        waiting.insert(id);
    }
    Ok(())
}

struct Gone {
    room: OwnedRoomId,
    waiting: BTreeSet<OwnedEventId>,
    purged: Purged,
}

/// Deletes an event of the room with its states and its place among the auth events.
fn delete_event(
    gone: &mut Gone,
    reader: &Reader<'_>,
    batch: &mut Batch,
    (id, event): RowOf<Events>,
) -> Result<(), StoreError> {
    if event.room_id != gone.room {
        return Ok(());
    }
    if let Some(states) = event.states {
        delete_tree(reader, batch, states.before)?;
        delete_tree(reader, batch, states.after)?;
    }
    if gone.waiting.contains(&id) {
        gone.purged.waiting += 1;
        batch.put::<Kept>(&(event.room_id.clone(), id.clone()), &());
        batch.put::<Events>(&id, &EventRecord { states: None, order: None, ..event });
        return Ok(());
    }
    gone.purged.events += 1;
    delete_outlier(batch, &id, &event)
}

/// Deletes an event without states with its place among the auth events.
fn delete_outlier(
    batch: &mut Batch,
    id: &OwnedEventId,
    event: &EventRecord,
) -> Result<(), StoreError> {
    let version =
        RoomVersion::parse(&event.room_version).map_err(|e| damaged(id, &e.to_string()))?;
    let pdu = Pdu::parse(version, event.json.get().as_bytes())
        .map_err(|e| damaged(id, &e.to_string()))?;
    for auth in pdu.auth_events() {
        batch.delete::<AuthChildren>(&(auth.clone(), id.clone()));
    }
    batch.delete::<EventTransactions>(id);
    batch.delete::<Events>(id);
    Ok(())
}

fn damaged(id: &OwnedEventId, problem: &str) -> StoreError {
    StoreError::Corrupt { table: Events::NAME, key: format!("{id}: {problem}") }
}

#[cfg(test)]
mod tests;
