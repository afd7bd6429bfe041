//! Reads of the event graph: everything that a decision needs, from one snapshot.

use std::cell::{OnceCell, RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::sync::Arc;

use exeunt_acl::ServerAcl;
use exeunt_core::{Pdu, RoomVersion, StateKey, StateMap};
use exeunt_state_res::{LookupError, PowerLevels, StateLookup};
use exeunt_store::{
    Batch, Reader, StoreError,
    records::{EventRecord, RoomRecord, Root, States},
    snapshot::{self, StateChange},
    tables,
};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName, UserId};

use crate::{RoomError, redactions, rows::raw_json};

/// Most events that one [`Graph`] keeps parsed; a decision rarely needs more than a few dozen.
const MAX_CACHED: usize = 2_000;

pub(crate) const SERVER_ACL: &str = "m.room.server_acl";

/// A room's graph in one snapshot of the store, and the batch that a decision writes upon it.
/// State trees and events of the batch can be read like the others.
pub struct Graph<'a> {
    pub reader: &'a Reader<'a>,
    pub room_id: OwnedRoomId,
    pub version: RoomVersion,
    pub room: RoomRecord,
    batch: RefCell<Batch>,
    stored: RefCell<BTreeMap<OwnedEventId, Option<Known>>>,
    added: RefCell<BTreeMap<OwnedEventId, Known>>,
    /// What the batch adds to `AuthChildren`.
    citing: RefCell<BTreeMap<OwnedEventId, BTreeSet<OwnedEventId>>>,
    joined: RefCell<BTreeMap<OwnedServerName, u64>>,
    has_redactions: OnceCell<bool>,
}

/// An event with its record.
#[derive(Clone)]
pub struct Known {
    pub pdu: Pdu,
    pub record: Arc<EventRecord>,
    /// Of a server ACL, compiled once for as long as the event is kept in memory.
    acl: Option<Arc<ServerAcl>>,
}

impl Known {
    fn new(pdu: Pdu, record: EventRecord) -> Self {
        let is_acl = pdu.is_state(SERVER_ACL, "");
        let acl = is_acl.then(|| Arc::new(ServerAcl::compile(pdu.content())));
        Self { pdu, record: record.into(), acl }
    }
}

impl<'a> Graph<'a> {
    /// The graph of a room, `None` if this server never had it.
    pub fn open(reader: &'a Reader<'a>, room_id: &RoomId) -> Result<Option<Self>, RoomError> {
        let room_id = room_id.to_owned();
        let Some(room) = reader.get::<tables::Rooms>(&room_id)? else { return Ok(None) };
        Self::with_head(reader, room_id, room).map(Some)
    }

    /// The graph of a room that we know; `NotFound` otherwise.
    pub fn of(reader: &'a Reader<'a>, room_id: &RoomId) -> Result<Self, RoomError> {
        Self::open(reader, room_id)?.ok_or_else(|| RoomError::NotFound("Unknown room".into()))
    }

    /// The graph of a room whose head is given: one that is being created or joined.
    pub fn with_head(
        reader: &'a Reader<'a>,
        room_id: OwnedRoomId,
        room: RoomRecord,
    ) -> Result<Self, RoomError> {
        let version =
            RoomVersion::parse(&room.version).map_err(|e| RoomError::UnsupportedVersion(e.0))?;
        Ok(Self {
            reader,
            room_id,
            version,
            room,
            batch: RefCell::default(),
            stored: RefCell::default(),
            added: RefCell::default(),
            citing: RefCell::default(),
            joined: RefCell::default(),
            has_redactions: OnceCell::new(),
        })
    }

