//! `exeunt departures list`

use std::fmt::Write;

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_store::{Store, records::DepartureRecord, tables::Departures};
use serde_json::json;

use super::existing;
use crate::{config::Config, failure::Failure};

/// Everything in the departure outbox, as text or as one JSON object per line.
pub fn list(config: &Config, as_json: bool) -> Result<String, Failure> {
    let store = Store::open_read_only(&existing(config)?)?;
    let departures = store.reader().scan::<Departures>(()).collect()?;
    let mut text = String::new();
    for ((user, room), record) in &departures {
        if as_json {
            text += &json_line(user, room, record);
        } else {
            describe(&mut text, user, room, record);
        }
    }
    if departures.is_empty() && !as_json {
        text.push_str("no departure is waiting\n");
    }
    Ok(text)
}

fn json_line(user: &OwnedUserId, room: &OwnedRoomId, record: &DepartureRecord) -> String {
    let last: Vec<_> = record
        .last
        .iter()
        .map(|attempt| json!({ "server": attempt.server, "outcome": attempt.outcome }))
        .collect();
    let object = json!({
        "user_id": user,
        "room_id": room,
        "reason": record.reason,
        "departed_at": record.departed_at,
        "attempts": record.attempts,
        "retry_at": record.retry_at,
        "last": last,
    });
    format!("{object}\n")
}

fn describe(text: &mut String, user: &OwnedUserId, room: &OwnedRoomId, record: &DepartureRecord) {
    let attempts = record.attempts;
    writeln!(text, "{user} left {room}: {attempts} attempts").expect("a string takes everything");
    for attempt in &record.last {
        writeln!(text, "  {}: {}", attempt.server, attempt.outcome)
            .expect("a string takes everything");
    }
}
