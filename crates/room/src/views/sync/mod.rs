//! What is new to a user since a stream position. Specification: client-server API, "GET /sync".

mod joined;
mod left;
mod pending;

use std::collections::BTreeMap;

use exeunt_store::{Reader, tables};
use ruma::OwnedRoomId;
use serde_json::Value;

use super::{Filter, Summary, Viewer, access::RoomView};
use crate::{
    RoomError,
    graph::missing_in_store,
    invite_policy::{InviteFate, InvitePolicy},
};

#[derive(Debug, Clone)]
pub struct SyncRequest {
    pub viewer: Viewer,
    /// The stream position of the last sync; `None` for the first.
    pub since: Option<u64>,
    pub filter: Filter,
    pub full_state: bool,
    /// State up to the end of the timeline, not to its start (MSC4222).
    pub use_state_after: bool,
}

/// An answer to `/sync`, as far as rooms go.
#[derive(Debug, Clone, Default)]
pub struct SyncView {
    /// Stream position to go on from.
    pub next_batch: u64,
    pub join: BTreeMap<OwnedRoomId, JoinedRoom>,
    pub invite: BTreeMap<OwnedRoomId, PendingRoom>,
    pub knock: BTreeMap<OwnedRoomId, PendingRoom>,
    pub leave: BTreeMap<OwnedRoomId, LeftRoom>,
    /// All rooms that the user is in and the filter wants, with or without news, and since when:
    /// the stream position of the member event.
    pub joined: BTreeMap<OwnedRoomId, u64>,
}

impl SyncView {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.join.is_empty()
            && self.invite.is_empty()
            && self.knock.is_empty()
            && self.leave.is_empty()
    }
}

#[derive(Debug, Clone)]
pub struct JoinedRoom {
    /// Only where it may have changed.
    pub summary: Option<Summary>,
    pub state: Vec<Value>,
    pub timeline: Timeline,
}

#[derive(Debug, Clone)]
pub struct LeftRoom {
    pub state: Vec<Value>,
    pub timeline: Timeline,
}

/// An invite or a knock: stripped state, with the user's own member event.
#[derive(Debug, Clone)]
pub struct PendingRoom {
    pub state: Vec<Value>,
}

#[derive(Debug, Clone)]
pub struct Timeline {
    /// Oldest first.
    pub events: Vec<Value>,
    pub limited: bool,
    /// The order that the events before have at most.
    pub prev_batch: super::Token,
}

pub(super) fn sync(reader: &Reader<'_>, request: &SyncRequest) -> Result<SyncView, RoomError> {
    let now = reader.position();
    if request.since.is_some_and(|since| since > now) {
        return Err(RoomError::InvalidParam("The token is not one of ours".into()));
    }
    let mut view = SyncView { next_batch: now, ..SyncView::default() };
    let rows = reader.scan::<tables::Memberships>(request.viewer.user.clone()).collect()?;
    let mut policy = None;
    for ((_, room_id), member) in rows {
        if !request.filter.room.allows_room(&room_id) {
            continue;
        }
        let is_news = request.since.is_none_or(|since| member.position > since);
        match member.membership.as_str() {
            "join" => {
                let room = RoomView::open(reader, &request.viewer, &room_id)?
                    .ok_or_else(|| missing_in_store(&member.event_id))?;
                view.joined.insert(room_id.clone(), member.position);
                if let Some(room) = joined::joined(&room, request, now)? {
                    view.join.insert(room_id, room);
                }
            }
            "invite" if is_news => {
                let policy = match &policy {
                    Some(known) => known,
                    None => policy.insert(InvitePolicy::of(reader, &request.viewer.user)?),
                };
                if policy.judge(&member.sender) != InviteFate::Shown {
                    continue;
                }
                view.invite.insert(room_id.clone(), pending::pending(reader, request, &room_id)?);
            }
            "knock" if is_news => {
                view.knock.insert(room_id.clone(), pending::pending(reader, request, &room_id)?);
            }
            "leave" | "ban" if is_news => {
                // Another device may forget the room before this one has heard of the departure.
                let first = request.since.is_none();
                if first && (member.forgotten || !request.filter.room.include_leave) {
                    continue;
                }
                view.leave.insert(room_id.clone(), left::left(reader, request, &room_id, &member)?);
            }
            _ => {}
        }
    }
    Ok(view)
}
