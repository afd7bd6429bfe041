//! `rooms.join`: rooms that the user is in.

use exeunt_store::records::Root;
use serde_json::Value;

use super::{JoinedRoom, Memory, SyncRequest, Timeline, Told, own_rules::OwnRules};
use crate::{
    RoomError,
    ephemeral::receipts,
    views::{
        Token,
        access::RoomView,
        delta::Delta,
        messages::Direction,
        timeline::{Gaps, Stretch, Walk},
    },
};

/// What the room is to the client.
pub(super) struct Joined {
    pub is_new: bool,
    /// The event that tells of receipts.
    pub receipts: Option<Value>,
    /// `None` if there is nothing new.
    pub section: Option<JoinedRoom>,
}

pub(super) fn joined(
    view: &RoomView<'_>,
    request: &SyncRequest,
    memory: &Memory,
    told: &Told,
    rules: &OwnRules<'_>,
    now: u64,
) -> Result<Joined, RoomError> {
    let since = request.since.unwrap_or(0);
    let whole = request.since.is_none() || request.full_state;
    let newly_joined = request.since.is_some() && !view.was_joined(since)?;
    let is_new = request.since.is_none() || newly_joined;
    let after = if is_new { 0 } else { since };

    let (reader, room_id, user) = (view.graph.reader, &view.graph.room_id, &view.viewer.user);
    let wanted = &request.filter.room.ephemeral;
    let tells_receipts = (is_new || memory.receipts.may_be_after(since, room_id))
        && wanted.allows_kind("m.receipt")
        && wanted.allows_room(room_id);
    let receipts = match tells_receipts {
        true => receipts::of_room(reader, room_id)?,
        false => receipts::of_user(reader, room_id, user)?,
    };
    let marks = view.marks(&receipts)?;
    let has_read = marks.position > since;
    let receipts = receipts::told(receipts, user, after).filter(|_| tells_receipts);
    if !whole && view.graph.room.position <= since && !has_read {
        return Ok(Joined { is_new: false, receipts, section: None });
    }

    let has_more = newly_joined || is_new && view.begins_elsewhere()?;
    let shown = recent(view, request, after, now, has_more)?;
    let base = if is_new || request.full_state { Root::EMPTY } else { view.root_at(since)? };
    let end = view.graph.room.state;
    let summary = match base {
        Root::EMPTY => Some(view.summary()?),
        base if has_member_changes(view, base, end)? => Some(view.summary()?),
        _ => None,
    };
    let state = Delta {
        base,
        start: shown.start.map_or(Ok(end), |position| view.root_at(position))?,
        end,
        timeline: &shown.walk.events,
        after: request.use_state_after,
        heroes: summary.as_ref().map_or(&[], |summary| &summary.heroes),
        told,
    }
    .events(view, &request.filter.room.state)?;
    let timeline = shown.render(view)?;
    let is_news = whole || newly_joined || has_read || summary.is_some() || timeline.limited;
    let section = match is_news || !timeline.events.is_empty() || !state.is_empty() {
        true => {
            let unread = view.unread(&marks, rules)?;
            Some(JoinedRoom { summary, state, timeline, unread })
        }
        false => None,
    };
    Ok(Joined { is_new, receipts, section })
}

fn has_member_changes(view: &RoomView<'_>, base: Root, end: Root) -> Result<bool, RoomError> {
    Ok(view.graph.diff(base, end)?.iter().any(|change| change.key.kind == "m.room.member"))
}

/// The newest events of a room, oldest first.
pub(super) struct Recent {
    pub walk: Walk,
    /// Stream position before the first event; `None` without events.
    pub start: Option<u64>,
    prev_batch: i64,
    limited: bool,
}

/// The events above `after` and up to `until`, as many as the filter wants. Backfilled history is
/// left to `/messages`. `has_more`: there are older ones, whatever the walk finds.
pub(super) fn recent(
    view: &RoomView<'_>,
    request: &SyncRequest,
    after: u64,
    until: u64,
    has_more: bool,
) -> Result<Recent, RoomError> {
    let filter = &request.filter.room.timeline;
    let stretch = Stretch { after: after.cast_signed(), until: until.cast_signed() };
    let mut walk = view.walk(stretch, Direction::Backward, filter.limit(), filter, Gaps::End)?;
    walk.events.reverse();
    let first = walk.events.first().map(|(order, _)| order.saturating_sub(1));
    Ok(Recent {
        start: first.map(|order| Token::Timeline(order).position()),
        prev_batch: walk.next.or(first).unwrap_or(stretch.until),
        limited: walk.next.is_some() || has_more,
        walk,
    })
}

impl Recent {
    pub fn render(&self, view: &RoomView<'_>) -> Result<Timeline, RoomError> {
        let events = self.walk.events.iter().map(|(_, known)| match self.limited {
            true => view.sync_event_with_children(known),
            false => view.sync_event(known),
        });
        Ok(Timeline {
            events: events.collect::<Result<_, _>>()?,
            limited: self.limited,
            prev_batch: Token::Timeline(self.prev_batch),
        })
    }
}
