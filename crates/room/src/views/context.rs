//! The events around one event. Specification: client-server API, "GET
//! /rooms/{roomId}/context/{eventId}".

use std::collections::BTreeSet;

use exeunt_store::Reader;
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::Value;

use super::{
    Direction, Token, Viewer,
    access::RoomView,
    event::visible,
    filter::EventFilter,
    messages::{MAX_PAGE, senders},
    timeline::{Gaps, Stretch},
};
use crate::{RoomError, graph::Known};

/// Events around the one asked for where the request names no limit.
const DEFAULT_LIMIT: usize = 10;

#[derive(Debug, Clone)]
pub struct ContextRequest {
    pub viewer: Viewer,
    pub room_id: OwnedRoomId,
    pub event_id: OwnedEventId,
    pub limit: Option<u64>,
    pub filter: EventFilter,
}

#[derive(Debug, Clone)]
pub struct Context {
    pub event: Value,
    /// Newest first.
    pub before: Vec<Value>,
    /// Oldest first.
    pub after: Vec<Value>,
    /// State after the last event; under lazy loading, only the members who speak.
    pub state: Vec<Value>,
    pub start: Token,
    pub end: Token,
}

/// `None` for an event that the viewer may not see. An event without a place in the timeline has
/// nothing around it.
pub(super) fn context(
    reader: &Reader<'_>,
    request: &ContextRequest,
) -> Result<Option<Context>, RoomError> {
    let ContextRequest { viewer, room_id, event_id, limit, filter } = request;
    let (view, until) = RoomView::readable(reader, viewer, room_id)?;
    let Some(known) = visible(&view, event_id)? else { return Ok(None) };
    let readable = Token::Stream(until).order();
    let asked = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let limit = asked.unwrap_or(DEFAULT_LIMIT).min(MAX_PAGE);
    let order = known.record.order.unwrap_or(readable);
    let limits = match known.record.order {
        Some(_) => [limit / 2, limit - limit / 2],
        None => [0, 0],
    };
    let Around { before, after, start, end } = Around::walk(&view, order, limits, filter)?;
    let last = after.last().map_or(&known, |(_, known)| known);
    let root = match last.record.states {
        Some(states) => states.after,
        None => view.root_at(until)?,
    };
    let spoken: Vec<_> =
        before.iter().chain(&after).cloned().chain([(order, known.clone())]).collect();
    let mut state = Vec::new();
    for entry in view.graph.state_entries(root) {
        let (key, id) = entry?;
        if filter.lazy_load_members && key.kind == "m.room.member" {
            continue;
        }
        state.push(view.client_event(&view.graph.event_here(&id)?)?);
    }
    if filter.lazy_load_members {
        state.extend(senders(&view, &spoken)?);
    }
    let form = |events: &[(i64, _)]| -> Result<Vec<Value>, RoomError> {
        events.iter().map(|(_, known)| view.client_event(known)).collect()
    };
    Ok(Some(Context {
        event: view.client_event(&known)?,
        before: form(&before)?,
        after: form(&after)?,
        state,
        start,
        end,
    }))
}

/// The events around a place in the timeline that the user sees.
pub(super) struct Around {
    /// Newest first.
    pub before: Vec<(i64, Known)>,
    /// Oldest first.
    pub after: Vec<(i64, Known)>,
    pub start: Token,
    pub end: Token,
}

impl Around {
    /// At most so many before and after the event of that order, up to where history is missing:
    /// whoever pages on from `start` or `end` has it fetched.
    pub fn walk(
        view: &RoomView<'_>,
        order: i64,
        [earlier, later]: [usize; 2],
        filter: &EventFilter,
    ) -> Result<Self, RoomError> {
        let gaps = Gaps::StopBut(&BTreeSet::new());
        let readable = view.until()?.map_or(i64::MIN, |until| Token::Stream(until).order());
        let stretch = Stretch { after: i64::MIN, until: order.saturating_sub(1) };
        let before = view.walk(stretch, Direction::Backward, earlier, filter, gaps)?.events;
        let stretch = Stretch { after: order, until: readable };
        let after = view.walk(stretch, Direction::Forward, later, filter, gaps)?.events;
        let start = before.last().map_or(order, |(order, _)| *order).saturating_sub(1);
        let end = after.last().map_or(order, |(order, _)| *order);
        Ok(Self { before, after, start: Token::Timeline(start), end: Token::Timeline(end) })
    }
}