    /// What has been written so far.
    pub fn batch(&self) -> RefMut<'_, Batch> {
        self.batch.borrow_mut()
    }

    /// The batch, to be committed.
    pub fn into_batch(self) -> Batch {
        self.batch.into_inner()
    }

    /// Writes an event with its place among the auth events, redacted if a redaction waits for it,
    /// and makes it readable here. Gives the record as written.
    pub fn add(&self, pdu: &Pdu, mut record: EventRecord) -> Result<EventRecord, RoomError> {
        let id = pdu.event_id().to_owned();
        let mut pdu = pdu.clone();
        if record.redacted_because.is_none()
            && self.has_redactions()?
            && let Some(redaction) = redactions::waiting_for(self, &pdu)?
        {
            pdu = pdu.redacted();
            record.json = raw_json(&pdu);
            record.redacted_because = Some(redaction);
        }
        for auth in pdu.auth_events() {
            let below = self.event(auth)?.map_or(0, |known| known.record.generation + 1);
            record.generation = record.generation.max(below);
            if pdu.state_key().is_none() {
                continue;
            }
            let edge = (auth.clone(), id.clone());
            if record.verdict.is_rejected() {
                self.batch().delete::<tables::AuthChildren>(&edge);
            } else {
                self.batch().put::<tables::AuthChildren>(&edge, &());
                self.citing.borrow_mut().entry(edge.0).or_default().insert(edge.1);
            }
        }
        self.batch().put::<tables::Events>(&id, &record);
        let known = Known::new(pdu, record.clone());
        self.added.borrow_mut().insert(id, known);
        Ok(record)
    }

    /// Whether redactions of the room wait for their targets: mostly there are none.
    fn has_redactions(&self) -> Result<bool, RoomError> {
        if let Some(known) = self.has_redactions.get() {
            return Ok(*known);
        }
        let rows = self.reader.scan::<tables::Redactions>(self.room_id.clone()).limit(1);
        let any = !rows.keys()?.is_empty();
        Ok(*self.has_redactions.get_or_init(|| any))
    }

    /// An event of this room, outliers and rejected ones too.
    pub fn event(&self, id: &EventId) -> Result<Option<Known>, RoomError> {
        if let Some(known) = self.added.borrow().get(id) {
            return Ok(Some(known.clone()));
        }
        if let Some(known) = self.stored.borrow().get(id) {
            return Ok(known.clone());
        }
        let known =
            load_event(self.reader, id)?.filter(|known| known.pdu.room_id() == self.room_id);
        let mut stored = self.stored.borrow_mut();
        if stored.len() >= MAX_CACHED {
            stored.clear();
        }
        stored.insert(id.to_owned(), known.clone());
        Ok(known)
    }

    /// An event that the graph refers to, so that its absence is damage.
    pub fn event_here(&self, id: &EventId) -> Result<Known, RoomError> {
        self.event(id)?.ok_or_else(|| missing_in_store(id))
    }

    /// The states around an event, `None` for one that has no place in the graph here.
    pub fn states(&self, id: &EventId) -> Result<Option<States>, RoomError> {
        Ok(self.event(id)?.and_then(|known| known.record.states))
    }

    /// The state after an event, `None` for one that has no place in the graph here.
    pub fn state_after(&self, id: &EventId) -> Result<Option<Root>, RoomError> {
        Ok(self.states(id)?.map(|states| states.after))
    }

    /// The create event.
    pub fn create(&self) -> Result<Pdu, RoomError> {
        Ok(self.event_here(&self.room.create_event)?.pdu)
    }

    /// The id of the event at a key, in the state with that root.
    pub fn state_id(&self, root: Root, key: &StateKey) -> Result<Option<OwnedEventId>, RoomError> {
        Ok(snapshot::get((self.reader, &*self.batch.borrow()), root, key)?)
    }

    /// The state event at a key, in the state with that root.
    pub fn state_event(&self, root: Root, key: &StateKey) -> Result<Option<Pdu>, RoomError> {
        let id = self.state_id(root, key)?;
        id.map(|id| Ok(self.event_here(&id)?.pdu)).transpose()
    }

    /// The state event at a key in current state.
    pub fn current(&self, kind: &str, key: &str) -> Result<Option<Pdu>, RoomError> {
        self.state_event(self.room.state, &StateKey::new(kind, key))
    }

    /// Current membership of a user, `None` if the user was never there.
    pub fn membership(&self, user: &UserId) -> Result<Option<String>, RoomError> {
        let event = self.current("m.room.member", user.as_str())?;
        Ok(event.and_then(|e| e.membership().map(str::to_owned)))
    }

    /// All ids of the state with that root.
    pub fn state_ids(&self, root: Root) -> Result<StateMap<OwnedEventId>, RoomError> {
        Ok(snapshot::load((self.reader, &*self.batch.borrow()), root)?)
    }

    /// The same, one by one, in no order that means anything: for who looks for a few of them, or has
    /// no use for their keys.
    pub fn state_entries(
        &self,
        root: Root,
    ) -> impl Iterator<Item = Result<(StateKey, OwnedEventId), RoomError>> {
        let mut walk = snapshot::Walk::new(root);
        iter::from_fn(move || walk.next((self.reader, &*self.batch.borrow())).transpose())
            .map(|entry| Ok(entry?))
    }

    /// The state keys and ids of the member events of a state, one by one.
    pub fn members(
        &self,
        root: Root,
    ) -> impl Iterator<Item = Result<(String, OwnedEventId), RoomError>> {
        self.state_entries(root).filter_map(|entry| match entry {
            Ok((key, id)) => (key.kind == "m.room.member").then_some(Ok((key.key, id))),
            Err(error) => Some(Err(error)),
        })
    }

    /// Whether a user of the server has that membership in a state.
    pub fn has_member(
        &self,
        root: Root,
        server: &ServerName,
        membership: &str,
    ) -> Result<bool, RoomError> {
        for member in self.members(root) {
            let (user, id) = member?;
            if <&UserId>::try_from(&*user).is_ok_and(|user| user.server_name() == server)
                && self.event_here(&id)?.pdu.membership() == Some(membership)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether an event is older than our stay, by its depth (decision 0040).
    pub fn is_before_stay(&self, event: &Pdu) -> bool {
        event.depth() < self.room.since
    }

    /// The state with one entry changed.
    pub fn apply(&self, root: Root, key: StateKey, id: &EventId) -> Result<Root, RoomError> {
        self.apply_all(root, &[(key, Some(id.to_owned()))])
    }

    /// The state with some entries changed; `None` takes one out.
    pub fn apply_all(
        &self,
        root: Root,
        changes: &[(StateKey, Option<OwnedEventId>)],
    ) -> Result<Root, RoomError> {
        Ok(snapshot::apply(self.reader, root, changes, &mut self.batch())?)
    }

    /// State events that have this one among their auth events; rejected ones may be left out.
    pub fn citing(&self, id: &EventId) -> impl Iterator<Item = Result<OwnedEventId, RoomError>> {
        let added = self.citing.borrow().get(id).cloned().unwrap_or_default();
        let rows = self.reader.scan::<tables::AuthChildren>(id.to_owned());
        let stored = rows.iter().map(|row| Ok(row?.0.1));
        added.into_iter().map(Ok).chain(stored)
    }

    /// The entries in which two states differ.
    pub fn diff(&self, old: Root, new: Root) -> Result<Vec<StateChange>, RoomError> {
        Ok(snapshot::diff((self.reader, &*self.batch.borrow()), old, new)?)
    }

    /// Writes a state, and gives its root.
    pub fn root_of(&self, map: &StateMap<OwnedEventId>) -> Root {
        snapshot::from_map(map, &mut self.batch())
    }

    /// Servers with joined users, from current state.
    pub fn joined_servers(&self) -> Result<Vec<OwnedServerName>, RoomError> {
        joined_servers(self.reader, &self.room_id)
    }

    /// Counts users of a server who joined (or, below 0, left). How many there are.
    pub fn add_joined(&self, server: OwnedServerName, delta: i64) -> Result<u64, RoomError> {
        let key = (self.room_id.clone(), server.clone());
        let mut joined = self.joined.borrow_mut();
        let count = match joined.get(&server) {
            Some(count) => *count,
            None => self.reader.get::<tables::JoinedServers>(&key)?.unwrap_or(0),
        };
        let count = count.saturating_add_signed(delta);
        joined.insert(server, count);
        let mut batch = self.batch();
        if count > 0 {
            batch.put::<tables::JoinedServers>(&key, &count);
            batch.delete::<tables::DepartedServers>(&key);
        } else {
            batch.delete::<tables::JoinedServers>(&key);
            batch.at_position(move |position, batch| {
                batch.put::<tables::DepartedServers>(&key, &position);
            });
        }
        Ok(count)
    }

    /// Current state's server ACL.
    pub fn acl(&self) -> Result<Option<Arc<ServerAcl>>, RoomError> {
        self.acl_at(self.room.state)
    }

    fn acl_at(&self, root: Root) -> Result<Option<Arc<ServerAcl>>, RoomError> {
        let id = self.state_id(root, &StateKey::single(SERVER_ACL))?;
        id.map_or(Ok(None), |id| self.acl_of(&id))
    }

    /// The server ACL that an event of the room's state is.
    pub(crate) fn acl_of(&self, id: &EventId) -> Result<Option<Arc<ServerAcl>>, RoomError> {
        Ok(self.event_here(id)?.acl)
    }

    /// Whether current state's server ACL lets the server in.
    pub fn acl_allows(&self, server: &ServerName) -> Result<bool, RoomError> {
        self.acl_allows_at(self.room.state, server)
    }

    /// The same of the state with that root.
    pub fn acl_allows_at(&self, root: Root, server: &ServerName) -> Result<bool, RoomError> {
        Ok(self.acl_at(root)?.is_none_or(|acl| acl.allows(server)))
    }

    /// Power levels in the state with that root.
    pub fn power_levels(&self, root: Root) -> Result<PowerLevels, RoomError> {
        let event = self.state_event(root, &StateKey::single("m.room.power_levels"))?;
        Ok(PowerLevels::from_state(self.version, &self.create()?, event.as_ref()))
    }

    /// Whether the user has the level for redactions of others' events now.
    pub fn may_redact(&self, user: &UserId) -> Result<bool, RoomError> {
        Ok(redactions::allowed_by(&self.power_levels(self.room.state)?, user))
    }

    /// Whether a user's power, membership aside, is enough to set state of that type.
    pub fn has_power_to_set(&self, user: &UserId, kind: &str) -> Result<bool, RoomError> {
        let levels = self.power_levels(self.room.state)?;
        let enough = levels.user(user).and_then(|has| Ok(has >= levels.event(kind, true)?));
        // Nobody is known to have power under levels that cannot be read.
        Ok(enough.unwrap_or(false))
    }

    /// A view of the state with that root for the authorisation rules.
    pub fn lookup(&self, root: Root) -> StateAt<'_> {
        StateAt { graph: self, root }
    }
}

