//! Auth chains, as answers give them.

use std::collections::BTreeSet;

use ruma::OwnedEventId;

use crate::{RoomError, graph::Graph};

/// Most events of an auth chain that is given out (CVE-2024-31208).
pub const MAX_AUTH_CHAIN: usize = 500_000;

/// The ids of all events that `seeds` rest on, directly or not. Iterative, each event once.
pub(super) fn auth_chain(
    graph: &Graph<'_>,
    seeds: Vec<OwnedEventId>,
) -> Result<Vec<OwnedEventId>, RoomError> {
    let mut chain = BTreeSet::new();
    let mut done: BTreeSet<_> = seeds.iter().cloned().collect();
    let mut work: Vec<_> = done.iter().cloned().collect();
    while let Some(id) = work.pop() {
        for parent in graph.event_here(&id)?.pdu.auth_events() {
            if chain.insert(parent.clone()) && done.insert(parent.clone()) {
                work.push(parent.clone());
            }
        }
        if chain.len() > MAX_AUTH_CHAIN {
            return Err(RoomError::Forbidden("The auth chain is too long to be given".into()));
        }
    }
    Ok(chain.into_iter().collect())
}
