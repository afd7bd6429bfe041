//! State resolution.
//!
//! Specification: rooms/v1, v2 and v12, "State resolution".
//!
//! [`resolve_conflict`] reads what the states do not agree on and what that rests on, never the
//! whole state. Inside one resolution events and state keys are numbers ([`events::Events`]);
//! ties are broken by event ids as text.

use exeunt_core::version::StateResolutionVersion;
use exeunt_core::{RoomVersion, StateKey, StateMap};
use ruma::OwnedEventId;
use thiserror::Error;

use crate::{Agreed, AuthIndex, EventSource, LookupError, Trace};

mod base;
mod difference;
mod events;
mod iterative;
mod judge;
mod mainline;
mod power_order;
mod subgraph;
mod v1;
mod v2;
mod whole;

pub use events::MAX_EVENTS;
pub use power_order::is_power_event;

/// Why states could not be resolved. None of these says anything about the states themselves.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ResolveError {
    #[error("event {0} is needed and missing")]
    Missing(OwnedEventId),
    #[error("event {0} is of another room than the rest")]
    ForeignEvent(OwnedEventId),
    #[error("more than {MAX_EVENTS} events are needed")]
    TooLarge,
    #[error("the state resolution of room version {0} is not supported")]
    Unsupported(&'static str),
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

/// States to be resolved, by what they agree on and what they do not.
pub struct Conflict<'a> {
    /// The keys at which the states differ, each with every state's event there; a row has one
    /// entry per state, `None` where that state has no event.
    pub keys: Vec<(StateKey, Vec<Option<OwnedEventId>>)>,
    /// All other keys.
    pub agreed: &'a dyn Agreed,
}

/// Resolves the states after an event's predecessors. The answer has the resolved events at the
/// keys that are not agreed on: a key in conflict that it lacks has no event in the resolved
/// state, and a key that no state has may come out of the auth difference.
///
/// The answer depends on the states and the events only, not on the order of states or keys. All
/// events must be of one room.
pub fn resolve_conflict<T: Trace>(
    version: RoomVersion,
    conflict: &Conflict<'_>,
    index: &dyn AuthIndex,
    trace: &mut T,
) -> Result<StateMap<OwnedEventId>, ResolveError> {
    trace.conflict(&conflict.keys);
    let resolved = if conflict.keys.is_empty() {
        StateMap::new()
    } else {
        match version.rules().state_res {
            StateResolutionVersion::V1 => v1::resolve(conflict, index, trace)?,
            StateResolutionVersion::V2(rules) => v2::resolve(rules, conflict, index, trace)?,
            _ => return Err(ResolveError::Unsupported(version.as_str())),
        }
    };
    trace.resolved(&resolved);
    Ok(resolved)
}

/// [`resolve_conflict`] for whole states and events without an index: for tests, and where states
/// are small. Reads the full auth chains of all states.
pub fn resolve(
    version: RoomVersion,
    sets: &[StateMap<OwnedEventId>],
    events: &dyn EventSource,
) -> Result<StateMap<OwnedEventId>, ResolveError> {
    let (keys, mut agreed) = whole::split(sets);
    if keys.is_empty() {
        return Ok(agreed);
    }
    let index = whole::Walked::new(sets, events)?;
    let conflict = Conflict { keys, agreed: &agreed };
    let resolved = resolve_conflict(version, &conflict, &index, &mut ())?;
    agreed.extend(resolved);
    Ok(agreed)
}
