//! The body of `/sync`. Sections without content are left out, but not those of a joined or left
//! room: clients have come to expect them.

use std::collections::BTreeMap;

use exeunt_core::{Object, wire::ClientEvent};
use exeunt_room::views::{
    Counts, FieldPath, JoinedRoom, LeftRoom, PendingRoom, Summary, Timeline, Token, Unread,
};
use exeunt_users::AccountData;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use ruma::OwnedRoomId;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::{Answer, SyncCall};

/// Joined rooms that one thread writes; more are written on all processors.
pub(super) const FEW: usize = 10;

/// Written straight from what was read: of a first sync a [`Value`] would be the larger part of the
/// work.
pub(super) fn body(answer: Answer, call: &SyncCall) -> Vec<u8> {
    let Answer { view, ephemeral, account_data } = answer;
    let form = Form {
        state: call.state.name(),
        fields: call.filter().event_fields.as_deref(),
        by_thread: call.filter().room.timeline.unread_thread_notifications,
    };
    let (global, of_rooms): (Vec<_>, Vec<_>) =
        account_data.into_iter().partition(|data| data.room_id.is_none());

    let mut join: BTreeMap<OwnedRoomId, Joined<'_>> = BTreeMap::new();
    for (room_id, room) in view.join {
        join.insert(room_id, Joined::new(&form, room));
    }
    let unchanged = || Joined::unchanged(&form, view.next_batch);
    for (room_id, moment) in ephemeral.rooms {
        join.entry(room_id).or_insert_with(unchanged).ephemeral = moment;
    }
    let mut of_rooms = by_room(of_rooms);
    let mut leave = BTreeMap::new();
    for (room_id, room) in view.leave {
        let account_data = of_rooms.remove(&room_id).unwrap_or_default();
        leave.insert(room_id, Left { form: &form, room, account_data });
    }
    for (room_id, data) in of_rooms {
        join.entry(room_id).or_insert_with(unchanged).account_data = data;
    }
    let (invite, knock) =
        (pending(view.invite, "invite_state"), pending(view.knock, "knock_state"));
    let body = Body {
        next_batch: Token::Stream(view.next_batch).to_string(),
        rooms: RoomSections { join: written(join), invite, knock, leave },
        presence: ephemeral.presence,
        account_data: global.into_iter().map(event).collect(),
    };
    serde_json::to_vec(&body).expect("an answer is JSON")
}

fn written(rooms: BTreeMap<OwnedRoomId, Joined<'_>>) -> BTreeMap<OwnedRoomId, Box<RawValue>> {
    let write = |(room_id, room)| (room_id, to_raw_value(&room).expect("a room is JSON"));
    match rooms.len() <= FEW {
        true => rooms.into_iter().map(write).collect(),
        false => rooms.into_par_iter().map(write).collect(),
    }
}

struct Body<'f> {
    next_batch: String,
    rooms: RoomSections<'f>,
    presence: Vec<Value>,
    account_data: Vec<Value>,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("next_batch", &self.next_batch)?;
        if !self.rooms.is_empty() {
            map.serialize_entry("rooms", &self.rooms)?;
        }
        for (name, list) in [("presence", &self.presence), ("account_data", &self.account_data)] {
            if !list.is_empty() {
                map.serialize_entry(name, &Events { events: list })?;
            }
        }
        map.end()
    }
}

#[derive(Serialize)]
struct RoomSections<'f> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    join: BTreeMap<OwnedRoomId, Box<RawValue>>,
    #[serde(skip_serializing_if = "Object::is_empty")]
    invite: Object,
    #[serde(skip_serializing_if = "Object::is_empty")]
    knock: Object,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    leave: BTreeMap<OwnedRoomId, Left<'f>>,
}

impl RoomSections<'_> {
    fn is_empty(&self) -> bool {
        self.join.is_empty()
            && self.invite.is_empty()
            && self.knock.is_empty()
            && self.leave.is_empty()
    }
}

/// How the client wants the rooms.
struct Form<'a> {
    /// Name of the section with the state.
    state: &'a str,
    /// The parts of events that it wants; `None`: all.
    fields: Option<&'a [FieldPath]>,
    /// Whether unread events of threads are counted apart.
    by_thread: bool,
}

struct Joined<'f> {
    form: &'f Form<'f>,
    state: Vec<ClientEvent>,
    timeline: Timeline,
    ephemeral: Vec<Value>,
    account_data: Vec<Value>,
    summary: Option<Summary>,
    unread: Option<Unread>,
}

