//! The join handshake with one candidate: make_join, then send_join (v2, then v1).
//!
//! Server-server API, "Joining Rooms" and "Restricted rooms".

use exeunt_core::ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use exeunt_core::{CheckedPdu, Object, Pdu, RoomVersion, Signer};
use serde_json::Value;

use crate::{
    Attempt, Expected, MakeRequest, Membership, RemoteFailure, SendApi, SendRequest,
    check_join_template, join_draft,
};

/// Who joins what, the same for every candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    pub room_id: OwnedRoomId,
    pub user_id: OwnedUserId,
    /// Where we know it, from an invite for example.
    pub room_version: Option<RoomVersion>,
    /// Profile and reason of the member event.
    pub content: Object,
}

/// Waits for the template.
#[derive(Debug)]
#[must_use]
pub struct MakeJoin {
    join: Join,
    server: OwnedServerName,
}

/// What follows the answer to make_join.
#[derive(Debug)]
pub enum AfterMakeJoin {
    /// Our own event, signed: send it.
    Send(SendJoin, SendRequest),
    /// Nothing was signed; ask somebody else.
    NextCandidate(Attempt, RemoteFailure),
}

impl MakeJoin {
    pub fn new(join: Join, server: OwnedServerName) -> (Self, MakeRequest) {
        let versions = match join.room_version {
            Some(known) => RoomVersion::all().filter(|v| v.shares_events_with(known)).collect(),
            None => RoomVersion::all().collect::<Vec<_>>(),
        };
        let versions = versions.into_iter().map(RoomVersion::as_str).collect();
        let request = MakeRequest {
            server: server.clone(),
            membership: Membership::Join,
            room_id: join.room_id.clone(),
            user_id: join.user_id.clone(),
            versions,
        };
        (Self { join, server }, request)
    }

    /// Checks the template, discards it, and signs a join of our own making in its place.
    ///
    /// # Panics
    /// If the joining user is not of the signer's server.
    pub fn on_answer(
        self,
        answer: Result<Value, RemoteFailure>,
        signer: &Signer,
        now_ms: u64,
    ) -> AfterMakeJoin {
        match answer.and_then(|template| self.sign(&template, signer, now_ms)) {
            Ok((event, authorised_via)) => {
                let server = self.server;
                let awaiting = SendJoin { server, event, authorised_via, api: SendApi::V2 };
                let request = awaiting.request();
                AfterMakeJoin::Send(awaiting, request)
            }
            Err(failure) => {
                let attempt = Attempt::of_make(&self.server, "make_join", &failure);
                AfterMakeJoin::NextCandidate(attempt, failure)
            }
        }
    }

    fn sign(
        &self,
        template: &Value,
        signer: &Signer,
        now_ms: u64,
    ) -> Result<(CheckedPdu, Option<OwnedUserId>), RemoteFailure> {
        let Join { room_id, user_id, room_version, content } = &self.join;
        let membership = Membership::Join;
        let expect = Expected { room_id, user_id, membership, room_version: *room_version };
        let position = check_join_template(&expect, &self.server, template)?;
        let authorised_via = position.authorised_via.clone();
        let draft = join_draft(position, room_id.clone(), user_id.clone(), content.clone(), now_ms);
        let event = draft
            .sign(signer)
            .map_err(|e| RemoteFailure::Misbehaved(format!("the template does not fit: {e}")))?;
        Ok((event, authorised_via))
    }
}

/// Waits for the room's state.
#[derive(Debug)]
#[must_use]
pub struct SendJoin {
    server: OwnedServerName,
    event: CheckedPdu,
    authorised_via: Option<OwnedUserId>,
    api: SendApi,
}

