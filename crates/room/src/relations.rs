//! Events that relate to others: what an event says of it, and the index of it.
//!
//! Specification: client-server API, "Forming relationships between events".

use exeunt_core::Pdu;
use exeunt_store::{Reader, records::RelationRecord, tables};
use ruma::{EventId, OwnedEventId, RoomId};
use serde_json::Value;

use crate::{Intent, RoomError, graph::Graph};

pub(crate) const ANNOTATION: &str = "m.annotation";
pub(crate) const REFERENCE: &str = "m.reference";
pub(crate) const REPLACE: &str = "m.replace";
pub(crate) const THREAD: &str = "m.thread";

/// Most child events that are looked at before a reaction is sent.
const MAX_REACTIONS: usize = 5_000;

/// What an event is to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation {
    pub parent: OwnedEventId,
    pub rel_type: String,
}

/// The relation in a content. One that does not match the schema is none.
pub(crate) fn relation(content: &exeunt_core::Object) -> Option<Relation> {
    let told = content.get("m.relates_to")?;
    let parent = OwnedEventId::try_from(told.get("event_id")?.as_str()?).ok()?;
    Some(Relation { parent, rel_type: told.get("rel_type")?.as_str()?.to_owned() })
}

/// Whether an event is the child of another one.
pub(crate) fn is_child(event: &Pdu) -> bool {
    relation(event.content()).is_some()
}

/// The children of an event with orders above `after` and up to `until`; newest first if `rev`.
pub(crate) fn children<'r>(
    reader: &'r Reader<'r>,
    room_id: &RoomId,
    parent: &EventId,
    (after, until): (i64, i64),
    rev: bool,
) -> impl Iterator<Item = Result<(i64, RelationRecord), RoomError>> + use<'r> {
    let at = |order| (room_id.to_owned(), parent.to_owned(), order);
    let scan = reader.scan::<tables::Relations>((room_id.to_owned(), parent.to_owned()));
    let scan = scan.after(at(after)).before(at(until.saturating_add(1)));
    let scan = if rev { scan.rev() } else { scan };
    scan.iter().map(|row| {
        let ((_, _, order), child) = row?;
        Ok((order, child))
    })
}

/// Refuses a relation that a client should not make: a thread within a thread ("Validation of
/// `m.thread` relationships"), and the same reaction twice ("Avoiding duplicate annotations").
pub(crate) fn check_sent(graph: &Graph<'_>, intent: &Intent) -> Result<(), RoomError> {
    let Some(Relation { parent, rel_type }) = relation(&intent.content) else { return Ok(()) };
    if rel_type == THREAD && graph.event(&parent)?.is_some_and(|known| is_child(&known.pdu)) {
        let text = "No thread starts at an event that relates to another one";
        return Err(RoomError::InvalidRelation(text.into()));
    }
    if rel_type != ANNOTATION {
        return Ok(());
    }
    let key = |content: &exeunt_core::Object| -> Option<Value> {
        content.get("m.relates_to")?.get("key").cloned()
    };
    let all = (i64::MIN, i64::MAX);
    for child in children(graph.reader, &graph.room_id, &parent, all, true).take(MAX_REACTIONS) {
        let (_, child) = child?;
        let is_like_it = child.rel_type == rel_type && child.kind == intent.kind;
        if is_like_it
            && child.sender == intent.sender
            && key(graph.event_here(&child.event_id)?.pdu.content()) == key(&intent.content)
        {
            return Err(RoomError::DuplicateAnnotation);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_relation_says_nothing() {
        let of = |told: Value| {
            let content = json!({ "m.relates_to": told });
            relation(content.as_object().unwrap()).map(|relation| relation.rel_type)
        };
        assert_eq!(of(json!({ "event_id": "$a", "rel_type": "m.thread" })).unwrap(), THREAD);
        for told in [
            json!({ "event_id": "$a" }),
            json!({ "rel_type": "m.thread" }),
            json!({ "event_id": "a", "rel_type": "m.thread" }),
            json!({ "event_id": "$a", "rel_type": 1 }),
            json!({ "m.in_reply_to": { "event_id": "$a" } }),
            json!("$a"),
            json!(null),
        ] {
            assert_eq!(of(told.clone()), None, "{told}");
        }
    }
}
