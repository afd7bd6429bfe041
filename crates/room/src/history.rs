//! History from before our time in a room, fetched when a client pages back to it.
//!
//! Specification: server-server API, "Backfilling and retrieving missing events". Such events are
//! checked and judged by their auth events. Their place is told by their depth alone: the state at
//! them is not known, and the first one that is speaks for it (`views::visibility`).

use std::{collections::BTreeSet, time::Duration};

use exeunt_store::{
    Batch, Reader,
    records::{EventRecord, RoomRecord},
    tables,
};
use ruma::{OwnedEventId, OwnedServerName, RoomId, ServerName};
use serde_json::Value;

use crate::{
    Call, RoomError, Rooms,
    fetch::{Quest, array},
    fetch_limits::Sought,
    gaps,
    graph::{Graph, Known},
    ingest::connect,
    outliers::{Pool, add_outliers},
    place::{Placement, is_denied_history},
    redactions,
    shown::Shown,
    views::{Direction, TimestampRequest},
};

/// Events asked for at a time.
const MAX_EVENTS: usize = 100;
/// Longest time that a client waits for it.
const MAX_TIME: Duration = Duration::from_secs(15);
/// Most events that one request starts from.
const MAX_FROM: usize = 20;

impl Rooms {
    /// Adds history from other servers below an event of a room's timeline. Whether that leads
    /// further back.
    pub(crate) async fn fetch_history(
        &self,
        room_id: &RoomId,
        upper: i64,
    ) -> Result<bool, RoomError> {
        let Some(version) = self.version_if_resident(room_id).await? else { return Ok(false) };
        let _turn = self.inner.histories.lock(room_id.to_owned()).await;
        let now = self.now();
        let ends = self.ends_of_history(room_id, upper).await?;
        let mut from = ends.missing.clone();
        from.retain(|id| !self.inner.fetch_limits.is_absent(id, Sought::History, now));
        from.truncate(MAX_FROM);
        let servers = self.other_servers(room_id).await?;
        let (false, Some(first)) = (from.is_empty(), servers.first().cloned()) else {
            return Ok(false);
        };
        let quest = Quest::new(room_id.to_owned(), version, first, servers, MAX_TIME);
        let mut loose = Vec::new();
        for server in quest.servers() {
            let (mut pool, mut events) = self.backfill(&quest, server, &from).await?;
            if !events.is_empty() {
                pool.append(&mut events);
                loose.push((server, pool));
            } else if self.take_history(&quest, vec![(server, pool)], upper, &ends).await? {
                return Ok(true);
            }
        }
        // Nobody gives what is in the way (decision 0016).
        if !ends.with_creation && self.take_history(&quest, loose, upper, &ends).await? {
            return Ok(true);
        }
        if quest.is_conclusive() {
            for id in from {
                self.inner.fetch_limits.note_absent(id, Sought::History, now);
            }
        }
        Ok(false)
    }

    /// What a server gives of events and those before them: connected to them, and other.
    async fn backfill(
        &self,
        quest: &Quest,
        server: &ServerName,
        from: &[OwnedEventId],
    ) -> Result<(Pool, Pool), RoomError> {
        let call = Call::Backfill { room: &quest.room_id, from, limit: MAX_EVENTS };
        let Some(answer) = self.ask(quest, server, call).await else {
            return Ok((Pool::new(), Pool::new()));
        };
        let mut events = array(&answer, "pdus");
        events.truncate(MAX_EVENTS);
        let mut events = self.check_fetched(quest, events).await?;
        let mut pool = Pool::new();
        connect(&mut pool, from, &mut events);
        Ok((pool, events))
    }

    /// Keeps history, and shows it below an event of the timeline. Whether that leads further back,
    /// be it by way of rejected events, which are not shown.
    async fn take_history(
        &self,
        quest: &Quest,
        given: Vec<(&OwnedServerName, Pool)>,
        upper: i64,
        ends: &Ends,
    ) -> Result<bool, RoomError> {
        if given.iter().all(|(_, pool)| pool.is_empty()) {
            return Ok(false);
        }
        Ok(self.insert(quest, given, Place { upper, apart: false }).await?
            || self.ends_of_history(&quest.room_id, upper).await? != *ends)
    }

