//! The state that goes with a timeline in `/sync`.

use std::collections::{BTreeMap, BTreeSet};

use exeunt_core::{StateKey, StateMap, wire::ClientEvent};
use exeunt_store::records::Root;
use ruma::{EventId, OwnedEventId, OwnedUserId};

use super::{access::RoomView, filter::EventFilter, sync::Told};
use crate::{RoomError, graph::Known};

const MEMBER: &str = "m.room.member";

/// What a client has, and what it shall have.
pub(crate) struct Delta<'d> {
    /// The state that the client has; empty for a room that is new to it.
    pub base: Root,
    /// The state before the timeline, and after it.
    pub start: Root,
    pub end: Root,
    pub timeline: &'d [(i64, Known)],
    /// Up to the end of the timeline, not to its start (`use_state_after`).
    pub after: bool,
    /// Users whose member events are wanted under lazy loading, beside the senders'.
    pub heroes: &'d [OwnedUserId],
    /// Member events that the client has, though they may be no part of what changed.
    pub told: &'d Told,
}

impl Delta<'_> {
    /// The state events, rendered.
    pub fn events(
        &self,
        view: &RoomView<'_>,
        filter: &EventFilter,
    ) -> Result<Vec<ClientEvent>, RoomError> {
        if !filter.allows_room(&view.graph.room_id) {
            return Ok(Vec::new());
        }
        let mut ids = if self.after { self.news(view, self.end)? } else { self.to_start(view)? };
        if filter.lazy_load_members {
            self.choose_members(view, &mut ids)?;
        }
        let mut events = Vec::new();
        for id in ids.values() {
            let known = view.graph.event_here(id)?;
            if filter.allows(&known.pdu) {
                events.push(view.sync_event(&known)?);
            }
        }
        Ok(events)
    }

    /// What a state has that the client has not.
    fn news(&self, view: &RoomView<'_>, root: Root) -> Result<StateMap<OwnedEventId>, RoomError> {
        if self.base == Root::EMPTY {
            return view.graph.state_ids(root);
        }
        let changes = view.graph.diff(self.base, root)?;
        Ok(changes.into_iter().filter_map(|change| Some((change.key, change.after?))).collect())
    }

    /// State that, with the timeline on top, gives the state at the end: what changed up to the
    /// start, and what changed from there without an event in the timeline, as when a filter
    /// took it or state was resolved.
    fn to_start(&self, view: &RoomView<'_>) -> Result<StateMap<OwnedEventId>, RoomError> {
        let shown: BTreeSet<_> = self.timeline.iter().map(|(_, e)| e.pdu.event_id()).collect();
        let shown_keys: BTreeSet<_> =
            self.timeline.iter().filter_map(|(_, e)| e.pdu.key()).collect();
        let mut ids = self.news(view, self.start)?;
        for change in view.graph.diff(self.start, self.end)? {
            match change.after {
                Some(id) if !shown.contains(&*id) => {
                    ids.insert(change.key, id);
                }
                None if !shown_keys.contains(&change.key) => {
                    ids.remove(&change.key);
                }
                _ => {}
            }
        }
        ids.retain(|_, id| !shown.contains(&**id));
        Ok(ids)
    }

    /// Lazy loading: of a room that is new to the client only the members that the timeline
    /// needs; otherwise all that changed, and those that the timeline needs.
    fn choose_members(
        &self,
        view: &RoomView<'_>,
        ids: &mut StateMap<OwnedEventId>,
    ) -> Result<(), RoomError> {
        let mut needed: BTreeSet<_> = self.heroes.iter().map(|u| StateKey::member(u)).collect();
        needed.extend(self.timeline.iter().map(|(_, e)| StateKey::member(e.pdu.sender())));
        if self.base == Root::EMPTY {
            needed.insert(StateKey::member(&view.viewer.user));
            ids.retain(|key, _| key.kind != MEMBER || needed.contains(key));
            return Ok(());
        }
        let shown: BTreeMap<_, _> = self
            .timeline
            .iter()
            .filter_map(|(_, e)| Some((e.pdu.event_id(), e.pdu.key()?)))
            .collect();
        let root = if self.after { self.end } else { self.start };
        for key in needed.into_iter().filter(|key| !ids.contains_key(key)).collect::<Vec<_>>() {
            let event = view.graph.state_event(root, &key)?;
            let is_wanted =
                |id: &EventId| !self.told.has(id) && (self.after || !shown.contains_key(id));
            if let Some(event) = event.filter(|event| is_wanted(event.event_id())) {
                ids.insert(key, event.event_id().to_owned());
            }
        }
        Ok(())
    }
}
