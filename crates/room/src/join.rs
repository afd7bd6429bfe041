//! Joining: in our own graph where we reside in the room, by handshake where we do not.
//!
//! Specification: server-server API, "Joining Rooms"; spec-map 4.9.

mod entry;
mod heard;
mod held;
mod index;
mod intake;
mod told;

use std::{collections::BTreeSet, time::Duration};

use exeunt_core::{
    CheckedPdu, FormatError, Object, Pdu, PendingMembership, RoomVersion, canonical, date_after,
    pdu::MAX_PDU_BYTES,
};
use exeunt_membership::{
    AfterMakeJoin, AfterSendJoin, Attempt, Join, MakeJoin, RemoteFailure, SendRequest, candidates,
};
use exeunt_store::{
    records::{MembershipRecord, Verdict},
    tables,
};
use futures_util::future;
use ruma::{OwnedServerName, RoomId, UserId};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{
    Call, Intent, RoomError, Rooms,
    fetch::MAX_TIME_PER_EVENT,
    graph::{Graph, is_joined, joined_servers},
    hedge::{Hedge, Pace},
    inbound::restricted::{self, Entrance},
};
pub(crate) use held::Joins;
use held::Underway;
pub use intake::clear_unfinished_joins;
use intake::{Intake, Shelf};

