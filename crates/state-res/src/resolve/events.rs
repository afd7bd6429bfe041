//! The events that a resolution has met, as numbers: each is read once, and so is what it rests on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use exeunt_core::{Pdu, StateKey};
use ruma::{EventId, OwnedEventId, OwnedRoomId};

use super::ResolveError;
use crate::auth::creators;
use crate::{AuthIndex, PowerLevels};

/// Most events that one resolution reads or names.
pub const MAX_EVENTS: usize = 1_000_000;

/// An event of this resolution. Numbers say nothing about order.
pub(super) type EventNo = u32;
/// A state key of this resolution.
pub(super) type KeyNo = u32;

/// A memo over an [`AuthIndex`] that turns "absent" into [`ResolveError::Missing`].
pub(super) struct Events<'a> {
    index: &'a dyn AuthIndex,
    room_id: Option<OwnedRoomId>,
    numbers: HashMap<OwnedEventId, EventNo>,
    entries: Vec<Entry>,
    keys: Keys,
    levels: BTreeMap<(Option<EventNo>, Option<EventNo>), PowerLevels>,
}

struct Entry {
    id: OwnedEventId,
    pdu: Option<Pdu>,
    key: Option<KeyNo>,
    auth: Option<Rc<[EventNo]>>,
    rejected: Option<bool>,
    generation: Option<u64>,
}

impl<'a> Events<'a> {
    pub(super) fn new(index: &'a dyn AuthIndex) -> Self {
        Self {
            index,
            room_id: None,
            numbers: HashMap::new(),
            entries: Vec::new(),
            keys: Keys::default(),
            levels: BTreeMap::new(),
        }
    }

    pub(super) fn index(&self) -> &'a dyn AuthIndex {
        self.index
    }

    /// How many events have a number; all numbers are below.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn number(&mut self, id: &EventId) -> Result<EventNo, ResolveError> {
        if let Some(number) = self.numbers.get(id) {
            return Ok(*number);
        }
        if self.entries.len() >= MAX_EVENTS {
            return Err(ResolveError::TooLarge);
        }
        let number = self.entries.len() as EventNo;
        self.numbers.insert(id.to_owned(), number);
        self.entries.push(Entry {
            id: id.to_owned(),
            pdu: None,
            key: None,
            auth: None,
            rejected: None,
            generation: None,
        });
        Ok(number)
    }

    pub(super) fn id(&self, event: EventNo) -> &EventId {
        &self.entry(event).id
    }

    /// The event. All events must be of the room of the first.
    pub(super) fn pdu(&mut self, event: EventNo) -> Result<&Pdu, ResolveError> {
        if self.entry(event).pdu.is_none() {
            self.read(event)?;
        }
        Ok(self.entry(event).pdu.as_ref().expect("read just now"))
    }

    fn read(&mut self, event: EventNo) -> Result<(), ResolveError> {
        let id = self.id(event);
        let pdu = self.index.event(id)?.ok_or_else(|| ResolveError::Missing(id.to_owned()))?;
        if self.room_id.get_or_insert_with(|| pdu.room_id().to_owned()) != pdu.room_id() {
            return Err(ResolveError::ForeignEvent(pdu.event_id().to_owned()));
        }
        let key = pdu.key().map(|key| self.keys.number(key));
        let entry = self.entry_mut(event);
        entry.key = key;
        entry.pdu = Some(pdu);
        Ok(())
    }

    /// The event's state key, `None` if it is not a state event.
    pub(super) fn key(&mut self, event: EventNo) -> Result<Option<KeyNo>, ResolveError> {
        self.pdu(event)?;
        Ok(self.entry(event).key)
    }

    /// The event's auth events in their order, each once.
    pub(super) fn auth(&mut self, event: EventNo) -> Result<Rc<[EventNo]>, ResolveError> {
        if let Some(auth) = &self.entry(event).auth {
            return Ok(auth.clone());
        }
        let pdu = self.pdu(event)?.clone();
        let mut seen = BTreeSet::new();
        let mut auth = Vec::with_capacity(pdu.auth_events().len());
        for id in pdu.auth_events() {
            let number = self.number(id)?;
            if seen.insert(number) {
                auth.push(number);
            }
        }
        let auth: Rc<[EventNo]> = auth.into();
        self.entry_mut(event).auth = Some(auth.clone());
        Ok(auth)
    }

    pub(super) fn is_rejected(&mut self, event: EventNo) -> Result<bool, ResolveError> {
        if let Some(rejected) = self.entry(event).rejected {
            return Ok(rejected);
        }
        let rejected = self.index.rejected(self.id(event))?;
        self.entry_mut(event).rejected = Some(rejected);
        Ok(rejected)
    }

    pub(super) fn generation(&mut self, event: EventNo) -> Result<u64, ResolveError> {
        if let Some(generation) = self.entry(event).generation {
            return Ok(generation);
        }
        let id = self.id(event);
        let generation = self.index.generation(id)?;
        let generation = generation.ok_or_else(|| ResolveError::Missing(id.to_owned()))?;
        self.entry_mut(event).generation = Some(generation);
        Ok(generation)
    }

    /// The first of the event's auth events of that type with an empty state key.
    pub(super) fn auth_event(
        &mut self,
        event: EventNo,
        kind: &str,
    ) -> Result<Option<EventNo>, ResolveError> {
        for &cited in self.auth(event)?.iter() {
            if self.pdu(cited)?.is_state(kind, "") {
                return Ok(Some(cited));
            }
        }
        Ok(None)
    }

    /// The create event that the room id names, where it names one.
    pub(super) fn named_create(&mut self, event: EventNo) -> Result<Option<EventNo>, ResolveError> {
        let pdu = self.pdu(event)?;
        let id = pdu.version().create_event_id(pdu.room_id());
        id.map(|id| self.number(&id)).transpose()
    }

    /// The levels of a power levels event in the room of a create event, parsed once.
    pub(super) fn levels(
        &mut self,
        of: EventNo,
        power: Option<EventNo>,
        create: Option<EventNo>,
    ) -> Result<PowerLevels, ResolveError> {
        if let Some(levels) = self.levels.get(&(power, create)) {
            return Ok(levels.clone());
        }
        let version = self.pdu(of)?.version();
        let creators = match create {
            Some(create) => creators(self.pdu(create)?),
            None => Vec::new(),
        };
        let event = power.map(|power| self.pdu(power).cloned()).transpose()?;
        let levels = PowerLevels::new(version, creators, event);
        self.levels.insert((power, create), levels.clone());
        Ok(levels)
    }

    pub(super) fn keys(&mut self) -> &mut Keys {
        &mut self.keys
    }

    fn entry(&self, event: EventNo) -> &Entry {
        &self.entries[event as usize]
    }

    fn entry_mut(&mut self, event: EventNo) -> &mut Entry {
        &mut self.entries[event as usize]
    }
}

/// State keys as numbers.
#[derive(Default)]
pub(super) struct Keys {
    numbers: HashMap<StateKey, KeyNo>,
    keys: Vec<StateKey>,
}

impl Keys {
    pub(super) fn number(&mut self, key: StateKey) -> KeyNo {
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = self.keys.len() as KeyNo;
        self.keys.push(key.clone());
        self.numbers.insert(key, number);
        number
    }

    pub(super) fn key(&self, number: KeyNo) -> &StateKey {
        &self.keys[number as usize]
    }
}
