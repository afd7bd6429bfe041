//! Power events and the reverse topological power ordering.
//!
//! Specification: rooms/v2, "Power events" and "Reverse topological power ordering".

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use exeunt_core::Pdu;

use super::ResolveError;
use super::events::{EventNo, Events};
use super::subgraph::Marks;
use crate::auth::{Level, Membership};

/// Whether the event might take someone's power away. The create event counts too, as in Synapse,
/// so that it is applied before what rests on it.
pub fn is_power_event(pdu: &Pdu) -> bool {
    match pdu.kind() {
        "m.room.create" | "m.room.power_levels" | "m.room.join_rules" => {
            pdu.state_key() == Some("")
        }
        "m.room.member" => {
            matches!(Membership::of(pdu), Membership::Leave | Membership::Ban)
                && pdu.state_key() != Some(pdu.sender().as_str())
        }
        _ => false,
    }
}

/// The power events of the full conflicted set with what they rest on within it, ordered.
///
/// Chains are followed within the set only, as Synapse does.
pub(super) fn sorted_power_events(
    full: &[EventNo],
    events: &mut Events<'_>,
) -> Result<Vec<EventNo>, ResolveError> {
    let is_full = Marks::of(full);
    let mut stack = Vec::new();
    for &event in full {
        if is_power_event(events.pdu(event)?) {
            stack.push(event);
        }
    }
    let mut picked = Vec::new();
    let mut seen = Marks::default();
    while let Some(event) = stack.pop() {
        if seen.set(event) {
            picked.push(event);
            stack.extend(events.auth(event)?.iter().filter(|cited| is_full.has(**cited)));
        }
    }
    let ranked = ranked(picked, events)?;
    kahn(&ranked, events)
}

/// Smallest first: greater power, then earlier, then smaller id.
fn ranked(picked: Vec<EventNo>, events: &mut Events<'_>) -> Result<Vec<EventNo>, ResolveError> {
    let mut keyed = Vec::with_capacity(picked.len());
    for event in picked {
        let level = sender_level(event, events)?;
        let time = events.pdu(event)?.origin_server_ts();
        keyed.push((Reverse(level), time, events.id(event).to_owned(), event));
    }
    keyed.sort_unstable();
    Ok(keyed.into_iter().map(|(.., event)| event).collect())
}

/// Kahn's algorithm, always taking the smallest event that rests on nothing left. Events that rest
/// on themselves, which hashes rule out and room version 2 cannot, are left to the mainline.
fn kahn(ranked: &[EventNo], events: &mut Events<'_>) -> Result<Vec<EventNo>, ResolveError> {
    let ranks: HashMap<EventNo, usize> = ranked.iter().copied().zip(0..).collect();
    let mut rests_on = vec![0; ranked.len()];
    let mut carries: Vec<Vec<usize>> = vec![Vec::new(); ranked.len()];
    for (rank, &event) in ranked.iter().enumerate() {
        for cited in events.auth(event)?.iter().filter_map(|cited| ranks.get(cited)) {
            rests_on[rank] += 1;
            carries[*cited].push(rank);
        }
    }
    let free = (0..ranked.len()).filter(|rank| rests_on[*rank] == 0);
    let mut ready: BinaryHeap<Reverse<usize>> = free.map(Reverse).collect();
    let mut sorted = Vec::with_capacity(ranked.len());
    while let Some(Reverse(rank)) = ready.pop() {
        sorted.push(ranked[rank]);
        for &upper in &carries[rank] {
            rests_on[upper] -= 1;
            if rests_on[upper] == 0 {
                ready.push(Reverse(upper));
            }
        }
    }
    Ok(sorted)
}

/// The power of the sender by the event's own auth events. A malformed level, which room versions
/// before 10 cannot rule out, ranks as the default: it must not stop the resolution.
fn sender_level(event: EventNo, events: &mut Events<'_>) -> Result<Level, ResolveError> {
    let create = match events.named_create(event)? {
        Some(named) => Some(named),
        None => events.auth_event(event, "m.room.create")?,
    };
    let power = events.auth_event(event, "m.room.power_levels")?;
    let levels = events.levels(event, power, create)?;
    Ok(levels.user(events.pdu(event)?.sender()).unwrap_or(Level::Finite(0)))
}
