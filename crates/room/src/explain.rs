//! Why an event is in the room or not: its verdict, the checks behind it, and how the state before
//! it was resolved. The same code path as the decision, read again.

use std::collections::BTreeMap;

use exeunt_core::Pdu;
use exeunt_state_res::{AuthError, Recorder, check_auth};
use exeunt_store::{
    Reader,
    records::{Root, Verdict},
};
use ruma::{EventId, OwnedEventId, OwnedServerName, OwnedUserId, RoomId};
use serde::Serialize;

use crate::{
    RoomError,
    graph::Graph,
    place::{judge_by_auth_events, refusal},
};

/// An event in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gist {
    pub kind: String,
    pub state_key: Option<String>,
    pub membership: Option<String>,
    pub sender: OwnedUserId,
}

/// What a check said: nothing, or the rule that the event breaks.
pub type Refusal = Option<String>;

#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    pub event_id: OwnedEventId,
    pub room_version: String,
    pub verdict: Verdict,
    /// `None` for an event of ours.
    pub received_from: Option<OwnedServerName>,
    pub depth: u64,
    pub generation: u64,
    /// Whether the place of the event in the graph is known; an outlier has no state before it.
    pub is_placed: bool,
    /// Whether the state before it rests on what another server told.
    pub is_told: bool,
    /// Check 4 on receipt.
    pub by_auth_events: Refusal,
    /// Check 5.
    pub by_state_before: Refusal,
    /// Check 6, against the current state of now.
    pub by_current_state: Refusal,
    /// The different states after the event's predecessors.
    pub states: usize,
    /// How they were resolved, if there were several.
    pub resolution: Option<Recorder>,
    /// Every event that is named here, as far as it is known.
    pub events: BTreeMap<OwnedEventId, Gist>,
}

/// Explains an event of a room, `None` if either is unknown here.
pub fn explain(
    reader: &Reader<'_>,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<Option<Explanation>, RoomError> {
    let Some(graph) = Graph::open(reader, room_id)? else { return Ok(None) };
    let Some(known) = graph.event(event_id)? else { return Ok(None) };
    let (event, record) = (&known.pdu, &known.record);
    let create = graph.create()?;
    let founds = event.event_id() == create.event_id();
    let by_state = |root: Root| match founds {
        true => Ok(None),
        false => text(refusal(check_auth(event, &create, &graph.lookup(root)))),
    };
    let by_auth_events =
        if founds { None } else { text(judge_by_auth_events(&graph, event, &create))? };
    let before = record.states.map(|states| states.before);
    let by_state_before = before.map(by_state).transpose()?.flatten();

    let mut roots = Vec::new();
    for prev in event.prev_events() {
        roots.extend(graph.state_after(prev)?);
    }
    roots.sort_unstable();
    roots.dedup();
    let states = roots.len();
    let mut resolution = None;
    if states > 1 {
        let recorder = resolution.insert(Recorder::new());
        graph.resolve_traced(roots, recorder)?;
    }
    Ok(Some(Explanation {
        event_id: event.event_id().to_owned(),
        room_version: event.version().as_str().into(),
        verdict: record.verdict.clone(),
        received_from: record.received_from.clone(),
        depth: event.depth(),
        generation: record.generation,
        is_placed: before.is_some(),
        is_told: record.states.is_some_and(|states| states.told),
        by_auth_events,
        by_state_before,
        by_current_state: by_state(graph.room.state)?,
        states,
        events: gists(&graph, event, resolution.as_ref())?,
        resolution,
    }))
}

fn text(refusal: Result<Option<AuthError>, RoomError>) -> Result<Refusal, RoomError> {
    Ok(refusal?.map(|why| why.to_string()))
}

fn gists(
    graph: &Graph<'_>,
    event: &Pdu,
    resolution: Option<&Recorder>,
) -> Result<BTreeMap<OwnedEventId, Gist>, RoomError> {
    let mut ids = vec![event.event_id().to_owned()];
    if let Some(resolution) = resolution {
        ids.extend(resolution.full_conflicted_set.iter().cloned());
        ids.extend(resolution.mainline.iter().cloned());
        ids.extend(
            resolution.conflict.iter().flat_map(|row| row.candidates.iter().flatten()).cloned(),
        );
        ids.extend(resolution.resolved.iter().map(|row| row.event_id.clone()));
    }
    let mut gists = BTreeMap::new();
    for id in ids {
        if let Some(known) = graph.event(&id)? {
            gists.insert(id, gist(&known.pdu));
        }
    }
    Ok(gists)
}

fn gist(event: &Pdu) -> Gist {
    Gist {
        kind: event.kind().to_owned(),
        state_key: event.state_key().map(str::to_owned),
        membership: event.membership().map(str::to_owned),
        sender: event.sender().to_owned(),
    }
}
