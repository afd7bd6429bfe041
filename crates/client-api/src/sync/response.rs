//! The body of `/sync`. Sections without content are left out, but not those of a joined or left
//! room: clients have come to expect them.

use std::collections::BTreeMap;

use exeunt_core::Object;
use exeunt_room::views::{
    Counts, FieldPath, JoinedRoom, LeftRoom, PendingRoom, Summary, Timeline, Token, Unread,
};
use exeunt_users::AccountData;
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use super::{Answer, SyncCall};

pub(super) fn body(answer: Answer, call: &SyncCall) -> Value {
    let Answer { view, ephemeral, account_data } = answer;
    let form = Form {
        state: call.state.name(),
        fields: call.filter.event_fields.as_deref(),
        by_thread: call.filter.room.timeline.unread_thread_notifications,
    };
    let (global, of_rooms): (Vec<_>, Vec<_>) =
        account_data.into_iter().partition(|data| data.room_id.is_none());

    let mut join: BTreeMap<OwnedRoomId, Value> = BTreeMap::new();
    for (room_id, room) in view.join {
        join.insert(room_id, form.joined(room));
    }
    let mut section = |room_id: OwnedRoomId, name: &str, content: Vec<Value>| {
        let room = join.entry(room_id).or_insert_with(|| form.unchanged(view.next_batch));
        room[name] = events(content);
    };
    for (room_id, moment) in ephemeral.rooms {
        section(room_id, "ephemeral", moment);
    }
    let mut of_rooms = by_room(of_rooms);
    let mut leave = Object::new();
    for (room_id, room) in view.leave {
        let account_data = of_rooms.remove(&room_id).unwrap_or_default();
        leave.insert(room_id.into(), form.left(room, account_data));
    }
    for (room_id, data) in of_rooms {
        section(room_id, "account_data", data);
    }

    let mut rooms = Object::new();
    let mut add = |name: &str, section: Object| {
        if !section.is_empty() {
            rooms.insert(name.into(), section.into());
        }
    };
    add("join", join.into_iter().map(|(room_id, room)| (room_id.into(), room)).collect());
    add("invite", pending(view.invite, "invite_state"));
    add("knock", pending(view.knock, "knock_state"));
    add("leave", leave);

    let mut body = json!({ "next_batch": Token::Stream(view.next_batch).to_string() });
    if !rooms.is_empty() {
        body["rooms"] = rooms.into();
    }
    if !ephemeral.presence.is_empty() {
        body["presence"] = events(ephemeral.presence);
    }
    if !global.is_empty() {
        body["account_data"] = events(global.into_iter().map(event).collect());
    }
    body
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

impl Form<'_> {
    fn joined(&self, room: JoinedRoom) -> Value {
        let mut section = object([
            (self.state, events(self.picked(room.state))),
            ("timeline", self.timeline(room.timeline)),
            ("ephemeral", events(Vec::new())),
            ("account_data", events(Vec::new())),
        ]);
        if let Some(text) = &room.summary {
            section["summary"] = summary(text);
        }
        self.add_unread(&mut section, &room.unread);
        section
    }

    /// A joined room in which nothing happened.
    fn unchanged(&self, now: u64) -> Value {
        let prev_batch = Token::Stream(now).to_string();
        json!({
            self.state: events(Vec::new()),
            "timeline": { "events": [], "limited": false, "prev_batch": prev_batch },
            "ephemeral": events(Vec::new()),
            "account_data": events(Vec::new()),
        })
    }

    fn left(&self, room: LeftRoom, account_data: Vec<Value>) -> Value {
        object([
            (self.state, events(self.picked(room.state))),
            ("timeline", self.timeline(room.timeline)),
            ("account_data", events(account_data)),
        ])
    }

    fn timeline(&self, timeline: Timeline) -> Value {
        object([
            ("events", self.picked(timeline.events).into()),
            ("limited", timeline.limited.into()),
            ("prev_batch", timeline.prev_batch.to_string().into()),
        ])
    }

    fn picked(&self, events: Vec<Value>) -> Vec<Value> {
        match self.fields {
            None => events,
            Some(fields) => events.iter().map(|event| FieldPath::pick(fields, event)).collect(),
        }
    }

    fn add_unread(&self, section: &mut Value, unread: &Unread) {
        if !self.by_thread {
            section["unread_notifications"] = counts(unread.total());
            return;
        }
        section["unread_notifications"] = counts(unread.main);
        let threads = unread.threads.iter();
        let threads: Object = threads.map(|(root, of)| (root.to_string(), counts(*of))).collect();
        if !threads.is_empty() {
            section["unread_thread_notifications"] = threads.into();
        }
    }
}

fn counts(counts: Counts) -> Value {
    json!({
        "notification_count": counts.notifications,
        "highlight_count": counts.highlights,
    })
}

fn events(events: Vec<Value>) -> Value {
    object([("events", events.into())])
}

/// Moves what `json!` would copy.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
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
    let section = |room: PendingRoom| object([(name, events(room.state))]);
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
    object([("type", data.kind.into()), ("content", data.content.into())])
}
