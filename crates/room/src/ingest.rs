//! Events of transactions: checked, completed with what is missing, placed.
//!
//! Specification: server-server API, "Checks performed on receipt of a PDU". A verdict is stored
//! when the rules gave it; an event that cannot be judged leaves nothing behind, and is judged
//! when it comes again. Gaps: decision 0008.

use std::time::Duration;

use exeunt_core::{CheckedPdu, Object, Pdu, RoomVersion, canonical::CanonicalError};
use exeunt_store::records::Verdict;
use ruma::{OwnedEventId, OwnedServerName, RoomId, ServerName};

use crate::{
    Call, RoomError, Rooms,
    fetch::{Quest, array},
    fetch_limits::Sought,
    graph::{Graph, is_joined, load_event},
    heads,
    outliers::{Pool, in_graph_order},
    place::Source,
};

/// Most events asked for in one request for missing events.
const MAX_MISSING_EVENTS: usize = 50;
/// Most events that one such request names as the ends of gaps.
const MAX_LATEST: usize = 20;
/// Most of our extremities that such a request names.
const MAX_EARLIEST: usize = 20;
/// An answer of fewer events is all that the server has: no server gives less than this limit,
/// the specification's default.
const SHORT_ANSWER: usize = 10;
/// Most times that answers about missing events lead to further gaps, and are followed.
pub const MAX_GAP_ROUNDS: usize = 10;
/// Most events of gaps that are worked on for one event.
const MAX_GAP_EVENTS: usize = 500;
/// Most events at the far ends of gaps whose state is asked for, for one event.
const MAX_STATES: usize = 20;
/// Times that an event is tried again after something that it lacked was fetched.
const MAX_TRIES: usize = 4;

/// What became of an event of a transaction that could be judged, or may be later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ingested {
    Placed,
    /// It lacks something, and the server that should have it did not answer, or was not asked
    /// enough: it may go better later.
    Unanswered,
}

/// What an event lacks.
struct Gap {
    /// Events whose prev events are not all there.
    latest: Vec<OwnedEventId>,
    /// Those prev events.
    missing: Vec<OwnedEventId>,
}

impl Rooms {
    /// Takes an event of a transaction of `origin`: checks it, fetches what it rests on, places
    /// it. The verdict is stored; what cannot be judged is an error. At most that time is spent on
    /// what it rests on.
    pub(crate) async fn ingest(
        &self,
        origin: &OwnedServerName,
        room_id: &RoomId,
        object: Object,
        time: Duration,
    ) -> Result<Ingested, RoomError> {
        let Some(version) = self.version_if_resident(room_id).await? else {
            // The last of us left while it waited. What it says of one who is invited still counts.
            return match self.take_from_outside(origin, room_id, &object).await? {
                Some((_, outcome)) => outcome.map(|_| Ingested::Placed),
                None => Err(RoomError::NotFound("This server is not in the room".into())),
            };
        };
        self.admit(origin, room_id).await?;
        let event = match self.pushed(origin, version, room_id, object).await {
            Err(RoomError::NoKeys(server)) => {
                tracing::info!(%room_id, %server, "an event waits for the keys of its server");
                return Ok(Ingested::Unanswered);
            }
            other => other?,
        };
        match self.try_place(origin, &event).await {
            Err(error) if error.is_no_verdict() => {
                tracing::debug!(%room_id, event = %event.event_id(), %error, "a gap");
                self.complete(origin, &event, time).await
            }
            other => other.map(|()| Ingested::Placed),
        }
    }

    /// A pushed event, with format, signatures and hash checked.
    pub(crate) async fn pushed(
        &self,
        origin: &ServerName,
        version: RoomVersion,
        room_id: &RoomId,
        object: Object,
    ) -> Result<CheckedPdu, RoomError> {
        let pdu = Pdu::from_object(version, object)?;
        pdu.check_reference_limits()?;
        if pdu.prev_events().is_empty() {
            return Err(RoomError::InvalidParam("an event without prev_events".into()));
        }
        if pdu.room_id() != room_id {
            return Err(RoomError::InvalidParam("an event of another room".into()));
        }
        self.checked_by_way_of(pdu, Some(origin)).await
    }

    /// Checks signatures and hash.
    pub(crate) async fn checked(&self, pdu: Pdu) -> Result<CheckedPdu, RoomError> {
        self.checked_by_way_of(pdu, None).await
    }

    /// The same with `handing` asked for keys that others do not give: whoever passes an event on
    /// has checked it.
    async fn checked_by_way_of(
        &self,
        pdu: Pdu,
        handing: Option<&ServerName>,
    ) -> Result<CheckedPdu, RoomError> {
        match self.keys().check(pdu.clone(), handing).await? {
            Ok(event) => Ok(event),
            Err(error)
                if !error.has_lost_integer && self.keys().lacks(&pdu, &error.server).await? =>
            {
                Err(RoomError::NoKeys(error.server))
            }
            Err(error) if error.has_lost_integer => {
                Err(RoomError::Format(CanonicalError::LostInteger.into()))
            }
            Err(error) => Err(RoomError::Signature(error.server)),
        }
    }

