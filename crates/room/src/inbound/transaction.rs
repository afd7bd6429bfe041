//! `PUT send`: transactions. One bad event never fails its siblings; a failure of our own store
//! fails the whole transaction, so that it is sent again.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    time::Duration,
};

use exeunt_core::{Object, RoomVersion, hash};
use exeunt_state_res::ResolveError;
use exeunt_store::{Batch, StoreError, records::TransactionRecord, tables};
use futures_util::{StreamExt, stream};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{queue::Waiting, withdrawal::expelled_of};
use crate::{RoomError, Rooms};

/// Most events of a transaction.
pub const MAX_PDUS: usize = 50;
/// Most ephemeral data units of a transaction.
pub const MAX_EDUS: usize = 100;
/// Longest transaction id.
pub const MAX_TXN_ID_BYTES: usize = 255;
/// Answers that are kept for replays, for each server. Servers send one transaction at a time.
pub const MAX_TRANSACTIONS_PER_ORIGIN: usize = 20;
/// Rooms whose events are worked on at a time.
const CONCURRENT_ROOMS: usize = 8;
/// For how long the sender waits for events to be placed. Those that are not then are queued.
const PROMPT: Duration = Duration::from_secs(2);

/// What another server sends.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub pdus: Vec<Value>,
    pub edus: Vec<Value>,
}

/// Answers by event id.
pub(crate) type Answers = BTreeMap<OwnedEventId, Value>;

/// The id of an event, if it can be told, and whether it was taken or has to wait.
type Taken = (Option<OwnedEventId>, Result<bool, RoomError>);

impl Rooms {
    /// Takes a transaction: rooms side by side, the events of one room in order. Each event is
    /// placed, refused, or durably queued when this returns. The answer has an object for each
    /// event whose id can be told: empty, or with an `error`. A transaction that was answered
    /// before gets the same answer.
    pub async fn receive_transaction(
        &self,
        origin: &ServerName,
        txn_id: &str,
        transaction: Transaction,
    ) -> Result<Object, RoomError> {
        let Transaction { pdus, edus } = transaction;
        if pdus.len() > MAX_PDUS || edus.len() > MAX_EDUS {
            let limits = format!("At most {MAX_PDUS} PDUs and {MAX_EDUS} EDUs");
            return Err(RoomError::InvalidParam(limits));
        }
        if txn_id.len() > MAX_TXN_ID_BYTES {
            return Err(RoomError::InvalidParam("The transaction id is too long".into()));
        }
        let _turn = self.inner.turns.lock(origin.to_owned()).await;
        let key = (origin.to_owned(), txn_id.to_owned());
        let known = key.clone();
        let answered =
            self.store().read(move |reader| reader.get::<tables::Transactions>(&known)).await?;
        if let Some(record) = answered {
            return Ok(record.answer);
        }
        if pdus.is_empty() {
            self.receive_edus(origin, edus).await?;
            self.stir_inbound(origin, &BTreeSet::new());
            return Ok(Object::new());
        }
        self.load_inbound().await?;
        let deadline = Instant::now() + PROMPT;
        let by_room = by_room(pdus);
        let rooms: BTreeSet<_> = by_room.keys().cloned().collect();
        let work = by_room.into_iter().map(|(room_id, events)| {
            let (rooms, origin) = (self.clone(), origin.to_owned());
            let events = self.hold_for_join(&origin, &room_id, events);
            async move { rooms.receive_events(&origin, &room_id, events, deadline).await }
        });
        let outcomes: Vec<_> =
            stream::iter(work).buffer_unordered(CONCURRENT_ROOMS).collect().await;
        let mut answer = Object::new();
        let mut waiting = Vec::new();
        for outcome in outcomes {
            let (answers, later) = match outcome {
                Err(error) if !is_ours(&error) => {
                    tracing::error!(%origin, %error, "the events of a room were not taken");
                    continue;
                }
                outcome => outcome?,
            };
            answer.extend(answers.into_iter().map(|(id, value)| (id.to_string(), value)));
            waiting.extend(later);
        }
        // After the events, which they may refer to.
        self.receive_edus(origin, edus).await?;
        let batch = self.keep_answer(key, answer.clone()).await?;
        self.enqueue(batch, waiting).await?;
        self.stir_inbound(origin, &rooms);
        Ok(answer)
    }