/// The answer to a send_join. Nothing in it has been verified yet, but for its shape.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// Our join; in a restricted room with the authorising server's signature, still unchecked.
    pub event: Pdu,
    pub state: Vec<Value>,
    pub auth_chain: Vec<Value>,
    /// Whether member events were left out of `state`.
    pub members_omitted: bool,
    /// Servers that the peer says are in the room.
    pub servers_in_room: Vec<OwnedServerName>,
}

/// What follows the answer to send_join.
#[derive(Debug)]
pub enum AfterSendJoin {
    Done(Box<Welcome>, Attempt),
    /// The peer does not know v2: the same event again, by v1.
    FallBackToV1(SendJoin, SendRequest),
    /// The peer said no: ask somebody else, or tell the client.
    Refused(Attempt, RemoteFailure),
    /// No clear or no usable answer. The peer may have the event.
    Failed(CheckedPdu, Attempt, RemoteFailure),
}

impl SendJoin {
    fn request(&self) -> SendRequest {
        SendRequest::new(&self.server, Membership::Join, self.api, &self.event)
    }

    pub fn on_answer(self, answer: Result<Value, RemoteFailure>) -> AfterSendJoin {
        let step = match self.api {
            SendApi::V2 => "send_join v2",
            SendApi::V1 => "send_join v1",
        };
        let failure = match answer.and_then(|answer| self.welcome(answer)) {
            Ok(welcome) => {
                let attempt = Attempt::of_send(&self.server, step, "accepted");
                return AfterSendJoin::Done(Box::new(welcome), attempt);
            }
            Err(failure) => failure,
        };
        if self.api == SendApi::V2 && failure.says_no_such_endpoint() {
            let awaiting = Self { api: SendApi::V1, ..self };
            let request = awaiting.request();
            return AfterSendJoin::FallBackToV1(awaiting, request);
        }
        let attempt = Attempt::of_send(&self.server, step, &failure);
        match failure {
            RemoteFailure::Refused { status: 400..500, .. } => {
                AfterSendJoin::Refused(attempt, failure)
            }
            _ => AfterSendJoin::Failed(self.event, attempt, failure),
        }
    }

    fn welcome(&self, answer: Value) -> Result<Welcome, RemoteFailure> {
        let wrong = |what: &str| RemoteFailure::Misbehaved(format!("send_join: {what}"));
        let answer = match (self.api, answer) {
            (SendApi::V2, answer) => answer,
            (SendApi::V1, Value::Array(mut pair)) if pair.len() == 2 => pair.remove(1),
            (SendApi::V1, _) => return Err(wrong("the answer is not a pair")),
        };
        let Value::Object(mut answer) = answer else {
            return Err(wrong("the answer is not an object"));
        };
        let event = self.cosigned(answer.get("event")).ok_or_else(|| {
            wrong("the authorising server's signature is missing or on another event")
        })?;
        let mut list = |field: &str| match answer.remove(field) {
            Some(Value::Array(list)) => Ok(list),
            _ => Err(wrong(&format!("{field} is not a list"))),
        };
        let state = list("state")?;
        let auth_chain = list("auth_chain")?;
        let servers = answer.get("servers_in_room").and_then(Value::as_array);
        let servers_in_room = servers
            .into_iter()
            .flatten()
            .filter_map(|server| OwnedServerName::try_from(server.as_str()?).ok())
            .collect();
        let members_omitted = answer.get("members_omitted") == Some(&Value::Bool(true));
        Ok(Welcome { event, state, auth_chain, members_omitted, servers_in_room })
    }

    /// Our event, with the signatures of the authorising server from the peer's copy. Everything
    /// else of that copy is ignored.
    fn cosigned(&self, copy: Option<&Value>) -> Option<Pdu> {
        let Some(authoriser) = &self.authorised_via else {
            return Some(self.event.pdu().clone());
        };
        let copy = Pdu::from_object(self.event.version(), copy?.as_object()?.clone()).ok()?;
        let cosigned = self.event.with_signatures_of(&copy, authoriser.server_name())?;
        Some(cosigned.into_pdu())
    }
}
