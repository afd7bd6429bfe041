//! What is written with an event: its row and edges, the room's head, memberships, outbox rows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use exeunt_core::{CheckedPdu, Pdu, StateKey};
use exeunt_state_res::is_power_event;
use exeunt_store::{
    Batch,
    records::{
        EventRecord, MembershipLogRecord, MembershipRecord, OutboxItem, RoomRecord, Root, States,
        Verdict,
    },
    snapshot::StateChange,
    tables,
};
use metrics::counter;
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};

use crate::{
    RoomError,
    counted::Counted,
    ephemeral::Passage,
    gaps,
    graph::{Graph, SERVER_ACL, missing_in_store},
    heads, notable,
    place::Source,
    redactions,
    rows::{event_record, raw_json},
    shown::Shown,
    sticky::undoes_leave,
};

/// Most events that are walked to see past those that were not accepted. Beyond it a head more or
/// less is all that goes wrong, and the next event mends it.
const MAX_WALK: usize = 1_000;

/// Most heads whose states are resolved together. With more, what a new head adds is resolved with
/// the room's state, which costs the same however many there are (decisions 0010 and 0036).
pub(crate) const MAX_RESOLVED_HEADS: usize = 20;

/// An event on its way into the graph, and all that follows from it.
pub(crate) struct Change<'a> {
    pub graph: &'a Graph<'a>,
    pub ours: &'a ServerName,
    pub event: &'a CheckedPdu,
    pub source: &'a Source,
    pub counted: &'a Counted,
    pub now: u64,
}

/// Whom a change concerns.
#[derive(Default)]
pub(crate) struct Effects {
    /// Local users whose memberships change.
    pub users: BTreeSet<OwnedUserId>,
    /// Servers whose outbox got a row.
    pub destinations: Vec<OwnedServerName>,
    /// Local users whom the room's state says to be joined though they left by their own word.
    pub undone: BTreeSet<OwnedUserId>,
    /// Where the ACL changes: servers in the room that it lets in again.
    pub let_in: Option<Vec<OwnedServerName>>,
    /// Servers whose last users are in the room no longer.
    pub departed: BTreeSet<OwnedServerName>,
    /// Whether some of them have yet to be told.
    pub untold: bool,
    pub passage: Passage,
    /// States that count in the room's current state from now on, where it has many heads.
    pub counted: Vec<Root>,
}