    /// Keeps events of a room that is being joined, and gives those that are to be taken now. What
    /// takes out a user of ours is both: what is kept is lost with a crash, and of an invite that is
    /// taken back we hear once.
    fn hold_for_join(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        events: Vec<Object>,
    ) -> Vec<Object> {
        let urgent = events.iter().filter(|event| expelled_of(self.server_name(), event).is_some());
        let mut now: Vec<_> = urgent.cloned().collect();
        let rest = self.inner.joins.hold(origin, room_id, events);
        now.retain(|event| !rest.contains(event));
        now.extend(rest);
        now
    }

    /// Takes events outside a transaction, as if they came in one now.
    pub(crate) async fn receive_again(
        &self,
        origin: &OwnedServerName,
        room_id: &OwnedRoomId,
        events: Vec<Object>,
    ) -> Result<(), RoomError> {
        let deadline = Instant::now() + PROMPT;
        let (_, waiting) = self.receive_events(origin, room_id, events, deadline).await?;
        self.enqueue(Batch::default(), waiting).await
    }

    /// The events of one room, in order: those that can be placed at once are, and those that
    /// cannot wait.
    async fn receive_events(
        &self,
        origin: &OwnedServerName,
        room_id: &OwnedRoomId,
        events: Vec<Object>,
        deadline: Instant,
    ) -> Result<(Answers, Vec<Waiting>), RoomError> {
        let admission = match self.admit(origin, room_id).await {
            Err(error) if is_ours(&error) => return Err(error),
            other => other.map(drop).map_err(|error| error.to_string()),
        };
        let version = self.version_if_resident(room_id).await?;
        let mut answers = Answers::new();
        let mut waiting = Vec::new();
        let mut stray = None;
        for object in events {
            let (event_id, outcome) = match version {
                Some(version) => {
                    let event_id = hash::event_id(version, &object);
                    let outcome = match &admission {
                        Ok(()) => self.place_now(origin, room_id, version, &object, deadline).await,
                        Err(denied) => Err(RoomError::Forbidden(denied.clone())),
                    };
                    (event_id, outcome)
                }
                None => match self.take_from_outside(origin, room_id, &object).await? {
                    Some(taken) => taken,
                    None => {
                        tracing::debug!(%origin, %room_id, "an event of an unknown room, dropped");
                        stray = Some(object);
                        continue;
                    }
                },
            };
            let outcome = match outcome {
                Ok(false) if !self.inner.inbound.has_room(room_id, origin, waiting.len()) => {
                    Err(RoomError::Busy)
                }
                other => other,
            };
            let answer = match outcome {
                Ok(true) => json!({}),
                Ok(false) => {
                    let (room_id, origin) = (room_id.clone(), origin.clone());
                    waiting.push(Waiting { room_id, origin, event: object });
                    json!({})
                }
                Err(error) if is_ours(&error) => return Err(error),
                Err(error) => {
                    report_refusal(origin, room_id, &error);
                    json!({ "error": error.to_string() })
                }
            };
            answers.extend(event_id.map(|id| (id, answer)));
        }
        if let Some(stray) = stray {
            self.offer_leaves(origin, room_id, stray).await?;
        }
        Ok((answers, waiting))
    }

    /// Takes an event of a room that we are not in: what ends an invite or knock of a user of ours,
    /// or an invite that has missed us. `None` for any other.
    pub(crate) async fn take_from_outside(
        &self,
        origin: &OwnedServerName,
        room_id: &RoomId,
        object: &Object,
    ) -> Result<Option<Taken>, RoomError> {
        if let Some(invite) = self.late_invite(object).await? {
            let id = invite.event_id().to_owned();
            return Ok(Some((Some(id), self.receive_late_invite(origin, invite).await)));
        }
        let concerned = self.concerned_by(origin, room_id, object).await?;
        let Some(concerned) = concerned else { return Ok(None) };
        let id = concerned.event_id(object);
        let outcome = self.withdraw(origin, concerned, object.clone()).await;
        Ok(Some((id, outcome.map(|()| true))))
    }

