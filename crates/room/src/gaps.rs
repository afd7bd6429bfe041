//! Gaps in a timeline: places between two of its events where history is missing. Decision 0031.
//!
//! Orders are stream positions, so that what is fetched later has to fit in between. An event whose
//! predecessors are not here is therefore given a position that leaves room before it.

use std::collections::BTreeSet;

use exeunt_core::Pdu;
use exeunt_store::{records::Verdict, tables};
use ruma::OwnedEventId;

use crate::{
    RoomError,
    collapse::DUMMY_EVENT,
    graph::{Graph, Known},
    place::is_denied_history,
};

/// Orders that are left free before an event that follows a gap.
pub(crate) const ROOM_FOR_HISTORY: u64 = 1 << 20;
/// Most events right above a gap that are looked at for what they follow.
const MAX_RUN: usize = 100;

/// Most events that are not shown and passed over for what is behind them.
const MAX_PASSED: usize = 1_000;

/// Whether room is to be left before an event: it follows some that have no place here, and the
/// timeline has older events.
pub(crate) fn needs_room(graph: &Graph<'_>, event: &Pdu) -> Result<bool, RoomError> {
    for prev in event.prev_events() {
        if graph.state_after(prev)?.is_none() {
            let rows = graph.reader.scan::<tables::Timeline>(graph.room_id.clone());
            return Ok(!rows.limit(1).keys()?.is_empty());
        }
    }
    Ok(false)
}

/// The order of the event before a place of the timeline, and of the one after it.
pub(crate) fn below(graph: &Graph<'_>, order: i64) -> Result<Option<i64>, RoomError> {
    let room_id = &graph.room_id;
    let rows = graph.reader.scan::<tables::Timeline>(room_id.clone());
    let row = rows.before((room_id.clone(), order)).rev().limit(1).keys()?.pop();
    Ok(row.map(|(_, order)| order))
}

pub(crate) fn above(graph: &Graph<'_>, order: i64) -> Result<Option<i64>, RoomError> {
    let room_id = &graph.room_id;
    let rows = graph.reader.scan::<tables::Timeline>(room_id.clone());
    let row = rows.after((room_id.clone(), order)).limit(1).keys()?.pop();
    Ok(row.map(|(_, order)| order))
}

/// The order below which history goes that belongs before an event of the timeline.
pub(crate) fn top(graph: &Graph<'_>, upper: i64) -> Result<i64, RoomError> {
    Ok(match below(graph, upper)? {
        Some(_) => upper,
        None => upper.min(graph.room.first_order).min(0),
    })
}

/// What is missing below an event of the timeline: what it and those right above it, without room
/// between them, follow, be it by way of some that are not shown, and the timeline does not hold.
pub(crate) fn missing(graph: &Graph<'_>, upper: i64) -> Result<Vec<OwnedEventId>, RoomError> {
    let room_id = &graph.room_id;
    let rows = graph.reader.scan::<tables::Timeline>(room_id.clone());
    let (mut next, mut work) = (upper, Vec::new());
    for row in rows.from((room_id.clone(), upper)).limit(MAX_RUN).iter() {
        let ((_, order), id) = row?;
        if order != next {
            break;
        }
        next = order.saturating_add(1);
        work.extend(graph.event_here(&id)?.pdu.prev_events().iter().cloned());
    }
    let is_first = below(graph, upper)?.is_none();
    let (mut missing, mut passed) = (BTreeSet::new(), BTreeSet::new());
    while let Some(id) = work.pop() {
        match graph.event(&id)? {
            Some(known) if is_placed(graph, &known, is_first) => {}
            Some(known)
                if known.record.verdict.is_rejected() || is_denied_history(graph, &known.pdu)? =>
            {
                if passed.len() < MAX_PASSED && passed.insert(id) {
                    work.extend(known.pdu.prev_events().iter().cloned());
                }
            }
            _ => drop(missing.insert(id)),
        }
    }
    Ok(missing.into_iter().collect())
}

/// Whether an event has a place in the timeline, or in the graph. What has one in the graph alone and
/// is older than our stay (decision 0040) gets one in the timeline with the history before its first
/// event, and has none there until then.
pub(crate) fn is_placed(graph: &Graph<'_>, known: &Known, before_first: bool) -> bool {
    let (pdu, record) = (&known.pdu, &known.record);
    let is_to_be_shown =
        before_first && is_shown(&record.verdict, pdu) && graph.is_before_stay(pdu);
    record.order.is_some() || (record.states.is_some() && !is_to_be_shown)
}

/// Whether clients are shown an event that has its place. Dummy events are of no interest to them.
pub(crate) fn is_shown(verdict: &Verdict, event: &Pdu) -> bool {
    verdict.is_accepted() && event.kind() != DUMMY_EVENT
}