impl Change<'_> {
    /// The event itself, its edges, its place in the timeline, what was signed.
    pub fn write_event(&self, verdict: &Verdict, states: States) -> Result<(), RoomError> {
        let event_id = self.event.event_id().to_owned();
        let room_id = self.graph.room_id.clone();
        let mut record =
            event_record(self.event, verdict.clone(), Some(states), self.source.from());
        if let Some(key) = self.event.key() {
            record.replaces = self.graph.state_id(states.before, &key)?.into();
        }
        let mut shown: Pdu = (**self.event).clone();
        if let Some(known) = self.graph.event(&event_id)? {
            // History that was fetched before has an order, and keeps it.
            record.order = known.record.order;
            // What was redacted stays so, however often it comes in full.
            if known.record.redacted_because.is_some() {
                record.redacted_because = known.record.redacted_because.clone();
                shown = shown.redacted();
                record.json = raw_json(&shown);
            }
        }
        let record = self.graph.add(&shown, record)?;
        // As written: a redaction may have waited for it.
        let shown = self.graph.event_here(&event_id)?.pdu;
        let counts = !verdict.is_accepted() || redactions::apply(self.graph, self.event)?;
        // Who sent it here waits to see it.
        let counts = counts || matches!(self.source, Source::Local { .. });
        self.told_of_invite()?;
        let is_history = self.source.is_history(self.graph, self.event);
        let is_shown = gaps::is_shown(verdict, self.event) && !is_history && counts;
        let notable = match is_shown && record.redacted_because.is_none() {
            true => notable::weigh(self.graph, self.event, self.ours)?,
            false => None,
        };
        let needs_room = is_shown && gaps::needs_room(self.graph, self.event)?;
        let mut batch = self.graph.batch();
        for prev in self.event.prev_events() {
            let edge = (room_id.clone(), prev.clone(), event_id.clone());
            batch.put::<tables::Children>(&edge, &());
        }
        if let Source::Local { transaction, signature } = self.source {
            if let Some(signature) = signature {
                signature.clone().journal(&mut batch, self.now);
            }
            if let Some(transaction) = transaction {
                let key = transaction.key(self.event.sender());
                batch.put::<tables::ClientTransactions>(&key, &event_id);
                let back = (transaction.device.clone(), transaction.id.clone());
                batch.put::<tables::EventTransactions>(&event_id, &back);
            }
        }
        if is_shown && record.order.is_none() {
            let held = match record.redacted_because.is_some() {
                true => redactions::held_for(self.graph, self.event)?,
                false => Vec::new(),
            };
            let room = if needs_room { gaps::ROOM_FOR_HISTORY } else { 0 };
            batch.leap(room + held.len() as u64);
            let shown = Shown::new(&shown);
            batch.at_position(move |position, batch| {
                let order = position as i64;
                redactions::show(held, batch, order);
                if let Some(notable) = notable {
                    batch.put::<tables::Notable>(&(room_id, order), &notable);
                }
                shown.put(batch, order);
                let record = EventRecord { order: Some(order), ..record };
                batch.put::<tables::Events>(&event_id, &record);
            });
        }
        Ok(())
    }

    /// Extremities, current state and all that hangs on it, for an accepted event.
    pub fn advance_head(&self, states: States) -> Result<Effects, RoomError> {
        let graph = self.graph;
        let mut effects = Effects { destinations: self.write_outbox()?, ..Effects::default() };
        let mut room = graph.room.clone();
        let replaced = self.replaced()?;
        heads::remove(graph, &mut room, &replaced)?;
        let is_head = !self.has_accepted_successor()?;
        let has_many = room.extremities.len() >= MAX_RESOLVED_HEADS;
        let mut roots = match has_many {
            true => vec![room.state],
            false => self.states_after(&room.extremities)?,
        };
        if is_head {
            heads::add(graph, &mut room, self.event)?;
            room.depth = room.depth.max(self.event.depth());
            match has_many {
                true => self.add_to_many(states, &mut roots, &mut effects.counted)?,
                false => roots.push(states.after),
            }
        }
        let state = match self.has_resolved(&roots)? {
            true => room.state,
            false => graph.resolve(roots)?,
        };
        if state != room.state {
            self.move_to(&mut room, state, &mut effects)?;
        }
        write_head(&mut graph.batch(), &graph.room_id, room);
        Ok(effects)
    }

    /// Moves current state, with all that follows from it.
    pub fn move_to(
        &self,
        room: &mut RoomRecord,
        state: Root,
        effects: &mut Effects,
    ) -> Result<(), RoomError> {
        let cause = Some((self.event, self.source));
        move_state(self.graph, self.ours, state, cause, self.now, effects)?;
        room.state = state;
        self.part(room, effects)
    }

    pub fn states_after(&self, heads: &[OwnedEventId]) -> Result<Vec<Root>, RoomError> {
        let graph = self.graph;
        heads.iter().map(|id| graph.state_after(id)?.ok_or_else(|| missing_in_store(id))).collect()
    }

    /// Whether current state is what these resolve to: the heads had the same states before.
    fn has_resolved(&self, roots: &[Root]) -> Result<bool, RoomError> {
        let heads = &self.graph.room.extremities;
        // Only below the limit is current state the heads' states resolved.
        if heads.is_empty() || heads.len() >= MAX_RESOLVED_HEADS {
            return Ok(false);
        }
        let before: BTreeSet<_> = self.states_after(heads)?.into_iter().collect();
        Ok(before == roots.iter().copied().collect())
    }

    /// What a head more is to be resolved as where there are many. Upon a state that has counted,
    /// an event brings nothing but itself, unless it is a power event, which may undo what others
    /// did beside it. Forks of one place cost one key each that way, and not all that has changed
    /// since.
    fn add_to_many(
        &self,
        states: States,
        roots: &mut Vec<Root>,
        counted: &mut Vec<Root>,
    ) -> Result<(), RoomError> {
        let (graph, current) = (self.graph, self.graph.room.state);
        let counts = !is_power_event(self.event)
            && (self.counted.has(&graph.room_id, states.before)
                || graph.resolve(vec![current, states.before])? == current);
        if counts {
            counted.push(states.before);
        }
        match self.event.key() {
            Some(key) if counts => roots.push(graph.apply(current, key, self.event.event_id())?),
            None if counts => {}
            _ => roots.push(states.after),
        }
        counted.push(states.after);
        Ok(())
    }

    /// What the event follows: its prev events and, behind those that were not accepted, theirs.
    fn replaced(&self) -> Result<BTreeSet<OwnedEventId>, RoomError> {
        let mut replaced: BTreeSet<_> = self.event.prev_events().iter().cloned().collect();
        let mut work: Vec<_> = replaced.iter().cloned().collect();
        while let Some(id) = work.pop() {
            let Some(known) = self.graph.event(&id)? else { continue };
            if known.record.verdict.is_accepted() || replaced.len() >= MAX_WALK {
                continue;
            }
            for prev in known.pdu.prev_events() {
                if replaced.insert(prev.clone()) {
                    work.push(prev.clone());
                }
            }
        }
        Ok(replaced)
    }

    /// Whether an accepted event that follows this one, be it by way of others that were not
    /// accepted, is placed already: this one fills a gap.
    fn has_accepted_successor(&self) -> Result<bool, RoomError> {
        let mut seen = BTreeSet::new();
        let mut work = VecDeque::from([self.event.event_id().to_owned()]);
        while let Some(id) = work.pop_front() {
            let prefix = (self.graph.room_id.clone(), id);
            for row in self.graph.reader.scan::<tables::Children>(prefix).iter() {
                let ((_, _, child), ()) = row?;
                if seen.len() >= MAX_WALK {
                    return Ok(false);
                }
                if !seen.insert(child.clone()) {
                    continue;
                }
                let Some(known) = self.graph.event(&child)? else { continue };
                if known.record.states.is_none() {
                    continue;
                }
                if known.record.verdict.is_accepted() {
                    return Ok(true);
                }
                work.push_back(child);
            }
        }
        Ok(false)
    }

    /// Rows for the servers that must get the event: those in the room before it, and for a
    /// withdrawn invite the invited user's server (rows RS1, RS7).
    fn write_outbox(&self) -> Result<Vec<OwnedServerName>, RoomError> {
        let from = match self.source {
            Source::Federation { .. } => return Ok(Vec::new()),
            Source::Handshake { from } => Some(from),
            Source::Local { .. } => None,
        };
        let mut servers: BTreeSet<_> = self.graph.joined_servers()?.into_iter().collect();
        if let (Some(target), Some("leave" | "ban")) =
            (self.event.target(), self.event.membership())
            && target != self.event.sender()
            && matches!(self.graph.membership(target)?.as_deref(), Some("invite" | "knock"))
        {
            servers.insert(target.server_name().to_owned());
        }
        servers.retain(|server| server != self.ours && Some(server) != from);
        let servers: Vec<_> = servers.into_iter().collect();
        let (rows, id) = (servers.clone(), self.event.event_id().to_owned());
        self.graph.batch().at_position(move |position, batch| {
            for server in rows {
                batch.put::<tables::Outbox>(&(server, position), &OutboxItem::Pdu(id.clone()));
            }
        });
        Ok(servers)
    }
}

