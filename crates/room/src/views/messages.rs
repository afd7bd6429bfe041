//! A room's history, page by page. Specification: client-server API, "GET /rooms/{roomId}/messages".

use std::collections::BTreeMap;

use exeunt_core::StateKey;
use exeunt_store::Reader;
use ruma::OwnedRoomId;
use serde_json::Value;

use super::{
    Token, Viewer,
    access::RoomView,
    filter::EventFilter,
    timeline::{Gaps, Stretch, Walk},
};
use crate::{RoomError, graph::Known};

/// Most events of a page.
pub const MAX_PAGE: usize = 1_000;
/// Most times that other servers are asked for more history, for one page.
pub(super) const MAX_FETCHES: usize = 3;
/// Most gaps that nobody could fill and that one page goes on behind.
pub(super) const MAX_GAPS: usize = 20;
/// Events of a page where the request names no limit.
const DEFAULT_PAGE: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Newest first.
    Backward,
    /// Oldest first.
    Forward,
}

impl Direction {
    /// As in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backward => "b",
            Self::Forward => "f",
        }
    }
}

impl std::str::FromStr for Direction {
    type Err = RoomError;

    fn from_str(text: &str) -> Result<Self, RoomError> {
        match text {
            "b" => Ok(Self::Backward),
            "f" => Ok(Self::Forward),
            _ => Err(RoomError::InvalidParam("dir is not valid".into())),
        }
    }
}

#[derive(Debug, Clone)]
pub struct MessagesRequest {
    pub viewer: Viewer,
    pub room_id: OwnedRoomId,
    pub from: Option<Token>,
    pub to: Option<Token>,
    pub direction: Direction,
    pub limit: Option<u64>,
    pub filter: EventFilter,
}

#[derive(Debug, Clone)]
pub struct MessagesPage {
    pub chunk: Vec<Value>,
    pub start: Token,
    /// `None` where nothing more is to be seen.
    pub end: Option<Token>,
    /// Member events of the senders, under lazy loading.
    pub state: Vec<Value>,
}

/// A page; and, if it was cut short by a gap, the order of the event above that.
pub(super) fn messages(
    reader: &Reader<'_>,
    request: &MessagesRequest,
    gaps: Gaps<'_>,
) -> Result<(MessagesPage, Option<i64>), RoomError> {
    let (view, readable) = RoomView::readable(reader, &request.viewer, &request.room_id)?;
    let readable = Token::Stream(readable).order();
    let (from, to) = (request.from.map(Token::order), request.to.map(Token::order));
    let (stretch, start) = match request.direction {
        Direction::Backward => {
            let until = from.unwrap_or(i64::MAX).min(readable);
            let stretch = Stretch { after: to.unwrap_or(i64::MIN), until };
            (stretch, from.unwrap_or(readable))
        }
        Direction::Forward => {
            let after = from.unwrap_or(i64::MIN);
            let until = to.unwrap_or(i64::MAX).min(readable);
            (Stretch { after, until }, after)
        }
    };
    let asked = request.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let limit = asked.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let Walk { events, mut next, gap } =
        view.walk(stretch, request.direction, limit, &request.filter, gaps)?;
    if next.is_none()
        && request.direction == Direction::Forward
        && let Some((last, _)) = events.last()
    {
        // More may come behind the last event.
        next = Some(*last);
    }
    let state =
        if request.filter.lazy_load_members { senders(&view, &events)? } else { Vec::new() };
    let chunk =
        events.iter().map(|(_, known)| view.client_event(known)).collect::<Result<_, _>>()?;
    let (start, end) = (Token::Timeline(start), next.map(Token::Timeline));
    Ok((MessagesPage { chunk, start, end, state }, gap))
}

/// The member event of each sender, as of the sender's newest event of the page.
pub(super) fn senders(
    view: &RoomView<'_>,
    events: &[(i64, Known)],
) -> Result<Vec<Value>, RoomError> {
    let mut newest: BTreeMap<_, &(i64, Known)> = BTreeMap::new();
    for event in events {
        let known = newest.entry(event.1.pdu.sender().to_owned()).or_insert(event);
        if event.0 > known.0 {
            *known = event;
        }
    }
    let mut members = Vec::new();
    for (sender, (_, known)) in newest {
        let key = StateKey::member(&sender);
        let (before, after) = match known.record.states {
            Some(states) => (states.before, states.after),
            None => (view.first_root()?, view.graph.room.state),
        };
        let member = match view.graph.state_event(before, &key)? {
            Some(event) => Some(event),
            None => view.graph.state_event(after, &key)?,
        };
        if let Some(member) = member {
            members.push(view.client_event(&view.graph.event_here(member.event_id())?)?);
        }
    }
    Ok(members)
}
