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
use ruma::{OwnedEventId, RoomId};

use crate::{
    Call, RoomError, Rooms,
    fetch::{Quest, array},
    fetch_limits::Sought,
    graph::{Graph, Known},
    ingest::connect,
    outliers::Pool,
    place::Placement,
    redactions,
    views::Token,
};

/// Events asked for at a time.
const MAX_EVENTS: usize = 100;
/// Longest time that a client waits for it.
const MAX_TIME: Duration = Duration::from_secs(15);
/// Rows at the start of the timeline that are looked at for what came before.
const MAX_FIRST_ROWS: usize = 20;
/// Most events that one request starts from.
const MAX_FROM: usize = 20;
/// Most rejected events that are passed over for what is behind them.
const MAX_PASSED: usize = 1_000;

impl Rooms {
    /// Adds history from other servers in front of a room's timeline. Whether there is any new.
    pub(crate) async fn fetch_history(&self, room_id: &RoomId) -> Result<bool, RoomError> {
        let Some(version) = self.version_if_resident(room_id).await? else { return Ok(false) };
        let _turn = self.inner.histories.lock(room_id.to_owned()).await;
        let now = self.now();
        let ends = self.ends_of_history(room_id).await?;
        let mut from = ends.before.clone();
        from.retain(|id| !self.inner.fetch_limits.is_absent(id, Sought::History, now));
        from.truncate(MAX_FROM);
        let servers = self.other_servers(room_id).await?;
        let (false, Some(first)) = (from.is_empty(), servers.first().cloned()) else {
            return Ok(false);
        };
        let quest = Quest::new(room_id.to_owned(), version, first, servers, MAX_TIME);
        let mut loose = Pool::new();
        for server in quest.servers() {
            let call = Call::Backfill { room: room_id, from: &from, limit: MAX_EVENTS };
            let Some(answer) = self.ask(&quest, server, call).await else { continue };
            let mut events = array(&answer, "pdus");
            events.truncate(MAX_EVENTS);
            let mut events = self.check_fetched(&quest, events).await?;
            let mut pool = Pool::new();
            connect(&mut pool, &from, &mut events);
            if !events.is_empty() {
                loose.append(&mut pool);
                loose.append(&mut events);
            } else if self.take_history(&quest, pool, &ends).await? {
                return Ok(true);
            }
        }
        // Nobody gives what is in the way (decision 0016).
        if !ends.with_creation && self.take_history(&quest, loose, &ends).await? {
            return Ok(true);
        }
        if quest.is_conclusive() {
            for id in from {
                self.inner.fetch_limits.note_absent(id, Sought::History, now);
            }
        }
        Ok(false)
    }

    /// Keeps history, and shows it in front of the timeline. Whether that leads further back, be it
    /// by way of rejected events, which are not shown.
    async fn take_history(
        &self,
        quest: &Quest,
        mut pool: Pool,
        ends: &Ends,
    ) -> Result<bool, RoomError> {
        if pool.is_empty() {
            return Ok(false);
        }
        let history: BTreeSet<_> =
            pool.iter().map(|(id, event)| (event.depth(), id.clone())).collect();
        self.add_auth_events(quest, &mut pool).await?;
        self.keep_outliers(quest, pool).await?;
        Ok(self.prepend(&quest.room_id, history).await?
            || self.ends_of_history(&quest.room_id).await? != *ends)
    }

    async fn ends_of_history(&self, room_id: &RoomId) -> Result<Ends, RoomError> {
        let room_id = room_id.to_owned();
        self.store().read(move |reader| ends_of_history(&Graph::of(reader, &room_id)?)).await
    }

    /// The place before the first event of a room.
    pub(crate) async fn first_token(&self, room_id: &RoomId) -> Result<Option<Token>, RoomError> {
        let room_id = room_id.to_owned();
        self.store()
            .read(move |reader| {
                let first = reader.scan::<tables::Timeline>(room_id).first()?;
                Ok(first.map(|((_, order), _)| Token::Timeline(order.saturating_sub(1))))
            })
            .await
    }

    /// Puts events, given by depth, in front of the timeline. Whether any are new there.
    async fn prepend(
        &self,
        room_id: &RoomId,
        history: BTreeSet<(u64, OwnedEventId)>,
    ) -> Result<bool, RoomError> {
        let guard = self.inner.locks.lock(room_id).await;
        let room_id = room_id.to_owned();
        let batch = self.store().read(move |reader| prepended(reader, &room_id, history)).await?;
        let any = !batch.is_empty();
        if any {
            self.commit(&guard, Placement::only(batch)).await?;
        }
        Ok(any)
    }
}

/// How far back the timeline goes.
#[derive(PartialEq, Eq)]
struct Ends {
    /// What its first events follow, be it by way of rejected ones, and it does not hold.
    before: Vec<OwnedEventId>,
    /// Whether it goes back to the create event.
    with_creation: bool,
}

fn ends_of_history(graph: &Graph<'_>) -> Result<Ends, RoomError> {
    let in_timeline = |known: &Known| known.record.order.is_some() || known.record.states.is_some();
    let rows = graph.reader.scan::<tables::Timeline>(graph.room_id.clone()).limit(MAX_FIRST_ROWS);
    let mut work = Vec::new();
    for row in rows.iter() {
        let (_, id) = row?;
        work.extend(graph.event_here(&id)?.pdu.prev_events().iter().cloned());
    }
    let (mut before, mut passed) = (BTreeSet::new(), BTreeSet::new());
    while let Some(id) = work.pop() {
        match graph.event(&id)? {
            Some(known) if in_timeline(&known) => {}
            Some(known) if known.record.verdict.is_rejected() => {
                if passed.len() < MAX_PASSED && passed.insert(id) {
                    work.extend(known.pdu.prev_events().iter().cloned());
                }
            }
            _ => drop(before.insert(id)),
        }
    }
    let create = graph.event(&graph.room.create_event)?;
    let with_creation = create.is_some_and(|known| in_timeline(&known));
    Ok(Ends { before: before.into_iter().collect(), with_creation })
}

/// Redactions of the history apply: to events of it, and to those that were here before.
fn prepended(
    reader: &Reader<'_>,
    room_id: &RoomId,
    history: BTreeSet<(u64, OwnedEventId)>,
) -> Result<Batch, RoomError> {
    let graph = Graph::of(reader, room_id)?;
    let start = graph.room.first_order.min(0);
    let mut order = start;
    let mut redactions = Vec::new();
    for (_, id) in history.into_iter().rev() {
        // One without its auth events is not kept; one that has its place already stays there.
        let Some(Known { pdu, record }) = graph.event(&id)? else { continue };
        if record.verdict.is_rejected() || record.order.is_some() || record.states.is_some() {
            continue;
        }
        order -= 1;
        graph.batch().put::<tables::Timeline>(&(room_id.to_owned(), order), &id);
        graph.add(&pdu, EventRecord { order: Some(order), ..(*record).clone() })?;
        if pdu.redacts().is_some() {
            redactions.push(pdu);
        }
    }
    for redaction in &redactions {
        redactions::apply_in_history(&graph, redaction)?;
    }
    if order < start {
        let room = RoomRecord { first_order: order, ..graph.room.clone() };
        graph.batch().put::<tables::Rooms>(&room_id.to_owned(), &room);
    }
    Ok(graph.into_batch())
}
