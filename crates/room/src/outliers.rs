//! Events that others' events rest on, without a place of their own: state and auth events as
//! other servers hand them over. Each is judged by its auth events before it may be one.

use std::collections::{BTreeMap, BTreeSet};

use exeunt_core::{CheckedPdu, Pdu, RoomVersion};
use exeunt_state_res::{AuthError, check_create};
use exeunt_store::records::Verdict;
use ruma::{OwnedEventId, OwnedServerName, RoomId};
use serde_json::Value;

use crate::{
    RoomError, Rooms,
    graph::{Graph, is_taken},
    place::judge_by_auth_events,
    rows::event_record,
};

/// Checked events by id.
pub(crate) type Pool = BTreeMap<OwnedEventId, CheckedPdu>;

impl Rooms {
    /// Parses and checks events that a server sent in answer to a request. Those that are
    /// malformed, of another room or not properly signed are dropped, one by one.
    pub(crate) async fn check_answer(
        &self,
        version: RoomVersion,
        room_id: &RoomId,
        events: Vec<Value>,
    ) -> Result<Pool, RoomError> {
        let mut pdus: Vec<Pdu> = Vec::with_capacity(events.len());
        for event in events {
            let Value::Object(object) = event else { continue };
            match Pdu::from_object(version, object) {
                Ok(pdu) if pdu.room_id() == room_id => pdus.push(pdu),
                Ok(pdu) => tracing::debug!(%room_id, ?pdu, "an event of another room, dropped"),
                Err(error) => tracing::debug!(%room_id, %error, "a malformed event, dropped"),
            }
        }
        let mut pool = Pool::new();
        for checked in self.keys().check_all(pdus).await? {
            match checked {
                Ok(event) => {
                    pool.entry(event.event_id().to_owned()).or_insert(event);
                }
                Err(error) => tracing::debug!(%room_id, %error, "an unsigned event, dropped"),
            }
        }
        Ok(pool)
    }
}

/// Adds the events of `pool` to the graph as outliers, auth events first, each with its verdict.
/// Events whose auth events are nowhere to be found are left out.
pub(crate) fn add_outliers(
    graph: &Graph<'_>,
    pool: &Pool,
    from: &OwnedServerName,
) -> Result<(), RoomError> {
    // Where the room id names the create event, no event has it among its auth events.
    let is_create = |id: &OwnedEventId| pool[id].is_state("m.room.create", "");
    let (create, others): (Vec<_>, Vec<_>) = in_auth_order(pool).into_iter().partition(is_create);
    for id in create.into_iter().chain(others) {
        if graph.event(&id)?.is_some() {
            continue;
        }
        let event = &pool[&id];
        if is_taken(graph.reader, event)? {
            tracing::debug!(event = %id, "another event has this id, left out");
            continue;
        }
        let verdict = match judge_outlier(graph, event) {
            Ok(verdict) => verdict,
            Err(RoomError::Missing(missing)) => {
                tracing::debug!(event = %id, lacks = missing.len(), "an event without its auth events, left out");
                continue;
            }
            Err(error) => return Err(error),
        };
        graph.add(event, event_record(event, verdict, None, Some(from)))?;
    }
    Ok(())
}

/// The verdict on an event by its auth events.
pub(crate) fn judge_outlier(graph: &Graph<'_>, event: &CheckedPdu) -> Result<Verdict, RoomError> {
    let refusal = if event.kind() == "m.room.create" {
        let is_other = *event.event_id() != graph.room.create_event;
        check_create(event).err().or(is_other.then_some(AuthError::AnotherCreate))
    } else {
        judge_by_auth_events(graph, event, &graph.create()?)?
    };
    Ok(refusal.map_or(Verdict::Accepted, |why| Verdict::Rejected(why.to_string())))
}

/// The ids of a pool such that an event comes after those of its auth events that are in it.
/// Iterative; events in a cycle (which valid hashes exclude) come out in any order.
fn in_auth_order(pool: &Pool) -> Vec<OwnedEventId> {
    order_by(pool, |event| event.auth_events())
}

/// The same by prev events: from old to new.
pub(crate) fn in_graph_order(pool: &Pool) -> Vec<OwnedEventId> {
    order_by(pool, |event| event.prev_events())
}

fn order_by<'a>(
    pool: &'a Pool,
    edges: impl Fn(&'a CheckedPdu) -> &'a [OwnedEventId],
) -> Vec<OwnedEventId> {
    let mut out = Vec::with_capacity(pool.len());
    let mut seen = BTreeSet::new();
    for root in pool.keys() {
        let mut stack = vec![(root, false)];
        while let Some((id, expanded)) = stack.pop() {
            if expanded {
                out.push(id.clone());
                continue;
            }
            if !seen.insert(id) {
                continue;
            }
            stack.push((id, true));
            let parents = edges(&pool[id]).iter().filter(|parent| pool.contains_key(*parent));
            stack.extend(parents.filter(|parent| !seen.contains(*parent)).map(|p| (p, false)));
        }
    }
    out
}
