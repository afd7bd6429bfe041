//! What an event lacks, asked of several servers: the one that sent it, the sender's own, others
//! in the room. Every loop here has a bound, and so has the number of requests.
//!
//! Specification: server-server API, "Retrieving event authorization information" and
//! "Backfilling and retrieving missing events". What comes back is checked like any event.

use std::collections::BTreeSet;
use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use std::time::Duration;

use exeunt_core::{CheckedPdu, Pdu, RoomVersion};
use exeunt_store::records::Root;
use futures_util::{StreamExt, stream};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use crate::{
    Call, Entry, RemoteError, RoomError, Rooms,
    fetch_limits::Sought,
    graph::Graph,
    outliers::{Pool, add_outliers},
    place::Placement,
};

/// Most servers that are asked for one thing.
pub const MAX_SERVERS: usize = 5;
/// Most requests on behalf of one event.
pub const MAX_REQUESTS_PER_EVENT: usize = 300;
/// Longest time that is spent on what one event lacks.
pub const MAX_TIME_PER_EVENT: Duration = Duration::from_secs(120);
/// Most auth events fetched one by one for one event.
const MAX_SINGLE_FETCHES: usize = 100;
/// Most times that fetched auth events lead to further ones.
const MAX_AUTH_ROUNDS: usize = 10;
/// Most state events fetched one by one; above that the whole state is asked for.
const MAX_STATE_FETCHES: usize = 100;
/// Most missing prev events of one event for the state at which we ask.
const MAX_MISSING_PREVS: usize = 3;
/// Requests for single events under way at a time.
const CONCURRENT_FETCHES: usize = 8;

/// Requests on behalf of one event, and how many are left.
pub(crate) struct Quest {
    pub room_id: OwnedRoomId,
    pub version: RoomVersion,
    /// The server that sent the event.
    pub origin: OwnedServerName,
    /// Whom to ask, in order.
    servers: Vec<OwnedServerName>,
    left: AtomicUsize,
    pub deadline: Instant,
    /// Whether anyone answered, be it with a refusal: silence says nothing of what there is.
    answered: AtomicBool,
    /// Whether `origin` was among them.
    origin_answered: AtomicBool,
    /// Whether something was not asked, or not waited for, because a budget was spent.
    cut_short: AtomicBool,
    /// Servers that left a request without an answer.
    silent: Mutex<BTreeSet<OwnedServerName>>,
}

impl Quest {
    /// Asks the first few of `servers`. `origin` is the one that what is found is filed under.
    pub fn new(
        room_id: OwnedRoomId,
        version: RoomVersion,
        origin: OwnedServerName,
        mut servers: Vec<OwnedServerName>,
        time: Duration,
    ) -> Self {
        servers.truncate(MAX_SERVERS);
        Self {
            room_id,
            version,
            origin,
            servers,
            left: AtomicUsize::new(MAX_REQUESTS_PER_EVENT),
            deadline: Instant::now() + time,
            answered: AtomicBool::new(false),
            origin_answered: AtomicBool::new(false),
            cut_short: AtomicBool::new(false),
            silent: Mutex::default(),
        }
    }

    pub fn servers(&self) -> &[OwnedServerName] {
        &self.servers
    }

    /// Whether the server has told us all that it was asked for so far.
    fn has_told_all(&self, server: &ServerName) -> bool {
        let silent = self.silent.lock().unwrap_or_else(|e| e.into_inner());
        !self.cut_short.load(Ordering::Relaxed) && !silent.contains(server)
    }

    /// Whether it is known that what was not found is not there.
    pub fn is_conclusive(&self) -> bool {
        !self.cut_short.load(Ordering::Relaxed) && self.answered.load(Ordering::Relaxed)
    }

    /// Whether there may be more to find another time: `origin`, which has what is before its
    /// event, did not answer, or not everything was asked.
    pub fn is_open(&self) -> bool {
        self.cut_short.load(Ordering::Relaxed) || !self.origin_answered.load(Ordering::Relaxed)
    }
}

impl Rooms {
    /// Starts to look for what an event of `origin` lacks, for at most that time.
    pub(crate) async fn quest(
        &self,
        origin: &OwnedServerName,
        event: &Pdu,
        time: Duration,
    ) -> Result<Quest, RoomError> {
        let mut first = vec![origin.clone(), event.origin().to_owned()];
        first.extend(self.other_servers(event.room_id()).await?);
        let mut seen = BTreeSet::new();
        first.retain(|server| server != self.server_name() && seen.insert(server.clone()));
        let (room_id, version) = (event.room_id().to_owned(), event.version());
        Ok(Quest::new(room_id, version, origin.clone(), first, time))
    }

