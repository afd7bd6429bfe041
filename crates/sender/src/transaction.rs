//! One transaction: which rows go into it, and what it looks like.
//!
//! Specification: server-server API, "Transactions".

use std::borrow::Cow;
use std::sync::Arc;

use exeunt_core::Object;
use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, ServerName};
use exeunt_store::records::{
    DeliveryRecord, DestinationRecord, EventRecord, InFlight, OutboxItem, SetAsideRecord,
};
use exeunt_store::tables::{Deliveries, Destinations, Events, Outbox, Rooms};
use exeunt_store::{Batch, Reader, Store, StoreError};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::TransactionAnswer;

/// Events in a transaction.
pub const MAX_PDUS: usize = 50;
/// Ephemeral items in a transaction.
pub const MAX_EDUS: usize = 100;

/// Rows in a transaction.
pub(crate) const MAX_ITEMS: usize = MAX_PDUS + MAX_EDUS;

/// What is on its way to a server, durably noted.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) id: String,
    /// Outbox positions, ascending.
    pub(crate) positions: Vec<u64>,
    items: Vec<Item>,
}

#[derive(Debug)]
enum Item {
    Pdu(OwnedEventId, Arc<RawValue>),
    /// A membership event of that room, whose delivery is noted.
    Member(OwnedEventId, Arc<RawValue>, OwnedRoomId),
    Edu(Object),
}

/// What there is to do for a server.
pub(crate) enum Next {
    Nothing,
    /// Rows that could not be sent have been taken out; look again.
    Again,
    Send(Transaction),
}

#[derive(Default)]
struct Selection {
    positions: Vec<u64>,
    items: Vec<Item>,
    /// Rows of events that are not there or not to be sent, and why.
    gone: Vec<(u64, OwnedEventId, &'static str)>,
}

/// The transaction under way, or a new one of at most `limit` rows, noted in `record` and in the
/// store before anyone sends it: after a crash it is sent again as it was.
pub(crate) async fn next(
    store: &Store,
    server: &OwnedServerName,
    record: &mut DestinationRecord,
    limit: usize,
    now: u64,
) -> Result<Next, StoreError> {
    let under_way = record.in_flight.clone();
    let wanted = under_way.as_ref().map(|in_flight| in_flight.positions.clone());
    let key = server.clone();
    let selection = store
        .read(move |r| match wanted {
            Some(positions) => Selection::of(r, &key, &positions),
            None => Selection::first(r, &key, limit),
        })
        .await?;

    if under_way.is_none() && selection.positions.is_empty() && selection.gone.is_empty() {
        return Ok(Next::Nothing);
    }
    let Selection { positions, items, gone } = selection;
    let in_flight = (!positions.is_empty()).then(|| InFlight {
        txn_id: match &under_way {
            Some(known) => known.txn_id.clone(),
            None => format!("{now}-{}-{}", positions[0], positions.len()),
        },
        positions,
    });
    if in_flight != under_way || !gone.is_empty() {
        let mut batch = Batch::default();
        for (position, event, why) in &gone {
            tracing::warn!(%server, %event, why, "an event is not sent");
            batch.delete::<Outbox>(&(server.clone(), *position));
        }
        let changed = DestinationRecord { in_flight: in_flight.clone(), ..record.clone() };
        batch.put::<Destinations>(server, &changed);
        store.commit(batch).await?;
        *record = changed;
    }
    Ok(match in_flight {
        None => Next::Again,
        Some(InFlight { txn_id, positions }) => {
            Next::Send(Transaction { id: txn_id, positions, items })
        }
    })
}

impl Transaction {
    /// Notes which membership events the server has had, with what it said against them.
    pub(crate) fn note_deliveries(
        &self,
        server: &OwnedServerName,
        refused: &[(u64, SetAsideRecord)],
        at: u64,
        batch: &mut Batch,
    ) {
        for item in &self.items {
            let Item::Member(event, _, room) = item else { continue };
            let said = refused.iter().find(|(_, set)| set.event_id.as_ref() == Some(event));
            let record = DeliveryRecord { at, refused: said.map(|(_, set)| set.why.clone()) };
            batch.put::<Deliveries>(&(room.clone(), event.clone(), server.clone()), &record);
        }
    }

