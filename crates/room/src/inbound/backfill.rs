//! `GET backfill`: events and what came before them.

use std::collections::{BTreeSet, BinaryHeap};

use exeunt_core::wire::federation;
use ruma::OwnedEventId;
use serde_json::{Value, json};

use super::{Admitted, gate::shared, visibility::Visibility};
use crate::{RoomError, Rooms};

/// Most events that one answer holds.
pub const MAX_BACKFILL: usize = 100;
/// Most events that one request may start from.
pub const MAX_BACKFILL_FROM: usize = 100;
/// Most events that are looked at for one answer; those that are not shown count too.
const MAX_WALK: usize = 1_000;

impl Rooms {
    /// The given events of the room and their ancestors, deepest first. An event of another room
    /// is as good as unknown (GHSA-27p5-4f45-gx76).
    pub async fn backfill_for_server(
        &self,
        entry: &Admitted,
        from: &[OwnedEventId],
        limit: usize,
    ) -> Result<Value, RoomError> {
        if from.len() > MAX_BACKFILL_FROM {
            return Err(RoomError::InvalidParam(format!("At most {MAX_BACKFILL_FROM} events")));
        }
        let (entry, from) = (entry.clone(), from.to_vec());
        let (ours, now) = (self.server_name().to_owned(), self.now());
        let limit = limit.min(MAX_BACKFILL);
        self.store()
            .read(move |reader| {
                let graph = shared(reader, &entry, &ours)?;
                let visibility = Visibility::new(&graph, entry.origin());
                let mut seen = BTreeSet::new();
                let mut heap = BinaryHeap::new();
                let mut add = |heap: &mut BinaryHeap<_>, id: &OwnedEventId| {
                    if seen.len() < MAX_WALK
                        && seen.insert(id.clone())
                        && let Some(known) = graph.event(id)?
                        && known.record.states.is_some()
                    {
                        heap.push((known.pdu.depth(), id.clone()));
                    }
                    Ok::<_, RoomError>(())
                };
                for id in &from {
                    add(&mut heap, id)?;
                }
                if heap.is_empty() {
                    return Err(RoomError::NotFound("Unknown events".into()));
                }
                let mut pdus = Vec::new();
                while let Some((_, id)) = heap.pop() {
                    if pdus.len() >= limit {
                        break;
                    }
                    let known = graph.event_here(&id)?;
                    // A soft-failed event is given to those who hold one that follows it.
                    let asked_for = from.contains(&id);
                    if known.record.verdict.is_accepted()
                        || !known.record.verdict.is_rejected() && !asked_for
                    {
                        pdus.push(federation(&visibility.shown(&known)?));
                    }
                    for prev in known.pdu.prev_events() {
                        add(&mut heap, prev)?;
                    }
                }
                Ok(json!({ "origin": ours, "origin_server_ts": now, "pdus": pdus }))
            })
            .await
    }
}
