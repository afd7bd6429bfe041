//! What is new to a user since a stream position. Specification: client-server API, "GET /sync".

mod joined;
mod lazy;
mod left;
mod own_rules;
mod pending;
mod unread;

use std::{collections::BTreeMap, sync::Arc};

use exeunt_core::wire::ClientEvent;
use exeunt_store::{LastNews, Reader, records::MembershipRecord, tables};
use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use serde_json::Value;

use super::{Filter, Summary, Viewer, access::RoomView};
use crate::{
    RoomError,
    graph::missing_in_store,
    invite_policy::{InviteFate, InvitePolicy, ignored_users},
};

pub(crate) use lazy::{LazyMembers, Told};
pub(crate) use own_rules::Remembered;
pub use unread::{Counts, MAX_UNREAD, Unread};

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
    /// The events that tell of receipts, by joined room.
    pub receipts: BTreeMap<OwnedRoomId, Value>,
    /// All rooms that the user is in and the filter wants, with or without news; whether the room
    /// is new to the client.
    pub joined: BTreeMap<OwnedRoomId, bool>,
}

impl SyncView {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.join.is_empty()
            && self.invite.is_empty()
            && self.knock.is_empty()
            && self.leave.is_empty()
            && self.receipts.is_empty()
    }
}

#[derive(Debug, Clone)]
pub struct JoinedRoom {
    /// Only where it may have changed.
    pub summary: Option<Summary>,
    pub state: Vec<ClientEvent>,
    pub timeline: Timeline,
    pub unread: Unread,
}

#[derive(Debug, Clone)]
pub struct LeftRoom {
    pub state: Vec<ClientEvent>,
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
    pub events: Vec<ClientEvent>,
    pub limited: bool,
    /// The order that the events before have at most.
    pub prev_batch: super::Token,
}

/// What a sync knows beside the store.
#[derive(Clone)]
pub(super) struct Memory {
    pub news: LastNews<OwnedRoomId>,
    pub receipts: LastNews<OwnedRoomId>,
    pub lazy_members: LazyMembers,
    pub remembered: Remembered,
}

impl Memory {
    fn may_have_news(&self, room_id: &RoomId, since: u64) -> bool {
        self.news.may_be_after(since, room_id) || self.receipts.may_be_after(since, room_id)
    }
}

pub(super) fn sync(
    reader: &Reader<'_>,
    request: SyncRequest,
    memory: &Memory,
) -> Result<SyncView, RoomError> {
    let now = reader.position()?;
    if request.since.is_some_and(|since| since > now) {
        return Err(RoomError::InvalidParam("The token is not one of ours".into()));
    }
    let ignored = Arc::new(ignored_users(reader, &request.viewer.user)?);
    let (request, lazy_device) = (&request, lazy_device(&request));
    let since = request.since.unwrap_or(0);
    let told = lazy_device.as_ref().map(|device| memory.lazy_members.told(device, since));
    let told = told.unwrap_or_default();
    let mut view = SyncView { next_batch: now, ..SyncView::default() };
    let rows = reader.scan::<tables::Memberships>(request.viewer.user.clone()).collect()?;
    let mut joins = Vec::new();
    let mut policy = None;
    for ((_, room_id), member) in rows {
        if !request.filter.room.allows_room(&room_id) {
            continue;
        }
        let is_news = request.since.is_none_or(|since| member.position > since);
        match member.membership.as_str() {
            "join" => {
                let may_be_news = is_news || request.full_state;
                if !may_be_news && !memory.may_have_news(&room_id, since) {
                    view.joined.insert(room_id, false);
                    continue;
                }
                joins.push((room_id, member));
            }
            "invite" => {
                let policy = match &policy {
                    Some(known) => known,
                    None => policy.insert(InvitePolicy::of(reader, &request.viewer.user)?),
                };
                // What the user has said of invites may have hidden one that is shown from now on.
                let is_news = is_news || policy.changed_at > since;
                if !is_news || policy.judge(&member.sender) != InviteFate::Shown {
                    continue;
                }
                view.invite.insert(room_id.clone(), pending::pending(reader, request, &room_id)?);
            }
            "knock" if is_news => {
                view.knock.insert(room_id.clone(), pending::pending(reader, request, &room_id)?);
            }
            "leave" | "ban" if is_news => {
                if request.since.is_none() && !is_told_at_first(request, &member) {
                    continue;
                }
                view.leave.insert(room_id.clone(), left::left(reader, request, &room_id, &member)?);
            }
            _ => {}
        }
    }
    let rules = own_rules::OwnRules::new(&memory.remembered);
    let read = |reader: &Reader<'_>, joins| -> Result<Vec<_>, RoomError> {
        let read = |(room_id, member): (OwnedRoomId, MembershipRecord)| {
            let event_id = member.event_id.clone();
            let mut room = RoomView::open_as(reader, &request.viewer, &room_id, Some(member))?
                .ok_or_else(|| missing_in_store(&event_id))?;
            room.format = request.filter.event_format;
            room.ignored = Arc::clone(&ignored).into();
            Ok((room_id, joined::joined(&room, request, memory, &told, &rules, now)?))
        };
        Vec::into_iter(joins).map(read).collect()
    };
    let parts = match request.since {
        Some(_) => vec![read(reader, joins)],
        // Of a first sync the rooms are nearly all of the work.
        None => reader.split(joins, read),
    };
    for part in parts {
        for (room_id, joined) in part? {
            view.joined.insert(room_id.clone(), joined.is_new);
            view.receipts.extend(joined.receipts.map(|event| (room_id.clone(), event)));
            view.join.extend(joined.section.map(|section| (room_id, section)));
        }
    }
    if let Some(device) = lazy_device {
        memory.lazy_members.note(&device, since, now, members_in(&view));
    }
    Ok(view)
}

/// Whether a first sync has a room that the user is out of: whoever was removed by others is told,
/// until they forget it. Later syncs tell of what is forgotten too, for another device may forget the
/// room before this one has heard of the departure.
fn is_told_at_first(request: &SyncRequest, member: &MembershipRecord) -> bool {
    let left = member.membership == "leave" && member.sender == request.viewer.user;
    !member.forgotten && (request.filter.room.include_leave || !left)
}

/// The device whose members are remembered: one that wants each only once.
fn lazy_device(request: &SyncRequest) -> Option<(OwnedUserId, OwnedDeviceId)> {
    let filter = &request.filter.room.state;
    let once = filter.lazy_load_members && !filter.include_redundant_members;
    let device = request.viewer.device.clone().filter(|_| once)?;
    Some((request.viewer.user.clone(), device))
}

/// The member events of joined rooms.
fn members_in(view: &SyncView) -> Vec<OwnedEventId> {
    let events = view.join.values().flat_map(|room| room.state.iter().chain(&room.timeline.events));
    let events = events.filter_map(ClientEvent::event);
    let members = events.filter(|event| event.kind() == "m.room.member");
    members.map(|event| event.event_id().to_owned()).collect()
}