    pub(crate) fn body(&self, origin: &ServerName, now: u64) -> Result<Value, serde_json::Error> {
        let mut pdus = Vec::new();
        let mut edus = Vec::new();
        for item in &self.items {
            match item {
                Item::Pdu(_, json) | Item::Member(_, json, _) => {
                    pdus.push(serde_json::from_str::<Value>(json.get())?)
                }
                Item::Edu(edu) => edus.push(Value::Object(edu.clone())),
            }
        }
        Ok(body(origin, now, pdus, edus))
    }

    /// The rows as they are set aside, because the server said `why`.
    pub(crate) fn refused(&self, why: &str, at: u64) -> Vec<(u64, SetAsideRecord)> {
        let rows = self.positions.iter().zip(&self.items).map(|(position, item)| {
            let (event_id, edu_type) = match item {
                Item::Pdu(event, _) | Item::Member(event, ..) => (Some(event.clone()), None),
                Item::Edu(edu) => {
                    let kind = edu.get("edu_type").and_then(Value::as_str);
                    (None, Some(kind.unwrap_or_default().to_owned()))
                }
            };
            (*position, SetAsideRecord { event_id, edu_type, why: why.to_owned(), at })
        });
        rows.collect()
    }

    /// The events of the transaction that the server did not accept.
    pub(crate) fn not_accepted(
        &self,
        answer: &TransactionAnswer,
        at: u64,
    ) -> Vec<(u64, SetAsideRecord)> {
        let rows = self.positions.iter().zip(&self.items).filter_map(|(position, item)| {
            let (Item::Pdu(event, _) | Item::Member(event, ..)) = item else { return None };
            let Some(Err(why)) = answer.pdus.get(event) else { return None };
            let (event_id, edu_type) = (Some(event.clone()), None);
            Some((*position, SetAsideRecord { event_id, edu_type, why: why.clone(), at }))
        });
        rows.collect()
    }
}

/// An event as it goes into a transaction. Of rooms that are no more nothing is noted.
fn readied(r: &Reader<'_>, event: OwnedEventId, record: EventRecord) -> Result<Item, StoreError> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    let EventRecord { json, room_id, .. } = record;
    let is_member = serde_json::from_str::<Kind<'_>>(json.get())
        .is_ok_and(|event| event.kind == "m.room.member");
    if is_member && r.contains::<Rooms>(&room_id)? {
        return Ok(Item::Member(event, json, room_id));
    }
    Ok(Item::Pdu(event, json))
}

/// A transaction that says nothing: does the server take any at all?
pub(crate) fn empty_body(origin: &ServerName, now: u64) -> Value {
    body(origin, now, Vec::new(), Vec::new())
}

fn body(origin: &ServerName, now: u64, pdus: Vec<Value>, edus: Vec<Value>) -> Value {
    json!({ "origin": origin, "origin_server_ts": now, "pdus": pdus, "edus": edus })
}

impl Selection {
    /// The first rows of the queue, in order, until either kind is full.
    fn first(r: &Reader<'_>, server: &OwnedServerName, limit: usize) -> Result<Self, StoreError> {
        let mut selection = Selection::default();
        let (mut pdus, mut edus) = (0, 0);
        for row in r.scan::<Outbox>(server.clone()).limit(limit).iter() {
            let ((_, position), item) = row?;
            let (count, max) = match item {
                OutboxItem::Pdu(_) => (&mut pdus, MAX_PDUS),
                OutboxItem::Edu(_) => (&mut edus, MAX_EDUS),
            };
            if *count == max {
                break;
            }
            *count += 1;
            selection.add(r, position, item)?;
        }
        Ok(selection)
    }

    fn of(r: &Reader<'_>, server: &OwnedServerName, positions: &[u64]) -> Result<Self, StoreError> {
        let mut selection = Selection::default();
        for position in positions {
            if let Some(item) = r.get::<Outbox>(&(server.clone(), *position))? {
                selection.add(r, *position, item)?;
            }
        }
        Ok(selection)
    }

    fn add(&mut self, r: &Reader<'_>, position: u64, item: OutboxItem) -> Result<(), StoreError> {
        let item = match item {
            OutboxItem::Edu(edu) => Item::Edu(edu),
            OutboxItem::Pdu(event) => match r.get::<Events>(&event)? {
                None => {
                    self.gone.push((position, event, "unknown or purged"));
                    return Ok(());
                }
                Some(record) if record.verdict.is_rejected() => {
                    self.gone.push((position, event, "rejected"));
                    return Ok(());
                }
                Some(record) => readied(r, event, record)?,
            },
        };
        self.positions.push(position);
        self.items.push(item);
        Ok(())
    }
}
