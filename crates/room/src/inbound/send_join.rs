//! `PUT send_join`: spec-map 4.9.

use std::collections::{BTreeMap, BTreeSet};

use exeunt_core::{CheckedPdu, Object, StateKey, wire::federation};
use exeunt_membership::check_send_join;
use exeunt_store::records::Root;
use ruma::{EventId, OwnedUserId};
use serde_json::json;

use super::{Admitted, LongAnswer, auth_chain::auth_chain, gate::resident, long_answer::Field};
use crate::{
    RoomError, Rooms,
    graph::{Graph, missing_in_store},
};

/// Users after whom a room without a name is named (client-server API, `m.heroes`).
const HEROES: usize = 5;

impl Rooms {
    /// Takes a join of another server's user into the graph, relays it, and answers with the state
    /// before it and all that the state rests on. With `omit_members` the caller can do without
    /// the member events but for those that clients name the room by.
    pub async fn send_join(
        &self,
        entry: &Admitted,
        event_id: &EventId,
        body: Object,
        omit_members: bool,
    ) -> Result<LongAnswer, RoomError> {
        let turn = self.long_turn(entry.origin()).await?;
        let event = self.take(entry, event_id, body, check_send_join).await?;
        self.tell_newcomer(&event).await?;
        let (room_id, ours) = (entry.room_id().to_owned(), self.server_name().to_owned());
        self.long_answer(turn, entry.room_id(), move |reader| {
            let graph = resident(reader, &room_id, &ours)?;
            let placed = graph.event_here(event.event_id())?.record.states;
            let before = placed.ok_or_else(|| missing_in_store(event.event_id()))?.before;
            let shown = omit_members.then(|| members_shown(&graph, before, &event)).transpose()?;
            let mut state = Vec::new();
            for entry in graph.state_entries(before) {
                let (key, id) = entry?;
                let is_shown = |users: &BTreeSet<OwnedUserId>| {
                    key.kind != "m.room.member" || users.iter().any(|u| u.as_str() == key.key)
                };
                if shown.as_ref().is_none_or(is_shown) {
                    state.push(id);
                }
            }
            let mut seeds = state.clone();
            seeds.push(event.event_id().to_owned());
            let mut chain = auth_chain(&graph, seeds)?;
            if omit_members {
                let state: BTreeSet<_> = state.iter().collect();
                chain.retain(|id| !state.contains(id));
            }
            let mut servers = graph.joined_servers()?;
            servers.retain(|server| server != event.origin());
            Ok(vec![
                ("origin", Field::Value(json!(ours))),
                ("event", Field::Value(federation(&event))),
                ("state", Field::Events(state)),
                ("auth_chain", Field::Events(chain)),
                ("members_omitted", Field::Value(json!(omit_members))),
                ("servers_in_room", Field::Value(json!(servers))),
            ])
        })
        .await
    }
}

/// Whose member events are not omitted: the joining user's and, in a room without a name, the heroes'.
fn members_shown(
    graph: &Graph<'_>,
    before: Root,
    join: &CheckedPdu,
) -> Result<BTreeSet<OwnedUserId>, RoomError> {
    let mut shown = BTreeSet::from([join.sender().to_owned()]);
    if !is_named(graph, before)? {
        shown.extend(heroes(graph, before, join)?);
    }
    Ok(shown)
}

fn is_named(graph: &Graph<'_>, before: Root) -> Result<bool, RoomError> {
    for kind in ["m.room.name", "m.room.canonical_alias"] {
        if graph.state_event(before, &StateKey::single(kind))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The users whom clients name the room after: those who came first of the joined and invited ones,
/// or else of those who have left. The joining user does not count.
fn heroes(
    graph: &Graph<'_>,
    before: Root,
    join: &CheckedPdu,
) -> Result<Vec<OwnedUserId>, RoomError> {
    let mut by_age: BTreeMap<bool, BTreeSet<(u64, OwnedUserId)>> = BTreeMap::new();
    for member in graph.members(before) {
        let (user, id) = member?;
        if user == join.sender().as_str() {
            continue;
        }
        let event = graph.event_here(&id)?.pdu;
        let Some(user) = event.target() else { continue };
        let is_there = matches!(event.membership(), Some("join" | "invite"));
        let users = by_age.entry(is_there).or_default();
        users.insert((event.depth(), user.to_owned()));
        if users.len() > HEROES {
            users.pop_last();
        }
    }
    let users = by_age.remove(&true).or_else(|| by_age.remove(&false)).unwrap_or_default();
    Ok(users.into_iter().map(|(_, user)| user).collect())
}
