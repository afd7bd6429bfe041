//! Events of transactions: checked, completed with what is missing, placed.
//!
//! Specification: server-server API, "Checks performed on receipt of a PDU", and "Retrieving
//! event authorization information" and "Backfilling and retrieving missing events" for gaps.

use exeunt_core::{CheckedPdu, Object, Pdu, RoomVersion};
use exeunt_store::records::{Root, Verdict};
use futures_util::{StreamExt, stream};
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId};
use serde_json::Value;

use crate::{
    Call, RoomError, Rooms,
    graph::{Graph, is_joined},
    locks::RoomGuard,
    outliers::{Pool, add_outliers, in_graph_order},
    place::{Placement, Source},
};

/// Most events asked for with get_missing_events, to fill one gap.
const MAX_MISSING_EVENTS: usize = 50;
/// Most auth events fetched one by one for one event.
const MAX_SINGLE_FETCHES: usize = 50;
/// Most state events fetched one by one; above that the whole state is asked for.
const MAX_STATE_FETCHES: usize = 100;
/// Requests for single events under way at a time.
const CONCURRENT_FETCHES: usize = 8;
/// Times that an event is tried again after something that it lacked was fetched.
const MAX_ROUNDS: usize = 5;

impl Rooms {
    /// Takes an event of a transaction of `origin`: checks it, fetches what it rests on, places
    /// it. The verdict is stored; only what cannot be judged at all is an error.
    pub(crate) async fn ingest(
        &self,
        origin: &OwnedServerName,
        room_id: &RoomId,
        object: Object,
    ) -> Result<(), RoomError> {
        let Some(version) = self.version_if_resident(room_id).await? else {
            return Err(RoomError::NotFound("This server is not in the room".into()));
        };
        let pdu = Pdu::from_object(version, object)?;
        pdu.check_reference_limits()?;
        if pdu.prev_events().is_empty() {
            return Err(RoomError::InvalidParam("an event without prev_events".into()));
        }
        let event = self.checked(pdu).await?;
        self.ingest_checked(origin, room_id, event).await
    }

    /// Checks signatures and hash.
    pub(crate) async fn checked(&self, pdu: Pdu) -> Result<CheckedPdu, RoomError> {
        self.keys().check(pdu).await?.map_err(|e| RoomError::Signature(e.server))
    }

    async fn ingest_checked(
        &self,
        origin: &OwnedServerName,
        room_id: &RoomId,
        event: CheckedPdu,
    ) -> Result<(), RoomError> {
        let source = Source::Federation { from: origin.clone() };
        let missing = match self.try_place(room_id, &event, &source).await {
            Err(RoomError::Missing(missing)) => missing,
            other => return other,
        };
        tracing::debug!(%room_id, event = %event.event_id(), lacks = missing.len(), "a gap");
        let mut pool = self.missing_events(origin, room_id, &event).await?;
        pool.insert(event.event_id().to_owned(), event.clone());
        for id in in_graph_order(&pool) {
            let placed = self.place_with_help(origin, room_id, &pool[&id], &source).await;
            match placed {
                Ok(()) => {}
                Err(error) if id == event.event_id() => return Err(error),
                Err(error) => tracing::info!(%room_id, event = %id, %error, "not placed"),
            }
        }
        Ok(())
    }

    /// Places an event if we have all that it rests on. An event that is placed already is fine.
    async fn try_place(
        &self,
        room_id: &RoomId,
        event: &CheckedPdu,
        source: &Source,
    ) -> Result<(), RoomError> {
        let guard = self.inner.locks.lock(room_id).await;
        if self.is_placed(room_id, event.event_id()).await? {
            return Ok(());
        }
        let verdict = self.place(&guard, event.clone(), source.clone(), None).await?;
        report(event, &verdict);
        Ok(())
    }

    /// Places an event, fetching auth events and, across a gap, the state before it.
    async fn place_with_help(
        &self,
        origin: &OwnedServerName,
        room_id: &RoomId,
        event: &CheckedPdu,
        source: &Source,
    ) -> Result<(), RoomError> {
        let mut state_before = None;
        for _ in 0..MAX_ROUNDS {
            let guard = self.inner.locks.lock(room_id).await;
            if self.is_placed(room_id, event.event_id()).await? {
                return Ok(());
            }
            let placed = self.place(&guard, event.clone(), source.clone(), state_before).await;
            drop(guard);
            match placed {
                Ok(verdict) => {
                    report(event, &verdict);
                    return Ok(());
                }
                Err(RoomError::Missing(missing)) if is_about_auth(event, &missing) => {
                    self.fetch_auth(origin, room_id, event).await?;
                }
                Err(RoomError::Missing(_)) if state_before.is_none() => {
                    state_before = Some(self.fetch_state_before(origin, room_id, event).await?);
                }
                Err(error) => return Err(error),
            }
        }
        Err(RoomError::Missing(vec![event.event_id().to_owned()]))
    }

