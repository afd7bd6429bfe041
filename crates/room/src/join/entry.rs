//! The second pass over a room that is handed to us: signatures and verdicts, auth events first,
//! a chunk at a time; then the room with our join on top, which is when it becomes visible.

use std::sync::Arc;

use exeunt_core::{CheckedPdu, KeyRing, Pdu, RoomVersion, StateKey, StateMap};
use exeunt_store::{
    Batch, Reader, StoreError,
    records::{MembershipRecord, RoomRecord, Root, Verdict},
    tables,
};
use futures_util::{StreamExt, stream};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, UserId};

use super::intake::{Intake, Reasons, Shelf};
use crate::{
    RoomError, Rooms,
    change::{Effects, move_state},
    counted::Counted,
    graph::{Graph, is_taken},
    heads,
    outliers::judge_outlier,
    place::{Before, Placement, Source, decide},
    rows::event_record,
};

/// Events that are checked and judged at a time, by number and by size: parsed, an event may take
/// many times its bytes.
pub(super) const CHUNK: usize = 250;
pub(super) const CHUNK_BYTES: u64 = 1024 * 1024;
/// Chunks whose signatures are checked side by side.
const CHUNKS_AHEAD: usize = 2;

/// State without which a room is not entered.
const CRITICAL: [&str; 3] = ["m.room.create", "m.room.power_levels", "m.room.join_rules"];

impl Rooms {
    /// Moves in: the state that we were given replaces whatever was left of an earlier stay. What
    /// cannot be verified is dropped alone, and what rests on it too, unless our join needs it.
    pub(super) async fn enter(
        &self,
        mut intake: Intake,
        join: Pdu,
        from: &OwnedServerName,
        before: &Option<MembershipRecord>,
    ) -> Result<(), RoomError> {
        let event = self.checked(join).await?;
        let create = intake.create.take();
        let create = create
            .ok_or_else(|| RoomError::InvalidParam("the state has no create event".into()))?;
        let wanted = std::mem::take(&mut intake.wanted);
        let ring = Arc::new(self.keys().ring_by_way_of(wanted, from).await?);
        let arrival = Arrival {
            version: intake.version,
            room_id: intake.room_id.clone(),
            create,
            from: from.clone(),
            before: before.clone(),
        };
        let state = self.sift(&arrival, intake, &event, ring).await?;
        let guard = self.inner.locks.lock(event.room_id()).await;
        let (ours, now) = (self.server_name().to_owned(), self.now());
        let placement = self
            .store()
            .read(move |reader| arrival.place(reader, state, &event, &ours, now))
            .await?;
        self.commit(&guard, placement).await?;
        Ok(())
    }

    /// Stores the events of an answer as outliers, each with its verdict. Returns the state.
    async fn sift(
        &self,
        arrival: &Arrival,
        intake: Intake,
        join: &CheckedPdu,
        ring: Arc<KeyRing>,
    ) -> Result<StateMap<OwnedEventId>, RoomError> {
        let Intake { index, mut dropped, .. } = intake;
        let mut state = StateMap::new();
        let order = index.order(&arrival.create);
        let mut chunks = stream::iter(index.parts(&order, CHUNK, CHUNK_BYTES))
            .map(|numbers| {
                let (version, room_id) = (arrival.version, arrival.room_id.clone());
                self.load(version, room_id, Shelf::Join, numbers.to_vec(), ring.clone())
            })
            .buffered(CHUNKS_AHEAD);
        while let Some(chunk) = chunks.next().await {
            let (numbers, events): (Vec<_>, Vec<_>) = chunk?.into_iter().unzip();
            let judged = self.judge(arrival, events).await?;
            for (number, Judged { id, key, outcome }) in numbers.into_iter().zip(judged) {
                let in_state = key.filter(|_| index.in_state(number));
                match outcome {
                    Outcome::Accepted => {
                        if let Some(key) = in_state {
                            state.insert(key, id);
                        }
                        continue;
                    }
                    Outcome::Refused(why) => dropped.add(id.clone(), why),
                    Outcome::Lacks(needed) => {
                        let why = explain(&dropped, &needed);
                        dropped.add(id.clone(), format!("it rests on {why}"));
                    }
                }
                let is_critical =
                    |key: &StateKey| key.key.is_empty() && CRITICAL.contains(&&*key.kind);
                tracing::debug!(event = %id, why = dropped.get(&id), "left out of the room");
                if join.auth_events().contains(&id) || in_state.as_ref().is_some_and(is_critical) {
                    let kind = in_state.map(|key| format!("{} ", key.kind)).unwrap_or_default();
                    return Err(RoomError::InvalidParam(format!(
                        "{kind}{}",
                        explain(&dropped, &id)
                    )));
                }
            }
        }
        // What never made it into the index has its reason, too.
        for id in join.auth_events() {
            if dropped.get(id).is_some() {
                return Err(RoomError::InvalidParam(explain(&dropped, id)));
            }
        }
        Ok(state)
    }

