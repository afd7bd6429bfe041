//! Rooms as JSON, one object per line. States are lists of event numbers.

use std::collections::BTreeMap;

use exeunt_core::ruma::OwnedEventId;
use exeunt_state_res::AuthError;
use serde_json::{Value, json};

use crate::{Received, Room, State};

/// The room: events in topological order with our verdicts, and resolutions with our results.
pub fn room(room: &Room) -> Value {
    let numbers: BTreeMap<&OwnedEventId, usize> = room.order.iter().zip(0..).collect();
    let state = |state: &State| state.values().map(|id| numbers[id]).collect::<Value>();
    let event = |event: &Received| {
        json!({
            "event_id": event.pdu.event_id(),
            "pdu": event.pdu.object(),
            "rejected": event.verdict.rule().map(AuthError::to_string),
            "checks": {
                "auth_events": rule(&event.verdict.auth_events),
                "cited": rule(&event.verdict.cited),
                "before": rule(&event.verdict.before),
            },
            "before": state(&event.before),
        })
    };
    let resolutions = room.resolutions.iter().map(|resolution| {
        let sets: Value = resolution.sets.iter().map(state).collect();
        json!({"sets": sets, "resolved": state(&resolution.resolved)})
    });
    json!({
        "version": room.version.as_str(),
        "seed": room.seed,
        "events": room.order.iter().filter_map(|id| room.server.get(id)).map(event).collect::<Value>(),
        "resolutions": resolutions.collect::<Value>(),
    })
}

/// A room version that this server does not know.
pub fn skipped(version: &str) -> Value {
    json!({"skipped": version})
}

/// The last line, after so many rooms.
pub fn end(rooms: u64) -> Value {
    json!({"end": rooms})
}

fn rule(check: &Result<(), AuthError>) -> Option<String> {
    check.as_ref().err().map(AuthError::to_string)
}
