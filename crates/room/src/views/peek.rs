//! Reading a room without being in it: a snapshot, and what comes after. Specification:
//! client-server API, "Room Previews".

use std::collections::BTreeSet;

use exeunt_store::Reader;
use ruma::{OwnedRoomId, RoomId};
use serde_json::Value;

use super::{
    Direction, EventFilter, Token, Viewer,
    access::RoomView,
    messages::MAX_PAGE,
    state::state_at,
    timeline::{Gaps, Stretch},
};
use crate::RoomError;

/// Events of a snapshot where the request names no limit.
const DEFAULT_LIMIT: u64 = 10;
/// Most events of what comes after.
const MAX_EVENTS: usize = 100;

#[derive(Debug, Clone)]
pub struct InitialSyncRequest {
    pub viewer: Viewer,
    pub room_id: OwnedRoomId,
    pub limit: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct InitialSync {
    /// The viewer's, if there is any.
    pub membership: Option<String>,
    /// The newest events, oldest first.
    pub chunk: Vec<Value>,
    /// Where to page back from; `None` where nothing more is to be seen.
    pub start: Option<Token>,
    pub end: Token,
    /// State after the last event.
    pub state: Vec<Value>,
}

pub(super) fn initial_sync(
    reader: &Reader<'_>,
    request: &InitialSyncRequest,
) -> Result<InitialSync, RoomError> {
    let (view, until) = RoomView::readable(reader, &request.viewer, &request.room_id)?;
    let limit = request.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_PAGE as u64) as usize;
    let end = Token::Stream(until);
    let stretch = Stretch { after: i64::MIN, until: end.order() };
    let gaps = Gaps::StopBut(&BTreeSet::new());
    let walk = view.walk(stretch, Direction::Backward, limit, &EventFilter::default(), gaps)?;
    let chunk = walk.events.iter().rev().map(|(_, known)| view.client_event(known));
    Ok(InitialSync {
        membership: view.member.as_ref().map(|member| member.membership.clone()),
        chunk: chunk.collect::<Result<_, _>>()?,
        start: walk.next.map(Token::Timeline),
        end,
        state: state_at(&view, until)?,
    })
}

/// Events of a room after a place, oldest first.
#[derive(Debug, Clone)]
pub struct RoomEvents {
    pub chunk: Vec<Value>,
    pub start: Token,
    pub end: Token,
    /// Whether there may be more now.
    pub(super) is_cut: bool,
}

pub(super) fn events_after(
    reader: &Reader<'_>,
    viewer: &Viewer,
    room_id: &RoomId,
    from: Token,
) -> Result<RoomEvents, RoomError> {
    let (view, until) = RoomView::readable(reader, viewer, room_id)?;
    if from.position() > reader.position()? {
        return Err(RoomError::InvalidParam("The token is not one of ours".into()));
    }
    let until = until.max(from.position());
    let stretch = Stretch { after: from.order(), until: Token::Stream(until).order() };
    let filter = EventFilter::default();
    let walk = view.walk(stretch, Direction::Forward, MAX_EVENTS, &filter, Gaps::Pass)?;
    let chunk = walk.events.iter().map(|(_, known)| view.client_event(known));
    Ok(RoomEvents {
        chunk: chunk.collect::<Result<_, _>>()?,
        start: from,
        end: walk.next.map_or(Token::Stream(until), Token::Timeline),
        is_cut: walk.next.is_some(),
    })
}