    async fn ends_of_history(&self, room_id: &RoomId, upper: i64) -> Result<Ends, RoomError> {
        let room_id = room_id.to_owned();
        let ends = move |reader: &Reader<'_>| Ends::of(&Graph::of(reader, &room_id)?, upper);
        self.store().read(ends).await
    }

    /// Asks other servers for the event closest to a time, and adds what they have of the history
    /// up to it in the gap below an event of the timeline. `known`: the time of the closest one so
    /// far. Whether there is any new.
    pub(crate) async fn fetch_around(
        &self,
        request: &TimestampRequest,
        upper: i64,
        known: Option<u64>,
    ) -> Result<bool, RoomError> {
        let TimestampRequest { room_id, ts, direction, .. } = request;
        let Some(version) = self.version_if_resident(room_id).await? else { return Ok(false) };
        let _turn = self.inner.histories.lock(room_id.to_owned()).await;
        let servers = self.other_servers(room_id).await?;
        let Some(first) = servers.first().cloned() else { return Ok(false) };
        let quest = Quest::new(room_id.to_owned(), version, first, servers, MAX_TIME);
        for server in quest.servers() {
            let call = Call::TimestampToEvent { room: room_id, ts: *ts, direction: *direction };
            let Some(answer) = self.ask(&quest, server, call).await else { continue };
            let Some((event_id, told)) = dated(&answer) else { continue };
            let is_past = match direction {
                Direction::Forward => told < *ts,
                Direction::Backward => told > *ts,
            };
            let is_closer = known.is_none_or(|known| told.abs_diff(*ts) < known.abs_diff(*ts));
            if is_past || !is_closer {
                continue;
            }
            let (pool, _) = self.backfill(&quest, server, &[event_id]).await?;
            let given = vec![(server, pool)];
            if self.insert(&quest, given, Place { upper, apart: true }).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Keeps events that servers gave and puts them into the timeline. Whether any are new there.
    async fn insert(
        &self,
        quest: &Quest,
        given: Vec<(&OwnedServerName, Pool)>,
        place: Place,
    ) -> Result<bool, RoomError> {
        let mut history = BTreeSet::new();
        for (server, mut pool) in given {
            let events: Vec<_> = pool.iter().map(|(id, e)| (e.depth(), id.clone())).collect();
            self.add_auth_events(quest, &mut pool).await?;
            self.keep_history(quest, server, pool, events.clone()).await?;
            history.extend(events);
        }
        let guard = self.inner.locks.lock(&quest.room_id).await;
        let room_id = quest.room_id.clone();
        let batch =
            self.store().read(move |reader| inserted(reader, &room_id, history, place)).await?;
        let any = !batch.is_empty();
        if any {
            self.commit(&guard, Placement::only(batch)).await?;
        }
        Ok(any)
    }

    /// Keeps the events of the pool, and counts those among the history in it that the server should
    /// not have relayed (decision 0014).
    async fn keep_history(
        &self,
        quest: &Quest,
        server: &OwnedServerName,
        pool: Pool,
        history: Vec<(u64, OwnedEventId)>,
    ) -> Result<(), RoomError> {
        let guard = self.inner.locks.lock(&quest.room_id).await;
        let (room_id, from) = (quest.room_id.clone(), server.clone());
        let read = self.store().read(move |reader| {
            let graph = Graph::of(reader, &room_id)?;
            let mut leaks = 0;
            for (_, id) in history {
                let is_new = pool[&id].origin() != from && graph.event(&id)?.is_none();
                leaks += usize::from(is_new && is_denied_history(&graph, &pool[&id])?);
            }
            add_outliers(&graph, &pool, &from)?;
            Ok::<_, RoomError>((graph.into_batch(), leaks))
        });
        let (batch, leaks) = read.await?;
        self.commit(&guard, Placement::only(batch)).await?;
        (0..leaks).for_each(|_| self.inner.leaks.note(server.clone()));
        Ok(())
    }
}

/// How far back the timeline goes without a gap, from an event of it.
#[derive(PartialEq, Eq)]
struct Ends {
    /// What is missing there.
    missing: Vec<OwnedEventId>,
    /// Whether nothing can be before, since the timeline goes back to the create event.
    with_creation: bool,
}

impl Ends {
    fn of(graph: &Graph<'_>, upper: i64) -> Result<Self, RoomError> {
        let create = graph.event(&graph.room.create_event)?;
        let with_creation = gaps::below(graph, upper)?.is_none()
            && create.is_some_and(|known| gaps::is_placed(graph, &known, true));
        Ok(Self { missing: gaps::missing(graph, upper)?, with_creation })
    }
}

/// Where history goes: below the event of that order, or somewhere in the gap there.
#[derive(Debug, Clone, Copy)]
struct Place {
    upper: i64,
    apart: bool,
}

/// What another server says is closest to a time.
fn dated(answer: &Value) -> Option<(OwnedEventId, u64)> {
    let event_id = OwnedEventId::try_from(answer.get("event_id")?.as_str()?).ok()?;
    Some((event_id, answer.get("origin_server_ts")?.as_u64()?))
}

/// Redactions of the history apply: to events of it, and to those that were here before.
fn inserted(
    reader: &Reader<'_>,
    room_id: &RoomId,
    history: BTreeSet<(u64, OwnedEventId)>,
    Place { upper, apart }: Place,
) -> Result<Batch, RoomError> {
    let graph = Graph::of(reader, room_id)?;
    let lower = gaps::below(&graph, upper)?;
    let top = gaps::top(&graph, upper)?;
    let mut order = match lower {
        _ if !apart => top,
        Some(lower) => top - (top - lower) / 2,
        None => top.saturating_sub(gaps::ROOM_FOR_HISTORY.cast_signed()),
    };
    let depth_above = match reader.get::<tables::Timeline>(&(room_id.to_owned(), upper))? {
        Some(id) => graph.event_here(&id)?.pdu.depth(),
        None => return Ok(graph.into_batch()),
    };
    let mut redactions = Vec::new();
    // What is before an event that is further down belongs further down, too.
    let older = match lower {
        Some(_) => before_placed(&graph, &history)?,
        None => BTreeSet::new(),
    };
    for (depth, id) in history.into_iter().rev().filter(|(_, id)| !older.contains(id)) {
        // One without its auth events is not kept; one that has its place already stays there.
        let Some(known) = graph.event(&id)? else { continue };
        if known.record.verdict.is_rejected() || gaps::is_placed(&graph, &known, lower.is_none()) {
            continue;
        }
        let Known { pdu, record, .. } = known;
        if is_denied_history(&graph, &pdu)? {
            continue;
        }
        // What is set apart was asked for by its time, and may belong elsewhere.
        let fits = !apart || depth < depth_above;
        if !fits || lower.is_some_and(|lower| order <= lower + 1) {
            break;
        }
        order -= 1;
        graph.add(&pdu, EventRecord { order: Some(order), ..(*record).clone() })?;
        Shown::new(&graph.event_here(&id)?.pdu).put(&mut graph.batch(), order);
        if pdu.redacts().is_some() {
            redactions.push(pdu);
        }
    }
    for redaction in &redactions {
        redactions::apply_in_history(&graph, redaction)?;
    }
    if order < graph.room.first_order && !graph.batch().is_empty() {
        let has_relations = graph.batch().puts::<tables::Relations>(room_id.to_owned());
        let mut room = RoomRecord { first_order: order, ..graph.room.clone() };
        room.has_relations |= has_relations;
        graph.batch().put::<tables::Rooms>(&room_id.to_owned(), &room);
    }
    Ok(graph.into_batch())
}

/// Those of the events that come before one of them that has its place.
fn before_placed(
    graph: &Graph<'_>,
    history: &BTreeSet<(u64, OwnedEventId)>,
) -> Result<BTreeSet<OwnedEventId>, RoomError> {
    let ids: BTreeSet<_> = history.iter().map(|(_, id)| id).collect();
    let mut work = Vec::new();
    for id in &ids {
        work.extend(graph.event(id)?.filter(|known| gaps::is_placed(graph, known, false)));
    }
    let mut before = BTreeSet::new();
    while let Some(known) = work.pop() {
        for prev in known.pdu.prev_events().iter().filter(|prev| ids.contains(prev)) {
            if before.insert(prev.clone()) {
                work.extend(graph.event(prev)?);
            }
        }
    }
    Ok(before)
}
