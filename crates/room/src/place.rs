//! Placing an event in the graph: judge it, and commit everything that follows from it.
//!
//! Every event takes this way: our own, those of handshakes, those of transactions. One batch
//! holds the event, its edges, the state trees, memberships, outbox rows and the stream position.

use std::collections::{BTreeMap, BTreeSet};

use exeunt_core::{CheckedPdu, Pdu, Reference, StateKey};
use exeunt_state_res::{AuthError, AuthEvent, check_auth, check_auth_events, check_create};
use exeunt_store::{
    Batch,
    records::{Root, States, Verdict},
    tables,
};
use ruma::{OwnedServerName, OwnedUserId, ServerName};
use tokio::time::Instant;

use crate::{
    RoomError, Rooms,
    append::ClientTransaction,
    change::{Change, Effects},
    counted::Counted,
    ephemeral::Passage,
    graph::{Graph, Known, SERVER_ACL, is_taken},
    heads,
    locks::RoomGuard,
    signing::Signature,
};

/// Most `prev_events` of an event that we build.
pub(crate) const MAX_OWN_PREV_EVENTS: usize = 10;

/// How an event came to be placed.
#[derive(Debug, Clone)]
pub enum Source {
    /// We built it: sent to every other server in the room. A refusal is an error.
    /// `signature` is what has yet to be journaled.
    Local { transaction: Option<ClientTransaction>, signature: Option<Signature> },
    /// Another server handed it to us in a join, leave or invite: relayed to every other server
    /// but that one. A refusal is an error.
    Handshake { from: OwnedServerName },
    /// A transaction brought it, or it was `sought` to fill a gap. The verdict is stored.
    Federation { from: OwnedServerName, sought: bool },
}

impl Source {
    pub(crate) fn from(&self) -> Option<&OwnedServerName> {
        match self {
            Source::Local { .. } => None,
            Source::Handshake { from } | Source::Federation { from, .. } => Some(from),
        }
    }

    /// Whether an event was sought to fill a gap, and is older than our stay (decision 0040).
    pub(crate) fn is_history(&self, graph: &Graph<'_>, event: &Pdu) -> bool {
        matches!(self, Source::Federation { sought: true, .. }) && graph.is_before_stay(event)
    }

    pub(crate) fn via(&self) -> &'static str {
        match self {
            Source::Local { .. } => "local",
            Source::Handshake { .. } => "handshake",
            Source::Federation { .. } => "transaction",
        }
    }
}

/// The state before an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    pub root: Root,
    /// See [`States::told`].
    pub told: bool,
}

/// The outcome of a decision: what is written, and who must hear of it.
pub struct Placement {
    pub batch: Batch,
    pub verdict: Verdict,
    /// Local users whose memberships change.
    pub users: BTreeSet<OwnedUserId>,
    /// Whether it is news to everyone in the room.
    pub is_news: bool,
    /// Servers whose outbox got a row.
    pub destinations: Vec<OwnedServerName>,
    /// The server that relayed the event, where the room's ACL denies the sender's.
    pub leaked_by: Option<OwnedServerName>,
    /// Local users whose leave has to be sent again.
    pub undone: BTreeSet<OwnedUserId>,
    /// Where the room's ACL changes: servers in the room that it lets in again.
    pub let_in: Option<Vec<OwnedServerName>>,
    /// Whether servers are out of the room that have yet to be told.
    pub untold: bool,
    pub passage: Passage,
    /// See [`Counted::note`]; `None` where the heads did not change.
    pub counted: Option<Vec<Root>>,
}

impl Placement {
    /// A batch that is no news to anyone.
    pub fn only(batch: Batch) -> Self {
        let verdict = Verdict::Accepted;
        let (users, is_news, destinations, leaked_by) = Default::default();
        let (undone, let_in, untold, passage, counted) = Default::default();
        Self {
            batch,
            verdict,
            users,
            is_news,
            destinations,
            leaked_by,
            undone,
            let_in,
            untold,
            passage,
            counted,
        }
    }
}

impl Rooms {
    /// Decides on `event` and commits the outcome. `told` is the state before it by the word of
    /// another server, where that is to count and not what we have. Under [`Source::Local`] and
    /// [`Source::Handshake`] an event that is not accepted is an error, and nothing is written.
    pub(crate) async fn place(
        &self,
        guard: &RoomGuard,
        event: CheckedPdu,
        source: Source,
        told: Option<Root>,
    ) -> Result<Verdict, RoomError> {
        let room_id = guard.room_id().to_owned();
        let ours = self.server_name().to_owned();
        let now = self.now();
        let rooms = self.clone();
        let placement = self
            .inner
            .store
            .read(move |reader| {
                let (started, rooms) = (Instant::now(), &rooms.inner);
                let graph = Graph::of(reader, &room_id)?;
                let before = told.map(|root| Before { root, told: true });
                let placement = decide(graph, &ours, &event, &source, before, &rooms.counted, now);
                rooms.pace.note(&room_id, started.elapsed(), Instant::now());
                placement
            })
            .await?;
        self.commit(guard, placement).await
    }

