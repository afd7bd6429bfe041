//! Power events and the reverse topological power ordering.
//!
//! Specification: rooms/v2, "Power events" and "Reverse topological power ordering".

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use exeunt_core::Pdu;
use ruma::OwnedEventId;

use super::{ResolveError, events::Events};
use crate::auth::{Level, Membership, PowerLevels, creators};

type Ids = BTreeSet<OwnedEventId>;

/// Whether the event might take someone's power away. The create event counts too, as in Synapse,
/// so that it is applied before what rests on it.
pub(super) fn is_power_event(pdu: &Pdu) -> bool {
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
    full: &Ids,
    events: &mut Events<'_>,
) -> Result<Vec<OwnedEventId>, ResolveError> {
    let mut rests_on: BTreeMap<OwnedEventId, Ids> = BTreeMap::new();
    let mut stack = Vec::new();
    for id in full {
        if is_power_event(&events.get(id)?) {
            stack.push(id.clone());
        }
    }
    while let Some(id) = stack.pop() {
        if rests_on.contains_key(&id) {
            continue;
        }
        let pdu = events.get(&id)?;
        let within: Ids =
            pdu.auth_events().iter().filter(|id| full.contains(*id)).cloned().collect();
        stack.extend(within.iter().cloned());
        rests_on.insert(id, within);
    }
    kahn(rests_on, events)
}

/// Smallest first: greater power, then earlier, then smaller id.
type Rank = Reverse<(Reverse<Level>, u64, OwnedEventId)>;

/// Kahn's algorithm, always taking the smallest event that rests on nothing left. Events that rest
/// on themselves, which hashes rule out and room version 2 cannot, are left out.
fn kahn(
    mut rests_on: BTreeMap<OwnedEventId, Ids>,
    events: &mut Events<'_>,
) -> Result<Vec<OwnedEventId>, ResolveError> {
    let mut carries: BTreeMap<OwnedEventId, Vec<OwnedEventId>> = BTreeMap::new();
    let mut ready: BinaryHeap<Rank> = BinaryHeap::new();
    for (id, below) in &rests_on {
        if below.is_empty() {
            ready.push(rank(id, events)?);
        }
        for lower in below {
            carries.entry(lower.clone()).or_default().push(id.clone());
        }
    }
    let mut sorted = Vec::with_capacity(rests_on.len());
    while let Some(Reverse((_, _, id))) = ready.pop() {
        for upper in carries.remove(&id).into_iter().flatten() {
            let Some(below) = rests_on.get_mut(&upper) else { continue };
            below.remove(&id);
            if below.is_empty() {
                ready.push(rank(&upper, events)?);
            }
        }
        sorted.push(id);
    }
    Ok(sorted)
}

fn rank(id: &OwnedEventId, events: &mut Events<'_>) -> Result<Rank, ResolveError> {
    let pdu = events.get(id)?;
    let level = sender_level(&pdu, events)?;
    Ok(Reverse((Reverse(level), pdu.origin_server_ts(), id.clone())))
}

/// The power of the sender by the event's own auth events. A malformed level, which room versions
/// before 10 cannot rule out, ranks as the default: it must not stop the resolution.
fn sender_level(pdu: &Pdu, events: &mut Events<'_>) -> Result<Level, ResolveError> {
    let creators = events.create_of(pdu)?.as_ref().map(creators).unwrap_or_default();
    let event = events.auth_event(pdu, "m.room.power_levels")?;
    let levels = PowerLevels::new(pdu.version(), creators, event);
    Ok(levels.user(pdu.sender()).unwrap_or(Level::Finite(0)))
}
