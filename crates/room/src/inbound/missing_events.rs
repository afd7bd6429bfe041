//! `POST get_missing_events`: what lies between the events that a server has and those it got.

use std::collections::{BTreeSet, VecDeque};

use exeunt_core::wire::federation;
use ruma::OwnedEventId;
use serde_json::{Value, json};

use super::{Admitted, gate::shared_until_parting, visibility::Visibility};
use crate::{RoomError, Rooms};

/// Events in an answer where the request does not say how many.
pub const DEFAULT_MISSING_EVENTS: usize = 10;
/// Most events in an answer, and most that a request may name on either side.
pub const MAX_MISSING_EVENTS: usize = 50;
/// Most events that are looked at for one answer; those that are not shown count too.
pub const MAX_MISSING_EVENTS_WALK: usize = 1_000;

/// What is missing.
#[derive(Debug, Clone, Default)]
pub struct MissingEvents {
    /// The server has these.
    pub earliest: Vec<OwnedEventId>,
    /// It got these, and wants what is before them.
    pub latest: Vec<OwnedEventId>,
    pub limit: Option<usize>,
    pub min_depth: u64,
}

impl Rooms {
    /// Walks back from `latest`, breadth first, not beyond `earliest`; oldest first in the answer.
    pub async fn missing_events_for_server(
        &self,
        entry: &Admitted,
        mut wanted: MissingEvents,
    ) -> Result<Value, RoomError> {
        if wanted.earliest.len().max(wanted.latest.len()) > MAX_MISSING_EVENTS {
            return Err(RoomError::InvalidParam(format!("At most {MAX_MISSING_EVENTS} events")));
        }
        let limit = wanted.limit.unwrap_or(DEFAULT_MISSING_EVENTS).min(MAX_MISSING_EVENTS);
        let entry = entry.clone();
        self.store()
            .read(move |reader| {
                let graph = shared_until_parting(reader, &entry, &mut wanted.latest)?;
                let visibility = Visibility::new(&graph, entry.origin());
                let mut seen: BTreeSet<_> =
                    wanted.earliest.iter().chain(&wanted.latest).cloned().collect();
                let named = seen.len();
                let mut queue = VecDeque::new();
                for id in &wanted.latest {
                    if let Some(known) = graph.event(id)? {
                        queue.extend(known.pdu.prev_events().iter().cloned());
                    }
                }
                let mut events = Vec::new();
                while let Some(id) = queue.pop_front() {
                    if events.len() >= limit || seen.len() >= named + MAX_MISSING_EVENTS_WALK {
                        break;
                    }
                    if !seen.insert(id.clone()) {
                        continue;
                    }
                    let Some(known) = graph.event(&id)? else { continue };
                    if known.record.states.is_none() || known.pdu.depth() < wanted.min_depth {
                        continue;
                    }
                    // Soft-failed events too: the server holds one that follows them.
                    if !known.record.verdict.is_rejected() {
                        events.push(federation(&visibility.shown(&known)?));
                    }
                    queue.extend(known.pdu.prev_events().iter().cloned());
                }
                events.reverse();
                Ok(json!({ "events": events }))
            })
            .await
    }
}
