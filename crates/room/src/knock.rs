//! Knocking: in our own graph where we reside in the room, by handshake where we do not.
//!
//! The server that took the knock is remembered: through it a retraction reaches the room, by the
//! outbox of departures, and from it a refusal is believed.
//!
//! Specification: server-server API, "Knocking upon a room"; spec-map 4.8.

use exeunt_core::{CheckedPdu, Object, PendingMembership, RoomVersion};
use exeunt_membership::{
    AfterMakeKnock, AfterSendKnock, Knock, MAX_CANDIDATES, MakeKnock, RemoteFailure,
};
use exeunt_state_res::AuthError;
use exeunt_store::{Batch, records::MembershipRecord, tables};
use ruma::{OwnedServerName, RoomId, UserId};
use serde_json::Value;

use crate::{
    Call, Intent, RoomError, Rooms,
    graph::{Graph, is_joined},
    hedge::Hedge,
    inbound::put_pending,
    join::{ENTRY_PACE, Failed},
    leave::sent_to,
    place::Placement,
};

/// What a knock meets here.
struct View {
    /// The version of the room, if we reside in it.
    resident: Option<RoomVersion>,
    /// The invite or the earlier knock that we hold.
    pending: Option<PendingMembership>,
    /// What the room is to the user.
    member: Option<MembershipRecord>,
}

impl Rooms {
    /// Knocks for a local user. `via` are servers that may help; `content` holds profile and
    /// reason. Knocking again replaces the earlier knock.
    pub async fn knock(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        mut content: Object,
    ) -> Result<(), RoomError> {
        content.insert("membership".into(), "knock".into());
        let View { resident, pending, member } = self.knock_view(user, room_id).await?;
        if let Some(version) = resident {
            // Said by the rules too, and by them after the join rule.
            match member.as_ref().map(|member| &*member.membership) {
                Some("join") => return Err(AuthError::KnockJoined.into()),
                Some("invite") => return Err(AuthError::KnockInvited.into()),
                Some("ban") => return Err(AuthError::Banned.into()),
                _ => {}
            }
            if !version.rules().authorization.knocking {
                return Err(RoomError::Forbidden("The room is too old for knocking".into()));
            }
            let intent = Intent::state(user.to_owned(), "m.room.member", user.as_str(), content);
            self.append(room_id, intent).await?;
            return Ok(());
        }
        if pending.as_ref().is_some_and(|pending| pending.membership != "knock") {
            return Err(AuthError::KnockInvited.into());
        }
        crate::join::check_content(&content)?;
        let knock = Knock {
            room_id: room_id.to_owned(),
            user_id: user.to_owned(),
            room_version: pending.as_ref().and_then(|p| RoomVersion::parse(&p.room_version).ok()),
            content,
        };
        let _crossing = self.inner.crossing.lock((user.to_owned(), room_id.to_owned())).await;
        let mut attempts = Vec::new();
        let (mut refusal, mut perhaps) = (None, None);
        let servers = self.entry_candidates(room_id, via, pending.as_ref(), Vec::new());
        let mut hedge = Hedge::new(servers, ENTRY_PACE, |server| {
            let (awaiting, request) = MakeKnock::new(knock.clone(), server.clone());
            async move { (awaiting, self.ask_for_entry(&server, &request).await) }
        });
        while let Some((server, template)) = hedge.next().await {
            match self.knock_through(&server, template, pending.is_some()).await? {
                Ok((event, room_state)) => {
                    let version = event.version();
                    let state = self.check_knock_state(version, room_id, &room_state).await?;
                    return self.knocked(event, (state, via), server, member).await;
                }
                Err(Failed { attempt, failure, perhaps_taken }) => {
                    tracing::info!(%room_id, %server, outcome = attempt.outcome, "a knock failed");
                    attempts.push(attempt);
                    perhaps = perhaps_taken.map(|event| (event, server.clone())).or(perhaps);
                    if matches!(failure, RemoteFailure::Refused { .. }) {
                        refusal.get_or_insert((server, failure));
                    }
                }
            }
        }
        if let Some((event, server)) = perhaps {
            self.take_back(event, server).await?;
        }
        match refusal {
            Some((server, error)) => Err(RoomError::EntryRefused { server, error, attempts }),
            None => Err(RoomError::NoServer(attempts)),
        }
    }

