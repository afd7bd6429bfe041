//! Who types. Specification: client-server API, "Typing notifications".

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use exeunt_store::Batch;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};

use super::{Edu, News, Told, event};
use crate::{RoomError, Rooms};

/// Users of a room whose typing is kept, those who have stopped included.
pub const MAX_TYPISTS: usize = 100;
/// Rooms whose typists are kept.
pub const MAX_ROOMS: usize = 10_000;
/// How long a user types who does not say so again.
pub const MAX_TYPING: Duration = Duration::from_secs(120);
/// The same where the client names no time.
pub const DEFAULT_TYPING: Duration = Duration::from_secs(30);
/// The same for users of other servers, which do not say how long.
const REMOTE_TYPING_MS: u64 = 60_000;
/// When other servers are told again of a user who goes on typing.
const TELL_AGAIN_MS: u64 = 25_000;

/// The typists of all rooms.
#[derive(Default, Clone)]
pub(super) struct Typing(Arc<Mutex<BTreeMap<OwnedRoomId, Room>>>);

#[derive(Default)]
struct Room {
    /// Stream position of the last change.
    position: u64,
    users: BTreeMap<OwnedUserId, Typist>,
}

#[derive(Clone, Copy, Default)]
struct Typist {
    /// Milliseconds since the epoch; 0 of one who has stopped.
    until: u64,
    /// Stream position of the last change.
    position: u64,
    told: Option<Told>,
}

/// What follows from what a user does.
enum Step {
    Nothing,
    /// Nobody here needs to know, but other servers do.
    TellAgain(Option<Told>),
    Change(Option<Told>),
}

impl Typing {
    /// Takes note of a renewal; a change is made by [`Typing::change`].
    fn step(&self, room_id: &RoomId, user: &UserId, until: u64, now: u64) -> Step {
        let mut rooms = self.lock();
        let known = rooms.get_mut(room_id).and_then(|room| room.users.get_mut(user));
        let told = known.as_ref().and_then(|known| known.told);
        let was_typing = known.as_ref().is_some_and(|known| known.until != 0);
        match (was_typing, until != 0) {
            (true, true) => {
                known.into_iter().for_each(|known| known.until = until);
                match told.is_some_and(|told| told.at.saturating_add(TELL_AGAIN_MS) <= now) {
                    true => Step::TellAgain(told),
                    false => Step::Nothing,
                }
            }
            (false, true) if !has_room(&mut rooms, room_id, user) => Step::Nothing,
            (false, false) => Step::Nothing,
            _ => Step::Change(told),
        }
    }

    fn change(&self, room_id: &RoomId, user: &UserId, typist: Typist) {
        let mut rooms = self.lock();
        let room = rooms.entry(room_id.to_owned()).or_default();
        room.position = room.position.max(typist.position);
        room.users.insert(user.to_owned(), typist);
    }

    /// Whether the user types.
    pub fn has(&self, room_id: &RoomId, user: &UserId) -> bool {
        let rooms = self.lock();
        let known = rooms.get(room_id).and_then(|room| room.users.get(user));
        known.is_some_and(|typist| typist.until != 0)
    }