/// Moves the room's current state: memberships and joined servers follow the difference of the two
/// states, whatever caused it. `cause` is the event being placed, if it is one; without one, as
/// when a room's whole state comes in, only local users' changes are logged. A join older than the
/// user's own last leave moves nothing but the count of the joined.
pub(crate) fn move_state(
    graph: &Graph<'_>,
    ours: &ServerName,
    new: Root,
    cause: Option<(&CheckedPdu, &Source)>,
    now: u64,
    effects: &mut Effects,
) -> Result<(), RoomError> {
    let load = |id: &Option<_>| -> Result<Option<Pdu>, RoomError> {
        id.as_deref().map(|id| Ok(graph.event_here(id)?.pdu)).transpose()
    };
    let mut joined: BTreeMap<OwnedServerName, i64> = BTreeMap::new();
    for change in graph.diff(graph.room.state, new)? {
        if change.key == StateKey::single(SERVER_ACL) {
            effects.let_in = Some(let_in(graph, &change)?);
        }
        if change.key.kind != "m.room.member" {
            continue;
        }
        let Ok(user) = <&UserId>::try_from(change.key.key.as_str()) else { continue };
        let (was, is) = (load(&change.before)?, load(&change.after)?);
        *joined.entry(user.server_name().to_owned()).or_default() +=
            i64::from(is_join(&is)) - i64::from(is_join(&was));
        if is_join(&was) && !is_join(&is) {
            effects.passage.left.insert(user.to_owned());
        }
        let local = user.server_name() == ours;
        if local
            && let Some(event) = &is
            && undoes_leave(graph.reader, &graph.room_id, user, event)?
        {
            effects.undone.insert(user.to_owned());
            continue;
        }
        // A leave that is sent again is no news to the user.
        let leaves = |event: &Pdu| event.sender() == user && event.membership() == Some("leave");
        let again = was.is_some() && is.as_ref().is_some_and(leaves);
        if local && is_join(&is) && !is_join(&was) {
            effects.passage.came.insert(user.to_owned());
        }
        let news = local && !(again && has_left(graph, user)?);
        if news {
            effects.users.insert(user.to_owned());
        }
        let Some(event) = is else {
            // A resolution took the user out without an event that says so: they are in no longer.
            if let Some(event) = was.filter(|_| news) {
                let record = MembershipRecord {
                    membership: "leave".to_owned(),
                    ..membership_record(&event)
                };
                put_membership(&mut graph.batch(), user, &graph.room_id, record);
            }
            continue;
        };
        if news {
            put_membership(&mut graph.batch(), user, &graph.room_id, membership_record(&event));
        }
        if cause.is_some() || local {
            log_membership(graph, user, &event, cause, now);
        }
    }
    for (server, delta) in joined.into_iter().filter(|(_, delta)| *delta != 0) {
        match graph.add_joined(server.clone(), delta)? {
            0 => drop(effects.departed.insert(server)),
            count if i64::try_from(count) == Ok(delta) => {
                effects.passage.arrived.insert(server);
            }
            _ => {}
        }
    }
    let room_id = graph.room_id.clone();
    graph.batch().at_position(move |position, batch| {
        batch.put::<tables::RoomStates>(&(room_id, position), &new);
    });
    Ok(())
}