    async fn knock_view(&self, user: &UserId, room_id: &RoomId) -> Result<View, RoomError> {
        let key = (user.to_owned(), room_id.to_owned());
        let ours = self.server_name().to_owned();
        self.store()
            .read(move |reader| {
                let resident = match is_joined(reader, &key.1, &ours)? {
                    true => Some(Graph::of(reader, &key.1)?.version),
                    false => None,
                };
                let pending = reader.get::<tables::Pending>(&key)?;
                let member = reader.get::<tables::Memberships>(&key)?;
                Ok(View { resident, pending, member })
            })
            .await
    }

    /// One handshake, from the template on: the knock that the room has, and the answer's room
    /// state. The inner error is the server's; the outer one is ours. Where the user `knows` of a
    /// knock, they can take it back themselves.
    async fn knock_through(
        &self,
        server: &OwnedServerName,
        (awaiting, answer): (MakeKnock, Result<Value, RemoteFailure>),
        knows: bool,
    ) -> Result<Result<(CheckedPdu, Value), Failed>, RoomError> {
        let mut signing = self.signing_with(server);
        let step = awaiting.on_answer(answer, |knock| signing.sign(knock), self.now());
        match &step {
            AfterMakeKnock::Send(_, request) if !knows => {
                self.journal_entry(signing, &request.event, server).await?;
            }
            _ => signing.journal().await?,
        }
        let (awaiting, request) = match step {
            AfterMakeKnock::Send(awaiting, request) => (awaiting, request),
            AfterMakeKnock::NextCandidate(attempt, failure) => {
                return Ok(Err(Failed { attempt, failure, perhaps_taken: None }));
            }
        };
        let answer = self.call(server, Call::Send(&request)).await;
        Ok(match awaiting.on_answer(answer) {
            AfterSendKnock::Done { event, room_state, .. } => Ok((event, room_state)),
            AfterSendKnock::Refused(attempt, failure) => {
                self.entry_refused(&request.event).await?;
                Err(Failed { attempt, failure, perhaps_taken: None })
            }
            AfterSendKnock::Failed(event, attempt, failure) => {
                Err(Failed { attempt, failure, perhaps_taken: Some(event) })
            }
        })
    }

    /// The room has the knock: shows it to the user. If we have come to reside in the room
    /// meanwhile, the knock belongs into its graph. What else has come `before` the answer is
    /// newer: an invite accepts the knock, and who has left takes it back.
    async fn knocked(
        &self,
        event: CheckedPdu,
        (state, via): (Vec<Object>, &[OwnedServerName]),
        server: OwnedServerName,
        before: Option<MembershipRecord>,
    ) -> Result<(), RoomError> {
        let room_id = event.room_id().to_owned();
        let guard = self.inner.locks.lock(&room_id).await;
        let view = self.knock_view(event.sender(), &room_id).await?;
        if view.resident.is_some() {
            drop(guard);
            let events = vec![event.object().clone()];
            return self.receive_again(&server, &room_id, events).await;
        }
        if view.member != before && !view.member.is_some_and(|member| is_declined(&member, &event))
        {
            drop(guard);
            return self.take_back(event, server).await;
        }
        let now = self.now();
        let mut placement = Placement::only(Batch::default());
        let mut candidates = via.to_vec();
        candidates.truncate(MAX_CANDIDATES);
        let sent = sent_to(&event, server, now);
        let pending = PendingMembership { stripped_state: state, candidates, ..sent };
        placement.users.insert(pending.user_id.clone());
        put_pending(&mut placement.batch, &event, pending, now);
        self.commit(&guard, placement).await?;
        Ok(())
    }
}

/// Whether somebody in the room has turned an earlier knock down, which the new one outlives.
fn is_declined(member: &MembershipRecord, knock: &CheckedPdu) -> bool {
    member.membership == "leave" && member.sender != knock.sender()
}