/// Names the user who lets another one into a restricted room (rooms/v8).
const AUTHORISER: &str = "join_authorised_via_users_server";
/// Most servers that one join asks.
const MAX_CANDIDATES: usize = 10;
/// How long a server may take for a template before the next one is asked as well: nine servers that
/// never answer cost less than three seconds.
pub const HEDGE_AFTER: Duration = Duration::from_millis(250);
/// For templates of joins and knocks.
pub(crate) const ENTRY_PACE: Pace = Pace { after: HEDGE_AFTER, at_once: MAX_CANDIDATES };
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
        // Who vouches is not for clients to say.
        content.remove(AUTHORISER);
        let _turn = self.inner.joins.turn(room_id).await;
        let view = self.join_view(user, room_id).await?;
        if view.resident {
            let join = self.join_here(user, room_id, content).await?;
            let Some((join, helpers)) = join else { return Ok(()) };
            let servers = self.usable(helpers.into_iter().chain(via.iter().cloned()));
            return self.join_with(&join, servers, &Residency::Resident).await;
        }
        check_content(&content)?;
        let pending = view.pending.as_ref();
        let join = Join {
            room_id: room_id.to_owned(),
            user_id: user.to_owned(),
            room_version: pending.and_then(|p| RoomVersion::parse(&p.room_version).ok()),
            content,
        };
        let invited_at = pending.and_then(PendingMembership::origin_server_ts);
        let servers = self.entry_candidates(room_id, via, pending, view.last_servers);
        let _crossing = self.inner.crossing.lock((user.to_owned(), room_id.to_owned())).await;
        let _underway = Underway::begin(self, room_id);
        let residency = Residency::Outside { before: view.member, invited_at };
        self.join_with(&join, servers, &residency).await
    }

    /// Whom to ask for a way into a room: the invite's servers and those that the client names.
    /// Where there are none, the server that the room is named after, and `last_servers`, which
    /// were in the room when we left it.
    pub(crate) fn entry_candidates(
        &self,
        room_id: &RoomId,
        via: &[OwnedServerName],
        pending: Option<&PendingMembership>,
        last_servers: Vec<OwnedServerName>,
    ) -> Vec<OwnedServerName> {
        let invited_by = pending.map(|p| candidates(p, self.server_name())).unwrap_or_default();
        let servers = self.usable(invited_by.into_iter().chain(via.iter().cloned()));
        if !servers.is_empty() {
            return servers;
        }
        let named = room_id.server_name().map(ToOwned::to_owned);
        self.usable(named.into_iter().chain(last_servers))
    }

    async fn join_view(&self, user: &UserId, room_id: &RoomId) -> Result<View, RoomError> {
        let (user, room_id, ours) =
            (user.to_owned(), room_id.to_owned(), self.server_name().to_owned());
        self.inner
            .store
            .read(move |reader| {
                let key = (user, room_id);
                Ok(View {
                    resident: is_joined(reader, &key.1, &ours)?,
                    last_servers: joined_servers(reader, &key.1)?,
                    pending: reader.get::<tables::Pending>(&key)?,
                    member: reader.get::<tables::Memberships>(&key)?,
                })
            })
            .await
    }

    /// Joins in our own graph. Where the user meets a condition of the room and none of ours can
    /// let them in: what to ask for, and servers that may be able to.
    async fn join_here(
        &self,
        user: &UserId,
        room_id: &RoomId,
        mut content: Object,
    ) -> Result<Option<(Join, Vec<OwnedServerName>)>, RoomError> {
        let guard = self.inner.locks.lock(room_id).await;
        let (room, who, ours) =
            (room_id.to_owned(), user.to_owned(), self.server_name().to_owned());
        let (version, entrance, helpers) = self
            .store()
            .read(move |reader| {
                let graph = Graph::of(reader, &room)?;
                let entrance = restricted::entrance(&graph, &who, &ours)?;
                let helpers = match entrance {
                    Entrance::Powerless => restricted::helpers(&graph, &ours)?,
                    _ => Vec::new(),
                };
                Ok::<_, RoomError>((graph.version, entrance, helpers))
            })
            .await?;
        if entrance == Entrance::Powerless && !helpers.is_empty() {
            check_content(&content)?;
            let (room_id, user_id) = (room_id.to_owned(), user.to_owned());
            let join = Join { room_id, user_id, room_version: Some(version), content };
            return Ok(Some((join, helpers)));
        }
        if let Some(authoriser) = entrance.authoriser()? {
            content.insert(AUTHORISER.into(), authoriser.as_str().into());
        }
        let intent = Intent::state(user.to_owned(), "m.room.member", user.as_str(), content);
        self.append_locked(&guard, intent).await?;
        Ok(None)
    }

    /// The servers that can be asked, each once, and not too many.
    fn usable(&self, servers: impl Iterator<Item = OwnedServerName>) -> Vec<OwnedServerName> {
        let mut seen = BTreeSet::new();
        let others = servers.filter(|server| server != self.server_name());
        others.filter(|server| seen.insert(server.clone())).take(MAX_CANDIDATES).collect()
    }

    /// Joins by handshake, with one server after the other. Of a slow one the next does not wait
    /// for the template. A join that failed, and that a server may have, is taken back.
    async fn join_with(
        &self,
        join: &Join,
        servers: Vec<OwnedServerName>,
        residency: &Residency,
    ) -> Result<(), RoomError> {
        let room_id = &join.room_id;
        let mut attempts = Vec::new();
        let mut refusal: Option<(OwnedServerName, RemoteFailure)> = None;
        let mut perhaps = None;
        let mut hedge = Hedge::new(servers, ENTRY_PACE, |server| {
            let (awaiting, request) = MakeJoin::new(join.clone(), server.clone());
            async move { (awaiting, self.ask_to_let_in(&server, &request).await) }
        });
        while let Some((server, template)) = hedge.next().await {
            let outcome = self.join_through(&server, template, residency).await;
            self.clear_arrivals(room_id, Shelf::Join).await?;
            match outcome? {
                Ok(()) => return Ok(()),
                Err(Failed { attempt, failure, perhaps_taken }) => {
                    perhaps = perhaps_taken.map(|event| (event, server.clone())).or(perhaps);
                    tracing::info!(%room_id, %server, outcome = attempt.outcome, "a join failed");
                    attempts.push(attempt);
                    // A server that merely cannot help says less than one that refuses.
                    let known = refusal.as_ref().filter(|(_, known)| !cannot_help(known));
                    if known.is_none() && matches!(failure, RemoteFailure::Refused { .. }) {
                        refusal = Some((server, failure));
                    }
                }
            }
        }
        if let Some((event, server)) = perhaps {
            self.take_back(event, server).await?;
        }
        Err(match refusal {
            Some((server, error)) => RoomError::EntryRefused { server, error, attempts },
            None => RoomError::NoServer(attempts),
        })
    }

    /// One handshake, from the template on. The inner error is the server's; the outer one is ours.
    async fn join_through(
        &self,
        server: &OwnedServerName,
        (awaiting, answer): (MakeJoin, Result<Value, RemoteFailure>),
        residency: &Residency,
    ) -> Result<Result<(), Failed>, RoomError> {
        let mut signing = self.signing_with(server);
        let invited_at = match residency {
            Residency::Outside { invited_at, .. } => *invited_at,
            Residency::Resident => None,
        };
        let date = date_after(self.now(), invited_at);
        let step = awaiting.on_answer(answer, |join| signing.sign(join), date);
        // Who is invited can still say no.
        let is_noted = matches!(residency, Residency::Outside { invited_at: None, .. });
        match &step {
            AfterMakeJoin::Send(_, request) if is_noted => {
                self.journal_entry(signing, &request.event, server).await?;
            }
            _ => signing.journal().await?,
        }
        let (mut awaiting, mut request) = match step {
            AfterMakeJoin::Send(awaiting, request) => (awaiting, request),
            AfterMakeJoin::NextCandidate(attempt, failure) => {
                return Ok(Err(Failed { attempt, failure, perhaps_taken: None }));
            }
        };
        // The server has the join, and what it says of the room cannot be used.
        let its_room = |event: &CheckedPdu, error: RoomError| {
            let failure = RemoteFailure::Misbehaved(error.to_string());
            let attempt = Attempt::of_send(server, "its room", &failure);
            Failed { attempt, failure, perhaps_taken: Some(event.clone()) }
        };
        loop {
            let (answer, intake) = match self.send_join_to(server, &request).await {
                Err(error @ RoomError::InvalidParam(_)) => {
                    return Ok(Err(its_room(&request.event, error)));
                }
                outcome => outcome?,
            };
            match awaiting.on_answer(answer) {
                AfterSendJoin::Done(event, _) => {
                    let joined = match residency {
                        Residency::Outside { before, .. } => {
                            self.enter(intake, event, server, before).await
                        }
                        Residency::Resident => self.take_join(event, server).await,
                    };
                    return Ok(match joined {
                        Err(RoomError::Store(error)) => return Err(error.into()),
                        Err(error) => Err(its_room(&request.event, error)),
                        Ok(()) => Ok(()),
                    });
                }
                AfterSendJoin::FallBackToV1(next, again) => (awaiting, request) = (next, again),
                AfterSendJoin::Refused(attempt, failure) => {
                    self.entry_refused(&request.event).await?;
                    return Ok(Err(Failed { attempt, failure, perhaps_taken: None }));
                }
                AfterSendJoin::Failed(event, attempt, failure) => {
                    return Ok(Err(Failed { attempt, failure, perhaps_taken: Some(event) }));
                }
            }
        }
    }

    /// Places our join into a room that we reside in, after another server has vouched for it. Its
    /// answer holds the room's state, which we have.
    async fn take_join(&self, join: Pdu, from: &OwnedServerName) -> Result<(), RoomError> {
        let event = self.checked(join).await?;
        match self.try_place(from, &event).await {
            Err(error) if error.is_no_verdict() => {
                self.complete(from, &event, MAX_TIME_PER_EVENT).await?;
            }
            other => other?,
        }
        let stored = self.stored(event.event_id()).await?;
        match stored.map(|record| record.verdict) {
            Some(Verdict::Accepted) => Ok(()),
            Some(Verdict::SoftFailed(why) | Verdict::Rejected(why)) => Err(RoomError::Forbidden(
                format!("the room's state here does not allow the join: {why}"),
            )),
            None => Err(RoomError::Missing(vec![event.event_id().to_owned()])),
        }
    }

    /// Sends the join, and lays the room's events aside as they come.
    async fn send_join_to(
        &self,
        server: &OwnedServerName,
        request: &SendRequest,
    ) -> Result<(Result<Value, RemoteFailure>, Intake), RoomError> {
        let room_id = request.event.room_id();
        self.clear_arrivals(room_id, Shelf::Join).await?;
        let intake = Intake::new(request.event.version(), room_id, Shelf::Join);
        let (entries, coming) = mpsc::channel(ENTRIES_AHEAD);
        let answer = self.inner.remote.call_listing(server, Call::Send(request), entries);
        match future::join(answer, self.take_in(intake, coming)).await {
            (answer, Ok(intake)) => Ok((answer, intake)),
            (_, Err(error)) => Err(error),
        }
    }
}

