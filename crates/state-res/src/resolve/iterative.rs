//! Iterative auth checks.
//!
//! Specification: rooms/v2, "Iterative auth checks" and "Rejected events".

use exeunt_core::{Pdu, StateKey, StateMap};
use ruma::OwnedEventId;

use super::{ResolveError, events::Events};
use crate::auth::{AuthError, auth_types, check_auth};

/// Applies those of the events, in order, that the authorisation rules allow.
pub(super) fn apply(
    mut state: StateMap<OwnedEventId>,
    ids: &[OwnedEventId],
    events: &mut Events<'_>,
) -> Result<StateMap<OwnedEventId>, ResolveError> {
    for id in ids {
        let pdu = events.get(id)?;
        let Some(key) = pdu.key() else { continue };
        if is_allowed(&pdu, &state, events)? {
            state.insert(key, id.clone());
        }
    }
    Ok(state)
}

fn is_allowed(
    pdu: &Pdu,
    state: &StateMap<OwnedEventId>,
    events: &mut Events<'_>,
) -> Result<bool, ResolveError> {
    if pdu.kind() == "m.room.create" {
        return Ok(check_auth(pdu, pdu, &StateMap::new()).is_ok());
    }
    let known = auth_state(pdu, state, events)?;
    let create = match pdu.version().create_event_id(pdu.room_id()) {
        Some(id) => events.get(&id)?,
        None => match known.get(&StateKey::single("m.room.create")) {
            Some(create) => create.clone(),
            None => return Ok(false),
        },
    };
    match check_auth(pdu, &create, &known) {
        Ok(()) => Ok(true),
        Err(AuthError::Lookup(error)) => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// The state that the event is judged by: what `state` has of the keys that matter, else the
/// event's own auth events; rejected events in neither.
fn auth_state(
    pdu: &Pdu,
    state: &StateMap<OwnedEventId>,
    events: &mut Events<'_>,
) -> Result<StateMap<Pdu>, ResolveError> {
    let mut known = StateMap::new();
    for id in pdu.auth_events() {
        if let Some(event) = events.accepted(id)?
            && let Some(key) = event.key()
        {
            known.insert(key, event);
        }
    }
    let version = pdu.version();
    for key in auth_types(version, pdu.kind(), pdu.sender(), pdu.state_key(), pdu.content()) {
        let Some(id) = state.get(&key) else { continue };
        if let Some(event) = events.accepted(id)? {
            known.insert(key, event);
        }
    }
    Ok(known)
}
