//! Wakes the long polls of the users that a commit concerns.
//!
//! News of a room wakes those who wait and are in it, whom an index knows: the cost follows them,
//! not the room's members. The index holds a user's rooms as the user's poll read them. Until that
//! is so, and after each change of a membership, the user counts as being in every room: woken for
//! nothing now and then, but never not woken.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use tokio::sync::watch;

/// Who waits, and for which rooms.
#[derive(Default)]
pub struct Notifier(Mutex<State>);

#[derive(Default)]
struct State {
    users: HashMap<Arc<OwnedUserId>, Waiting>,
    rooms: HashMap<Arc<OwnedRoomId>, BTreeSet<Arc<OwnedUserId>>>,
    /// Those whose rooms are not known.
    anywhere: BTreeSet<Arc<OwnedUserId>>,
}

struct Waiting {
    news: watch::Sender<u64>,
    rooms: Vec<Arc<OwnedRoomId>>,
    /// The position of the last news for this user in person: rooms from before it do not count.
    changed_at: u64,
}

impl Notifier {
    /// Changes whenever something new concerns the user. Subscribe first, read the store then:
    /// what comes in between is not lost.
    pub fn subscribe(&self, user: &UserId) -> watch::Receiver<u64> {
        let mut state = self.state();
        state.forget_those_gone();
        let user = Arc::new(user.to_owned());
        state.unplace(&user);
        state.anywhere.insert(user.clone());
        let new = || Waiting { news: watch::Sender::new(0), rooms: Vec::new(), changed_at: 0 };
        state.users.entry(user).or_insert_with(new).news.subscribe()
    }

    /// Whether the rooms of a user who waits are not known.
    pub(crate) fn is_anywhere(&self, user: &UserId) -> bool {
        self.state().anywhere.contains(&user.to_owned())
    }

    /// These are the rooms of a user who waits, read at that position, after the subscription.
    pub(crate) fn place(&self, user: &UserId, rooms: Vec<OwnedRoomId>, position: u64) {
        let state = &mut *self.state();
        let user = Arc::new(user.to_owned());
        let Some(waiting) = state.users.get_mut(&user) else { return };
        if position < waiting.changed_at || !state.anywhere.remove(&user) {
            return;
        }
        for room in rooms {
            let room = match state.rooms.get_key_value(&room) {
                Some((known, _)) => known.clone(),
                None => Arc::new(room),
            };
            state.rooms.entry(room.clone()).or_default().insert(user.clone());
            waiting.rooms.push(room);
        }
    }

    /// News for users in person, their memberships above all.
    pub(crate) fn notify<'a>(
        &self,
        users: impl IntoIterator<Item = &'a OwnedUserId>,
        position: u64,
    ) {
        let mut state = self.state();
        for user in users {
            let Some((user, _)) = state.users.get_key_value(user) else { continue };
            let user = user.clone();
            state.unplace(&user);
            state.anywhere.insert(user.clone());
            if let Some(waiting) = state.users.get_mut(&user) {
                waiting.changed_at = waiting.changed_at.max(position);
                waiting.news.send_replace(position);
            }
        }
    }

    /// News of a room.
    pub(crate) fn notify_room(&self, room_id: &RoomId, position: u64) {
        self.notify_rooms(&[room_id.to_owned()], position);
    }

    /// News of some rooms.
    pub(crate) fn notify_rooms(&self, rooms: &[OwnedRoomId], position: u64) {
        let state = self.state();
        let there = rooms.iter().filter_map(|room_id| state.rooms.get(room_id)).flatten();
        for user in there.chain(&state.anywhere) {
            if let Some(waiting) = state.users.get(user) {
                waiting.news.send_replace(position);
            }
        }
    }

    /// The rooms of those who wait, as far as they are known.
    pub(crate) fn waiting_rooms(&self) -> Vec<OwnedRoomId> {
        self.state().rooms.keys().map(|room_id| OwnedRoomId::clone(room_id)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    /// Takes a user out of the index.
    fn unplace(&mut self, user: &Arc<OwnedUserId>) {
        let Some(waiting) = self.users.get_mut(user) else { return };
        for room in std::mem::take(&mut waiting.rooms) {
            if let Some(there) = self.rooms.get_mut(&room) {
                there.remove(user);
                if there.is_empty() {
                    self.rooms.remove(&room);
                }
            }
        }
    }

    fn forget_those_gone(&mut self) {
        let gone =
            |(_, waiting): &(&Arc<OwnedUserId>, &Waiting)| waiting.news.receiver_count() == 0;
        let gone: Vec<_> = self.users.iter().filter(gone).map(|(user, _)| user.clone()).collect();
        for user in gone {
            self.unplace(&user);
            self.anywhere.remove(&user);
            self.users.remove(&user);
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_user_id, room_id, user_id};

    use super::*;

    fn is_woken(news: &mut watch::Receiver<u64>) -> bool {
        let woken = news.has_changed().unwrap();
        news.mark_unchanged();
        woken
    }

    #[test]
    fn a_user_is_woken_for_own_rooms() {
        let (notifier, user) = (Notifier::default(), owned_user_id!("@a:x"));
        let (one, two) = (room_id!("!one:x"), room_id!("!two:x"));
        let mut news = notifier.subscribe(&user);
        assert!(notifier.is_anywhere(&user));
        notifier.notify_room(two, 1);
        assert!(is_woken(&mut news), "the rooms are not known yet");
        notifier.place(&user, vec![one.to_owned()], 1);
        assert!(!notifier.is_anywhere(&user));
        notifier.notify_room(two, 2);
        assert!(!is_woken(&mut news));
        notifier.notify_room(one, 3);
        assert!(is_woken(&mut news));
        // In person: a membership may have changed.
        notifier.notify([&user], 4);
        assert!(is_woken(&mut news));
        notifier.notify_room(two, 5);
        assert!(is_woken(&mut news));
    }

    #[test]
    fn what_was_read_before_a_change_does_not_count() {
        let (notifier, user) = (Notifier::default(), owned_user_id!("@a:x"));
        let (one, two) = (room_id!("!one:x"), room_id!("!two:x"));
        let mut news = notifier.subscribe(&user);
        notifier.notify([&user], 7);
        notifier.place(&user, vec![one.to_owned()], 6);
        is_woken(&mut news);
        notifier.notify_room(two, 8);
        assert!(is_woken(&mut news));
        notifier.place(&user, vec![one.to_owned(), two.to_owned()], 8);
        notifier.notify_room(two, 9);
        assert!(is_woken(&mut news));
        // A second device's poll finds out anew, and the first one misses nothing meanwhile.
        let mut other = notifier.subscribe(&user);
        notifier.notify_room(room_id!("!three:x"), 10);
        assert!(is_woken(&mut news) && is_woken(&mut other));
    }

    #[test]
    fn nothing_is_kept_of_those_who_are_gone() {
        let notifier = Notifier::default();
        drop(notifier.subscribe(user_id!("@a:x")));
        notifier.place(user_id!("@a:x"), vec![room_id!("!one:x").to_owned()], 1);
        let _news = notifier.subscribe(user_id!("@b:x"));
        let state = notifier.state();
        assert_eq!((state.users.len(), state.rooms.len(), state.anywhere.len()), (1, 0, 1));
    }
}