    /// The events between our extremities and `event`, as far as `origin` gives them.
    async fn missing_events(
        &self,
        origin: &OwnedServerName,
        room_id: &RoomId,
        event: &CheckedPdu,
    ) -> Result<Pool, RoomError> {
        let (version, earliest) = self.head(room_id).await?;
        let latest = [event.event_id().to_owned()];
        let call = Call::MissingEvents {
            room: room_id,
            earliest: &earliest,
            latest: &latest,
            limit: MAX_MISSING_EVENTS,
        };
        let answer = match self.call(origin, call).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::info!(%room_id, server = %origin, %error, "no missing events");
                return Ok(Pool::new());
            }
        };
        let mut events = array(&answer, "events");
        events.truncate(MAX_MISSING_EVENTS);
        self.check_answer(version, room_id, events).await
    }

    /// Fetches the auth chain of an event and adds it as outliers.
    async fn fetch_auth(
        &self,
        origin: &OwnedServerName,
        room_id: &RoomId,
        event: &CheckedPdu,
    ) -> Result<(), RoomError> {
        let call = Call::EventAuth { room: room_id, event: event.event_id() };
        let answer = self.call(origin, call).await;
        let version = event.version();
        let pool = match answer {
            Ok(answer) => self.check_answer(version, room_id, array(&answer, "auth_chain")).await?,
            Err(error) => {
                tracing::info!(%room_id, server = %origin, %error, "no auth chain, one by one");
                let ids = event.auth_events().iter().take(MAX_SINGLE_FETCHES).cloned().collect();
                self.fetch_events(origin, room_id, version, ids).await?
            }
        };
        self.keep_outliers(origin, room_id, pool).await
    }

    /// Asks for the state before an event beyond a gap, resolved with the states that we know.
    async fn fetch_state_before(
        &self,
        origin: &OwnedServerName,
        room_id: &RoomId,
        event: &CheckedPdu,
    ) -> Result<Root, RoomError> {
        let remote = |error| RoomError::Remote { server: origin.clone(), error };
        let call = Call::StateIds { room: room_id, event: event.event_id() };
        let answer = self.call(origin, call).await.map_err(remote)?;
        let state = ids(&answer, "pdu_ids");
        let mut wanted = state.clone();
        wanted.extend(ids(&answer, "auth_chain_ids"));
        let wanted = self.unknown(wanted).await?;
        let pool = if wanted.len() > MAX_STATE_FETCHES {
            let call = Call::State { room: room_id, event: event.event_id() };
            let answer = self.call(origin, call).await.map_err(remote)?;
            let mut events = array(&answer, "pdus");
            events.extend(array(&answer, "auth_chain"));
            self.check_answer(event.version(), room_id, events).await?
        } else {
            self.fetch_events(origin, room_id, event.version(), wanted).await?
        };
        self.keep_outliers(origin, room_id, pool).await?;
        self.state_from(room_id, event, state).await
    }

    /// The state before an event: what a server says, resolved with the states after those prev
    /// events that we have.
    async fn state_from(
        &self,
        room_id: &RoomId,
        event: &CheckedPdu,
        state: Vec<OwnedEventId>,
    ) -> Result<Root, RoomError> {
        let guard = self.inner.locks.lock(room_id).await;
        let (room_id, event) = (room_id.to_owned(), event.clone());
        let (batch, root) = self
            .inner
            .store
            .read(move |reader| {
                let graph = Graph::of(reader, &room_id)?;
                let mut map = exeunt_core::StateMap::new();
                for id in &state {
                    let Some(known) = graph.event(id)? else { continue };
                    if !known.record.verdict.is_rejected()
                        && let Some(key) = known.pdu.key()
                    {
                        map.insert(key, id.clone());
                    }
                }
                let fetched = graph.root_of(&map);
                let mut roots = vec![fetched];
                for id in event.prev_events() {
                    roots.extend(graph.event(id)?.and_then(|k| k.record.states).map(|s| s.after));
                }
                let root = graph.resolve(roots)?;
                Ok::<_, RoomError>((graph.into_batch(), root))
            })
            .await?;
        self.commit(&guard, Placement::only(batch)).await?;
        Ok(root)
    }

    /// Fetches single events, a bounded number at a time. What cannot be had is left out.
    async fn fetch_events(
        &self,
        origin: &OwnedServerName,
        room_id: &RoomId,
        version: RoomVersion,
        ids: Vec<OwnedEventId>,
    ) -> Result<Pool, RoomError> {
        let answers: Vec<_> = stream::iter(ids)
            .map(|id| async move { self.call(origin, Call::Event { event: &id }).await })
            .buffer_unordered(CONCURRENT_FETCHES)
            .collect()
            .await;
        let events = answers.into_iter().flatten().flat_map(|answer| array(&answer, "pdus"));
        self.check_answer(version, room_id, events.collect()).await
    }

    async fn keep_outliers(
        &self,
        origin: &OwnedServerName,
        room_id: &RoomId,
        pool: Pool,
    ) -> Result<(), RoomError> {
        let guard = self.inner.locks.lock(room_id).await;
        self.add_outliers_locked(&guard, origin, pool).await
    }

    async fn add_outliers_locked(
        &self,
        guard: &RoomGuard,
        origin: &OwnedServerName,
        pool: Pool,
    ) -> Result<(), RoomError> {
        let (room_id, origin) = (guard.room_id().to_owned(), origin.clone());
        let batch = self
            .inner
            .store
            .read(move |reader| {
                let graph = Graph::of(reader, &room_id)?;
                add_outliers(&graph, &pool, &origin)?;
                Ok::<_, RoomError>(graph.into_batch())
            })
            .await?;
        self.commit(guard, Placement::only(batch)).await?;
        Ok(())
    }

    pub(crate) async fn version_if_resident(
        &self,
        room_id: &RoomId,
    ) -> Result<Option<RoomVersion>, RoomError> {
        let (room_id, ours) = (room_id.to_owned(), self.server_name().to_owned());
        self.inner
            .store
            .read(move |reader| {
                if !is_joined(reader, &room_id, &ours)? {
                    return Ok(None);
                }
                Ok(Graph::open(reader, &room_id)?.map(|graph| graph.version))
            })
            .await
    }

    async fn head(&self, room_id: &RoomId) -> Result<(RoomVersion, Vec<OwnedEventId>), RoomError> {
        let room_id = room_id.to_owned();
        self.inner
            .store
            .read(move |reader| {
                let graph = Graph::of(reader, &room_id)?;
                Ok((graph.version, graph.room.extremities.clone()))
            })
            .await
    }

    async fn is_placed(&self, room_id: &RoomId, event_id: &EventId) -> Result<bool, RoomError> {
        let (room_id, event_id) = (room_id.to_owned(), event_id.to_owned());
        self.inner
            .store
            .read(move |reader| {
                let known = Graph::of(reader, &room_id)?.event(&event_id)?;
                Ok(known.is_some_and(|known| known.record.states.is_some()))
            })
            .await
    }

    async fn unknown(&self, ids: Vec<OwnedEventId>) -> Result<Vec<OwnedEventId>, RoomError> {
        self.inner
            .store
            .read(move |reader| {
                let mut unknown = Vec::new();
                for id in ids {
                    if crate::graph::load_event(reader, &id)?.is_none() {
                        unknown.push(id);
                    }
                }
                unknown.sort();
                unknown.dedup();
                Ok(unknown)
            })
            .await
    }
}

fn is_about_auth(event: &Pdu, missing: &[OwnedEventId]) -> bool {
    missing.iter().all(|id| event.auth_events().contains(id) && !event.prev_events().contains(id))
}

fn report(event: &CheckedPdu, verdict: &Verdict) {
    let event = event.event_id();
    match verdict {
        Verdict::Accepted => {}
        Verdict::SoftFailed(why) => tracing::info!(%event, why, "soft-failed"),
        Verdict::Rejected(why) => tracing::info!(%event, why, "rejected"),
    }
}

/// The array under a key of an answer; empty where there is none.
pub(crate) fn array(answer: &Value, key: &str) -> Vec<Value> {
    answer.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn ids(answer: &Value, key: &str) -> Vec<OwnedEventId> {
    array(answer, key).iter().filter_map(|id| EventId::parse(id.as_str()?).ok()).collect()
}