    /// Loads events that were laid aside, and checks their signatures and hashes.
    pub(super) async fn load(
        &self,
        version: RoomVersion,
        room_id: OwnedRoomId,
        shelf: Shelf,
        numbers: Vec<u32>,
        ring: Arc<KeyRing>,
    ) -> Result<Vec<(u32, Loaded)>, RoomError> {
        self.store()
            .read(move |reader| {
                let mut out = Vec::with_capacity(numbers.len());
                for number in numbers {
                    let row = shelf.row(&room_id, number);
                    let Some(json) = reader.get::<tables::Arrivals>(&row)? else {
                        return Err(RoomError::InvalidParam(
                            "two joins are in each other's way".into(),
                        ));
                    };
                    let pdu = Pdu::parse(version, json.get().as_bytes())?;
                    let (id, key) = (pdu.event_id().to_owned(), pdu.key());
                    let event = pdu.check(&ring).map_err(|error| error.to_string());
                    out.push((number, Loaded { id, key, event }));
                }
                Ok(out)
            })
            .await
    }

    /// Judges events by their auth events and stores them.
    async fn judge(
        &self,
        arrival: &Arrival,
        events: Vec<Loaded>,
    ) -> Result<Vec<Judged>, RoomError> {
        let arrival = arrival.clone();
        let (batch, judged) = self
            .store()
            .read_long(move |reader| {
                let graph = arrival.graph(reader)?;
                let mut judged = Vec::with_capacity(events.len());
                for Loaded { id, key, event } in events {
                    let outcome = match event {
                        Ok(event) => arrival.judge(&graph, &event)?,
                        Err(why) => Outcome::Refused(why),
                    };
                    let is_end = id == arrival.create && !matches!(outcome, Outcome::Accepted);
                    judged.push(Judged { id, key, outcome });
                    // Without the create event nothing can be judged.
                    if is_end {
                        break;
                    }
                }
                Ok::<_, RoomError>((graph.into_batch(), judged))
            })
            .await?;
        self.store().commit(batch).await?;
        Ok(judged)
    }
}

fn explain(dropped: &Reasons, id: &OwnedEventId) -> String {
    format!("{id}: {}", dropped.get(id).unwrap_or("it is not there"))
}

pub(super) struct Loaded {
    pub id: OwnedEventId,
    key: Option<StateKey>,
    pub event: Result<CheckedPdu, String>,
}

struct Judged {
    id: OwnedEventId,
    key: Option<StateKey>,
    outcome: Outcome,
}

enum Outcome {
    Accepted,
    Refused(String),
    /// An event that it rests on is not there.
    Lacks(OwnedEventId),
}

/// A room as it was handed to us.
#[derive(Clone)]
struct Arrival {
    version: RoomVersion,
    room_id: OwnedRoomId,
    create: OwnedEventId,
    from: OwnedServerName,
    /// What the user was to the room when they asked to join it.
    before: Option<MembershipRecord>,
}

impl Arrival {
    /// The room without extremities; what an earlier stay has left of it counts for nothing but
    /// for the difference to its state.
    fn graph<'a>(&self, reader: &'a Reader<'a>) -> Result<Graph<'a>, RoomError> {
        let known = reader.get::<tables::Rooms>(&self.room_id)?;
        let head = RoomRecord {
            version: self.version.as_str().into(),
            create_event: self.create.clone(),
            extremities: Vec::new(),
            has_older_heads: false,
            state: known.as_ref().map_or(Root::EMPTY, |room| room.state),
            state_since: known.as_ref().map_or(0, |room| room.state_since),
            has_relations: known.as_ref().is_some_and(|room| room.has_relations),
            depth: 0,
            first_order: known.as_ref().map_or(0, |room| room.first_order),
            position: 0,
            untold: Vec::new(),
            since: 0,
        };
        Graph::with_head(reader, self.room_id.clone(), head)
    }

