//! How the rules get at events: traits whose answers tell "absent" from "could not be read".

use std::{error::Error, fmt, ops::ControlFlow, sync::Arc};

use exeunt_core::{Pdu, StateKey, StateMap};
use ruma::{EventId, OwnedEventId};

use crate::PowerLevels;

/// A lookup failed. Says nothing about whether the event exists.
#[derive(Debug, Clone)]
pub struct LookupError(Arc<dyn Error + Send + Sync>);

impl LookupError {
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(cause.into()))
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event could not be read: {}", self.0)
    }
}

impl Error for LookupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// The same failure, not merely one that reads alike.
impl PartialEq for LookupError {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for LookupError {}

/// The room state that an event is judged against.
pub trait StateLookup {
    /// The event of `key`, `None` if the state has none.
    fn get(&self, key: &StateKey) -> Result<Option<Pdu>, LookupError>;

    /// The power levels in force. Who judges many events by the same levels hands out one value.
    fn power_levels(&self, create: &Pdu) -> Result<PowerLevels, LookupError> {
        let event = self.get(&StateKey::single("m.room.power_levels"))?;
        Ok(PowerLevels::from_state(create.version(), create, event.as_ref()))
    }
}

impl StateLookup for StateMap<Pdu> {
    fn get(&self, key: &StateKey) -> Result<Option<Pdu>, LookupError> {
        Ok(StateMap::get(self, key).cloned())
    }
}

/// The events of one room, for state resolution.
pub trait EventSource {
    /// The event, `None` if this server does not have it.
    fn event(&self, id: &EventId) -> Result<Option<Pdu>, LookupError>;

    /// Whether the event was rejected by the authorisation rules.
    fn rejected(&self, id: &EventId) -> Result<bool, LookupError>;
}

/// What a store keeps beside the events, so that walks over auth chains stay local.
pub trait AuthIndex: EventSource {
    /// Length of the longest path of auth events below the event: 0 for the create event, and
    /// always more than that of every auth event. `None` if this server does not have the event.
    fn generation(&self, id: &EventId) -> Result<Option<u64>, LookupError>;

    /// Visits the state events that name `id` in their auth events, until `visit` breaks.
    ///
    /// Rejected events may be left out: no state has them, and nothing accepted rests on them.
    fn cited_by(
        &self,
        id: &EventId,
        visit: &mut dyn FnMut(&EventId) -> ControlFlow<()>,
    ) -> Result<(), LookupError>;
}

/// What states to be resolved agree on, read key by key. In the server a persistent tree.
pub trait Agreed {
    /// The event that every state has at `key`, `None` if none has one. Only asked for keys that
    /// are not in conflict.
    fn get(&self, key: &StateKey) -> Result<Option<OwnedEventId>, LookupError>;
}

impl Agreed for StateMap<OwnedEventId> {
    fn get(&self, key: &StateKey) -> Result<Option<OwnedEventId>, LookupError> {
        Ok(StateMap::get(self, key).cloned())
    }
}