    /// Places an event if we have all that it rests on. An event that is placed already is fine.
    pub(crate) async fn try_place(
        &self,
        origin: &OwnedServerName,
        event: &CheckedPdu,
    ) -> Result<(), RoomError> {
        let source = Source::Federation { from: origin.clone(), sought: false };
        let guard = self.turn(event.room_id()).await;
        if self.is_placed(event).await? {
            return Ok(());
        }
        let verdict = self.place(&guard, event.clone(), source, None).await?;
        report(event, &verdict);
        self.collapse_heads(&guard).await
    }

    /// Places an event that lacks something: the events of the gap first, old to new, and it at
    /// last. Those of the gap may stand on state that another server tells. The event itself may
    /// not: a server that has it has what is before it. But where that is what another server told
    /// it is one's word against the other's (decision 0015).
    pub(crate) async fn complete(
        &self,
        origin: &OwnedServerName,
        event: &CheckedPdu,
        time: Duration,
    ) -> Result<Ingested, RoomError> {
        if self.names_foreign_events(event).await? {
            return Err(RoomError::Missing(event.prev_events().to_vec()));
        }
        let quest = self.quest(origin, event, time).await?;
        let pool = self.fill_gap(&quest, event).await?;
        let mut states = MAX_STATES;
        for id in in_graph_order(&pool) {
            let pushed = id == event.event_id();
            match self.place_with_help(origin, &quest, &pool[&id], pushed, &mut states).await {
                Ok(()) => {}
                Err(RoomError::Store(error)) => return Err(error.into()),
                Err(error) if error.is_no_verdict() && pushed && quest.is_open() => {
                    return Ok(Ingested::Unanswered);
                }
                Err(error) if pushed => return Err(error),
                Err(error) => {
                    tracing::info!(room_id = %quest.room_id, event = %id, %error, "not placed");
                }
            }
        }
        Ok(Ingested::Placed)
    }