impl<'f> Joined<'f> {
    fn new(form: &'f Form<'f>, room: JoinedRoom) -> Self {
        Self {
            form,
            state: room.state,
            timeline: room.timeline,
            ephemeral: Vec::new(),
            account_data: Vec::new(),
            summary: room.summary,
            unread: Some(room.unread),
        }
    }

    /// A joined room in which nothing happened.
    fn unchanged(form: &'f Form<'f>, now: u64) -> Self {
        Self {
            form,
            state: Vec::new(),
            timeline: Timeline {
                events: Vec::new(),
                limited: false,
                prev_batch: Token::Stream(now),
            },
            ephemeral: Vec::new(),
            account_data: Vec::new(),
            summary: None,
            unread: None,
        }
    }
}

impl Serialize for Joined<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.form.add_events(&mut map, &self.state, &self.timeline)?;
        map.serialize_entry("ephemeral", &Events { events: &self.ephemeral })?;
        map.serialize_entry("account_data", &Events { events: &self.account_data })?;
        if let Some(text) = &self.summary {
            map.serialize_entry("summary", &summary(text))?;
        }
        if let Some(unread) = &self.unread {
            self.form.add_unread(&mut map, unread)?;
        }
        map.end()
    }
}

struct Left<'f> {
    form: &'f Form<'f>,
    room: LeftRoom,
    account_data: Vec<Value>,
}

impl Serialize for Left<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.form.add_events(&mut map, &self.room.state, &self.room.timeline)?;
        map.serialize_entry("account_data", &Events { events: &self.account_data })?;
        map.end()
    }
}

impl Form<'_> {
    fn add_events<M: SerializeMap>(
        &self,
        map: &mut M,
        state: &[ClientEvent],
        timeline: &Timeline,
    ) -> Result<(), M::Error> {
        #[derive(Serialize)]
        struct Section<'e> {
            events: Picked<'e>,
            limited: bool,
            prev_batch: String,
        }
        let picked = |events| Picked { events, fields: self.fields };
        map.serialize_entry(self.state, &Events { events: picked(state) })?;
        let section = Section {
            events: picked(&timeline.events),
            limited: timeline.limited,
            prev_batch: timeline.prev_batch.to_string(),
        };
        map.serialize_entry("timeline", &section)
    }

    fn add_unread<M: SerializeMap>(&self, map: &mut M, unread: &Unread) -> Result<(), M::Error> {
        const NAME: &str = "unread_notifications";
        if !self.by_thread {
            return map.serialize_entry(NAME, &counts(unread.total()));
        }
        map.serialize_entry(NAME, &counts(unread.main))?;
        let threads = unread.threads.iter();
        let threads: Object = threads.map(|(root, of)| (root.to_string(), counts(*of))).collect();
        match threads.is_empty() {
            true => Ok(()),
            false => map.serialize_entry("unread_thread_notifications", &threads),
        }
    }
}

#[derive(Serialize)]
struct Events<E> {
    events: E,
}

/// Events, or the parts of them that are wanted.
struct Picked<'e> {
    events: &'e [ClientEvent],
    fields: Option<&'e [FieldPath]>,
}

impl Serialize for Picked<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(fields) = self.fields else { return self.events.serialize(serializer) };
        let events = self.events.iter().map(|event| Value::from(event.clone()));
        serializer.collect_seq(events.map(|event| FieldPath::pick(fields, &event)))
    }
}

fn counts(counts: Counts) -> Value {
    json!({
        "notification_count": counts.notifications,
        "highlight_count": counts.highlights,
    })
}

fn summary(summary: &Summary) -> Value {
    let mut section = json!({ "m.joined_member_count": summary.joined });
    if !summary.heroes.is_empty() {
        section["m.heroes"] = json!(summary.heroes);
    }
    if let Some(invited) = summary.invited {
        section["m.invited_member_count"] = invited.into();
    }
    section
}

fn pending(rooms: BTreeMap<OwnedRoomId, PendingRoom>, name: &str) -> Object {
    let section = |room: PendingRoom| json!({ name: { "events": room.state } });
    rooms.into_iter().map(|(room_id, room)| (room_id.into(), section(room))).collect()
}

fn by_room(account_data: Vec<AccountData>) -> BTreeMap<OwnedRoomId, Vec<Value>> {
    let mut rooms: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for mut data in account_data {
        if let Some(room_id) = data.room_id.take() {
            rooms.entry(room_id).or_default().push(event(data));
        }
    }
    rooms
}

fn event(data: AccountData) -> Value {
    json!({ "type": data.kind, "content": data.content })
}