    /// Those of the rooms in which anybody has typed lately.
    pub fn rooms<'a>(&self, rooms: &[(&'a OwnedRoomId, News)]) -> Vec<(&'a OwnedRoomId, News)> {
        let known = self.lock();
        if known.is_empty() {
            return Vec::new();
        }
        rooms.iter().filter(|(room_id, _)| known.contains_key(*room_id)).copied().collect()
    }

    /// The room's event, if it is news. Whoever is new there need not know that nobody types.
    pub fn event(&self, room_id: &RoomId, news: News) -> Option<Value> {
        let rooms = self.lock();
        let room = rooms.get(room_id).filter(|room| news.has(room.position))?;
        let users: Vec<_> =
            room.users.iter().filter(|(_, typist)| typist.until != 0).map(|(id, _)| id).collect();
        let is_told = news.since.is_some() || !users.is_empty();
        is_told.then(|| event("m.typing", json!({ "user_ids": users })))
    }

    /// Those whose time is up, and when the next one's is.
    pub fn expired(&self, now: u64) -> (Vec<(OwnedRoomId, OwnedUserId)>, Option<u64>) {
        let (mut expired, mut next) = (Vec::new(), None);
        for (room_id, room) in &*self.lock() {
            for (user, typist) in room.users.iter().filter(|(_, typist)| typist.until != 0) {
                if typist.until <= now {
                    expired.push((room_id.clone(), user.clone()));
                } else {
                    next = Some(next.map_or(typist.until, |known: u64| known.min(typist.until)));
                }
            }
        }
        (expired, next)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OwnedRoomId, Room>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Whether one more typist can be kept. Those who stopped long ago make place.
fn has_room(rooms: &mut BTreeMap<OwnedRoomId, Room>, room_id: &RoomId, user: &UserId) -> bool {
    let silent = |room: &Room| room.users.values().all(|typist| typist.until == 0);
    if !rooms.contains_key(room_id) && rooms.len() >= MAX_ROOMS {
        let oldest = rooms.iter().filter(|(_, room)| silent(room));
        let oldest = oldest.min_by_key(|(_, room)| room.position).map(|(id, _)| id.clone());
        let Some(oldest) = oldest else { return false };
        rooms.remove(&oldest);
    }
    let Some(room) = rooms.get_mut(room_id) else { return true };
    if room.users.len() >= MAX_TYPISTS && !room.users.contains_key(user) {
        let stopped = room.users.iter().filter(|(_, typist)| typist.until == 0);
        let oldest = stopped.min_by_key(|(_, typist)| typist.position).map(|(id, _)| id.clone());
        let Some(oldest) = oldest else { return false };
        room.users.remove(&oldest);
    }
    true
}

impl Rooms {
    /// A local user types, for that long, or has stopped.
    pub async fn set_typing(
        &self,
        user: &UserId,
        room_id: &RoomId,
        typing: Option<Duration>,
    ) -> Result<(), RoomError> {
        let until = typing.map(|time| {
            let time = time.min(MAX_TYPING).as_millis();
            self.now().saturating_add(u64::try_from(time).unwrap_or(0)).max(1)
        });
        self.say_typing(user, room_id, until.unwrap_or(0)).await
    }

    /// Another server says that a user of its types. That it may is checked by the caller.
    pub(super) async fn remote_typing(
        &self,
        user: &UserId,
        room_id: &RoomId,
        is_typing: bool,
    ) -> Result<(), RoomError> {
        let until = self.now().saturating_add(REMOTE_TYPING_MS);
        self.say_typing(user, room_id, if is_typing { until } else { 0 }).await
    }

    /// By the user's own word, which counts of members; `until` 0: stopped.
    async fn say_typing(
        &self,
        user: &UserId,
        room_id: &RoomId,
        until: u64,
    ) -> Result<(), RoomError> {
        let _turn = self.inner.ephemeral.rooms.lock(room_id.to_owned()).await;
        self.check_joined(user, room_id).await?;
        self.change_typing(user, room_id, until).await
    }

    /// The time is up, or the user is in the room no longer.
    pub(super) async fn end_typing(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<(), RoomError> {
        let _turn = self.inner.ephemeral.rooms.lock(room_id.to_owned()).await;
        self.change_typing(user, room_id, 0).await
    }

    /// The caller holds the lock over the room's typists.
    async fn change_typing(
        &self,
        user: &UserId,
        room_id: &RoomId,
        until: u64,
    ) -> Result<(), RoomError> {
        let ephemeral = &self.inner.ephemeral;
        let now = self.now();
        let (told, is_change) = match ephemeral.typing.step(room_id, user, until, now) {
            Step::Nothing => return Ok(()),
            Step::TellAgain(told) => (told, false),
            Step::Change(told) => (told, true),
        };
        let is_ours = user.server_name() == self.server_name();
        let servers =
            if is_ours { self.servers_to_tell(room_id).await? } else { Default::default() };
        let (mut batch, destinations) = match servers.is_empty() {
            true => (Batch::default(), Vec::new()),
            false => {
                let content = json!({ "room_id": room_id, "user_id": user, "typing": until != 0 });
                let replaces = told.map(|told| told.position);
                let kind = "m.typing";
                self.edu(Edu { kind, content, servers, replaces, momentary: true }).await?
            }
        };
        let (typing, room, who) = (ephemeral.typing.clone(), room_id.to_owned(), user.to_owned());
        batch.at_position(move |position, _| {
            let told = is_ours.then_some(Told { at: now, position });
            if is_change {
                typing.change(&room, &who, Typist { until, position, told });
            } else if let Some(room) = typing.lock().get_mut(&room)
                && let Some(typist) = room.users.get_mut(&who)
            {
                typist.told = told;
            }
        });
        let position = self.store().commit(batch).await?;
        self.inner.wake.wake(&destinations);
        if is_change {
            self.inner.notifier.notify_room(room_id, position);
            self.stir_sweeper();
        }
        Ok(())
    }

    /// `Forbidden` unless the user is joined to the room.
    pub(super) async fn check_joined(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<(), RoomError> {
        let member = self.member(room_id, user).await?;
        if member.is_some_and(|(membership, _)| membership == "join") {
            Ok(())
        } else {
            Err(RoomError::Forbidden(format!("{user} is not in the room")))
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, room_id};

    use super::*;

    fn user(n: usize) -> OwnedUserId {
        UserId::parse(format!("@u{n}:x")).unwrap()
    }

    fn change(typing: &Typing, room: &RoomId, user: &UserId, until: u64, position: u64) -> bool {
        let is_change = matches!(typing.step(room, user, until, 0), Step::Change(_));
        if is_change {
            typing.change(room, user, Typist { until, position, told: None });
        }
        is_change
    }

    #[test]
    fn a_room_has_so_many_typists_and_those_who_stopped_make_place() {
        let (typing, room) = (Typing::default(), room_id!("!r:x"));
        for n in 0..MAX_TYPISTS {
            assert!(change(&typing, room, &user(n), 9, n as u64));
        }
        assert!(!change(&typing, room, &user(MAX_TYPISTS), 9, 500));
        assert!(change(&typing, room, &user(3), 0, 501));
        assert!(change(&typing, room, &user(MAX_TYPISTS), 9, 502));
        assert!(!change(&typing, room, &user(3), 9, 503));
    }

    #[test]
    fn so_many_rooms_and_silent_ones_make_place() {
        let typing = Typing::default();
        let room = |n: usize| RoomId::parse(format!("!r{n}:x")).unwrap();
        for n in 0..MAX_ROOMS {
            assert!(change(&typing, &room(n), &user(1), 9, n as u64));
        }
        assert!(!change(&typing, &owned_room_id!("!more:x"), &user(1), 9, 0));
        assert!(change(&typing, &room(7), &user(1), 0, 0));
        assert!(change(&typing, &owned_room_id!("!more:x"), &user(1), 9, 0));
        assert_eq!(typing.lock().len(), MAX_ROOMS);
    }

    #[test]
    fn the_same_again_is_no_news() {
        let (typing, room) = (Typing::default(), room_id!("!r:x"));
        assert!(!change(&typing, room, &user(1), 0, 1));
        assert!(change(&typing, room, &user(1), 5, 2));
        assert!(!change(&typing, room, &user(1), 8, 3));
        assert_eq!(typing.expired(7), (vec![], Some(8)));
        assert_eq!(typing.expired(8), (vec![(room.to_owned(), user(1))], None));
        let news = |since| News { since, until: 9 };
        assert!(typing.event(room, news(Some(2))).is_none());
        let event = typing.event(room, news(Some(1))).unwrap();
        assert_eq!(event["content"]["user_ids"], json!([user(1)]));
        assert!(change(&typing, room, &user(1), 0, 4));
        assert_eq!(typing.event(room, news(Some(3))).unwrap()["content"]["user_ids"], json!([]));
        assert!(typing.event(room, news(None)).is_none());
    }
}
