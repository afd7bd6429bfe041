//! Filters of sync and pagination. Specification: client-server API, "Filtering".

use exeunt_core::Pdu;
use exeunt_store::records::RelationRecord;
use ruma::{RoomId, UserId};
use serde::Deserialize;

use super::FieldPath;
use crate::relations::relation;

/// Events of a timeline where the filter names no limit.
pub const DEFAULT_LIMIT: usize = 10;
/// Most events of a timeline.
pub const MAX_LIMIT: usize = 100;

/// A filter as `/sync` takes it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Filter {
    pub room: RoomFilter,
    pub presence: EventFilter,
    /// Of the account, not of rooms.
    pub account_data: EventFilter,
    pub event_format: EventFormat,
    pub event_fields: Option<Vec<FieldPath>>,
}

/// The form of events of rooms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventFormat {
    #[default]
    Client,
    /// As other servers have it.
    Federation,
}

/// Which rooms, and what of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RoomFilter {
    pub rooms: Option<Vec<String>>,
    pub not_rooms: Option<Vec<String>>,
    pub include_leave: bool,
    pub timeline: EventFilter,
    pub state: EventFilter,
    pub ephemeral: EventFilter,
    pub account_data: EventFilter,
}

/// Which events of a room.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct EventFilter {
    pub limit: Option<u64>,
    /// `*` stands for any text.
    pub types: Option<Vec<String>>,
    pub not_types: Option<Vec<String>>,
    pub senders: Option<Vec<String>>,
    pub not_senders: Option<Vec<String>>,
    pub rooms: Option<Vec<String>>,
    pub not_rooms: Option<Vec<String>>,
    pub contains_url: Option<bool>,
    pub lazy_load_members: bool,
    /// Relation types that events have to their parents (MSC3874).
    #[serde(alias = "org.matrix.msc3874.rel_types")]
    pub rel_types: Option<Vec<String>>,
    #[serde(alias = "org.matrix.msc3874.not_rel_types")]
    pub not_rel_types: Option<Vec<String>>,
    /// Relation types of some child event, and its sender (MSC3440).
    pub related_by_rel_types: Option<Vec<String>>,
    pub related_by_senders: Option<Vec<String>>,
    pub include_redundant_members: bool,
    pub unread_thread_notifications: bool,
}

impl RoomFilter {
    pub fn allows_room(&self, room_id: &RoomId) -> bool {
        allows(&self.rooms, &self.not_rooms, |known| known == room_id.as_str())
    }
}

impl EventFilter {
    pub fn limit(&self) -> usize {
        let limit = self.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT)
    }

    pub fn allows_room(&self, room_id: &RoomId) -> bool {
        allows(&self.rooms, &self.not_rooms, |known| known == room_id.as_str())
    }

    /// Whether events of a type are wanted, as far as that says.
    pub fn allows_kind(&self, kind: &str) -> bool {
        self.limit != Some(0) && self.allows_type(kind)
    }

    fn allows_type(&self, kind: &str) -> bool {
        allows(&self.types, &self.not_types, |pattern| matches(pattern, kind))
    }

    pub fn allows_sender(&self, sender: &UserId) -> bool {
        allows(&self.senders, &self.not_senders, |known| known == sender.as_str())
    }

    /// Whether an event of a room passes; what is said of its children aside.
    pub fn allows(&self, event: &Pdu) -> bool {
        let has_url = || event.content_str("url").is_some();
        self.allows_room(event.room_id())
            && self.allows_type(event.kind())
            && self.allows_sender(event.sender())
            && self.contains_url.is_none_or(|wanted| wanted == has_url())
            && self.allows_relation(event)
    }

    fn allows_relation(&self, event: &Pdu) -> bool {
        if self.rel_types.is_none() && self.not_rel_types.is_none() {
            return true;
        }
        let relation = relation(event.content()).map(|relation| relation.rel_type);
        allows(&self.rel_types, &self.not_rel_types, |known| relation.as_deref() == Some(known))
    }

    /// Whether events are chosen by their children.
    pub fn asks_for_children(&self) -> bool {
        self.related_by_rel_types.is_some() || self.related_by_senders.is_some()
    }

    /// Whether an event with such a child passes.
    pub fn allows_child(&self, child: &RelationRecord) -> bool {
        allows(&self.related_by_rel_types, &None, |known| known == child.rel_type)
            && allows(&self.related_by_senders, &None, |known| known == child.sender.as_str())
    }
}

/// Without a list of what is wanted, everything is; what is unwanted wins.
fn allows(
    wanted: &Option<Vec<String>>,
    unwanted: &Option<Vec<String>>,
    matches: impl Fn(&str) -> bool,
) -> bool {
    let any = |list: &Vec<String>| list.iter().any(|entry| matches(entry));
    wanted.as_ref().is_none_or(any) && !unwanted.as_ref().is_some_and(any)
}

/// Matches text against a pattern in which `*` stands for any text. Takes the earliest place for
/// each part, so its time is bounded by the product of the lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("m.room.*", "m.room.name", true),
            ("m.room.*", "m.roomname", false),
            ("*", "", true),
            ("*", "anything", true),
            ("m.*.name", "m.room.name", true),
            ("m.*.name", "m.name", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("a*a", "a", false),
            ("a**c", "abc", true),
            ("m.room.name", "m.room.name", true),
            ("m.room.name", "m.room.names", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_unwanted_wins() {
        let list = |entries: &[&str]| Some(entries.iter().map(|e| (*e).to_owned()).collect());
        let check = |wanted, unwanted| allows(&wanted, &unwanted, |entry| entry == "a");
        assert!(check(None, None));
        assert!(check(list(&["a", "b"]), list(&["b"])));
        assert!(!check(list(&["a"]), list(&["a"])));
        assert!(!check(list(&[]), None), "an empty list wants nothing");
        assert!(!check(None, list(&["a"])));
    }

    #[test]
    fn limits() {
        let limit = |limit| EventFilter { limit, ..EventFilter::default() }.limit();
        assert_eq!([limit(None), limit(Some(0)), limit(Some(99_999))], [10, 0, 100]);
    }
}