    /// The other servers in a room.
    pub(crate) async fn other_servers(
        &self,
        room_id: &RoomId,
    ) -> Result<Vec<OwnedServerName>, RoomError> {
        let (room_id, ours) = (room_id.to_owned(), self.server_name().to_owned());
        self.store()
            .read(move |reader| {
                let mut servers = crate::graph::joined_servers(reader, &room_id)?;
                servers.retain(|server| *server != ours);
                Ok(servers)
            })
            .await
    }

    /// Makes one request of a quest. `None` where the server does not help, or no budget is left.
    pub(crate) async fn ask(
        &self,
        quest: &Quest,
        server: &ServerName,
        call: Call<'_>,
    ) -> Option<Value> {
        self.spend(quest, server, self.call(server, call)).await
    }

    /// The same for an answer whose entries are taken as they come.
    pub(crate) async fn ask_listing(
        &self,
        quest: &Quest,
        server: &ServerName,
        call: Call<'_>,
        entries: mpsc::Sender<Entry>,
    ) -> Option<Value> {
        let asking = self.inner.remote.call_listing(server, call, entries);
        self.spend(quest, server, asking).await
    }

    async fn spend(
        &self,
        quest: &Quest,
        server: &ServerName,
        asking: impl Future<Output = Result<Value, RemoteError>>,
    ) -> Option<Value> {
        let spend = |left: usize| left.checked_sub(1);
        if quest.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_err()
            || !self.inner.fetch_limits.take(&quest.room_id, &quest.origin, self.now())
        {
            quest.cut_short.store(true, Ordering::Relaxed);
            let Quest { room_id, origin, .. } = quest;
            tracing::info!(%room_id, %origin, "the room has spent its requests");
            return None;
        }
        let answer = timeout_at(quest.deadline, asking).await;
        let answer = answer.unwrap_or_else(|_| {
            quest.cut_short.store(true, Ordering::Relaxed);
            Err(RemoteError::Unreachable("the time for this event is over".into()))
        });
        if says_something(&answer) {
            quest.answered.store(true, Ordering::Relaxed);
            quest.origin_answered.fetch_or(*server == quest.origin, Ordering::Relaxed);
        } else {
            let mut silent = quest.silent.lock().unwrap_or_else(|e| e.into_inner());
            silent.insert(server.to_owned());
        }
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::debug!(room_id = %quest.room_id, %server, %error, "no help");
                None
            }
        }
    }

    /// Checks events of an answer. Keys that do not come in time leave none of them.
    pub(crate) async fn check_fetched(
        &self,
        quest: &Quest,
        events: Vec<Value>,
    ) -> Result<Pool, RoomError> {
        let check = self.check_answer(quest.version, &quest.room_id, events);
        timeout_at(quest.deadline, check).await.unwrap_or_else(|_| {
            quest.cut_short.store(true, Ordering::Relaxed);
            Ok(Pool::new())
        })
    }

    /// Fetches what an event's `auth_events` name and all that those rest on, as outliers.
    pub(crate) async fn fetch_auth(
        &self,
        quest: &Quest,
        event: &CheckedPdu,
    ) -> Result<(), RoomError> {
        for server in quest.servers() {
            if self.unknown(quest, event.auth_events().to_vec()).await?.is_empty() {
                return Ok(());
            }
            let call = Call::EventAuth { room: &quest.room_id, event: event.event_id() };
            let Some(answer) = self.ask(quest, server, call).await else { continue };
            let chain = array(&answer, "auth_chain");
            let pool = self.check_fetched(quest, chain).await?;
            self.keep_outliers(quest, pool).await?;
        }
        let id = event.event_id().to_owned();
        let mut pool = Pool::from([(id.clone(), event.clone())]);
        self.add_auth_events(quest, &mut pool).await?;
        pool.remove(&id);
        self.keep_outliers(quest, pool).await
    }

    /// Adds the auth events that a pool lacks, fetched one by one, each asked for at most once.
    pub(crate) async fn add_auth_events(
        &self,
        quest: &Quest,
        pool: &mut Pool,
    ) -> Result<(), RoomError> {
        let mut asked = BTreeSet::new();
        for _ in 0..MAX_AUTH_ROUNDS {
            let named = pool.values().flat_map(|event| event.auth_events()).cloned().collect();
            let mut wanted = self.unknown(quest, named).await?;
            wanted.retain(|id| !pool.contains_key(id) && !asked.contains(id));
            wanted.truncate(MAX_SINGLE_FETCHES.saturating_sub(asked.len()));
            if wanted.is_empty() {
                break;
            }
            asked.extend(wanted.iter().cloned());
            pool.extend(self.fetch_events(quest, wanted).await?);
        }
        Ok(())
    }

    /// Asks for the state before an event, beyond a gap or upon what another server told: for the
    /// state at each of the prev events that we lack, resolved with the states after those that we
    /// have. `None` where no server tells it.
    pub(crate) async fn fetch_state_before(
        &self,
        quest: &Quest,
        event: &CheckedPdu,
    ) -> Result<Option<Root>, RoomError> {
        let missing = self.unplaced(event.room_id(), event.prev_events()).await?;
        if (1..=MAX_MISSING_PREVS).contains(&missing.len()) {
            let mut states = Vec::new();
            for id in &missing {
                // All of them or none: what is told of the others would not be used.
                let Some(state) = self.fetch_state_at(quest, id, true).await? else { break };
                states.push(state);
            }
            if states.len() == missing.len() {
                return self.state_from(event, states, true).await.map(Some);
            }
        }
        // A server that has the event may know no more of what is before it than its state. That
        // is the state after all that the event follows: what was told of these before is of no
        // more worth.
        match self.fetch_state_at(quest, event.event_id(), false).await? {
            Some(state) => self.state_from(event, vec![state], false).await.map(Some),
            None => Ok(None),
        }
    }

    /// Asks for the state at an event, and for what it consists of; `with` the event itself, whose
    /// state counts then. A state may have holes only where the server that told it was asked for
    /// them and gave nothing that can be checked: with what was merely not had in time, the room
    /// would have another state here than elsewhere, for good.
    async fn fetch_state_at(
        &self,
        quest: &Quest,
        id: &EventId,
        with: bool,
    ) -> Result<Option<Vec<OwnedEventId>>, RoomError> {
        let room = &*quest.room_id;
        for server in quest.servers() {
            let Some(answer) = self.ask(quest, server, Call::StateIds { room, event: id }).await
            else {
                continue;
            };
            let mut state = ids(&answer, "pdu_ids");
            if state.is_empty() {
                continue;
            }
            // Last, so that it replaces what was there at its key.
            state.extend(with.then(|| id.to_owned()));
            let mut wanted = state.clone();
            wanted.extend(ids(&answer, "auth_chain_ids"));
            let wanted = self.unknown(quest, wanted).await?;
            if wanted.len() <= MAX_STATE_FETCHES {
                let pool = self.fetch_events(quest, wanted).await?;
                self.keep_outliers(quest, pool).await?;
            } else if !self.take_in_state(quest, server, id).await? {
                continue;
            }
            if with {
                let alone = self.unknown(quest, vec![id.to_owned()]).await?;
                let pool = self.fetch_events(quest, alone).await?;
                self.keep_outliers(quest, pool).await?;
            }
            let holes = self.unknown(quest, state.clone()).await?.len();
            if holes > 0 && !quest.has_told_all(server) {
                tracing::info!(room_id = %room, event = %id, %server, holes, "a state with holes, not used");
                continue;
            }
            return Ok(Some(state));
        }
        Ok(None)
    }

    /// The state before an event: those that servers told, resolved with the states after those
    /// prev events that we have; `with_told` also with those that were told themselves.
    async fn state_from(
        &self,
        event: &CheckedPdu,
        states: Vec<Vec<OwnedEventId>>,
        with_told: bool,
    ) -> Result<Root, RoomError> {
        let guard = self.inner.locks.lock(event.room_id()).await;
        let event = event.clone();
        let (batch, root) = self
            .store()
            .read(move |reader| {
                let graph = Graph::of(reader, event.room_id())?;
                let mut roots = Vec::new();
                for state in &states {
                    let mut map = exeunt_core::StateMap::new();
                    for id in state {
                        let Some(known) = graph.event(id)? else { continue };
                        if !known.record.verdict.is_rejected()
                            && let Some(key) = known.pdu.key()
                        {
                            map.insert(key, id.clone());
                        }
                    }
                    roots.push(graph.root_of(&map));
                }
                for id in event.prev_events() {
                    let known = graph.states(id)?.filter(|states| with_told || !states.told);
                    roots.extend(known.map(|states| states.after));
                }
                let root = graph.resolve(roots)?;
                Ok::<_, RoomError>((graph.into_batch(), root))
            })
            .await?;
        self.commit(&guard, Placement::only(batch)).await?;
        Ok(root)
    }

    /// Which of the events have no place in the graph here.
    pub(crate) async fn unplaced(
        &self,
        room_id: &RoomId,
        ids: &[OwnedEventId],
    ) -> Result<Vec<OwnedEventId>, RoomError> {
        let (room_id, ids) = (room_id.to_owned(), ids.to_vec());
        self.store()
            .read(move |reader| {
                let graph = Graph::of(reader, &room_id)?;
                let mut unplaced = Vec::new();
                for id in ids {
                    if graph.state_after(&id)?.is_none() {
                        unplaced.push(id);
                    }
                }
                Ok(unplaced)
            })
            .await
    }

    /// Fetches single events, a bounded number at a time. What nobody has is left out, and not
    /// asked for again for a while.
    async fn fetch_events(
        &self,
        quest: &Quest,
        mut wanted: Vec<OwnedEventId>,
    ) -> Result<Pool, RoomError> {
        let mut pool = Pool::new();
        wanted.retain(|id| !self.inner.fetch_limits.is_absent(id, Sought::Event, self.now()));
        for server in quest.servers() {
            if wanted.is_empty() {
                break;
            }
            let answers: Vec<_> = stream::iter(wanted.clone())
                .map(|id| async move { self.ask(quest, server, Call::Event { event: &id }).await })
                .buffer_unordered(CONCURRENT_FETCHES)
                .collect()
                .await;
            // An answer holds one event; what else it holds was not asked for.
            let events = answers.into_iter().flatten();
            let events = events.filter_map(|answer| array(&answer, "pdus").into_iter().next());
            let mut found = self.check_fetched(quest, events.collect()).await?;
            found.retain(|id, _| wanted.contains(id));
            wanted.retain(|id| !found.contains_key(id));
            pool.extend(found);
        }
        if quest.is_conclusive() && quest.has_told_all(&quest.origin) {
            for id in wanted {
                self.inner.fetch_limits.note_absent(id, Sought::Event, self.now());
            }
        }
        Ok(pool)
    }

    pub(crate) async fn keep_outliers(&self, quest: &Quest, pool: Pool) -> Result<(), RoomError> {
        if pool.is_empty() {
            return Ok(());
        }
        let guard = self.inner.locks.lock(&quest.room_id).await;
        let (room_id, origin) = (quest.room_id.clone(), quest.origin.clone());
        let batch = self
            .store()
            .read(move |reader| {
                let graph = Graph::of(reader, &room_id)?;
                add_outliers(&graph, &pool, &origin)?;
                Ok::<_, RoomError>(graph.into_batch())
            })
            .await?;
        self.commit(&guard, Placement::only(batch)).await?;
        Ok(())
    }

    /// Which of the events are not in the room as we have it. Sorted, each once.
    async fn unknown(
        &self,
        quest: &Quest,
        ids: Vec<OwnedEventId>,
    ) -> Result<Vec<OwnedEventId>, RoomError> {
        let room_id = quest.room_id.clone();
        self.store()
            .read(move |reader| {
                let graph = Graph::of(reader, &room_id)?;
                let ids: BTreeSet<_> = ids.into_iter().collect();
                let mut unknown = Vec::new();
                for id in ids {
                    if graph.event(&id)?.is_none() {
                        unknown.push(id);
                    }
                }
                Ok(unknown)
            })
            .await
    }
}

/// Whether an answer tells what the server has. One that is overloaded or broken says nothing.
fn says_something(answer: &Result<Value, RemoteError>) -> bool {
    match answer {
        Err(RemoteError::Unreachable(_)) => false,
        Err(RemoteError::Refused { status, .. }) => *status != 429 && *status < 500,
        _ => true,
    }
}

/// The array under a key of an answer; empty where there is none.
pub(crate) fn array(answer: &Value, key: &str) -> Vec<Value> {
    answer.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn ids(answer: &Value, key: &str) -> Vec<OwnedEventId> {
    let ids = answer.get(key).and_then(Value::as_array).into_iter().flatten();
    ids.filter_map(|id| ruma::EventId::parse(id.as_str()?).ok()).collect()
}
