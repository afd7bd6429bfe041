//! Whole states and events without an index, made into a [`Conflict`](super::Conflict) and an
//! [`AuthIndex`].
//!
//! Specification: rooms/v2, "Unconflicted state map and conflicted state set".

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use exeunt_core::{Pdu, StateKey, StateMap};
use ruma::{EventId, OwnedEventId};

use super::{MAX_EVENTS, ResolveError};
use crate::{AuthIndex, EventSource, LookupError};

type Row = (StateKey, Vec<Option<OwnedEventId>>);

/// The keys at which the states differ, and what they have at all others.
pub(super) fn split(sets: &[StateMap<OwnedEventId>]) -> (Vec<Row>, StateMap<OwnedEventId>) {
    let keys: BTreeSet<&StateKey> = sets.iter().flat_map(StateMap::keys).collect();
    let mut conflicted = Vec::new();
    let mut agreed = StateMap::new();
    for key in keys {
        let row: Vec<Option<&OwnedEventId>> = sets.iter().map(|set| set.get(key)).collect();
        match row[0] {
            Some(first) if row.iter().all(|id| *id == Some(first)) => {
                agreed.insert(key.clone(), first.clone());
            }
            _ => {
                conflicted.push((key.clone(), row.into_iter().map(Option::<&_>::cloned).collect()))
            }
        }
    }
    (conflicted, agreed)
}

/// The full auth chains of states.
pub(super) struct Walked<'a> {
    source: &'a dyn EventSource,
    numbers: HashMap<OwnedEventId, usize>,
    nodes: Vec<Node>,
}

struct Node {
    pdu: Pdu,
    generation: u64,
    cited_by: Vec<usize>,
}

impl<'a> Walked<'a> {
    /// Reads every event that the states' events rest on, each once.
    pub(super) fn new(
        sets: &[StateMap<OwnedEventId>],
        source: &'a dyn EventSource,
    ) -> Result<Self, ResolveError> {
        let mut walked = Self { source, numbers: HashMap::new(), nodes: Vec::new() };
        for id in sets.iter().flat_map(StateMap::values) {
            walked.walk(id)?;
        }
        walked.rank();
        Ok(walked)
    }

    fn walk(&mut self, from: &OwnedEventId) -> Result<(), ResolveError> {
        let mut stack = vec![from.clone()];
        while let Some(id) = stack.pop() {
            if self.numbers.contains_key(&id) {
                continue;
            }
            if self.nodes.len() >= MAX_EVENTS {
                return Err(ResolveError::TooLarge);
            }
            let pdu = self.source.event(&id)?.ok_or_else(|| ResolveError::Missing(id.clone()))?;
            if self.nodes.first().is_some_and(|first| first.pdu.room_id() != pdu.room_id()) {
                return Err(ResolveError::ForeignEvent(id));
            }
            stack.extend(pdu.auth_events().iter().cloned());
            self.numbers.insert(id, self.nodes.len());
            self.nodes.push(Node { pdu, generation: 0, cited_by: Vec::new() });
        }
        Ok(())
    }

    /// Sets who cites whom, and generations by it. Ids in a circle have none; all stay 0 then.
    fn rank(&mut self) {
        let mut open = vec![0; self.nodes.len()];
        for (upper, open) in open.iter_mut().enumerate() {
            let cited = self.nodes[upper].pdu.auth_events().iter().map(|id| self.numbers[id]);
            let cited: BTreeSet<usize> = cited.collect();
            *open = cited.len();
            for lower in cited {
                self.nodes[lower].cited_by.push(upper);
            }
        }
        let mut ready: Vec<usize> = (0..open.len()).filter(|at| open[*at] == 0).collect();
        let mut generations = vec![0; open.len()];
        let mut next = 0;
        while next < ready.len() {
            let lower = ready[next];
            for &upper in &self.nodes[lower].cited_by {
                generations[upper] = generations[upper].max(generations[lower] + 1);
                open[upper] -= 1;
                if open[upper] == 0 {
                    ready.push(upper);
                }
            }
            next += 1;
        }
        if ready.len() == self.nodes.len() {
            for (node, generation) in self.nodes.iter_mut().zip(generations) {
                node.generation = generation;
            }
        }
    }

    fn node(&self, id: &EventId) -> Option<&Node> {
        self.numbers.get(id).map(|number| &self.nodes[*number])
    }
}

impl EventSource for Walked<'_> {
    fn event(&self, id: &EventId) -> Result<Option<Pdu>, LookupError> {
        match self.node(id) {
            Some(node) => Ok(Some(node.pdu.clone())),
            None => self.source.event(id),
        }
    }

    fn rejected(&self, id: &EventId) -> Result<bool, LookupError> {
        self.source.rejected(id)
    }
}

impl AuthIndex for Walked<'_> {
    fn generation(&self, id: &EventId) -> Result<Option<u64>, LookupError> {
        Ok(self.node(id).map(|node| node.generation))
    }

    fn cited_by(
        &self,
        id: &EventId,
        visit: &mut dyn FnMut(&EventId) -> ControlFlow<()>,
    ) -> Result<(), LookupError> {
        for upper in self.node(id).into_iter().flat_map(|node| &node.cited_by) {
            if visit(self.nodes[*upper].pdu.event_id()).is_break() {
                break;
            }
        }
        Ok(())
    }
}
