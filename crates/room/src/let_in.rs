//! Servers that a changed ACL lets in again (pains H5, decision 0014): what others relayed of them
//! meanwhile is judged again, and what nobody relayed is asked for.

use exeunt_core::CheckedPdu;
use exeunt_membership::{Departure, Expected, MakeLeave, Membership, check_template};
use exeunt_store::{Batch, tables};
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId, RoomId, ServerName};
use tokio::sync::{Semaphore, watch};

use crate::{
    Call, RoomError, Rooms,
    counted::Counted,
    fetch::array,
    graph::{Graph, is_joined},
    place::{Before, Placement, Source, decide},
};

/// Most servers that are asked for what they said, for a change of an ACL. The others bring it with
/// their next event.
const MAX_ASKED: usize = 20;
/// Rooms that are mended at a time.
const ROOMS_AT_A_TIME: usize = 8;

/// The rooms that are being mended.
pub(crate) struct Mending {
    slots: Semaphore,
    /// How many are, or wait for it.
    busy: watch::Sender<usize>,
}

impl Default for Mending {
    fn default() -> Self {
        Self { slots: Semaphore::new(ROOMS_AT_A_TIME), busy: watch::Sender::new(0) }
    }
}

impl Rooms {
    /// Follows up, behind the caller's back, a change of the room's ACL that lets servers in.
    pub(crate) fn mend(&self, room_id: &RoomId, let_in: Vec<OwnedServerName>) {
        let (rooms, room_id) = (self.clone(), room_id.to_owned());
        self.inner.mending.busy.send_modify(|busy| *busy += 1);
        tokio::spawn(async move {
            let mending = &rooms.inner.mending;
            let _slot = mending.slots.acquire().await;
            let mended = async {
                rooms.judge_denied(&room_id).await?;
                for server in let_in.iter().take(MAX_ASKED) {
                    rooms.ask_for_head(&room_id, server).await?;
                }
                Ok::<_, RoomError>(())
            };
            if let Err(error) = mended.await {
                tracing::error!(%room_id, %error, "a room that lets servers in was not mended");
            }
            mending.busy.send_modify(|busy| *busy -= 1);
        });
    }

    /// Waits until no room is being mended.
    pub async fn mending_idle(&self) {
        let mut busy = self.inner.mending.busy.subscribe();
        // The sender lives as long as we do.
        let _ = busy.wait_for(|busy| *busy == 0).await;
    }

    /// Judges again, in every room, what a restart kept from it.
    pub async fn sweep_denied(&self) -> Result<(), RoomError> {
        let rooms = self.store().read(|reader| {
            let mut rooms = Vec::new();
            for row in reader.scan::<tables::Denied>(()).iter() {
                let ((room_id, _), _) = row?;
                if rooms.last() != Some(&room_id) {
                    rooms.push(room_id);
                }
            }
            Ok::<_, RoomError>(rooms)
        });
        for room_id in rooms.await? {
            self.judge_denied(&room_id).await?;
        }
        Ok(())
    }

    /// Judges the room's events of denied servers again, in the order in which they came, as far as
    /// their servers are let in now. Those that current state refuses stay soft-failed for good.
    async fn judge_denied(&self, room_id: &RoomId) -> Result<(), RoomError> {
        let mut after = 0;
        loop {
            let guard = self.inner.locks.lock(room_id).await;
            let (room, ours, now) = (room_id.to_owned(), self.server_name().to_owned(), self.now());
            let next = self.store().read(move |reader| {
                if !is_joined(reader, &room, &ours)? {
                    return Ok(None);
                }
                let graph = Graph::of(reader, &room)?;
                let acl = graph.acl()?;
                for row in reader.scan::<tables::Denied>(room.clone()).after((room, after)).iter() {
                    let (key, (server, id)) = row?;
                    if acl.as_ref().is_none_or(|acl| acl.allows(&server)) {
                        let position = key.1;
                        let mut placement = judge_again(graph, &ours, &id, now)?;
                        placement.batch.delete::<tables::Denied>(&key);
                        return Ok(Some((position, id, placement)));
                    }
                }
                Ok::<_, RoomError>(None)
            });
            let Some((position, event, placement)) = next.await? else { return Ok(()) };
            after = position;
            let verdict = self.commit(&guard, placement).await?;
            tracing::info!(%room_id, %event, ?verdict, "its server is let in again");
            self.collapse_heads(&guard).await?;
        }
    }

    /// Asks a server for the events that its room ends with, and takes those that we lack, with
    /// what is before them. The question is a make_leave that nobody means to follow: no other
    /// request tells a room's heads.
    async fn ask_for_head(&self, room_id: &RoomId, server: &ServerName) -> Result<(), RoomError> {
        let (room, ours) = (room_id.to_owned(), self.server_name().to_owned());
        let read = self.store().read(move |reader| {
            if !is_joined(reader, &room, &ours)? {
                return Ok(None);
            }
            let graph = Graph::of(reader, &room)?;
            for row in reader.scan::<tables::LocalMembers>(room).iter() {
                let ((_, user), membership) = row?;
                if membership == "join" {
                    return Ok(Some((user, graph.version)));
                }
            }
            Ok::<_, RoomError>(None)
        });
        let Some((user_id, version)): Option<(OwnedUserId, _)> = read.await? else {
            return Ok(());
        };
        let departure = Departure {
            room_id: room_id.to_owned(),
            user_id: user_id.clone(),
            room_version: Some(version),
            reason: None,
        };
        let (_, request) = MakeLeave::new(departure, server.to_owned());
        let Ok(template) = self.call(server, Call::Make(&request)).await else { return Ok(()) };
        let (membership, room_version) = (Membership::Leave, Some(version));
        let expect = Expected { room_id, user_id: &user_id, membership, room_version };
        let Ok(position) = check_template(&expect, &template) else { return Ok(()) };
        let heads =
            position.prev_events.iter().map(|head| head.id().to_owned()).collect::<Vec<_>>();
        let mut events = Vec::new();
        for event in self.unplaced(room_id, &heads).await? {
            let answer = self.call(server, Call::Event { event: &event }).await;
            let found = answer.map(|answer| array(&answer, "pdus").into_iter().next());
            events.extend(found.ok().flatten().and_then(|event| match event {
                serde_json::Value::Object(event) => Some(event),
                _ => None,
            }));
        }
        self.receive_again(&server.to_owned(), &room_id.to_owned(), events).await
    }
}

/// Places an event again upon the state that is known to be before it. One that is not accepted
/// keeps the verdict that it has.
fn judge_again(
    graph: Graph<'_>,
    ours: &ServerName,
    id: &OwnedEventId,
    now: u64,
) -> Result<Placement, RoomError> {
    let known = graph.event_here(id)?;
    let (Some(states), Some(from)) = (known.record.states, known.record.received_from.clone())
    else {
        return Ok(Placement::only(Batch::default()));
    };
    let before = Before { root: states.before, told: states.told };
    // Its signatures were checked when it came.
    let event = CheckedPdu::trusted(known.pdu);
    let source = Source::Federation { from, sought: false };
    match decide(graph, ours, &event, &source, Some(before), &Counted::default(), now) {
        Ok(placement) if placement.verdict.is_accepted() => Ok(placement),
        Ok(Placement { verdict, .. }) => {
            Ok(Placement { verdict, ..Placement::only(Batch::default()) })
        }
        Err(RoomError::Store(error)) => Err(error.into()),
        Err(error) => {
            tracing::warn!(event = %id, %error, "an event cannot be judged again");
            Ok(Placement::only(Batch::default()))
        }
    }
}
