//! Which events an answer holds and which rest on which: what is kept in memory of a room that is
//! being joined.

use std::collections::BTreeMap;

use ruma::{EventId, OwnedEventId};

/// Events by numbers, in the order in which they were first named.
#[derive(Default)]
pub(super) struct Index {
    numbers: BTreeMap<OwnedEventId, u32>,
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    /// The event has come, and is not merely named by another.
    here: bool,
    in_state: bool,
    bytes: u32,
    auth: Box<[u32]>,
}

impl Index {
    /// Notes an event of so many bytes. `None` if it is here already.
    pub fn add(&mut self, id: &EventId, auth_events: &[OwnedEventId], bytes: usize) -> Option<u32> {
        let number = self.number(id);
        if self.nodes[number as usize].here {
            return None;
        }
        let auth = auth_events.iter().map(|id| self.number(id)).collect();
        self.nodes[number as usize] = Node {
            here: true,
            in_state: false,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            auth,
        };
        Some(number)
    }

    /// Notes that an event that is here is one of the room's state.
    pub fn set_in_state(&mut self, id: &EventId) {
        if let Some(&number) = self.numbers.get(id) {
            self.nodes[number as usize].in_state = true;
        }
    }

    pub fn in_state(&self, number: u32) -> bool {
        self.nodes[number as usize].in_state
    }

    /// Events that are here or named.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The events that are here: `first`, then the others, each after those that it rests on.
    /// Iterative; events in a cycle (which valid hashes exclude) come out in any order.
    pub fn order(&self, first: &EventId) -> Vec<u32> {
        let mut seen = vec![false; self.nodes.len()];
        let mut out = Vec::with_capacity(self.nodes.len());
        let first = self.numbers.get(first).copied();
        let roots = first.into_iter().chain(0..self.nodes.len() as u32);
        let mut stack = Vec::new();
        for root in roots {
            stack.push((root, false));
            while let Some((number, expanded)) = stack.pop() {
                let node = &self.nodes[number as usize];
                if expanded {
                    out.push(number);
                    continue;
                }
                if !node.here || std::mem::replace(&mut seen[number as usize], true) {
                    continue;
                }
                stack.push((number, true));
                stack.extend(node.auth.iter().map(|parent| (*parent, false)));
            }
        }
        out
    }

    /// Parts of an order, each with at most so many events and, unless it is one event, bytes.
    pub fn parts<'a>(&self, order: &'a [u32], max_events: usize, max_bytes: u64) -> Vec<&'a [u32]> {
        let mut parts = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (end, number) in order.iter().enumerate() {
            let size = u64::from(self.nodes[*number as usize].bytes);
            if end > start && (end - start == max_events || bytes + size > max_bytes) {
                parts.push(&order[start..end]);
                (start, bytes) = (end, 0);
            }
            bytes += size;
        }
        parts.push(&order[start..]);
        parts
    }

    fn number(&mut self, id: &EventId) -> u32 {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        let number = u32::try_from(self.nodes.len()).expect("bounded by MAX_EVENTS");
        self.numbers.insert(id.to_owned(), number);
        self.nodes.push(Node::default());
        number
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> OwnedEventId {
        EventId::parse(format!("${number}")).unwrap()
    }

    #[test]
    fn an_event_counts_once() {
        let mut index = Index::default();
        assert_eq!(index.add(&id(1), &[id(0)], 1), Some(0));
        assert_eq!(index.add(&id(1), &[], 1), None);
        assert_eq!(index.add(&id(0), &[], 1), Some(1));
        assert_eq!(index.order(&id(0)), [1, 0]);
        assert!(!index.in_state(0));
        index.set_in_state(&id(1));
        assert!(index.in_state(0));
    }

    #[test]
    fn parts_are_bounded_by_number_and_size() {
        let mut index = Index::default();
        for (number, bytes) in [1, 1, 1, 9, 3, 3].into_iter().enumerate() {
            index.add(&id(number), &[], bytes);
        }
        let parts: [&[u32]; 4] = [&[0, 1], &[2], &[3], &[4, 5]];
        assert_eq!(index.parts(&[0, 1, 2, 3, 4, 5], 2, 6), parts);
    }

    #[test]
    fn a_cycle_ends() {
        let mut index = Index::default();
        index.add(&id(0), &[id(1), id(0)], 1);
        index.add(&id(1), &[id(0), id(7)], 1);
        let mut order = index.order(&id(7));
        order.sort();
        assert_eq!(order, [0, 1]);
    }

    proptest! {
        /// Whatever the order of arrival: everything that came, once, after what it rests on.
        #[test]
        fn events_follow_what_they_rest_on(
            edges in prop::collection::vec(prop::collection::vec(0usize..40, 0..4), 1..40),
            arrival in Just((0usize..40).collect::<Vec<_>>()).prop_shuffle(),
            absent in 0usize..40,
        ) {
            let mut index = Index::default();
            let mut by_number = BTreeMap::new();
            for event in arrival.into_iter().filter(|e| *e < edges.len() && *e != absent) {
                let auth: Vec<_> = edges[event].iter().filter(|p| **p < event).map(|p| id(*p)).collect();
                by_number.insert(index.add(&id(event), &auth, 1).unwrap(), event);
            }
            let order: Vec<_> = index.order(&id(0)).iter().map(|n| by_number[n]).collect();
            prop_assert_eq!(order.len(), by_number.len());
            for (place, event) in order.iter().enumerate() {
                for parent in edges[*event].iter().filter(|p| **p < *event && **p != absent) {
                    prop_assert!(order[..place].contains(parent));
                }
            }
        }
    }
}
