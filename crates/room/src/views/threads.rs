//! The threads of a room. Specification: client-server API, "Querying threads in a room".

use std::collections::BTreeSet;

use exeunt_store::{Reader, tables};
use ruma::{EventId, OwnedRoomId};
use serde_json::Value;

use super::{Token, Viewer, access::RoomView, event::visible, timeline::MAX_WALK};
use crate::{RoomError, graph::Known, relations::is_child};

/// Most threads of a page, and those of one where the request names no limit.
const MAX_LIMIT: u64 = 100;
const DEFAULT_LIMIT: u64 = 20;
/// Most events of threads that are looked at for a page, those of threads that it has included.
const MAX_ROWS: usize = 10_000;

#[derive(Debug, Clone)]
pub struct ThreadsRequest {
    pub viewer: Viewer,
    pub room_id: OwnedRoomId,
    /// Only those that the viewer has written in, or what they are about.
    pub participated_only: bool,
    pub limit: Option<u64>,
    pub from: Option<Token>,
}

#[derive(Debug, Clone)]
pub struct ThreadsPage {
    /// The roots.
    pub chunk: Vec<Value>,
    pub next_batch: Option<Token>,
}

/// Goes along the events of threads, newest first: a thread has its place where its newest event
/// is.
pub(super) fn threads(
    reader: &Reader<'_>,
    request: &ThreadsRequest,
) -> Result<ThreadsPage, RoomError> {
    let ThreadsRequest { viewer, room_id, participated_only, limit, from } = request;
    let (view, readable) = RoomView::readable(reader, viewer, room_id)?;
    let readable = Token::Stream(readable).order();
    let mut place = from.map_or(readable, Token::order).min(readable);
    let limit = limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT) as usize;
    let rows = reader.scan::<tables::ThreadEvents>(room_id.clone());
    let rows = rows.before((room_id.clone(), place.saturating_add(1))).rev();
    let (mut chunk, mut seen, mut judged, mut next) = (Vec::new(), BTreeSet::new(), 0, None);
    for (looked_at, row) in rows.iter().enumerate() {
        let ((_, order), root) = row?;
        if looked_at >= MAX_ROWS || judged >= MAX_WALK {
            next = Some(place);
            break;
        }
        if !seen.contains(&root) {
            judged += 1;
            if let Some(known) = listed(&view, &root, order, &mut seen)?
                && (!participated_only || view.participates(&known)?)
            {
                if chunk.len() >= limit {
                    next = Some(place);
                    break;
                }
                chunk.push(render(&view, known)?);
            }
        }
        place = order.saturating_sub(1);
    }
    Ok(ThreadsPage { chunk, next_batch: next.map(Token::Timeline) })
}

/// The root, if the thread has its place at that order. `seen` gets it when it is done with.
fn listed(
    view: &RoomView<'_>,
    root: &EventId,
    order: i64,
    seen: &mut BTreeSet<ruma::OwnedEventId>,
) -> Result<Option<Known>, RoomError> {
    let latest = view.latest_in_thread(root)?.map(|(order, _)| order);
    if latest.is_some_and(|latest| latest < order) {
        // This event is hidden from the user; the thread comes later.
        return Ok(None);
    }
    seen.insert(root.to_owned());
    if latest != Some(order) {
        return Ok(None);
    }
    Ok(visible(view, root)?.filter(|known| !is_child(&known.pdu)))
}

/// What an ignored user has sent is shown redacted.
fn render(view: &RoomView<'_>, mut root: Known) -> Result<Value, RoomError> {
    if view.ignores(root.pdu.sender())? {
        root.pdu = root.pdu.redacted();
    }
    view.client_event(&root)
}
