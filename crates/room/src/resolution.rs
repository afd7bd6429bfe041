//! Resolving states of the store: what they differ in comes from their trees, what they agree on is
//! read key by key, so that the cost follows the conflict and not the room.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use exeunt_core::{Pdu, StateKey};
use exeunt_state_res::{
    Agreed, AuthIndex, Conflict, EventSource, LookupError, Trace, resolve_conflict,
};
use exeunt_store::records::Root;
use ruma::{EventId, OwnedEventId};

use crate::{
    RoomError,
    graph::{Graph, lookup_error},
};

impl Graph<'_> {
    /// Resolves states given by their roots.
    pub fn resolve(&self, roots: Vec<Root>) -> Result<Root, RoomError> {
        self.resolve_traced(roots, &mut ())
    }

    /// [`resolve`](Self::resolve) that tells how.
    pub fn resolve_traced(
        &self,
        mut roots: Vec<Root>,
        trace: &mut impl Trace,
    ) -> Result<Root, RoomError> {
        roots.sort_unstable();
        roots.dedup();
        let Some((&first, others)) = roots.split_first() else { return Ok(Root::EMPTY) };
        if others.is_empty() {
            return Ok(first);
        }
        let mut differing = BTreeSet::new();
        for &other in others {
            differing.extend(self.diff(first, other)?.into_iter().map(|change| change.key));
        }
        let mut keys = Vec::with_capacity(differing.len());
        for key in differing {
            let row = roots.iter().map(|root| self.state_id(*root, &key));
            keys.push((key.clone(), row.collect::<Result<Vec<_>, _>>()?));
        }
        let conflict = Conflict { keys, agreed: &AgreedState { graph: self, root: first } };
        let resolved = resolve_conflict(self.version, &conflict, self, trace)?;
        let gone = conflict.keys.into_iter().map(|(key, _)| key);
        let mut changes: Vec<_> =
            gone.filter(|key| !resolved.contains_key(key)).map(|key| (key, None)).collect();
        changes.extend(resolved.into_iter().map(|(key, id)| (key, Some(id))));
        self.apply_all(first, &changes)
    }
}

/// Any of the states serves, at keys where they do not differ.
struct AgreedState<'g> {
    graph: &'g Graph<'g>,
    root: Root,
}

impl Agreed for AgreedState<'_> {
    fn get(&self, key: &StateKey) -> Result<Option<OwnedEventId>, LookupError> {
        self.graph.state_id(self.root, key).map_err(lookup_error)
    }
}

impl EventSource for Graph<'_> {
    fn event(&self, id: &EventId) -> Result<Option<Pdu>, LookupError> {
        Ok(Graph::event(self, id).map_err(lookup_error)?.map(|known| known.pdu))
    }

    fn rejected(&self, id: &EventId) -> Result<bool, LookupError> {
        let known = Graph::event(self, id).map_err(lookup_error)?;
        Ok(known.is_some_and(|known| known.record.verdict.is_rejected()))
    }
}

impl AuthIndex for Graph<'_> {
    fn generation(&self, id: &EventId) -> Result<Option<u64>, LookupError> {
        let known = Graph::event(self, id).map_err(lookup_error)?;
        Ok(known.map(|known| known.record.generation))
    }

    fn cited_by(
        &self,
        id: &EventId,
        visit: &mut dyn FnMut(&EventId) -> ControlFlow<()>,
    ) -> Result<(), LookupError> {
        for citing in self.citing(id) {
            let citing = citing.map_err(lookup_error)?;
            // An event of another room may claim to rest on one of this.
            let here = Graph::event(self, &citing).map_err(lookup_error)?.is_some();
            if here && visit(&citing).is_break() {
                break;
            }
        }
        Ok(())
    }
}