/// State at a root, as the authorisation rules read it.
pub struct StateAt<'g> {
    graph: &'g Graph<'g>,
    root: Root,
}

impl StateLookup for StateAt<'_> {
    fn get(&self, key: &StateKey) -> Result<Option<Pdu>, LookupError> {
        self.graph.state_event(self.root, key).map_err(lookup_error)
    }
}

pub(crate) fn lookup_error(error: RoomError) -> LookupError {
    LookupError::new(error)
}

/// Reads an event of any room.
pub fn load_event(reader: &Reader, id: &EventId) -> Result<Option<Known>, RoomError> {
    let known = reader.derived::<tables::Events, _, RoomError>(&id.to_owned(), |record| {
        Ok(Known::new(parse_record(id, &record)?, record))
    });
    Ok(known?.map(|known| Known::clone(&known)))
}

/// Whether another event, in whatever room, was stored first under the event's id, and keeps it:
/// in room versions 1 and 2 nothing else binds an id to an event.
pub fn is_taken(reader: &Reader, event: &Pdu) -> Result<bool, RoomError> {
    if !event.version().id_is_claimed() {
        return Ok(false);
    }
    let known = load_event(reader, event.event_id())?;
    Ok(known.is_some_and(|known| !known.pdu.is_same_event(event)))
}

