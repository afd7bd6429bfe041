//! Deleting a room so that nobody is left with a ghost of it: invites and knocks of other servers'
//! users are ended first, local users leave, the other servers are told as far as they can be
//! reached, and then the graph goes (pains A11, C6).

use std::{collections::BTreeMap, time::Duration};

use exeunt_store::{PurgeError, Reader, StoreError, purge_room, records::OutboxItem, tables};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    RoomError, Rooms,
    graph::{Graph, is_joined},
};

/// How often the outbox is looked at while a farewell waits for it.
const POLL: Duration = Duration::from_millis(200);
/// Local users that are asked to end an invite, most powerful first.
const MAX_KICKERS: usize = 3;
/// Most memberships of other servers' users that one call ends; beyond that they are reported.
pub const MAX_WITHDRAWN: usize = 10_000;

/// How a room is deleted.
#[derive(Debug, Clone, Default)]
pub struct Farewell {
    /// Why, for those who are told.
    pub reason: Option<String>,
    /// How long the other servers have to take what they are told.
    pub deadline: Duration,
}

/// What a deletion did, and what it could not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarewellReport {
    /// Users of other servers whose invite was withdrawn or knock declined.
    pub ended: Vec<OwnedUserId>,
    /// Local users who were taken out.
    pub left: Vec<OwnedUserId>,
    /// Users for whom that failed, and why.
    pub failed: Vec<FarewellFailure>,
    /// Events that servers had not taken by the deadline. They stay queued.
    pub undelivered: Vec<Undelivered>,
    /// Local users whose departure no server has taken yet. They stay queued.
    pub departing: Vec<OwnedUserId>,
    /// Events that were deleted.
    pub events: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarewellFailure {
    pub user: OwnedUserId,
    pub error: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Undelivered {
    pub server: OwnedServerName,
    pub event: OwnedEventId,
}

/// Who is to be let go.
#[derive(Default)]
struct Guests {
    /// Invited and knocking users of other servers.
    remote: Vec<OwnedUserId>,
    /// Local users in the room, those with little power first.
    local: Vec<OwnedUserId>,
    /// Local users who are joined, those with much power first.
    kickers: Vec<OwnedUserId>,
}

impl Rooms {
    /// Deletes a room. Memberships that ended here stay, with their leave, for devices that are
    /// offline now; what waits for other servers stays as well.
    pub async fn delete_room(
        &self,
        room_id: &RoomId,
        farewell: Farewell,
    ) -> Result<FarewellReport, RoomError> {
        let mut report = FarewellReport::default();
        let guests = self.guests(room_id).await?;
        for user in guests.remote {
            match self.end_invite(room_id, &guests.kickers, &user, &farewell.reason).await {
                Ok(()) => report.ended.push(user),
                Err(error) => {
                    report.failed.push(FarewellFailure { user, error: error.to_string() });
                }
            }
        }
        for user in guests.local {
            match self.leave(&user, room_id, farewell.reason.clone()).await {
                Ok(()) => report.left.push(user),
                Err(error) => {
                    report.failed.push(FarewellFailure { user, error: error.to_string() });
                }
            }
        }
        let waits = self.wait_for_outbox(room_id, farewell.deadline).await?;
        report.undelivered = waits;
        report.departing = self.departing_from(room_id).await?;
        report.events = self.purge(room_id).await?;
        tracing::warn!(
            %room_id,
            left = report.left.len(),
            ended = report.ended.len(),
            failed = report.failed.len(),
            undelivered = report.undelivered.len(),
            "a room was deleted"
        );
        Ok(report)
    }

    /// Takes the room's rows out of the store. All that is queued for other servers stays, messages
    /// too: the leaves follow them, and nobody could be asked for them afterwards.
    async fn purge(&self, room_id: &RoomId) -> Result<u64, RoomError> {
        let guard = self.inner.locks.lock(room_id).await;
        let purged =
            purge_room(self.store(), guard.room_id()).await.map_err(|error| match error {
                PurgeError::Store(error) => error.into(),
                occupied @ PurgeError::Occupied(_) => RoomError::Forbidden(occupied.to_string()),
            })?;
        Ok(purged.events)
    }

    async fn guests(&self, room_id: &RoomId) -> Result<Guests, RoomError> {
        let (room_id, ours) = (room_id.to_owned(), self.server_name().to_owned());
        self.store()
            .read(move |reader| {
                let members = reader.scan::<tables::LocalMembers>(room_id.clone()).collect()?;
                let graph = Graph::open(reader, &room_id)?;
                if graph.is_none() && members.is_empty() {
                    return Err(RoomError::NotFound("Unknown room".into()));
                }
                let graph = match graph {
                    Some(graph) if is_joined(reader, &room_id, &ours)? => Some(graph),
                    _ => None,
                };
                let mut guests = Guests::default();
                let mut levels = None;
                if let Some(graph) = &graph {
                    levels = Some(graph.power_levels(graph.room.state)?);
                    for member in graph.members(graph.room.state) {
                        if guests.remote.len() == MAX_WITHDRAWN {
                            break;
                        }
                        let member = member?.0;
                        let Ok(user) = <&UserId>::try_from(&*member) else { continue };
                        if user.server_name() == ours {
                            continue;
                        }
                        if matches!(graph.membership(user)?.as_deref(), Some("invite" | "knock")) {
                            guests.remote.push(user.to_owned());
                        }
                    }
                }
                // Nobody is known to have power under levels that cannot be read.
                let power = |user: &OwnedUserId| levels.as_ref()?.user(user).ok();
                let joined = members.iter().filter(|(_, membership)| membership == "join");
                guests.kickers = joined.map(|((_, user), _)| user.clone()).collect();
                guests.kickers.sort_by_cached_key(|user| std::cmp::Reverse(power(user)));
                guests.kickers.truncate(MAX_KICKERS);
                let here = |m: &str| matches!(m, "join" | "invite" | "knock");
                let local = members.into_iter().filter(|(_, membership)| here(membership));
                guests.local = local.map(|((_, user), _)| user).collect();
                guests.local.sort_by_cached_key(|user| power(user));
                Ok(guests)
            })
            .await
    }

    async fn end_invite(
        &self,
        room_id: &RoomId,
        kickers: &[OwnedUserId],
        user: &UserId,
        reason: &Option<String>,
    ) -> Result<(), RoomError> {
        let mut last = RoomError::Forbidden("Nobody of this server is in the room".into());
        for kicker in kickers {
            match self.kick(kicker, user, room_id, reason.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Waits until the servers have taken every event of the room that is queued for them, and
    /// gives what they have not taken by the deadline.
    async fn wait_for_outbox(
        &self,
        room_id: &RoomId,
        deadline: Duration,
    ) -> Result<Vec<Undelivered>, RoomError> {
        let until = tokio::time::Instant::now() + deadline;
        loop {
            let room = room_id.to_owned();
            let waits = self.store().read(move |reader| queued(reader, &room)).await?;
            if waits.is_empty() || tokio::time::Instant::now() >= until {
                return Ok(waits);
            }
            tokio::time::sleep_until(until.min(tokio::time::Instant::now() + POLL)).await;
        }
    }

    async fn departing_from(&self, room_id: &RoomId) -> Result<Vec<OwnedUserId>, RoomError> {
        let room = room_id.to_owned();
        let read = self.store().read(move |reader| {
            let mut departing = Vec::new();
            for ((_, user), _) in reader.scan::<tables::LocalMembers>(room.clone()).collect()? {
                if reader.contains::<tables::Departures>(&(user.clone(), room.clone()))? {
                    departing.push(user);
                }
            }
            Ok::<_, StoreError>(departing)
        });
        Ok(read.await?)
    }
}

/// The events of a room that wait for servers.
fn queued(reader: &Reader<'_>, room_id: &OwnedRoomId) -> Result<Vec<Undelivered>, StoreError> {
    // The same event waits for many servers.
    let mut of_room: BTreeMap<OwnedEventId, bool> = BTreeMap::new();
    let mut waits = Vec::new();
    for row in reader.scan::<tables::Outbox>(()).iter() {
        let ((server, _), item) = row?;
        let OutboxItem::Pdu(event) = item else { continue };
        let is_of_room = match of_room.get(&event) {
            Some(known) => *known,
            None => {
                let record = reader.get::<tables::Events>(&event)?;
                let is_of_room = record.is_some_and(|record| record.room_id == *room_id);
                of_room.insert(event.clone(), is_of_room);
                is_of_room
            }
        };
        if is_of_room {
            waits.push(Undelivered { server, event });
        }
    }
    Ok(waits)
}