    /// The verdict on an event. One that we had before keeps its own.
    fn judge(&self, graph: &Graph<'_>, event: &CheckedPdu) -> Result<Outcome, RoomError> {
        if event.event_id() == self.create && !self.is_of_version(event) {
            let why = "it names another room version than the template";
            return Ok(Outcome::Refused(why.into()));
        }
        let taken = || Outcome::Refused("another event has this id".into());
        let verdict = match graph.event(event.event_id())? {
            Some(known) if !known.pdu.is_same_event(event) => return Ok(taken()),
            Some(known) => known.record.verdict.clone(),
            None if is_taken(graph.reader, event)? => return Ok(taken()),
            None => match judge_outlier(graph, event) {
                Ok(verdict) => {
                    graph
                        .add(event, event_record(event, verdict.clone(), None, Some(&self.from)))?;
                    verdict
                }
                Err(RoomError::Missing(missing)) => {
                    let first = missing.into_iter().next();
                    return Ok(Outcome::Lacks(
                        first.unwrap_or_else(|| event.event_id().to_owned()),
                    ));
                }
                Err(error) => return Err(error),
            },
        };
        Ok(match verdict {
            Verdict::Rejected(why) => Outcome::Refused(why),
            Verdict::Accepted | Verdict::SoftFailed(_) => Outcome::Accepted,
        })
    }

    fn is_of_version(&self, create: &Pdu) -> bool {
        let named = create.content().get("room_version");
        named.map_or(Some("1"), |named| named.as_str()) == Some(self.version.as_str())
    }

    fn place(
        self,
        reader: &Reader,
        state: StateMap<OwnedEventId>,
        event: &CheckedPdu,
        ours: &ruma::ServerName,
        now: u64,
    ) -> Result<Placement, RoomError> {
        let mut graph = self.graph(reader)?;
        heads::forget_older(&graph)?;
        let root = graph.root_of(&state);
        let mut effects = Effects::default();
        move_state(&graph, ours, root, None, now, &mut effects)?;
        graph.room.state = root;
        graph.room.since = event.depth();
        self.let_go_of_pending(&graph)?;
        let has_left = self.has_left_meanwhile(reader, event)?;
        let source = Source::Federation { from: self.from, sought: false };
        // The room is what this server says, all of it: decision 0015.
        let before = Before { root, told: false };
        let mut placement =
            decide(graph, ours, event, &source, Some(before), &Counted::default(), now)?;
        if let Verdict::Rejected(why) | Verdict::SoftFailed(why) = placement.verdict {
            return Err(RoomError::Forbidden(format!("the state does not allow the join: {why}")));
        }
        // Who joins now has changed their mind, unless they left while the join was under way.
        effects.undone.remove(event.sender());
        placement.users.extend(effects.users);
        placement.undone.extend(effects.undone);
        if has_left {
            placement.undone.insert(event.sender().to_owned());
        }
        if placement.undone.contains(event.sender()) {
            keep_left(reader, &mut placement.batch, event.sender(), event.room_id())?;
        }
        Ok(placement)
    }

    /// Whether the user has left since they asked to join: the join may be signed after that, for it
    /// waited for a template.
    fn has_left_meanwhile(&self, reader: &Reader<'_>, join: &Pdu) -> Result<bool, StoreError> {
        let key = (join.sender().to_owned(), self.room_id.clone());
        let now = reader.get::<tables::Memberships>(&key)?;
        let left = now
            .as_ref()
            .is_some_and(|now| now.membership == "leave" && now.sender == *join.sender());
        Ok(left && now != self.before)
    }

    /// The invites and knocks that the room's state has are ended in the room again.
    fn let_go_of_pending(&self, graph: &Graph<'_>) -> Result<(), RoomError> {
        let members = graph.reader.scan::<tables::LocalMembers>(self.room_id.clone());
        for ((room_id, user), _) in members.collect()? {
            let key = (user, room_id);
            let Some(pending) = graph.reader.get::<tables::Pending>(&key)? else { continue };
            let in_state = graph.current("m.room.member", key.0.as_str())?;
            if in_state.is_some_and(|event| *event.object() == pending.event) {
                graph.batch().delete::<tables::Pending>(&key);
            }
        }
        Ok(())
    }
}

/// Keeps what the room is to a user who has left it: the state that came with their join is older.
fn keep_left(
    reader: &Reader<'_>,
    batch: &mut Batch,
    user: &UserId,
    room_id: &RoomId,
) -> Result<(), StoreError> {
    let key = (user.to_owned(), room_id.to_owned());
    let Some(record) = reader.get::<tables::Memberships>(&key)? else { return Ok(()) };
    batch.put::<tables::LocalMembers>(&(key.1.clone(), key.0.clone()), &record.membership);
    batch.at_position(move |_, batch| batch.put::<tables::Memberships>(&key, &record));
    Ok(())
}
