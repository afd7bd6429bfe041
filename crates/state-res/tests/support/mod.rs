//! What the tests share: building events, and ruma's implementation as an oracle.
#![allow(dead_code)]

pub mod index;
pub mod oracle;
pub mod oracle_event;
pub mod oracle_v1;
pub mod random_room;
pub mod room;

use exeunt_core::{Object, Pdu, RoomVersion, hash};
use ruma::OwnedEventId;
use serde_json::{Value, json};

/// Any room version, also those that no room can live in.
pub fn version(id: &str) -> RoomVersion {
    RoomVersion::all().find(|version| version.as_str() == id).expect("a known version")
}

pub fn object(value: Value) -> Object {
    value.as_object().expect("an object").clone()
}

/// An event before it has an id.
pub struct Shape<'a> {
    pub sender: &'a str,
    pub kind: &'a str,
    pub state_key: Option<&'a str>,
    pub content: Value,
}

/// Where an event stands.
#[derive(Clone)]
pub struct Place {
    pub version: RoomVersion,
    /// `None` for a create event whose hash founds the room.
    pub room_id: Option<String>,
    pub prev_events: Vec<OwnedEventId>,
    pub auth_events: Vec<OwnedEventId>,
    pub ts: u64,
    /// Of event ids that are not hashes; also the depth.
    pub number: usize,
    /// A depth other than the number.
    pub depth: Option<u64>,
}

pub fn build(shape: &Shape<'_>, place: &Place) -> Pdu {
    let rules = place.version.rules();
    let references = |ids: &[OwnedEventId]| -> Value {
        let in_pairs = rules.event_format.require_event_id;
        ids.iter().map(|id| if in_pairs { json!([id, {}]) } else { json!(id) }).collect()
    };
    let mut event = object(json!({
        "type": shape.kind,
        "sender": shape.sender,
        "content": shape.content,
        "prev_events": references(&place.prev_events),
        "auth_events": references(&place.auth_events),
        "depth": place.depth.unwrap_or(place.number as u64),
        "origin_server_ts": place.ts,
        "signatures": {},
    }));
    if let Some(key) = shape.state_key {
        event.insert("state_key".into(), key.into());
    }
    if let Some(room_id) = &place.room_id {
        event.insert("room_id".into(), room_id.as_str().into());
    }
    if rules.event_format.require_event_id {
        let server = shape.sender.split_once(':').expect("a user id").1;
        event.insert("event_id".into(), format!("${}:{server}", place.number).into());
    }
    hash::set_content_hash(&mut event);
    Pdu::from_object(place.version, event).expect("a well-formed event")
}

/// A small generator of pseudo-random numbers (xorshift64*), so that a seed is all of a case.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