    /// Places an event, fetching auth events and, as long as `states` lasts, the state before it:
    /// across a gap unless it was `pushed`, and where what was told before refuses it.
    async fn place_with_help(
        &self,
        origin: &OwnedServerName,
        quest: &Quest,
        event: &CheckedPdu,
        pushed: bool,
        states: &mut usize,
    ) -> Result<(), RoomError> {
        event.check_reference_limits()?;
        let source = Source::Federation { from: origin.clone(), sought: !pushed };
        let mut told = None;
        let mut auth_asked = false;
        for _ in 0..MAX_TRIES {
            let guard = self.turn(&quest.room_id).await;
            if self.is_placed(event).await? {
                return Ok(());
            }
            let placed = self.place(&guard, event.clone(), source.clone(), told).await;
            if let Ok(verdict) = &placed {
                report(event, verdict);
                return self.collapse_heads(&guard).await;
            }
            drop(guard);
            match placed {
                Ok(_) => return Ok(()),
                Err(RoomError::Missing(missing)) if is_about_auth(event, &missing) => {
                    if std::mem::replace(&mut auth_asked, true) {
                        return Err(RoomError::Missing(missing));
                    }
                    self.fetch_auth(quest, event).await?;
                }
                Err(error) if told.is_none() && *states > 0 && may_be_told(&error, pushed) => {
                    *states -= 1;
                    told = self.fetch_state_before(quest, event).await?;
                    if told.is_none() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(RoomError::Missing(vec![event.event_id().to_owned()]))
    }

    /// The event with those between our extremities and it, as far as anyone gives them.
    async fn fill_gap(&self, quest: &Quest, event: &CheckedPdu) -> Result<Pool, RoomError> {
        let mut pool = Pool::from([(event.event_id().to_owned(), event.clone())]);
        let mut origin_has_more = true;
        for _ in 0..MAX_GAP_ROUNDS {
            let (earliest, mut gap) = self.gap(quest, &pool).await?;
            let now = self.now();
            gap.missing.retain(|id| !self.inner.fetch_limits.is_absent(id, Sought::History, now));
            if gap.missing.is_empty() || pool.len() >= MAX_GAP_EVENTS {
                break;
            }
            let shrunk = self.shrink_gap(quest, &earliest, &gap, &mut pool, &mut origin_has_more);
            if !shrunk.await? {
                if quest.is_conclusive() && !quest.is_open() {
                    for id in gap.missing {
                        self.inner.fetch_limits.note_absent(id, Sought::History, now);
                    }
                }
                break;
            }
        }
        Ok(pool)
    }

    /// Asks one server after the other for missing events until one has some: the server that has
    /// the event for those before it, others, which may not have it, for the missing ones.
    async fn shrink_gap(
        &self,
        quest: &Quest,
        earliest: &[OwnedEventId],
        gap: &Gap,
        pool: &mut Pool,
        origin_has_more: &mut bool,
    ) -> Result<bool, RoomError> {
        let (room, limit) = (&*quest.room_id, MAX_MISSING_EVENTS);
        for server in quest.servers() {
            let is_origin = *server == quest.origin;
            if is_origin && !*origin_has_more {
                continue;
            }
            let (call, key) = if is_origin {
                (Call::MissingEvents { room, earliest, latest: &gap.latest, limit }, "events")
            } else {
                let from = &gap.missing[..gap.missing.len().min(MAX_LATEST)];
                (Call::Backfill { room, from, limit }, "pdus")
            };
            let Some(answer) = self.ask(quest, server, call).await else { continue };
            let mut events = array(&answer, key);
            *origin_has_more &= !is_origin || events.len() >= SHORT_ANSWER;
            events.truncate(MAX_MISSING_EVENTS);
            let mut events = self.check_fetched(quest, events).await?;
            self.drop_placed(quest, &mut events).await?;
            if connect(pool, &gap.missing, &mut events) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Drops events that are placed. With them, an answer that goes on behind them would lead into
    /// what is older than our stay, as if it were news.
    async fn drop_placed(&self, quest: &Quest, events: &mut Pool) -> Result<(), RoomError> {
        let ids = Vec::from_iter(events.keys().cloned());
        let unplaced = self.unplaced(&quest.room_id, &ids).await?;
        events.retain(|id, _| unplaced.contains(id));
        Ok(())
    }

    /// Our extremities, and what the events of the pool lack beside each other.
    async fn gap(&self, quest: &Quest, pool: &Pool) -> Result<(Vec<OwnedEventId>, Gap), RoomError> {
        let (room_id, pool) = (quest.room_id.clone(), pool.clone());
        self.store()
            .read(move |reader| {
                let graph = Graph::of(reader, &room_id)?;
                let mut gap = Gap { latest: Vec::new(), missing: Vec::new() };
                for (id, event) in &pool {
                    let mut whole = true;
                    for prev in event.prev_events() {
                        let here = pool.contains_key(prev) || graph.state_after(prev)?.is_some();
                        if !here {
                            whole = false;
                            gap.missing.push(prev.clone());
                        }
                    }
                    if !whole && gap.latest.len() < MAX_LATEST {
                        gap.latest.push(id.clone());
                    }
                }
                Ok((heads::newest(&graph.room, MAX_EARLIEST), gap))
            })
            .await
    }

    /// Whether we know some of the events that it names to be of another room: then asking others
    /// for them leads nowhere.
    async fn names_foreign_events(&self, event: &CheckedPdu) -> Result<bool, RoomError> {
        let event = event.clone();
        self.store()
            .read(move |reader| {
                for id in event.prev_events().iter().chain(event.auth_events()) {
                    if load_event(reader, id)?.is_some_and(|k| k.pdu.room_id() != event.room_id()) {
                        return Ok(true);
                    }
                }
                Ok(false)
            })
            .await
    }

    pub(crate) async fn version_if_resident(
        &self,
        room_id: &RoomId,
    ) -> Result<Option<RoomVersion>, RoomError> {
        let (room_id, ours) = (room_id.to_owned(), self.server_name().to_owned());
        self.store()
            .read(move |reader| {
                if !is_joined(reader, &room_id, &ours)? {
                    return Ok(None);
                }
                Ok(Graph::open(reader, &room_id)?.map(|graph| graph.version))
            })
            .await
    }

    async fn is_placed(&self, event: &Pdu) -> Result<bool, RoomError> {
        let (room_id, event_id) = (event.room_id().to_owned(), event.event_id().to_owned());
        self.store()
            .read(move |reader| Ok(Graph::of(reader, &room_id)?.state_after(&event_id)?.is_some()))
            .await
    }
}

/// Moves those of `events` to the pool that lead back from the missing ones. Whether there are any.
pub(crate) fn connect(pool: &mut Pool, missing: &[OwnedEventId], events: &mut Pool) -> bool {
    let before = pool.len();
    let mut work = missing.to_vec();
    while let Some(id) = work.pop() {
        if pool.len() >= MAX_GAP_EVENTS {
            break;
        }
        if let Some(event) = events.remove(&id) {
            work.extend(event.prev_events().iter().cloned());
            pool.insert(id, event);
        }
    }
    pool.len() > before
}

/// Whether nothing but auth events is missing.
fn is_about_auth(event: &Pdu, missing: &[OwnedEventId]) -> bool {
    missing.iter().all(|id| event.auth_events().contains(id) && !event.prev_events().contains(id))
}

/// Whether an event that failed so may stand on the state that a server tells.
fn may_be_told(error: &RoomError, pushed: bool) -> bool {
    match error {
        RoomError::Hearsay(_) => true,
        RoomError::Missing(_) => !pushed,
        _ => false,
    }
}

fn report(event: &CheckedPdu, verdict: &Verdict) {
    let event = event.event_id();
    match verdict {
        Verdict::Accepted => {}
        Verdict::SoftFailed(why) => tracing::info!(%event, why, "soft-failed"),
        Verdict::Rejected(why) => tracing::info!(%event, why, "rejected"),
    }
}
