//! Joining: in our own graph where we reside in the room, by handshake where we do not.
//!
//! Specification: server-server API, "Joining Rooms"; spec-map 4.9.

mod entry;
mod held;
mod index;
mod intake;

use std::collections::BTreeSet;

use exeunt_core::{
    FormatError, Object, PendingMembership, RoomVersion, canonical, pdu::MAX_PDU_BYTES,
};
use exeunt_membership::{
    AfterMakeJoin, AfterSendJoin, Attempt, Join, MakeJoin, RemoteFailure, SendRequest, candidates,
};
use exeunt_store::tables;
use futures_util::future;
use ruma::{OwnedServerName, RoomId, UserId};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{Call, Intent, RoomError, Rooms, graph::is_joined};
pub(crate) use held::Joins;
use held::Underway;
use intake::Intake;
pub use intake::clear_unfinished_joins;

/// Most servers that one join asks.
const MAX_CANDIDATES: usize = 10;
/// Entries of an answer that wait to be laid aside.
const ENTRIES_AHEAD: usize = 64;

impl Rooms {
    /// Joins a local user. `via` are servers that may help; `content` holds profile,
    /// reason and whatever else the client adds.
    pub async fn join(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        mut content: Object,
    ) -> Result<(), RoomError> {
        content.insert("membership".into(), "join".into());
        let _turn = self.inner.joins.turn(room_id).await;
        let (resident, pending) = self.join_view(user, room_id).await?;
        if resident {
            let intent = Intent::state(user.to_owned(), "m.room.member", user.as_str(), content);
            self.append(room_id, intent).await?;
            return Ok(());
        }
        check_content(&content)?;
        let join = Join {
            room_id: room_id.to_owned(),
            user_id: user.to_owned(),
            room_version: pending.as_ref().and_then(|p| RoomVersion::parse(&p.room_version).ok()),
            content,
        };
        let candidates = self.join_candidates(room_id, via, pending.as_ref());
        let _underway = Underway::begin(self, room_id);
        let mut attempts = Vec::new();
        let mut refusal = None;
        for server in candidates {
            let outcome = self.join_through(&join, &server).await;
            self.clear_arrivals(room_id).await?;
            match outcome? {
                Ok(()) => return Ok(()),
                Err((attempt, failure)) => {
                    tracing::info!(%room_id, %server, outcome = attempt.outcome, "a join failed");
                    attempts.push(attempt);
                    if matches!(failure, RemoteFailure::Refused { .. }) {
                        refusal.get_or_insert((server, failure));
                    }
                }
            }
        }
        match refusal {
            Some((server, error)) => Err(RoomError::Remote { server, error }),
            None => Err(RoomError::NoServer(attempts)),
        }
    }

    /// Whether we reside in the room, and the invite that we hold for the user if not.
    async fn join_view(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<(bool, Option<PendingMembership>), RoomError> {
        let (user, room_id, ours) =
            (user.to_owned(), room_id.to_owned(), self.server_name().to_owned());
        self.inner
            .store
            .read(move |reader| {
                let resident = is_joined(reader, &room_id, &ours)?;
                Ok((resident, reader.get::<tables::Pending>(&(user, room_id))?))
            })
            .await
    }

    pub(crate) fn join_candidates(
        &self,
        room_id: &RoomId,
        via: &[OwnedServerName],
        pending: Option<&PendingMembership>,
    ) -> Vec<OwnedServerName> {
        let ours = self.server_name();
        let mut out: Vec<_> = pending.map(|p| candidates(p, ours)).unwrap_or_default();
        out.extend(via.iter().cloned());
        out.extend(room_id.server_name().map(ToOwned::to_owned));
        let mut seen = BTreeSet::new();
        out.retain(|server| server != ours && seen.insert(server.clone()));
        out.truncate(MAX_CANDIDATES);
        out
    }

    /// One handshake. The inner error is the server's; the outer one is ours.
    async fn join_through(
        &self,
        join: &Join,
        server: &OwnedServerName,
    ) -> Result<Result<(), (Attempt, RemoteFailure)>, RoomError> {
        let (awaiting, request) = MakeJoin::new(join.clone(), server.clone());
        let answer = self.call(server, Call::Make(&request)).await;
        let (mut awaiting, mut request) =
            match awaiting.on_answer(answer, self.signer(), self.now()) {
                AfterMakeJoin::Send(awaiting, request) => (awaiting, request),
                AfterMakeJoin::NextCandidate(attempt, failure) => {
                    return Ok(Err((attempt, failure)));
                }
            };
        loop {
            let (answer, intake) = match self.send_join_to(server, &request).await {
                Err(error @ RoomError::InvalidParam(_)) => {
                    let failure = RemoteFailure::Misbehaved(error.to_string());
                    return Ok(Err((Attempt::of_send(server, "its room", &failure), failure)));
                }
                outcome => outcome?,
            };
            match awaiting.on_answer(answer) {
                AfterSendJoin::Done(event, _) => {
                    return Ok(match self.enter(intake, event, server).await {
                        Err(RoomError::Store(error)) => return Err(error.into()),
                        Err(error) => {
                            let failure = RemoteFailure::Misbehaved(error.to_string());
                            Err((Attempt::of_send(server, "its room", &failure), failure))
                        }
                        Ok(()) => Ok(()),
                    });
                }
                AfterSendJoin::FallBackToV1(next, again) => (awaiting, request) = (next, again),
                AfterSendJoin::Refused(attempt, failure)
                | AfterSendJoin::Failed(_, attempt, failure) => {
                    return Ok(Err((attempt, failure)));
                }
            }
        }
    }

    /// Sends the join, and lays the room's events aside as they come.
    async fn send_join_to(
        &self,
        server: &OwnedServerName,
        request: &SendRequest,
    ) -> Result<(Result<Value, RemoteFailure>, Intake), RoomError> {
        let room_id = request.event.room_id();
        self.clear_arrivals(room_id).await?;
        let intake = Intake::new(request.event.version(), room_id);
        let (entries, coming) = mpsc::channel(ENTRIES_AHEAD);
        let answer = self.inner.remote.call_listing(server, Call::Send(request), entries);
        match future::join(answer, self.take_in(intake, coming)).await {
            (answer, Ok(intake)) => Ok((answer, intake)),
            (_, Err(error)) => Err(error),
        }
    }
}

/// Refuses what no event can hold before another server is asked, which would have the blame.
pub(crate) fn check_content(content: &Object) -> Result<(), FormatError> {
    canonical::check_object(content)?;
    match canonical::encode(content).len() {
        size if size > MAX_PDU_BYTES => Err(FormatError::TooLarge(size)),
        _ => Ok(()),
    }
}