/// Servers in the room that one ACL keeps out and the next one does not.
fn let_in(graph: &Graph<'_>, change: &StateChange) -> Result<Vec<OwnedServerName>, RoomError> {
    let acl = |id: &Option<OwnedEventId>| id.as_ref().map_or(Ok(None), |id| graph.acl_of(id));
    let (Some(before), after) = (acl(&change.before)?, acl(&change.after)?) else {
        return Ok(Vec::new());
    };
    let mut servers = graph.joined_servers()?;
    servers.retain(|server| {
        !before.allows(server) && after.as_ref().is_none_or(|acl| acl.allows(server))
    });
    Ok(servers)
}

/// Whether the user is out of the room as far as they know.
fn has_left(graph: &Graph<'_>, user: &UserId) -> Result<bool, RoomError> {
    let key = (user.to_owned(), graph.room_id.clone());
    let row = graph.reader.get::<tables::Memberships>(&key)?;
    Ok(row.is_some_and(|row| row.membership == "leave"))
}

pub(crate) fn is_join(event: &Option<Pdu>) -> bool {
    event.as_ref().is_some_and(|event| event.membership() == Some("join"))
}

/// Puts the room's head, stamped with the position of its batch, after all that hangs on it.
pub(crate) fn write_head(batch: &mut Batch, room_id: &RoomId, mut room: RoomRecord) {
    let room_id = room_id.to_owned();
    batch.at_position(move |position, batch| {
        room.position = position;
        if batch.puts::<tables::RoomStates>((room_id.clone(), position)) {
            room.state_since = position;
        }
        room.has_relations |= batch.puts::<tables::Relations>(room_id.clone());
        batch.put::<tables::Rooms>(&room_id, &room);
    });
}

/// The membership row that a member event makes.
pub(crate) fn membership_record(event: &Pdu) -> MembershipRecord {
    MembershipRecord {
        membership: event.membership().unwrap_or_default().to_owned(),
        event_id: event.event_id().to_owned(),
        sender: event.sender().to_owned(),
        position: 0,
        local_event: None,
        room_version: None,
        forgotten: false,
    }
}

/// Puts a local user's membership row, stamped with the position of its batch, and its index by
/// room. A pending invite ends here; a departure under way ends with anything but a leave.
pub(crate) fn put_membership(
    batch: &mut Batch,
    user: &UserId,
    room_id: &RoomId,
    mut record: MembershipRecord,
) {
    let (user, room_id) = (user.to_owned(), room_id.to_owned());
    let key = (user.clone(), room_id.clone());
    batch.put::<tables::LocalMembers>(&(room_id, user), &record.membership);
    batch.delete::<tables::Pending>(&key);
    if record.membership != "leave" {
        batch.delete::<tables::Departures>(&key);
    }
    batch.at_position(move |position, batch| {
        record.position = position;
        batch.put::<tables::Memberships>(&key, &record);
    });
}

fn log_membership(
    graph: &Graph<'_>,
    user: &UserId,
    event: &Pdu,
    cause: Option<(&CheckedPdu, &Source)>,
    now: u64,
) {
    let direct = cause.filter(|(placed, _)| placed.event_id() == event.event_id());
    let record = MembershipLogRecord {
        membership: event.membership().unwrap_or_default().to_owned(),
        event_id: event.event_id().to_owned(),
        sender: event.sender().to_owned(),
        via: direct.map_or("resolution", |(_, source)| source.via()).to_owned(),
        received_from: direct.and_then(|(_, source)| source.from().cloned()),
        at: now,
    };
    put_log(&mut graph.batch(), &graph.room_id, user, record);
}

/// Adds a line to the membership timeline of a user in a room.
pub(crate) fn put_log(
    batch: &mut Batch,
    room_id: &RoomId,
    user: &UserId,
    record: MembershipLogRecord,
) {
    let (room_id, user) = (room_id.to_owned(), user.to_owned());
    batch.at_position(move |position, batch| {
        let (membership, via) = (record.membership.clone(), record.via.clone());
        counter!("exeunt_membership_changes_total", "membership" => membership, "via" => via)
            .increment(1);
        if record.membership == "invite" {
            let invite = (room_id.clone(), user.clone(), record.event_id.clone());
            batch.put::<tables::Invites>(&invite, &());
        }
        batch.put::<tables::MembershipLog>(&(room_id, user, position), &record);
    });
}
