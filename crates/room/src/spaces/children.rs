//! The children of a space, in the order in which they are shown.
//!
//! Specification: client-server API, "Ordering of children within a space".

use std::collections::BTreeSet;

use exeunt_core::{Object, Pdu};
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde_json::Value;

use super::MAX_SERVERS_ASKED;
use crate::{RoomError, graph::Graph, stripped::clean_entry};

/// Most children of one space that are looked at, those that come first.
pub const MAX_CHILDREN: usize = 1_000;
pub(super) const CHILD: &str = "m.space.child";
/// Longest valid `order`.
const MAX_ORDER: usize = 50;

/// A room that a space names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Child {
    pub room_id: OwnedRoomId,
    /// Servers that can help, at most [`MAX_SERVERS_ASKED`].
    pub via: Vec<OwnedServerName>,
    pub suggested: bool,
    /// The event in stripped form, with its time.
    pub event: Object,
}

/// The children that a space of ours has now.
pub(crate) fn children_of(graph: &Graph<'_>) -> Result<Vec<Child>, RoomError> {
    let mut events = Vec::new();
    for entry in graph.state_entries(graph.room.state) {
        let (key, id) = entry?;
        if key.kind == CHILD {
            events.push(stripped(&graph.event_here(&id)?.pdu));
        }
    }
    Ok(in_order(events))
}

fn stripped(event: &Pdu) -> Object {
    let mut out = Object::new();
    out.insert("type".into(), event.kind().into());
    out.insert("state_key".into(), event.state_key().unwrap_or_default().into());
    out.insert("sender".into(), event.sender().as_str().into());
    out.insert("content".into(), event.content().clone().into());
    out.insert("origin_server_ts".into(), event.origin_server_ts().into());
    out
}

/// The children that another server tells; what is no such event is left out.
pub(super) fn told_children(events: &Value) -> Vec<Child> {
    let events = events.as_array().into_iter().flatten();
    in_order(events.filter_map(|event| Some(clean_entry(event)?.1)).collect())
}

fn in_order(events: Vec<Object>) -> Vec<Child> {
    let mut children: Vec<_> = events.into_iter().filter_map(child).collect();
    children.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut seen = BTreeSet::new();
    children.retain(|(_, child)| seen.insert(child.room_id.clone()));
    children.into_iter().map(|(_, child)| child).take(MAX_CHILDREN).collect()
}

/// What children are sorted by: those with a valid `order` first, then by time and room id.
type Rank = (bool, Option<String>, u64, OwnedRoomId);

/// A child without `via` is none any more.
fn child(event: Object) -> Option<(Rank, Child)> {
    if event.get("type")?.as_str()? != CHILD {
        return None;
    }
    let room_id = RoomId::parse(event.get("state_key")?.as_str()?).ok()?;
    let at = event.get("origin_server_ts")?.as_u64()?;
    let content = event.get("content")?.as_object()?;
    let via = content.get("via")?.as_array().filter(|via| !via.is_empty())?;
    let via = via.iter().filter_map(|name| ServerName::parse(name.as_str()?).ok());
    let via = via.take(MAX_SERVERS_ASKED).collect();
    let is_valid = |text: &&str| {
        text.len() <= MAX_ORDER && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    };
    let order = content.get("order").and_then(Value::as_str).filter(is_valid).map(str::to_owned);
    let suggested = content.get("suggested") == Some(&Value::Bool(true));
    let rank = (order.is_none(), order, at, room_id.clone());
    Some((rank, Child { room_id, via, suggested, event }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(room: &str, at: u64, content: Value) -> Value {
        json!({
            "type": CHILD, "state_key": room, "sender": "@a:x", "origin_server_ts": at,
            "content": content,
        })
    }

    fn ids(children: &[Child]) -> Vec<&str> {
        children.iter().map(|child| child.room_id.as_str()).collect()
    }

    /// The example of the specification, and what breaks ties.
    #[test]
    fn children_have_an_order() {
        let via = |order: Value| json!({ "via": ["x"], "order": order });
        let children = told_children(&json!([
            event("!e:x", 640, json!({ "via": ["x"] })),
            event("!d:x", 740, json!({ "via": ["x"] })),
            event("!a:x", 140, via("aaaa".into())),
            event("!c:x", 840, via("first".into())),
            event("!b:x", 1000, via(" ".into())),
            // No valid order.
            event("!h:x", 900, via("é".into())),
            event("!g:x", 900, via("x".repeat(51).into())),
            event("!f:x", 900, via(1.into())),
            // As !a, later.
            event("!0:x", 150, via("aaaa".into())),
        ]));
        let order = ["!b:x", "!a:x", "!0:x", "!c:x", "!e:x", "!d:x", "!f:x", "!g:x", "!h:x"];
        assert_eq!(ids(&children), order);
    }

    #[test]
    fn what_is_no_child_is_left_out() {
        let good = event("!a:x", 1, json!({ "via": ["x", 1, "no name", "y"], "suggested": true }));
        let mut other = good.clone();
        other["type"] = "m.space.parent".into();
        let mut timeless = good.clone();
        timeless["origin_server_ts"] = "1".into();
        let children = told_children(&json!([
            event("!b:x", 1, json!({})),
            event("!b:x", 1, json!({ "via": [] })),
            event("!b:x", 1, json!({ "via": "x" })),
            event("nonsense", 1, json!({ "via": ["x"] })),
            other,
            timeless,
            1,
            null,
            good.clone(),
        ]));
        assert_eq!(ids(&children), ["!a:x"]);
        assert_eq!(children[0].via, ["x", "y"]);
        assert!(children[0].suggested);
        assert_eq!(Value::Object(children[0].event.clone()), good);
        assert!(told_children(&json!("x")).is_empty());
    }
}