/// The event of a record. What does not parse any more is damage, not absence.
pub fn parse_record(id: &EventId, record: &EventRecord) -> Result<Pdu, RoomError> {
    let damaged =
        |problem: String| StoreError::Corrupt { table: "Events", key: format!("{id}: {problem}") };
    let version = RoomVersion::parse(&record.room_version).map_err(|e| damaged(e.to_string()))?;
    Ok(Pdu::reparse(version, id, &record.json).map_err(|e| damaged(e.to_string()))?)
}

/// Servers with users joined to the room.
pub fn joined_servers(
    reader: &Reader,
    room_id: &RoomId,
) -> Result<Vec<OwnedServerName>, RoomError> {
    let rows = reader.scan::<tables::JoinedServers>(room_id.to_owned()).collect()?;
    Ok(rows.into_iter().map(|((_, server), _)| server).collect())
}

/// Whether users of `server` are joined to the room.
pub fn is_joined(
    reader: &Reader,
    room_id: &RoomId,
    server: &ServerName,
) -> Result<bool, RoomError> {
    let key = (room_id.to_owned(), server.to_owned());
    Ok(reader.get::<tables::JoinedServers>(&key)?.is_some())
}

/// Damage: an event that the store refers to is not there.
pub fn missing_in_store(id: &EventId) -> RoomError {
    StoreError::Corrupt { table: "Events", key: format!("{id}: referred to, but not there") }.into()
}
