//! The events that a resolution has read, each read once.

use std::collections::BTreeMap;

use exeunt_core::Pdu;
use ruma::{EventId, OwnedEventId, OwnedRoomId};

use super::ResolveError;
use crate::EventSource;

/// Most events that one resolution reads.
pub const MAX_EVENTS: usize = 1_000_000;

/// A memo over an [`EventSource`] that turns "absent" into [`ResolveError::Missing`].
pub(super) struct Events<'a> {
    source: &'a dyn EventSource,
    room_id: Option<OwnedRoomId>,
    read: BTreeMap<OwnedEventId, Pdu>,
    rejected: BTreeMap<OwnedEventId, bool>,
}

impl<'a> Events<'a> {
    pub(super) fn new(source: &'a dyn EventSource) -> Self {
        Self { source, room_id: None, read: BTreeMap::new(), rejected: BTreeMap::new() }
    }

    /// The event. All events must be of the room of the first.
    pub(super) fn get(&mut self, id: &EventId) -> Result<Pdu, ResolveError> {
        if let Some(pdu) = self.read.get(id) {
            return Ok(pdu.clone());
        }
        if self.read.len() >= MAX_EVENTS {
            return Err(ResolveError::TooLarge);
        }
        let pdu = self.source.event(id)?.ok_or_else(|| ResolveError::Missing(id.to_owned()))?;
        let room_id = self.room_id.get_or_insert_with(|| pdu.room_id().to_owned());
        if room_id != pdu.room_id() {
            return Err(ResolveError::ForeignEvent(id.to_owned()));
        }
        self.read.insert(id.to_owned(), pdu.clone());
        Ok(pdu)
    }

    /// The event, unless it was rejected.
    pub(super) fn accepted(&mut self, id: &EventId) -> Result<Option<Pdu>, ResolveError> {
        let rejected = match self.rejected.get(id) {
            Some(rejected) => *rejected,
            None => {
                let rejected = self.source.rejected(id)?;
                self.rejected.insert(id.to_owned(), rejected);
                rejected
            }
        };
        if rejected { Ok(None) } else { self.get(id).map(Some) }
    }

    /// The event among `pdu`'s auth events of that type with an empty state key.
    pub(super) fn auth_event(
        &mut self,
        pdu: &Pdu,
        kind: &str,
    ) -> Result<Option<Pdu>, ResolveError> {
        for id in pdu.auth_events() {
            let event = self.get(id)?;
            if event.is_state(kind, "") {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// The create event that `pdu` rests on: the one that the room id names, or the one it cites.
    pub(super) fn create_of(&mut self, pdu: &Pdu) -> Result<Option<Pdu>, ResolveError> {
        match pdu.version().create_event_id(pdu.room_id()) {
            Some(id) => self.get(&id).map(Some),
            None => self.auth_event(pdu, "m.room.create"),
        }
    }
}