    /// Makes a placement durable, then tells the clients and the sender.
    pub(crate) async fn commit(
        &self,
        guard: &RoomGuard,
        placement: Placement,
    ) -> Result<Verdict, RoomError> {
        let Placement {
            mut batch,
            verdict,
            users,
            is_news,
            destinations,
            leaked_by,
            undone,
            let_in,
            untold,
            passage,
            counted,
        } = placement;
        if !batch.is_empty() {
            self.inner.news.note_with(&mut batch, guard.room_id().to_owned());
        }
        let position = self.inner.store.commit(batch).await?;
        counted.into_iter().for_each(|states| self.inner.counted.note(guard.room_id(), states));
        leaked_by.into_iter().for_each(|server| self.inner.leaks.note(server));
        self.inner.notifier.notify(&users, position);
        if is_news {
            self.inner.notifier.notify_room(guard.room_id(), position);
        }
        if !destinations.is_empty() {
            self.inner.wake.wake(&destinations);
        }
        if untold {
            self.tell_departed(guard).await?;
        }
        self.follow(guard.room_id(), passage).await?;
        for user in undone {
            Box::pin(self.leave_again(guard, &user)).await;
        }
        if let Some(servers) = let_in {
            self.mend(guard.room_id(), servers);
        }
        Ok(verdict)
    }
}

/// Judges an event whose prev events (or state) we have, and works out all that follows.
pub(crate) fn decide(
    graph: Graph<'_>,
    ours: &ServerName,
    event: &CheckedPdu,
    source: &Source,
    before: Option<Before>,
    counted: &Counted,
    now: u64,
) -> Result<Placement, RoomError> {
    if is_taken(graph.reader, event)? {
        return Err(RoomError::InvalidParam("Another event has the id of this one".into()));
    }
    let Before { root: before, told } = match before {
        Some(before) => before,
        None => state_before_event(&graph, event)?,
    };
    let judged = judge(&graph, event, before)?;
    if !matches!(source, Source::Federation { .. }) {
        judged.clone().into_result()?;
    }
    // Such a state may have holes, or be made up to have us refuse a third server's event: only a
    // yes means anything (decision 0015).
    if told && let Judged::RejectedByState(why) = judged {
        return Err(RoomError::Hearsay(why));
    }
    let mut verdict = Verdict::from(judged);
    let mut leaked_by = None;
    if !verdict.is_rejected()
        && let Source::Federation { from, .. } = source
        && is_denied(&graph, event, ours)?
    {
        verdict = Verdict::SoftFailed("the room's ACL denies the sender's server".into());
        leaked_by = Some(from.clone()).filter(|from| from != event.origin());
        let (room_id, row) =
            (graph.room_id.clone(), (event.origin().to_owned(), event.event_id().to_owned()));
        graph.batch().at_position(move |position, batch| {
            batch.put::<tables::Denied>(&(room_id, position), &row);
        });
    }
    let after = match (event.key(), &verdict) {
        (Some(key), Verdict::Accepted | Verdict::SoftFailed(_)) => {
            graph.apply(before, key, event.event_id())?
        }
        _ => before,
    };
    let change = Change { graph: &graph, ours, event, source, counted, now };
    let states = States { before, after, told };
    // It may have been told as part of a state.
    let is_refuted = verdict.is_rejected() && graph.event(event.event_id())?.is_some();
    change.write_event(&verdict, states)?;
    let Effects { users, destinations, mut undone, let_in, untold, passage, counted, .. } =
        match verdict {
            Verdict::Accepted => change.advance_head(states)?,
            Verdict::SoftFailed(_) => change.answer_outsider(after)?,
            Verdict::Rejected(_) if is_refuted => change.take_out(before)?,
            Verdict::Rejected(_) => Effects::default(),
        };
    if matches!(source, Source::Local { .. }) {
        // A leave that is sent again does not lead to another one.
        undone.clear();
    }
    let (batch, is_news) = (graph.into_batch(), verdict.is_accepted() || is_refuted);
    let counted = is_news.then_some(counted);
    Ok(Placement {
        batch,
        verdict,
        users,
        is_news,
        destinations,
        leaked_by,
        undone,
        let_in,
        untold,
        passage,
        counted,
    })
}

/// Whether current state denies the sender's server, so that the event should not have come: not
/// by another server either, and though it may be older than the denial (spec-map 4.10). The ACL
/// is no authorisation rule, so that the event counts in state resolution as it does elsewhere.
fn is_denied(graph: &Graph<'_>, event: &Pdu, ours: &ServerName) -> Result<bool, RoomError> {
    Ok(event.origin() != ours && !graph.acl_allows(event.origin())?)
}

/// Whether current state denies the sender's server, and did when the event was sent: it is deeper
/// than the ACL in force. What the server said before that is history like any other.
pub(crate) fn is_denied_history(graph: &Graph<'_>, event: &Pdu) -> Result<bool, RoomError> {
    if graph.acl_allows(event.origin())? {
        return Ok(false);
    }
    let acl = graph.current(SERVER_ACL, "")?;
    Ok(acl.is_some_and(|acl| event.depth() > acl.depth()))
}

