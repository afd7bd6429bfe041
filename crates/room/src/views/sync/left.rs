//! `rooms.leave`: rooms that the user has left, was removed from, or whose invite is over.

use exeunt_core::{Object, wire::ClientEvent};
use exeunt_store::{
    Reader, StoreError,
    records::{MembershipRecord, Root},
};
use ruma::RoomId;
use serde_json::Value;

use super::{LeftRoom, SyncRequest, Timeline, Told, joined::recent};
use crate::{
    RoomError,
    views::{Token, access::RoomView, delta::Delta, render},
};

pub(super) fn left(
    reader: &Reader<'_>,
    request: &SyncRequest,
    room_id: &RoomId,
    member: &MembershipRecord,
) -> Result<LeftRoom, RoomError> {
    let mut view = RoomView::open(reader, &request.viewer, room_id)?;
    if let Some(view) = &mut view {
        view.format = request.filter.event_format;
    }
    let mut room = match &view {
        Some(view) => of_graph(view, request, member)?,
        None => LeftRoom {
            state: Vec::new(),
            timeline: Timeline {
                events: Vec::new(),
                limited: false,
                prev_batch: Token::Timeline(member.position.cast_signed()),
            },
        },
    };
    add_departure(view.as_ref(), request, room_id, member, &mut room)?;
    if request.use_state_after {
        add_to_state(member, &mut room);
    }
    Ok(room)
}

/// The departure is part of the state after the timeline: a client that asks for that takes
/// memberships from nowhere else (MSC4222).
fn add_to_state(member: &MembershipRecord, room: &mut LeftRoom) {
    let event = room.timeline.events.iter().find(|event| is_departure(member, event)).cloned();
    if let Some(event) = event.filter(|_| !has_departure(member, room)) {
        room.state.push(event);
    }
}

fn has_departure(member: &MembershipRecord, room: &LeftRoom) -> bool {
    room.state.iter().any(|event| is_departure(member, event))
}

fn is_departure(member: &MembershipRecord, event: &ClientEvent) -> bool {
    event.has_id(&member.event_id)
}

/// What the user saw up to the departure; of a room in which the user never was, nothing but the
/// events about the user.
fn of_graph(
    view: &RoomView<'_>,
    request: &SyncRequest,
    member: &MembershipRecord,
) -> Result<LeftRoom, RoomError> {
    let since = request.since.unwrap_or(0);
    let shown = recent(view, request, since, member.position, false)?;
    let stay_end = view.stay.and_then(|stay| stay.left);
    let state = match stay_end.filter(|left| *left > since) {
        None => Vec::new(),
        Some(left) => {
            let end = view.root_at(left)?;
            let was_joined = request.since.is_some() && view.was_joined(since)?;
            let known = was_joined && !request.full_state;
            let delta = Delta {
                base: if known { view.root_at(since)? } else { Root::EMPTY },
                start: shown.start.map_or(Ok(end), |position| view.root_at(position.min(left)))?,
                end,
                timeline: &shown.walk.events,
                after: request.use_state_after,
                heroes: &[],
                told: &Told::default(),
            };
            delta.events(view, &request.filter.room.state)?
        }
    };
    Ok(LeftRoom { state, timeline: shown.render(view)? })
}

/// A departure that has no place in the room's timeline ends the timeline that we show: one of a
/// room that we do not reside in, or one that we learnt of with the room's state. Where no timeline
/// is asked for it is in the state (row LV3).
fn add_departure(
    view: Option<&RoomView<'_>>,
    request: &SyncRequest,
    room_id: &RoomId,
    member: &MembershipRecord,
    room: &mut LeftRoom,
) -> Result<(), RoomError> {
    let filters = &request.filter.room;
    let in_timeline = filters.timeline.limit() > 0;
    let is_wanted = match in_timeline {
        true => filters.timeline.allows_room(room_id),
        false => {
            filters.state.allows_room(room_id)
                && filters.state.allows_kind("m.room.member")
                && filters.state.allows_sender(&member.sender)
                && !has_departure(member, room)
        }
    };
    let event = match (is_wanted, &member.local_event, view) {
        (true, Some(event), _) => local_form(event, request, member)?,
        (true, None, Some(view)) => match view.graph.event(&member.event_id)? {
            Some(known)
                if known.record.order.is_none()
                    && (!in_timeline || filters.timeline.allows(&known.pdu)) =>
            {
                view.sync_event(&known)?
            }
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    if in_timeline {
        room.timeline.events.push(event);
    } else {
        room.state.push(event);
        room.timeline.limited = true;
    }
    Ok(())
}

/// The client form of a leave that no graph holds. Its room version is not kept with it, and a
/// member event needs none to be shown.
fn local_form(
    event: &Object,
    request: &SyncRequest,
    member: &MembershipRecord,
) -> Result<ClientEvent, RoomError> {
    let mut fields = Object::new();
    for field in ["type", "sender", "state_key", "content", "origin_server_ts"] {
        let value = event.get(field).cloned().ok_or_else(|| damaged(member, field))?;
        fields.insert(field.into(), value);
    }
    fields.insert("event_id".into(), member.event_id.as_str().into());
    let sent = event.get("origin_server_ts").and_then(Value::as_u64);
    let unsigned = render::age(sent.unwrap_or(0), request.viewer.now);
    Ok(ClientEvent::of_fields(fields, unsigned))
}

fn damaged(member: &MembershipRecord, field: &str) -> RoomError {
    let key = format!("local event {}: no {field}", member.event_id);
    StoreError::Corrupt { table: "Memberships", key }.into()
}
