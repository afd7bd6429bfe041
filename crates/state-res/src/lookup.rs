//! How the rules get at events: traits whose answers tell "absent" from "could not be read".

use std::{error::Error, fmt, sync::Arc};

use exeunt_core::{Pdu, StateKey, StateMap};
use ruma::EventId;

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
