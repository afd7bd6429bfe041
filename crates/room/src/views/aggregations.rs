//! What the child events of an event come to: `m.relations`, under `unsigned`.
//!
//! Specification: client-server API, "Aggregations of child events", and the sections on
//! server-side aggregation of `m.replace`, `m.thread` and `m.reference`. Annotations are not
//! aggregated, and state events have no aggregations.

use std::cmp::Reverse;

use exeunt_core::{Object, wire::ClientForm};
use exeunt_store::records::RelationRecord;
use ruma::EventId;
use serde_json::{Value, json};

use super::{access::RoomView, filter::EventFilter, timeline::Stretch};
use crate::{
    RoomError,
    graph::Known,
    relations::{self, REFERENCE, REPLACE, THREAD, relation},
    views::Direction,
};

/// Most children of an event that are looked at; a count goes no further.
const MAX_CHILDREN: usize = 5_000;
/// Most children that are read to see whether the user may see them, where their place does not
/// tell.
const MAX_DOUBTFUL: usize = 200;
/// Most replacements that are read in search of a valid one.
const MAX_REPLACEMENTS: usize = 20;
/// Most events that are listed as references.
const MAX_REFERENCES: usize = 100;

/// Which aggregations go with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    All,
    /// For the latest event of a thread: there are no threads in threads.
    NoThread,
    /// For a replacement, which has none itself.
    Nothing,
}

type Child = (i64, RelationRecord);

