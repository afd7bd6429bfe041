//! State resolution.
//!
//! Specification: rooms/v2 and v12, "State resolution".

use exeunt_core::version::StateResolutionVersion;
use exeunt_core::{RoomVersion, StateMap};
use ruma::OwnedEventId;
use thiserror::Error;

use crate::{EventSource, LookupError};

mod auth_chain;
mod conflicts;
mod events;
mod iterative;
mod mainline;
mod power_order;
mod v2;

pub use events::MAX_EVENTS;

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

/// Resolves the states after an event's predecessors into the state before the event.
///
/// The result depends on the sets and the events only, not on the order of the sets. The events
/// of the sets must be of one room; their auth chains are read through `events`.
pub fn resolve(
    version: RoomVersion,
    sets: &[StateMap<OwnedEventId>],
    events: &dyn EventSource,
) -> Result<StateMap<OwnedEventId>, ResolveError> {
    match version.rules().state_res {
        StateResolutionVersion::V2(rules) => v2::resolve(rules, sets, events),
        // Room version 1 resolves by depth and by kind of event; not built yet.
        _ => Err(ResolveError::Unsupported(version.as_str())),
    }
}