/// Whether the room is here already.
enum Residency {
    /// Another server's users are needed to let ours in.
    Resident,
    /// What the user was to the room when they asked to join it, and the date of their invite.
    Outside { before: Option<MembershipRecord>, invited_at: Option<u64> },
}

/// How the handshake with one server failed.
pub(crate) struct Failed {
    pub attempt: Attempt,
    pub failure: RemoteFailure,
    /// Our event, that the server may have taken all the same.
    pub perhaps_taken: Option<CheckedPdu>,
}

/// What is known before a join.
struct View {
    resident: bool,
    /// The invite that we hold for the user from outside the room.
    pending: Option<PendingMembership>,
    member: Option<MembershipRecord>,
    /// Servers that are in the room, or were when we left it.
    last_servers: Vec<OwnedServerName>,
}

/// Whether the server could let nobody in, or not tell: another one may.
fn cannot_help(failure: &RemoteFailure) -> bool {
    matches!(failure, RemoteFailure::Refused { errcode, .. }
        if matches!(&**errcode, "M_UNABLE_TO_AUTHORISE_JOIN" | "M_UNABLE_TO_GRANT_JOIN"))
}

/// Refuses what no event can hold before another server is asked, which would have the blame.
pub(crate) fn check_content(content: &Object) -> Result<(), FormatError> {
    canonical::check_object(content)?;
    match canonical::encode(content).len() {
        size if size > MAX_PDU_BYTES => Err(FormatError::TooLarge(size)),
        _ => Ok(()),
    }
}