    /// Checks and places an event that lacks nothing. `false` where that takes longer than the
    /// sender shall wait: then it has to be worked on behind the answer.
    async fn place_now(
        &self,
        origin: &OwnedServerName,
        room_id: &RoomId,
        version: RoomVersion,
        object: &Object,
        deadline: Instant,
    ) -> Result<bool, RoomError> {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        let pushed = self.pushed(origin, version, room_id, object.clone());
        let event = match timeout_at(deadline, pushed).await {
            Err(_) | Ok(Err(RoomError::NoKeys(_))) => return Ok(false),
            Ok(event) => event?,
        };
        let (rooms, from) = (self.clone(), origin.clone());
        // A task of its own, so that it comes to its end when nobody waits any more.
        let placing = tokio::spawn(async move { rooms.try_place(&from, &event).await });
        match timeout_at(deadline, placing).await {
            Err(_) => Ok(false),
            Ok(Ok(Err(error))) if error.is_no_verdict() => Ok(false),
            Ok(Ok(placed)) => placed.map(|()| true),
            // The same transaction would fail for ever, and with it the other events.
            Ok(Err(failed)) if failed.is_panic() => {
                tracing::error!(%origin, %room_id, "an event upon which we fail is dropped");
                Err(RoomError::InvalidParam("the event cannot be worked off".into()))
            }
            // The runtime is going down.
            Ok(Err(_)) => Err(StoreError::Closed.into()),
        }
    }

    /// Keeps an answer for replays, and lets go of the server's oldest.
    async fn keep_answer(
        &self,
        key: (OwnedServerName, String),
        answer: Object,
    ) -> Result<Batch, RoomError> {
        let (origin, now) = (key.0.clone(), self.now());
        self.store()
            .read(move |reader| {
                let rows = reader.scan::<tables::Transactions>(origin).collect()?;
                let mut old: Vec<_> = rows.into_iter().map(|(key, row)| (row.at, key)).collect();
                old.sort();
                let excess = (old.len() + 1).saturating_sub(MAX_TRANSACTIONS_PER_ORIGIN);
                let mut batch = Batch::default();
                for (_, key) in old.into_iter().take(excess) {
                    batch.delete::<tables::Transactions>(&key);
                }
                batch.put::<tables::Transactions>(&key, &TransactionRecord { answer, at: now });
                Ok::<_, RoomError>(batch)
            })
            .await
    }
}

/// The events by their rooms. What names no room is dropped: its id cannot be told.
fn by_room(pdus: Vec<Value>) -> BTreeMap<OwnedRoomId, Vec<Object>> {
    let mut rooms: BTreeMap<OwnedRoomId, Vec<Object>> = BTreeMap::new();
    for pdu in pdus {
        let room_id =
            pdu.get("room_id").and_then(Value::as_str).and_then(|id| RoomId::parse(id).ok());
        match (room_id, pdu) {
            (Some(room_id), Value::Object(object)) => {
                rooms.entry(room_id).or_default().push(object);
            }
            _ => tracing::debug!("something in a transaction names no room, dropped"),
        }
    }
    rooms
}

/// Whether it is this server that failed, rather than the event, so that the event is to come
/// again. A graph that cannot be resolved for want of events is not, nor is damage to a room: the
/// same transaction would fail for ever, and with it other rooms' events.
pub(crate) fn is_ours(error: &RoomError) -> bool {
    matches!(error, RoomError::Store(_) | RoomError::Resolve(ResolveError::Lookup(_)))
        && !is_damage(error)
}

/// Whether a row of the store cannot be read, which does not pass.
fn is_damage(error: &RoomError) -> bool {
    match error {
        RoomError::Store(error) => matches!(error, StoreError::Corrupt { .. }),
        RoomError::Resolve(ResolveError::Lookup(error)) => {
            error.source().and_then(|cause| cause.downcast_ref()).is_some_and(is_damage)
        }
        _ => false,
    }
}

/// Tells the log that an event was not taken.
pub(super) fn report_refusal(origin: &ServerName, room_id: &RoomId, error: &RoomError) {
    if is_damage(error) {
        tracing::error!(%origin, %room_id, %error, "an event was not taken: the room is damaged");
    } else {
        tracing::info!(%origin, %room_id, %error, "an event was not taken");
    }
}
