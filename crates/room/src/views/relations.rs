//! The events that relate to an event. Specification: client-server API, "Relationships API".

use std::collections::BTreeMap;

use exeunt_store::{Reader, records::RelationRecord};
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::Value;

use super::{
    Direction, Token, Viewer,
    access::RoomView,
    event::visible,
    timeline::{MAX_WALK, Stretch, beside},
};
use crate::RoomError;

/// Levels of relations that are followed on request.
pub const MAX_DEPTH: u64 = 3;
/// Most events that relations lead to, over all levels.
const MAX_RELATED: usize = 1_000;
/// Most events of a page, and those of one where the request names no limit.
const MAX_LIMIT: u64 = 100;
const DEFAULT_LIMIT: u64 = 10;

#[derive(Debug, Clone)]
pub struct RelationsRequest {
    pub viewer: Viewer,
    pub room_id: OwnedRoomId,
    pub parent: OwnedEventId,
    pub rel_type: Option<String>,
    /// The type of the child events.
    pub kind: Option<String>,
    pub from: Option<Token>,
    pub to: Option<Token>,
    pub direction: Direction,
    pub limit: Option<u64>,
    /// Whether relations are followed further; `None` where the request does not say.
    pub recurse: Option<bool>,
}

#[derive(Debug, Clone)]
pub struct RelationsPage {
    pub chunk: Vec<Value>,
    pub next_batch: Option<Token>,
    pub prev_batch: Option<Token>,
    pub recursion_depth: Option<u64>,
}

type Children<'c> = Box<dyn Iterator<Item = Result<(i64, RelationRecord), RoomError>> + 'c>;

impl RelationsRequest {
    fn wants(&self, child: &RelationRecord) -> bool {
        self.rel_type.as_ref().is_none_or(|rel_type| *rel_type == child.rel_type)
            && self.kind.as_ref().is_none_or(|kind| *kind == child.kind)
    }

    fn stretch(&self) -> Stretch {
        let (from, to) = (self.from.map(Token::order), self.to.map(Token::order));
        let (until, after) = match self.direction {
            Direction::Backward => (from, to),
            Direction::Forward => (to, from),
        };
        Stretch { after: after.unwrap_or(i64::MIN), until: until.unwrap_or(i64::MAX) }
    }
}

pub(super) fn relations(
    reader: &Reader<'_>,
    request: &RelationsRequest,
) -> Result<RelationsPage, RoomError> {
    let unknown = || RoomError::NotFound("Unknown event".into());
    let view = RoomView::open(reader, &request.viewer, &request.room_id)?.ok_or_else(unknown)?;
    visible(&view, &request.parent)?.ok_or_else(unknown)?;
    let (direction, stretch) = (request.direction, request.stretch());
    let children: Children<'_> = match request.recurse {
        Some(true) => {
            let found = related(&view, request)?;
            let inside = found.into_iter().filter(move |(o, _)| stretch.contains(*o)).map(Ok);
            match direction {
                Direction::Backward => Box::new(inside.rev()),
                Direction::Forward => Box::new(inside),
            }
        }
        _ => Box::new(view.children_in(&request.parent, stretch, direction)),
    };
    let limit = request.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT) as usize;
    let (mut chunk, mut next) = (Vec::new(), None);
    // The place next to the last event that was taken or passed over.
    let mut place = match direction {
        Direction::Backward => stretch.until,
        Direction::Forward => stretch.after,
    };
    for (looked_at, child) in children.enumerate() {
        let child = child?;
        if looked_at >= MAX_WALK {
            next = Some(place);
            break;
        }
        let wanted = request.wants(&child.1) && !view.ignores(&child.1.sender)?;
        if wanted && let Some(known) = view.seen_child(&child)? {
            if chunk.len() >= limit {
                next = Some(place);
                break;
            }
            chunk.push(view.client_event(&known)?);
        }
        place = beside(child.0, direction);
    }
    Ok(RelationsPage {
        chunk,
        next_batch: next.map(Token::Timeline),
        prev_batch: request.from,
        recursion_depth: request.recurse.map(|recurse| if recurse { MAX_DEPTH } else { 1 }),
    })
}

/// What relates to the parent, to that, and so on, by order. Only what the request wants leads
/// further.
fn related(
    view: &RoomView<'_>,
    request: &RelationsRequest,
) -> Result<BTreeMap<i64, RelationRecord>, RoomError> {
    let whole = Stretch { after: i64::MIN, until: i64::MAX };
    let mut found = BTreeMap::new();
    let mut level = vec![request.parent.clone()];
    for _ in 0..MAX_DEPTH {
        let mut below = Vec::new();
        for parent in level {
            for child in view.children_in(&parent, whole, Direction::Backward).take(MAX_RELATED) {
                let (order, child) = child?;
                if found.len() >= MAX_RELATED {
                    return Ok(found);
                }
                if request.wants(&child) && !found.contains_key(&order) {
                    below.push(child.event_id.clone());
                    found.insert(order, child);
                }
            }
        }
        level = below;
    }
    Ok(found)
}