impl RoomView<'_> {
    /// Whether an event passes a filter, with its children. Of those whom the user ignores only
    /// state events do (client-server API, "Ignoring Users").
    pub(super) fn passes(&self, filter: &EventFilter, known: &Known) -> Result<bool, RoomError> {
        let pdu = &known.pdu;
        if !filter.allows(pdu) || pdu.state_key().is_none() && self.ignores(pdu.sender())? {
            return Ok(false);
        }
        if !filter.asks_for_children() {
            return Ok(true);
        }
        for child in self.children(known.pdu.event_id(), Direction::Backward) {
            let (_, child) = child?;
            if filter.allows_child(&child) && !self.ignores(&child.sender)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The children of an event, as many as are looked at.
    fn children(
        &self,
        parent: &EventId,
        direction: Direction,
    ) -> impl Iterator<Item = Result<Child, RoomError>> {
        let whole = Stretch { after: i64::MIN, until: i64::MAX };
        self.children_in(parent, whole, direction).take(MAX_CHILDREN)
    }

    pub(super) fn children_in(
        &self,
        parent: &EventId,
        stretch: Stretch,
        direction: Direction,
    ) -> impl Iterator<Item = Result<Child, RoomError>> {
        let (reader, room_id) = (self.graph.reader, &self.graph.room_id);
        let orders = (stretch.after, stretch.until);
        let rev = direction == Direction::Backward;
        relations::children(reader, room_id, parent, orders, rev)
    }

    /// The child as an event, if the user sees it. An erased one relates to nothing, as a redacted
    /// one.
    pub(super) fn seen_child(&self, child: &Child) -> Result<Option<Known>, RoomError> {
        let known = self.graph.event_here(&child.1.event_id)?;
        let seen = self.sees(&known, child.0)? && !self.is_erased(&known)?;
        Ok(seen.then_some(known))
    }

    /// The newest event of a thread that the user sees, with its order.
    pub(super) fn latest_in_thread(
        &self,
        root: &EventId,
    ) -> Result<Option<(i64, Known)>, RoomError> {
        for child in self.children(root, Direction::Backward) {
            let child = child?;
            if child.1.rel_type != THREAD || self.ignores(&child.1.sender)? {
                continue;
            }
            if let Some(known) = self.seen_child(&child)? {
                return Ok(Some((child.0, known)));
            }
        }
        Ok(None)
    }

    /// Whether the user has written in a thread, or what it is about.
    pub(super) fn participates(&self, root: &Known) -> Result<bool, RoomError> {
        if root.pdu.sender() == self.viewer.user {
            return Ok(true);
        }
        for child in self.children(root.pdu.event_id(), Direction::Backward) {
            let (_, child) = child?;
            if child.rel_type == THREAD && child.sender == self.viewer.user {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn aggregations(
        &self,
        known: &Known,
        aggregate: Aggregate,
        form: ClientForm,
    ) -> Result<Object, RoomError> {
        let mut all = Object::new();
        let is_bare = known.pdu.state_key().is_some() || aggregate == Aggregate::Nothing;
        if is_bare || !self.graph.room.has_relations {
            return Ok(all);
        }
        let (mut replacements, mut thread, mut references) = (Vec::new(), Vec::new(), Vec::new());
        for child in self.children(known.pdu.event_id(), Direction::Backward) {
            let child = child?;
            if self.ignores(&child.1.sender)? {
                continue;
            }
            match child.1.rel_type.as_str() {
                REPLACE => replacements.push(child),
                THREAD => thread.push(child),
                REFERENCE => references.push(child),
                _ => {}
            }
        }
        // The parent as a child: what it may not be the parent of, then.
        let own = relation(known.pdu.content()).map(|own| own.rel_type);
        if own.as_deref() != Some(REPLACE)
            && let Some(newest) = self.replacement(known, replacements, form)?
        {
            all.insert(REPLACE.into(), newest);
        }
        if own.is_none()
            && aggregate == Aggregate::All
            && let Some(summary) = self.thread_summary(known, &thread, form)?
        {
            all.insert(THREAD.into(), summary);
        }
        let mut chunk = Vec::new();
        for child in references.iter().rev() {
            if chunk.len() < MAX_REFERENCES && self.seen_child(child)?.is_some() {
                chunk.push(json!({ "event_id": child.1.event_id }));
            }
        }
        if !chunk.is_empty() {
            all.insert(REFERENCE.into(), json!({ "chunk": chunk }));
        }
        Ok(all)
    }

    /// The newest valid replacement ("Validity of replacement events"); of a redacted event none.
    fn replacement(
        &self,
        original: &Known,
        mut candidates: Vec<Child>,
        form: ClientForm,
    ) -> Result<Option<Value>, RoomError> {
        let Known { pdu, record, .. } = original;
        if record.redacted_because.is_some() {
            return Ok(None);
        }
        candidates.retain(|(_, child)| child.sender == pdu.sender() && child.kind == pdu.kind());
        candidates.sort_by_key(|(_, child)| Reverse((child.ts, child.event_id.clone())));
        for child in candidates.into_iter().take(MAX_REPLACEMENTS) {
            let Some(known) = self.seen_child(&child)? else { continue };
            // What an encrypted event is replaced with is inside of it.
            let replaces = known.pdu.kind() == "m.room.encrypted"
                || known.pdu.content().get("m.new_content").is_some_and(Value::is_object);
            if replaces && known.pdu.state_key().is_none() {
                return Ok(Some(self.event_with(&known, Aggregate::Nothing, form)?.into()));
            }
        }
        Ok(None)
    }

    /// `children`: newest first.
    fn thread_summary(
        &self,
        root: &Known,
        children: &[Child],
        form: ClientForm,
    ) -> Result<Option<Value>, RoomError> {
        let (mut latest, mut count, mut doubtful) = (None, 0, 0);
        for child in children {
            if latest.is_some() && self.is_after_join(child.0) {
                count += 1;
                continue;
            }
            doubtful += 1;
            if doubtful > MAX_DOUBTFUL {
                break;
            }
            if let Some(known) = self.seen_child(child)? {
                count += 1;
                latest = latest.or(Some(known));
            }
        }
        let Some(latest) = latest else { return Ok(None) };
        let user = &self.viewer.user;
        let participated =
            root.pdu.sender() == user || children.iter().any(|c| c.1.sender == *user);
        Ok(Some(json!({
            "latest_event": self.event_with(&latest, Aggregate::NoThread, form)?,
            "count": count,
            "current_user_participated": participated,
        })))
    }

    /// Whether the user is in the room, and was when an event of that order came.
    fn is_after_join(&self, order: i64) -> bool {
        let joined = self.stay.filter(|_| self.is_joined()).map(|stay| stay.joined);
        joined.is_some_and(|joined| order > i64::try_from(joined).unwrap_or(i64::MAX))
    }
}
