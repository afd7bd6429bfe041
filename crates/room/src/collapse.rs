//! Rooms with many heads: a dummy event of a local user follows some of them, so that they are
//! heads no more. Decision 0010.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use exeunt_core::Object;
use exeunt_store::tables;
use ruma::{OwnedRoomId, OwnedUserId, RoomId};

use crate::{Intent, RoomError, Rooms, graph::Graph, locks::RoomGuard};

/// Type of an event that says nothing. Never shown to clients.
pub const DUMMY_EVENT: &str = "org.matrix.dummy_event";
/// Most heads that a room keeps.
pub const MAX_HEADS: usize = 10;
/// Most dummy events for a room at a time. Each follows ten heads.
const MAX_DUMMIES: usize = 10;
/// How long a room is left alone then. Others collapse it too, and what they send are heads again.
pub const INTERVAL_MS: u64 = 60_000;
/// Most rooms that are remembered.
const MAX_ROOMS: usize = 10_000;

/// When rooms may be collapsed again.
#[derive(Default)]
pub(crate) struct Collapses(Mutex<BTreeMap<OwnedRoomId, u64>>);

impl Collapses {
    /// Whether it is the room's turn. Then it is not again for a while.
    fn is_due(&self, room_id: &RoomId, now: u64) -> bool {
        let mut due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if due.get(room_id).is_some_and(|at| *at > now) {
            return false;
        }
        if due.len() >= MAX_ROOMS {
            due.retain(|_, at| *at > now);
        }
        if due.len() >= MAX_ROOMS {
            return false;
        }
        due.insert(room_id.to_owned(), now + INTERVAL_MS);
        true
    }
}

impl Rooms {
    /// Sends dummy events if the room has too many heads, and a local user who may.
    pub(crate) async fn collapse_heads(&self, guard: &RoomGuard) -> Result<(), RoomError> {
        for sent in 0..MAX_DUMMIES {
            let Some(user) = self.collapser(guard.room_id(), MAX_HEADS).await? else {
                return Ok(());
            };
            if sent == 0 && !self.inner.collapses.is_due(guard.room_id(), self.now()) {
                return Ok(());
            }
            if !self.send_dummy(guard, user).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends a dummy event that follows the heads, if there are several, and a local user who may.
    pub(crate) async fn tie_heads(&self, guard: &RoomGuard) -> Result<(), RoomError> {
        if let Some(user) = self.collapser(guard.room_id(), 1).await? {
            self.send_dummy(guard, user).await?;
        }
        Ok(())
    }

    async fn send_dummy(&self, guard: &RoomGuard, user: OwnedUserId) -> Result<bool, RoomError> {
        let intent = Intent::message(user, DUMMY_EVENT, Object::new());
        match self.append_locked(guard, intent).await {
            Ok(event) => tracing::info!(room_id = %guard.room_id(), %event, "heads collapsed"),
            Err(RoomError::Store(error)) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(room_id = %guard.room_id(), %error, "heads not collapsed");
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Who may send a dummy event, if the room has more heads than `most`.
    async fn collapser(
        &self,
        room_id: &RoomId,
        most: usize,
    ) -> Result<Option<OwnedUserId>, RoomError> {
        let room_id = room_id.to_owned();
        self.store()
            .read(move |reader| {
                let graph = Graph::of(reader, &room_id)?;
                if graph.room.extremities.len() <= most {
                    return Ok(None);
                }
                let levels = graph.power_levels(graph.room.state)?;
                let Ok(needed) = levels.event(DUMMY_EVENT, false) else { return Ok(None) };
                for row in reader.scan::<tables::LocalMembers>(room_id.clone()).iter() {
                    let ((_, user), membership) = row?;
                    if membership == "join" && levels.user(&user).is_ok_and(|level| level >= needed)
                    {
                        return Ok(Some(user));
                    }
                }
                Ok(None)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    #[test]
    fn a_room_is_left_alone_for_a_while() {
        let collapses = Collapses::default();
        let (a, b) = (room_id!("!a:x"), room_id!("!b:x"));
        assert!(collapses.is_due(a, 0));
        assert!(!collapses.is_due(a, INTERVAL_MS - 1));
        assert!(collapses.is_due(b, 0));
        assert!(collapses.is_due(a, INTERVAL_MS));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let collapses = Collapses::default();
        let rooms = (0..MAX_ROOMS + 5).map(|i| RoomId::parse(format!("!{i}:x")).unwrap());
        assert_eq!(rooms.filter(|room| collapses.is_due(room, 0)).count(), MAX_ROOMS);
        assert!(collapses.is_due(room_id!("!later:x"), INTERVAL_MS));
    }
}
