//! Joining: in our own graph where we reside in the room, by handshake where we do not.
//!
//! Specification: server-server API, "Joining Rooms"; spec-map 4.9.

use std::collections::BTreeSet;

use exeunt_core::{
    CheckedPdu, FormatError, Object, PendingMembership, RoomVersion, StateKey, StateMap, canonical,
    pdu::MAX_PDU_BYTES,
};
use exeunt_membership::{
    AfterMakeJoin, AfterSendJoin, Attempt, Join, MakeJoin, RemoteFailure, Welcome, candidates,
};
use exeunt_store::{
    Reader,
    records::{RoomRecord, Root, Verdict},
    tables,
};
use ruma::{OwnedEventId, OwnedServerName, RoomId, UserId};

use crate::{
    Call, Intent, RoomError, Rooms,
    change::{journal, move_state},
    graph::{Graph, is_joined, is_taken},
    outliers::{Pool, add_outliers},
    place::{Placement, Source, decide},
};

/// Most servers that one join asks.
const MAX_CANDIDATES: usize = 10;

impl Rooms {
    /// Joins a local user. `via` are servers that may help; `content` holds profile,
    /// reason and whatever else the client adds.
    pub async fn join(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        mut content: Object,
    ) -> Result<(), RoomError> {
        content.insert("membership".into(), "join".into());
        let (resident, pending) = self.join_view(user, room_id).await?;
        if resident {
            let intent = Intent::state(user.to_owned(), "m.room.member", user.as_str(), content);
            self.append(room_id, intent).await?;
            return Ok(());
        }
        check_content(&content)?;
        let join = Join {
            room_id: room_id.to_owned(),
            user_id: user.to_owned(),
            room_version: pending.as_ref().and_then(|p| RoomVersion::parse(&p.room_version).ok()),
            content,
        };
        let candidates = self.join_candidates(room_id, via, pending.as_ref());
        let mut attempts = Vec::new();
        let mut refusal = None;
        for server in candidates {
            match self.join_through(&join, &server).await? {
                Ok(()) => return Ok(()),
                Err((attempt, failure)) => {
                    tracing::info!(%room_id, %server, outcome = attempt.outcome, "a join failed");
                    attempts.push(attempt);
                    if matches!(failure, RemoteFailure::Refused { .. }) {
                        refusal.get_or_insert((server, failure));
                    }
                }
            }
        }
        match refusal {
            Some((server, error)) => Err(RoomError::Remote { server, error }),
            None => Err(RoomError::NoServer(attempts)),
        }
    }