/// The state before an event: its prev events' states, resolved.
fn state_before_event(graph: &Graph<'_>, event: &Pdu) -> Result<Before, RoomError> {
    let (mut roots, mut told) = (Vec::new(), false);
    let mut missing = Vec::new();
    for id in event.prev_events() {
        match graph.states(id)? {
            Some(states) => {
                roots.push(states.after);
                told |= states.told;
            }
            None => missing.push(id.clone()),
        }
    }
    if !missing.is_empty() {
        return Err(RoomError::Missing(missing));
    }
    Ok(Before { root: graph.resolve(roots)?, told })
}

/// Whether the rules allow an event on the room's head; nothing is written.
pub(crate) fn check(graph: &Graph<'_>, event: &Pdu) -> Result<(), RoomError> {
    let before = state_before_event(graph, event)?;
    Ok(judge(graph, event, before.root)?.into_result()?)
}

/// A verdict with the rule behind it.
#[derive(Debug, Clone)]
enum Judged {
    Accepted,
    SoftFailed(AuthError),
    /// By itself and its auth events.
    Rejected(AuthError),
    RejectedByState(AuthError),
}

impl Judged {
    fn into_result(self) -> Result<(), AuthError> {
        match self {
            Judged::Accepted => Ok(()),
            Judged::SoftFailed(why) | Judged::Rejected(why) | Judged::RejectedByState(why) => {
                Err(why)
            }
        }
    }
}

impl From<Judged> for Verdict {
    fn from(judged: Judged) -> Self {
        match judged {
            Judged::Accepted => Verdict::Accepted,
            Judged::SoftFailed(why) => Verdict::SoftFailed(why.to_string()),
            Judged::Rejected(why) | Judged::RejectedByState(why) => {
                Verdict::Rejected(why.to_string())
            }
        }
    }
}

/// The checks of the specification in their order: auth events, state before, current state
/// (server-server API, "Checks performed on receipt of a PDU", 4 to 6).
fn judge(graph: &Graph<'_>, event: &Pdu, before: Root) -> Result<Judged, RoomError> {
    if event.kind() == "m.room.create" {
        return Ok(match check_create(event) {
            Ok(()) if event.event_id() == graph.room.create_event => Judged::Accepted,
            Ok(()) => Judged::Rejected(AuthError::AnotherCreate),
            Err(why) => Judged::Rejected(why),
        });
    }
    let create = graph.create()?;
    if let Some(why) = judge_by_auth_events(graph, event, &create)? {
        return Ok(Judged::Rejected(why));
    }
    if let Some(why) = refusal(check_auth(event, &create, &graph.lookup(before)))? {
        return Ok(Judged::RejectedByState(why));
    }
    if before != graph.room.state
        && let Some(why) = refusal(check_auth(event, &create, &graph.lookup(graph.room.state)))?
    {
        return Ok(Judged::SoftFailed(why));
    }
    Ok(Judged::Accepted)
}

/// Check 4: the event by its auth events alone. `Some` says why it is refused.
pub(crate) fn judge_by_auth_events(
    graph: &Graph<'_>,
    event: &Pdu,
    create: &Pdu,
) -> Result<Option<AuthError>, RoomError> {
    let mut auth_events = Vec::new();
    let mut missing = Vec::new();
    for id in event.auth_events() {
        match graph.event(id)? {
            Some(Known { pdu, record, .. }) => {
                auth_events.push(AuthEvent { pdu, rejected: record.verdict.is_rejected() });
            }
            None => missing.push(id.clone()),
        }
    }
    if !missing.is_empty() {
        return Err(RoomError::Missing(missing));
    }
    let founder = AuthEvent::accepted(create.clone());
    if let Some(why) = refusal(check_auth_events(event, Some(&founder), &auth_events))? {
        return Ok(Some(why));
    }
    let state: BTreeMap<StateKey, Pdu> =
        auth_events.into_iter().filter_map(|auth| Some((auth.pdu.key()?, auth.pdu))).collect();
    refusal(check_auth(event, create, &state))
}

/// Splits a refusal by the rules from a failed lookup: the latter is never a verdict.
pub(crate) fn refusal(result: Result<(), AuthError>) -> Result<Option<AuthError>, RoomError> {
    match result {
        Ok(()) => Ok(None),
        Err(AuthError::Lookup(error)) => Err(error.into()),
        Err(why) => Ok(Some(why)),
    }
}

/// The `prev_events` and depth of the next event that we build.
pub(crate) fn next_position(graph: &Graph<'_>) -> Result<(Vec<Reference>, u64), RoomError> {
    let prev = heads::newest(&graph.room, MAX_OWN_PREV_EVENTS).into_iter();
    let prev = prev.map(|id| Ok(Reference::from(&graph.event_here(&id)?.pdu)));
    let depth = (graph.room.depth + 1).min(exeunt_core::canonical::MAX_INT as u64);
    Ok((prev.collect::<Result<_, RoomError>>()?, depth))
}
