//! The event closest to a time. Specification: client-server API, "GET
//! /rooms/{roomId}/timestamp_to_event".

use exeunt_store::{Reader, tables};
use ruma::{OwnedEventId, OwnedRoomId};

use super::{Direction, Viewer, access::RoomView, timeline::MAX_WALK};
use crate::{
    RoomError, gaps,
    graph::{Graph, Known},
};

#[derive(Debug, Clone)]
pub struct TimestampRequest {
    pub viewer: Viewer,
    pub room_id: OwnedRoomId,
    /// Milliseconds since the epoch.
    pub ts: u64,
    pub direction: Direction,
}

/// An event of a timeline, with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dated {
    pub event_id: OwnedEventId,
    /// `origin_server_ts`.
    pub ts: u64,
    /// Order in the timeline.
    pub(crate) order: i64,
}

/// The first event at that time or after it, or the last one at it or before it, among those that
/// pass. Of events of the same time the timeline decides.
pub(crate) fn closest(
    graph: &Graph<'_>,
    ts: u64,
    direction: Direction,
    passes: impl Fn(&Known, i64) -> Result<bool, RoomError>,
) -> Result<Option<Dated>, RoomError> {
    let room_id = &graph.room_id;
    let scan = graph.reader.scan::<tables::EventTimes>(room_id.clone());
    let scan = match direction {
        Direction::Forward => scan.from((room_id.clone(), ts)),
        Direction::Backward => scan.before((room_id.clone(), ts.saturating_add(1))).rev(),
    };
    for row in scan.limit(MAX_WALK).iter() {
        let ((_, ts, order), ()) = row?;
        let at = (room_id.clone(), order);
        let Some(event_id) = graph.reader.get::<tables::Timeline>(&at)? else { continue };
        if passes(&graph.event_here(&event_id)?, order)? {
            return Ok(Some(Dated { event_id, ts, order }));
        }
    }
    Ok(None)
}

/// The event closest to a time that the user sees; and, if a gap lies between the two, the order of
/// the event above it.
pub(super) fn timestamp(
    reader: &Reader<'_>,
    request: &TimestampRequest,
) -> Result<(Option<Dated>, Option<i64>), RoomError> {
    let TimestampRequest { viewer, room_id, ts, direction } = request;
    let (view, _) = RoomView::readable(reader, viewer, room_id)?;
    let graph = &view.graph;
    let found = closest(graph, *ts, *direction, |known, order| view.sees(known, order))?;
    let order = found.as_ref().map(|found| found.order);
    let upper = match direction {
        Direction::Forward => order,
        Direction::Backward => gaps::above(graph, order.unwrap_or(i64::MIN))?,
    };
    let Some(upper) = upper else { return Ok((found, None)) };
    let lower = gaps::below(graph, upper)?.unwrap_or(i64::MIN);
    let is_gap = upper.saturating_sub(lower) > 1 && !gaps::missing(graph, upper)?.is_empty();
    Ok((found, is_gap.then_some(upper)))
}
