//! The authorisation rules over numbered events.

use exeunt_core::{Pdu, StateKey};

use super::ResolveError;
use super::events::{EventNo, Events, KeyNo, Keys};
use crate::auth::{AuthError, auth_types, check_auth};
use crate::{LookupError, PowerLevels, StateLookup};

/// The keys of state that the event is judged by.
pub(super) fn needed(event: EventNo, events: &mut Events<'_>) -> Result<Vec<KeyNo>, ResolveError> {
    let pdu = events.pdu(event)?.clone();
    let version = pdu.version();
    let keys = auth_types(version, pdu.kind(), pdu.sender(), pdu.state_key(), pdu.content());
    Ok(keys.into_iter().map(|key| events.keys().number(key)).collect())
}

/// Whether the rules allow the event in a state that has `known` at the keys that it needs.
pub(super) fn judge(
    event: EventNo,
    known: &[(KeyNo, EventNo)],
    events: &mut Events<'_>,
) -> Result<Result<(), AuthError>, ResolveError> {
    let pdu = events.pdu(event)?.clone();
    let at = |kind: &str, events: &mut Events<'_>| {
        let key = events.keys().number(StateKey::single(kind));
        known.iter().find(|(known, _)| *known == key).map(|(_, event)| *event)
    };
    let create = match events.named_create(event)? {
        _ if pdu.kind() == "m.room.create" => Some(event),
        Some(named) => Some(named),
        None => at("m.room.create", events),
    };
    let Some(create) = create else { return Ok(Err(AuthError::NoCreate)) };
    let power = at("m.room.power_levels", events);
    let levels = events.levels(event, power, Some(create))?;
    let create = events.pdu(create)?.clone();
    let mut state = Vec::with_capacity(known.len());
    for &(key, event) in known {
        state.push((key, events.pdu(event)?.clone()));
    }
    match check_auth(&pdu, &create, &Known { keys: events.keys(), state, levels }) {
        Err(AuthError::Lookup(error)) => Err(error.into()),
        verdict => Ok(verdict),
    }
}

/// A handful of state.
struct Known<'a> {
    keys: &'a Keys,
    state: Vec<(KeyNo, Pdu)>,
    levels: PowerLevels,
}

impl StateLookup for Known<'_> {
    fn get(&self, key: &StateKey) -> Result<Option<Pdu>, LookupError> {
        let found = self.state.iter().find(|(known, _)| self.keys.key(*known) == key);
        Ok(found.map(|(_, pdu)| pdu.clone()))
    }

    fn power_levels(&self, _: &Pdu) -> Result<PowerLevels, LookupError> {
        Ok(self.levels.clone())
    }
}