    /// Whether we reside in the room, and the invite that we hold for the user if not.
    async fn join_view(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<(bool, Option<PendingMembership>), RoomError> {
        let (user, room_id, ours) =
            (user.to_owned(), room_id.to_owned(), self.server_name().to_owned());
        self.inner
            .store
            .read(move |reader| {
                let resident = is_joined(reader, &room_id, &ours)?;
                Ok((resident, reader.get::<tables::Pending>(&(user, room_id))?))
            })
            .await
    }

    fn join_candidates(
        &self,
        room_id: &RoomId,
        via: &[OwnedServerName],
        pending: Option<&PendingMembership>,
    ) -> Vec<OwnedServerName> {
        let ours = self.server_name();
        let mut out: Vec<_> = pending.map(|p| candidates(p, ours)).unwrap_or_default();
        out.extend(via.iter().cloned());
        out.extend(room_id.server_name().map(ToOwned::to_owned));
        let mut seen = BTreeSet::new();
        out.retain(|server| server != ours && seen.insert(server.clone()));
        out.truncate(MAX_CANDIDATES);
        out
    }

    /// One handshake. The inner error is the server's; the outer one is ours.
    async fn join_through(
        &self,
        join: &Join,
        server: &OwnedServerName,
    ) -> Result<Result<(), (Attempt, RemoteFailure)>, RoomError> {
        let (awaiting, request) = MakeJoin::new(join.clone(), server.clone());
        let answer = self.call(server, Call::Make(&request)).await;
        let (mut awaiting, mut request) =
            match awaiting.on_answer(answer, self.signer(), self.now()) {
                AfterMakeJoin::Send(awaiting, request) => (awaiting, request),
                AfterMakeJoin::NextCandidate(attempt, failure) => {
                    return Ok(Err((attempt, failure)));
                }
            };
        loop {
            let answer = self.call(server, Call::Send(&request)).await;
            match awaiting.on_answer(answer) {
                AfterSendJoin::Done(welcome, attempt) => {
                    return Ok(match self.enter(join, server, *welcome).await {
                        Err(RoomError::Store(error)) => return Err(error.into()),
                        Err(error) => Err((attempt, RemoteFailure::Misbehaved(error.to_string()))),
                        Ok(()) => Ok(()),
                    });
                }
                AfterSendJoin::FallBackToV1(next, again) => (awaiting, request) = (next, again),
                AfterSendJoin::Refused(attempt, failure)
                | AfterSendJoin::Failed(_, attempt, failure) => {
                    return Ok(Err((attempt, failure)));
                }
            }
        }
    }

    /// Verifies the room's state and moves in: the state that we were given replaces whatever was
    /// left of an earlier stay.
    async fn enter(
        &self,
        join: &Join,
        server: &OwnedServerName,
        welcome: Welcome,
    ) -> Result<(), RoomError> {
        let version = welcome.event.version();
        let state = self.check_answer(version, &join.room_id, welcome.state).await?;
        let state_ids: Vec<_> = state.keys().cloned().collect();
        let mut pool = self.check_answer(version, &join.room_id, welcome.auth_chain).await?;
        pool.extend(state);
        let event = self.checked(welcome.event).await?;
        let guard = self.inner.locks.lock(&join.room_id).await;
        let arrival = Arrival {
            version,
            state_ids,
            pool,
            event,
            from: server.clone(),
            ours: self.server_name().to_owned(),
            now: self.now(),
        };
        let room_id = join.room_id.clone();
        let placement =
            self.inner.store.read(move |reader| arrival.place(reader, &room_id)).await?;
        self.commit(&guard, placement).await?;
        Ok(())
    }
}

/// Refuses what no event can hold before another server is asked, which would have the blame.
fn check_content(content: &Object) -> Result<(), FormatError> {
    canonical::check_object(content)?;
    match canonical::encode(content).len() {
        size if size > MAX_PDU_BYTES => Err(FormatError::TooLarge(size)),
        _ => Ok(()),
    }
}

/// A room as it was handed to us, with our join on top.
struct Arrival {
    version: RoomVersion,
    state_ids: Vec<OwnedEventId>,
    pool: Pool,
    event: CheckedPdu,
    from: OwnedServerName,
    ours: OwnedServerName,
    now: u64,
}

impl Arrival {
    fn place(self, reader: &Reader, room_id: &RoomId) -> Result<Placement, RoomError> {
        let known = reader.get::<tables::Rooms>(&room_id.to_owned())?;
        let head = RoomRecord {
            version: self.version.as_str().into(),
            create_event: self.create_event(reader)?,
            extremities: Vec::new(),
            state: known.as_ref().map_or(Root::EMPTY, |room| room.state),
            depth: 0,
            first_order: known.as_ref().map_or(0, |room| room.first_order),
            position: 0,
        };
        let mut graph = Graph::with_head(reader, room_id.to_owned(), head)?;
        add_outliers(&graph, &self.pool, &self.from)?;
        let state = self.state(&graph)?;
        let root = graph.root_of(&state);
        let mut users = BTreeSet::new();
        move_state(&graph, &self.ours, root, None, self.now, &mut users)?;
        graph.room.state = root;
        let peer = Some(self.from.as_ref());
        journal(&mut graph.batch(), "join", self.event.event_id(), peer, self.now);
        let source = Source::Federation { from: self.from.clone() };
        let mut placement = decide(graph, &self.ours, &self.event, &source, Some(root), self.now)?;
        if let Verdict::Rejected(why) | Verdict::SoftFailed(why) = placement.verdict {
            return Err(RoomError::Forbidden(format!("the state does not allow the join: {why}")));
        }
        placement.users.extend(users);
        Ok(placement)
    }

    /// The create event, which must be of the version that the template named.
    fn create_event(&self, reader: &Reader) -> Result<OwnedEventId, RoomError> {
        let wrong = |what: &str| RoomError::InvalidParam(what.into());
        let create = self.state_ids.iter().find(|id| self.pool[*id].is_state("m.room.create", ""));
        let id = create.ok_or_else(|| wrong("the state has no create event"))?;
        let create = &self.pool[id];
        let named = match create.content().get("room_version") {
            None => Some("1"),
            Some(named) => named.as_str(),
        };
        if named != Some(self.version.as_str()) {
            return Err(wrong("the create event names another room version than the template"));
        }
        if is_taken(reader, create)? {
            return Err(wrong("another event has the id of the create event"));
        }
        Ok(id.clone())
    }

    /// The state that the events make. One that was refused is left out; power levels that were
    /// refused mean that the state is not to be trusted.
    fn state(&self, graph: &Graph<'_>) -> Result<StateMap<OwnedEventId>, RoomError> {
        let mut map = StateMap::new();
        for id in &self.state_ids {
            let known = graph.event(id)?;
            let Some(key) = self.pool[id].key() else { continue };
            let accepted = known.is_some_and(|known| {
                !known.record.verdict.is_rejected() && known.pdu.is_same_event(&self.pool[id])
            });
            if accepted {
                map.insert(key, id.clone());
            } else if key == StateKey::single("m.room.create")
                || key == StateKey::single("m.room.power_levels")
            {
                return Err(RoomError::InvalidParam(format!("{} was refused", key.kind)));
            }
        }
        Ok(map)
    }
}
