//! Which events count as unread, and to whom they are highlights: decided once, when an event gets
//! its place in the timeline.
//!
//! Specification: client-server API, "Receiving notifications", "Predefined rules". Here the
//! predefined rules are asked as they stand; users' own ones are asked when they sync
//! (`views::sync`, decision 0027).

use exeunt_core::{Object, Pdu};
use exeunt_store::{records::NotableRecord, tables};
use ruma::{EventId, OwnedEventId, OwnedUserId, ServerName, UserId};
use serde_json::Value;

use crate::{RoomError, graph::Graph};

/// Users to whom one event is a highlight.
const MAX_HIGHLIGHTED: usize = 100;
/// Characters of a message in which names are looked for.
const MAX_SEARCHED: usize = 4_096;
/// Relations that are followed to find an event's thread (client-server API, "Threaded read
/// receipts").
const MAX_HOPS: usize = 3;

/// What a new event is to the local users of its room; `None` if it is nothing to any of them.
pub(crate) fn weigh(
    graph: &Graph<'_>,
    event: &Pdu,
    ours: &ServerName,
) -> Result<Option<NotableRecord>, RoomError> {
    // Rules .m.rule.suppress_notices and .m.rule.member_event.
    if event.content_str("msgtype") == Some("m.notice") || event.kind() == "m.room.member" {
        return Ok(None);
    }
    let mut record = NotableRecord {
        sender: event.sender().to_owned(),
        thread: None,
        counts: counts(event),
        highlights: Vec::new(),
        highlights_all: event.is_state("m.room.tombstone", ""),
    };
    match event.content().get("m.mentions") {
        Some(mentions) => {
            record.highlights = mentioned(mentions, ours);
            record.highlights_all |= mentions["room"] == true && may_call_room(graph, event)?;
        }
        // What clients sent before there was `m.mentions`.
        None => {
            let body = event.content_str("body").unwrap_or_default().chars().take(MAX_SEARCHED);
            let body: String = body.flat_map(char::to_lowercase).collect();
            record.highlights = named(graph, &body)?;
            record.highlights_all |= has_word(&body, "@room") && may_call_room(graph, event)?;
        }
    }
    if !record.counts && !record.highlights_all && record.highlights.is_empty() {
        return Ok(None);
    }
    record.thread = thread(graph, event)?;
    Ok(Some(record))
}

/// The rules that come after the highlights.
fn counts(event: &Pdu) -> bool {
    let is_edit = relation(event.content()).is_some_and(|(kind, _)| kind == "m.replace");
    matches!(event.kind(), "m.room.message" | "m.room.encrypted" | "m.call.invite") && !is_edit
}

/// Rule .m.rule.is_user_mention.
fn mentioned(mentions: &Value, ours: &ServerName) -> Vec<OwnedUserId> {
    let users = mentions["user_ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let users = users.filter_map(|user| UserId::parse(user).ok());
    users.filter(|user| user.server_name() == ours).take(MAX_HIGHLIGHTED).collect()
}

/// Rule .m.rule.contains_user_name: the joined local users whose localparts are in a message.
fn named(graph: &Graph<'_>, body: &str) -> Result<Vec<OwnedUserId>, RoomError> {
    let mut named = Vec::new();
    if body.is_empty() {
        return Ok(named);
    }
    for row in graph.reader.scan::<tables::LocalMembers>(graph.room_id.clone()).iter() {
        let ((_, user), membership) = row?;
        if membership == "join" && has_word(body, user.localpart()) {
            named.push(user);
            if named.len() >= MAX_HIGHLIGHTED {
                break;
            }
        }
    }
    Ok(named)
}

/// Whether a text has another in it that begins and ends with words.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

/// Whether the sender has the power to call everybody in the room.
fn may_call_room(graph: &Graph<'_>, event: &Pdu) -> Result<bool, RoomError> {
    let levels = graph.power_levels(graph.room.state)?;
    // A level that cannot be read is no power.
    let may = levels.user(event.sender()).and_then(|has| Ok(has >= levels.notification("room")?));
    Ok(may.unwrap_or(false))
}

/// The root of the thread that an event is in, by itself or by way of what it relates to.
fn thread(graph: &Graph<'_>, event: &Pdu) -> Result<Option<OwnedEventId>, RoomError> {
    let mut event = event.clone();
    for _ in 0..=MAX_HOPS {
        let Some((kind, target)) = relation(event.content()) else { return Ok(None) };
        if kind == "m.thread" {
            return Ok(Some(target));
        }
        let Some(known) = graph.event(&target)? else { return Ok(None) };
        event = known.pdu;
    }
    Ok(None)
}

/// Type and target of an event's relation.
fn relation(content: &Object) -> Option<(&str, OwnedEventId)> {
    let relation = content.get("m.relates_to")?;
    let target = EventId::parse(relation["event_id"].as_str()?).ok()?;
    Some((relation["rel_type"].as_str()?, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (text, word, expected) in [
            ("hello bob", "bob", true),
            ("hello bob!", "bob", true),
            ("@bob:x", "bob", true),
            ("bobby", "bob", false),
            ("kebob", "bob", false),
            ("kebob, bob", "bob", true),
            ("x @room", "@room", true),
            ("x@room", "@room", false),
            ("@rooms", "@room", false),
            ("", "bob", false),
            ("éboé", "bo", false),
        ] {
            assert_eq!(has_word(text, word), expected, "{text} {word}");
        }
    }
}
