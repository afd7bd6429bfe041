//! What a user's own push rules make of unread events. Specification: client-server API, "Push
//! Rules"; decision 0027.
//!
//! Only the rules of users who have changed any are asked, and when a sync counts. What they said
//! of an event is remembered for as long as it is unread and the rules are the same.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use exeunt_store::{Reader, StoreError, records::NotableRecord, tables};
use futures_util::FutureExt;
use ruma::{
    OwnedRoomId, OwnedUserId, UserId,
    events::push_rules::PushRulesEventContent,
    int,
    power_levels::NotificationPowerLevels,
    push::{AnyPushRuleRef, PushConditionPowerLevelsCtx, PushConditionRoomCtx, Ruleset},
    room_version_rules::RoomPowerLevelsRules,
    serde::Raw,
};
use serde_json::Value;

use super::super::access::RoomView;
use crate::RoomError;

/// Events of which it is remembered what rules said of them. Beyond that all are forgotten.
const MAX_REMEMBERED: usize = 200_000;
/// What one sync may spend on asking: for each event, the rules times the bytes. What is left over
/// has its weight by the predefined rules until a later sync asks.
const MAX_WORK: usize = 200_000_000;
/// Bytes that an event counts for at least.
const MIN_BYTES: usize = 500;

/// What an event is to a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub notifies: bool,
    pub highlights: bool,
}

impl Weight {
    /// By the predefined rules.
    pub fn predefined(event: &NotableRecord, user: &UserId) -> Self {
        let highlights = event.highlights_all || event.highlights.iter().any(|one| one == user);
        Self { notifies: highlights || event.counts, highlights }
    }
}

/// Weights by order in the timeline.
type Weights = HashMap<i64, Weight>;
type Key = (OwnedUserId, OwnedRoomId);

/// What rules said of unread events, with the stream position of the rules. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Remembered(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rooms: HashMap<Key, (u64, Weights)>,
    count: usize,
}

impl Remembered {
    fn take(&self, key: &Key, position: u64) -> Weights {
        let mut state = self.lock();
        let Some((of, weights)) = state.rooms.remove(key) else { return Weights::new() };
        state.count -= weights.len();
        if of == position { weights } else { Weights::new() }
    }

