//! The membership timeline of a room: every change, who signed it, how it came, which check
//! decided, to whom it was delivered.

use std::collections::BTreeMap;

use exeunt_store::{
    Reader, StoreError,
    records::{MembershipLogRecord, OutboxItem},
    tables, waiting_servers,
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::Serialize;
use serde_json::Value;

use super::{MAX_ROWS, Page};

/// One change of a membership.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TimelineEntry {
    /// Stream position of the change.
    pub position: u64,
    /// Milliseconds since the epoch, as all times here.
    pub at: u64,
    pub user_id: OwnedUserId,
    pub membership: String,
    pub event_id: OwnedEventId,
    pub sender: OwnedUserId,
    /// Servers whose signatures are on the event; empty where the event itself is gone.
    pub signed_by: Vec<OwnedServerName>,
    /// How it came, see [`MembershipLogRecord::via`].
    pub via: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_from: Option<OwnedServerName>,
    /// What decided.
    pub decided_by: &'static str,
    /// Servers that have taken it from us.
    pub delivered: Vec<Delivery>,
    /// Servers that it waits for in our queue.
    pub waiting: Vec<OwnedServerName>,
}

/// How a server took an event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Delivery {
    pub server: OwnedServerName,
    pub at: u64,
    /// What the server said against it, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Whose changes are asked for.
#[derive(Debug, Clone)]
pub struct TimelineQuery {
    pub room_id: OwnedRoomId,
    /// Only this user's.
    pub user_id: Option<OwnedUserId>,
    /// Only those at this stream position and later.
    pub from: u64,
    pub limit: usize,
}

/// The changes in the order in which this server learnt of them.
pub fn timeline(
    reader: &Reader<'_>,
    query: &TimelineQuery,
) -> Result<Page<TimelineEntry>, StoreError> {
    let limit = query.limit.clamp(1, MAX_ROWS);
    let mut earliest = BTreeMap::new();
    let mut next = None;
    for row in rows(reader, query) {
        let ((_, user, position), record) = row?;
        if position < query.from {
            continue;
        }
        earliest.insert((position, user), record);
        if earliest.len() > limit {
            next = earliest.pop_last().map(|((position, _), _)| position);
        }
    }
    let servers = waiting_servers(reader, None, usize::MAX)?;
    let describe =
        |((position, user), record)| entry(reader, query, &servers, position, user, record);
    let rows = earliest.into_iter().map(describe).collect::<Result<_, _>>()?;
    Ok(Page { rows, next })
}

type Row = ((OwnedRoomId, OwnedUserId, u64), MembershipLogRecord);

fn rows<'r>(
    reader: &'r Reader<'r>,
    query: &TimelineQuery,
) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'r> {
    let room = query.room_id.clone();
    match &query.user_id {
        Some(user) => Box::new(reader.scan::<tables::MembershipLog>((room, user.clone())).iter()),
        None => Box::new(reader.scan::<tables::MembershipLog>(room).iter()),
    }
}

fn entry(
    reader: &Reader<'_>,
    query: &TimelineQuery,
    queues: &[OwnedServerName],
    position: u64,
    user_id: OwnedUserId,
    record: MembershipLogRecord,
) -> Result<TimelineEntry, StoreError> {
    // The rows of the outbox have the position of the batch that this line came with.
    let mut waiting = Vec::new();
    for server in queues {
        let row = reader.get::<tables::Outbox>(&(server.clone(), position))?;
        if row == Some(OutboxItem::Pdu(record.event_id.clone())) {
            waiting.push(server.clone());
        }
    }
    let mut delivered = Vec::new();
    let prefix = (query.room_id.clone(), record.event_id.clone());
    for row in reader.scan::<tables::Deliveries>(prefix).iter() {
        let ((_, _, server), delivery) = row?;
        delivered.push(Delivery { server, at: delivery.at, refused: delivery.refused });
    }
    let signed_by = signers(reader, &query.room_id, &user_id, &record)?;
    let decided_by = decided_by(&record);
    let MembershipLogRecord { membership, event_id, sender, via, received_from, at } = record;
    Ok(TimelineEntry {
        position,
        at,
        user_id,
        membership,
        event_id,
        sender,
        signed_by,
        via,
        received_from,
        decided_by,
        delivered,
        waiting,
    })
}

/// Servers that signed the event, as far as we still hold it.
fn signers(
    reader: &Reader<'_>,
    room_id: &OwnedRoomId,
    user_id: &OwnedUserId,
    record: &MembershipLogRecord,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let event = match reader.get::<tables::Events>(&record.event_id)? {
        Some(event) => serde_json::from_str(event.json.get()).ok(),
        None => {
            let row = reader.get::<tables::Memberships>(&(user_id.clone(), room_id.clone()))?;
            let row = row.filter(|row| row.event_id == record.event_id);
            row.and_then(|row| row.local_event).map(Value::Object)
        }
    };
    let signatures = event.as_ref().and_then(|event| event.get("signatures")?.as_object());
    let names = signatures.into_iter().flatten();
    Ok(names.filter_map(|(name, _)| OwnedServerName::try_from(name.as_str()).ok()).collect())
}

fn decided_by(record: &MembershipLogRecord) -> &'static str {
    match (record.via.as_str(), record.membership.as_str()) {
        ("resolution", _) => "state resolution",
        ("out-of-band", _) => "the user's word; no server was needed",
        ("handshake", "invite") => "the inviter's signature",
        ("handshake", _) => "the authorisation rules of the server that took it",
        ("probe", _) => "the word of a server of the room, asked twice",
        ("abandoned", _) => "an admin, who gave the departure up",
        ("withdrawal", _) => "the proof that the sender could take it back",
        _ => "the authorisation rules",
    }
}
