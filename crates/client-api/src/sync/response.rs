//! The body of `/sync`. Sections without content are left out.

use std::collections::BTreeMap;

use exeunt_core::Object;
use exeunt_room::views::{PendingRoom, Summary, Timeline, Token};
use exeunt_users::AccountData;
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use super::Answer;

pub(super) fn body(answer: &Answer, use_state_after: bool) -> Value {
    let view = &answer.view;
    let state_name = if use_state_after { "state_after" } else { "state" };
    let mut join: BTreeMap<OwnedRoomId, Value> = BTreeMap::new();
    for (room_id, room) in &view.join {
        let mut section = json!({
            state_name: events(&room.state),
            "timeline": timeline(&room.timeline),
            "ephemeral": events(&[]),
            "account_data": events(&[]),
        });
        if let Some(text) = &room.summary {
            section["summary"] = summary(text);
        }
        join.insert(room_id.clone(), section);
    }
    for (room_id, moment) in &answer.ephemeral.rooms {
        let section = join.entry(room_id.clone()).or_insert_with(|| json!({}));
        section["ephemeral"] = events(moment);
    }
    for (room_id, data) in room_account_data(answer) {
        let section = join.entry(room_id).or_insert_with(|| json!({}));
        section["account_data"] = events(&data);
    }
    let leave = view.leave.iter().map(|(room_id, room)| {
        let section =
            json!({ state_name: events(&room.state), "timeline": timeline(&room.timeline) });
        (room_id.to_string(), section)
    });
    let mut rooms = Object::new();
    let mut add = |name: &str, section: Object| {
        if !section.is_empty() {
            rooms.insert(name.into(), section.into());
        }
    };
    add("join", join.into_iter().map(|(room_id, room)| (room_id.to_string(), room)).collect());
    add("invite", pending(&view.invite, "invite_state"));
    add("knock", pending(&view.knock, "knock_state"));
    add("leave", leave.collect());

    let mut body = json!({ "next_batch": Token::Stream(view.next_batch).to_string() });
    if !rooms.is_empty() {
        body["rooms"] = rooms.into();
    }
    if !answer.ephemeral.presence.is_empty() {
        body["presence"] = events(&answer.ephemeral.presence);
    }
    let global = answer.account_data.iter().filter(|data| data.room_id.is_none());
    let global: Vec<Value> = global.map(account_data).collect();
    if !global.is_empty() {
        body["account_data"] = events(&global);
    }
    body
}

fn events(events: &[Value]) -> Value {
    json!({ "events": events })
}

fn timeline(timeline: &Timeline) -> Value {
    json!({
        "events": timeline.events,
        "limited": timeline.limited,
        "prev_batch": timeline.prev_batch.to_string(),
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

fn pending(rooms: &BTreeMap<OwnedRoomId, PendingRoom>, name: &str) -> Object {
    let section = |room: &PendingRoom| json!({ name: events(&room.state) });
    rooms.iter().map(|(room_id, room)| (room_id.to_string(), section(room))).collect()
}

/// Account data of joined rooms.
fn room_account_data(answer: &Answer) -> BTreeMap<OwnedRoomId, Vec<Value>> {
    let mut rooms: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for data in &answer.account_data {
        if let Some(room_id) = data.room_id.as_ref().filter(|room| answer.joined.contains(room)) {
            rooms.entry(room_id.clone()).or_default().push(account_data(data));
        }
    }
    rooms
}

fn account_data(data: &AccountData) -> Value {
    json!({ "type": data.kind, "content": data.content })
}
