//! What a sync says, as a client reads it.

use std::collections::BTreeMap;

use exeunt_core::wire::ClientEvent;
use exeunt_room::views::{self, PendingRoom, Summary, SyncView, Token, Unread};
use ruma::OwnedRoomId;
use serde_json::Value;

/// An answer to `/sync`, whose events are JSON as a client gets them.
#[derive(Debug)]
pub struct Answer {
    pub next_batch: u64,
    pub join: BTreeMap<OwnedRoomId, Room>,
    pub invite: BTreeMap<OwnedRoomId, PendingRoom>,
    pub knock: BTreeMap<OwnedRoomId, PendingRoom>,
    pub leave: BTreeMap<OwnedRoomId, Room>,
    pub joined: BTreeMap<OwnedRoomId, bool>,
    is_empty: bool,
}

#[derive(Debug)]
pub struct Room {
    pub summary: Option<Summary>,
    pub state: Vec<Value>,
    pub timeline: Timeline,
    pub unread: Unread,
}

#[derive(Debug)]
pub struct Timeline {
    pub events: Vec<Value>,
    pub limited: bool,
    pub prev_batch: Token,
}

impl Answer {
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }
}

impl From<SyncView> for Answer {
    fn from(view: SyncView) -> Self {
        let is_empty = view.is_empty();
        let join = view.join.into_iter().map(|(id, room)| {
            let (state, timeline) = (json(room.state), Timeline::from(room.timeline));
            (id, Room { summary: room.summary, state, timeline, unread: room.unread })
        });
        let leave = view.leave.into_iter().map(|(id, room)| {
            let (state, timeline) = (json(room.state), Timeline::from(room.timeline));
            (id, Room { summary: None, state, timeline, unread: Unread::default() })
        });
        Self {
            next_batch: view.next_batch,
            join: join.collect(),
            invite: view.invite,
            knock: view.knock,
            leave: leave.collect(),
            joined: view.joined,
            is_empty,
        }
    }
}

impl From<views::Timeline> for Timeline {
    fn from(views::Timeline { events, limited, prev_batch }: views::Timeline) -> Self {
        Self { events: json(events), limited, prev_batch }
    }
}

fn json(events: Vec<ClientEvent>) -> Vec<Value> {
    events.into_iter().map(Value::from).collect()
}