    fn put(&self, key: Key, position: u64, weights: Weights) {
        let mut state = self.lock();
        if state.count + weights.len() > MAX_REMEMBERED {
            *state = State::default();
        }
        state.count += weights.len();
        if let Some((_, old)) = state.rooms.insert(key, (position, weights)) {
            state.count -= old.len();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rules of the user who syncs, read when they are first needed.
pub(super) struct OwnRules<'r> {
    remembered: &'r Remembered,
    rules: OnceLock<Option<(u64, Ruleset)>>,
    /// What is left of [`MAX_WORK`].
    work: AtomicUsize,
}

impl<'r> OwnRules<'r> {
    pub fn new(remembered: &'r Remembered) -> Self {
        Self { remembered, rules: OnceLock::new(), work: AtomicUsize::new(MAX_WORK) }
    }

    /// The rules as a room's events meet them; `None` for a user who has changed none.
    pub fn of_room<'v, 'a>(
        &'v self,
        view: &'v RoomView<'a>,
    ) -> Result<Option<RoomRules<'v, 'a>>, RoomError> {
        let (graph, user) = (&view.graph, &view.viewer.user);
        if self.rules.get().is_none() {
            let _ = self.rules.set(read(graph.reader, user)?);
        }
        let Some(Some((position, rules))) = self.rules.get() else { return Ok(None) };
        let member = graph.current("m.room.member", user.as_str())?;
        let name = member.as_ref().and_then(|member| member.content_str("displayname"));
        let context = PushConditionRoomCtx::new(
            graph.room_id.clone(),
            view.joined_count()?.try_into().unwrap_or_default(),
            user.clone(),
            name.unwrap_or(user.localpart()).to_owned(),
        );
        let key = (user.clone(), graph.room_id.clone());
        let known = self.remembered.take(&key, *position);
        let (own, weights) = (self, Weights::new());
        Ok(Some(RoomRules { own, view, position: *position, rules, context, key, known, weights }))
    }
}

/// The stored rules, with the stream position of the last change.
fn read(reader: &Reader<'_>, user: &UserId) -> Result<Option<(u64, Ruleset)>, StoreError> {
    let key = (user.to_owned(), String::new(), "m.push_rules".to_owned());
    let Some(row) = reader.get::<tables::AccountData>(&key)? else { return Ok(None) };
    let content = serde_json::from_value::<PushRulesEventContent>(Value::Object(row.content));
    Ok(content.ok().map(|PushRulesEventContent { global: mut rules, .. }| {
        rules.update_with_server_default(Ruleset::server_default(user));
        (row.position, rules)
    }))
}

/// A user's rules in one room.
pub(super) struct RoomRules<'v, 'a> {
    own: &'v OwnRules<'v>,
    view: &'v RoomView<'a>,
    position: u64,
    rules: &'v Ruleset,
    context: PushConditionRoomCtx,
    key: Key,
    /// Of the last sync, and of this one.
    known: Weights,
    weights: Weights,
}

impl RoomRules<'_, '_> {
    pub fn weigh(&mut self, order: i64, event: &NotableRecord) -> Result<Weight, RoomError> {
        let known = self.known.get(&order).copied();
        let Some(weight) = known.map_or_else(|| self.ask(order, event), |known| Ok(Some(known)))?
        else {
            return Ok(Weight::predefined(event, &self.view.viewer.user));
        };
        self.weights.insert(order, weight);
        Ok(weight)
    }

    /// `None`: this sync has done enough.
    fn ask(&self, order: i64, event: &NotableRecord) -> Result<Option<Weight>, RoomError> {
        let graph = &self.view.graph;
        let at = (graph.room_id.clone(), order);
        let Some(id) = graph.reader.get::<tables::Timeline>(&at)? else {
            return Ok(Some(Weight::default()));
        };
        let known = graph.event_here(&id)?;
        let work = self.rules.iter().count() * known.record.json.get().len().max(MIN_BYTES);
        let spend = |left: usize| left.checked_sub(work);
        if self.own.work.fetch_update(Relaxed, Relaxed, spend).is_err() {
            return Ok(None);
        }
        // Whether the sender may call the whole room was settled when the event came.
        let level = if event.highlights_all { int!(100) } else { int!(0) };
        let creators = RoomPowerLevelsRules::new(&graph.version.rules().authorization, []);
        let levels = PushConditionPowerLevelsCtx::new(
            BTreeMap::new(),
            level,
            NotificationPowerLevels::new(),
            creators,
        );
        let context = self.context.clone().with_power_levels(levels);
        let raw = Raw::<Value>::from_json(known.record.json.as_ref().to_owned());
        // No condition that we know waits for anything.
        let rule = self.rules.get_match(&raw, &context).now_or_never().flatten();
        let weight = rule.map_or(Weight::default(), |rule| Weight {
            notifies: rule.triggers_notification(),
            highlights: rule.triggers_highlight(),
        });
        // Names in the text, as clients that know no `m.mentions` have it: by rules that are no
        // longer predefined, and that came after all of the kind `override`.
        let by_name = Weight::predefined(event, &self.view.viewer.user).highlights
            && !known.pdu.content().contains_key("m.mentions")
            && !matches!(rule, Some(AnyPushRuleRef::Override(_)));
        Ok(Some(if by_name { Weight { notifies: true, highlights: true } } else { weight }))
    }

    /// Keeps what was said, for the next sync.
    pub fn remember(self) {
        self.own.remembered.put(self.key, self.position, self.weights);
    }
}

#[cfg(test)]
mod tests {
    use ruma::owned_user_id;

    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_of_the_same_rules() {
        let (remembered, user) = (Remembered::default(), owned_user_id!("@a:x"));
        let weights = || (0..1_000).map(|order| (order, Weight::default())).collect::<Weights>();
        let key = |n: usize| (user.clone(), format!("!{n}:x").try_into().unwrap());
        remembered.put(key(0), 7, weights());
        assert_eq!(remembered.take(&key(0), 7).len(), 1_000);
        assert_eq!(remembered.take(&key(0), 7).len(), 0);
        remembered.put(key(0), 7, weights());
        assert_eq!(remembered.take(&key(0), 8).len(), 0);
        for n in 0..500 {
            remembered.put(key(n), 7, weights());
            remembered.put(key(n), 7, weights());
            let state = remembered.lock();
            let count: usize = state.rooms.values().map(|(_, weights)| weights.len()).sum();
            assert!(count == state.count && count <= MAX_REMEMBERED);
        }
    }
}
