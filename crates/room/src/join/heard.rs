//! What lets a user in, and the server that is asked has yet to hear of: that they have joined
//! another room. Whoever took that join passes it on in its own time, while a client may be in a
//! space and at once ask for a room of it. Such a server is told, and asked once more.

use std::{cmp::Reverse, time::Duration};

use exeunt_membership::{MakeRequest, Membership, RemoteFailure};
use exeunt_store::{Reader, StoreError, records::OutboxItem, tables};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, UserId};
use serde_json::Value;
use tokio::time::sleep;

use crate::{RoomError, Rooms, graph::is_joined, leave::last_line};

/// What is older has arrived.
const RECENT_MS: u64 = 60_000;
/// Most joins that a server is told of.
const MAX_TOLD: usize = 5;
/// Most rows of the outbox that are searched for a join.
const MAX_LOOKS: usize = 200;
/// How long a server may take to judge what it has taken, before each time that it is asked again.
const JUDGED_WITHIN: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1)];

/// A join of another room that a server may have yet to hear of.
struct Unheard {
    room_id: OwnedRoomId,
    event_id: OwnedEventId,
    /// Whether it waits in the outbox; otherwise another server passes it on.
    waits: bool,
}

impl Rooms {
    /// Asks a server for the template of a join. Where it refuses the user, and may have yet to
    /// hear what lets them in, it is told of that first and asked again.
    pub(super) async fn ask_to_let_in(
        &self,
        server: &OwnedServerName,
        request: &MakeRequest,
    ) -> Result<Value, RemoteFailure> {
        let mut answer = self.ask_for_entry(server, request).await;
        if request.membership != Membership::Join || !may_change(&answer) {
            return answer;
        }
        match self.tell_of_joins(server, &request.user_id).await {
            Ok(true) => {}
            Ok(false) => return answer,
            Err(error) => {
                tracing::error!(%server, %error, "a server cannot be told of a join");
                return answer;
            }
        }
        for pause in JUDGED_WITHIN {
            sleep(pause).await;
            answer = self.ask_for_entry(server, request).await;
            if !may_change(&answer) {
                break;
            }
        }
        answer
    }

    /// Sees to it that a server has the user's last joins of rooms that it is in. Whether it had
    /// one yet to take, and has taken them all now.
    async fn tell_of_joins(
        &self,
        server: &OwnedServerName,
        user: &UserId,
    ) -> Result<bool, RoomError> {
        let joins = self.unheard_joins(server, user).await?;
        if joins.is_empty() {
            return Ok(false);
        }
        for join in joins.iter().filter(|join| !join.waits) {
            let guard = self.inner.locks.lock(&join.room_id).await;
            self.send_outside(&guard, server, &join.event_id).await?;
        }
        let server = server.clone();
        let joins: Vec<_> = joins.into_iter().map(|join| OutboxItem::Pdu(join.event_id)).collect();
        Ok(self.once_taken(move |reader| is_among_last(reader, &server, &joins)).await?)
    }

    async fn unheard_joins(
        &self,
        server: &OwnedServerName,
        user: &UserId,
    ) -> Result<Vec<Unheard>, RoomError> {
        let (server, user) = (server.clone(), user.to_owned());
        let since = self.now().saturating_sub(RECENT_MS);
        let read = self.store().read(move |reader| {
            let mut rows = Vec::new();
            for row in reader.scan::<tables::Memberships>(user.clone()).iter() {
                let ((_, room_id), member) = row?;
                if member.membership == "join" {
                    rows.push((Reverse(member.position), room_id));
                }
            }
            rows.sort();
            let mut unheard = Vec::new();
            for (_, room_id) in rows.into_iter().take(MAX_TOLD) {
                let Some((position, line)) = last_line(reader, &user, &room_id)? else { continue };
                if line.at < since || !is_joined(reader, &room_id, &server)? {
                    continue;
                }
                // The rows of the outbox have the position of the batch that the line came with.
                let row = reader.get::<tables::Outbox>(&(server.clone(), position))?;
                let waits = row == Some(OutboxItem::Pdu(line.event_id.clone()));
                let by_another = line.received_from.is_some_and(|from| from != server);
                if waits || by_another {
                    unheard.push(Unheard { room_id, event_id: line.event_id, waits });
                }
            }
            Ok::<_, RoomError>(unheard)
        });
        read.await
    }
}

/// Whether one of these is among the last that wait for the server.
fn is_among_last(
    reader: &Reader<'_>,
    server: &OwnedServerName,
    items: &[OutboxItem],
) -> Result<bool, StoreError> {
    let last = reader.scan::<tables::Outbox>(server.clone()).rev().limit(MAX_LOOKS);
    Ok(last.collect()?.iter().any(|(_, item)| items.contains(item)))
}

/// Whether a server may say otherwise once it knows more of the user.
fn may_change(answer: &Result<Value, RemoteFailure>) -> bool {
    matches!(answer, Err(RemoteFailure::Refused { errcode, .. })
        if matches!(&**errcode, "M_FORBIDDEN" | "M_UNABLE_TO_AUTHORISE_JOIN"))
}
