//! The join handshake with one candidate: make_join, then send_join (v2, then v1).
//!
//! Server-server API, "Joining Rooms" and "Restricted rooms".

use exeunt_core::ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use exeunt_core::{CheckedPdu, FormatError, Object, Pdu, RoomVersion};
use serde_json::Value;

use crate::{
    Attempt, Expected, MakeRequest, Membership, OwnMember, RemoteFailure, SendApi, SendRequest,
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

    /// Checks the template, discards it, and has a join of our own making signed in its place.
    pub fn on_answer(
        self,
        answer: Result<Value, RemoteFailure>,
        sign: impl FnOnce(OwnMember) -> Result<CheckedPdu, FormatError>,
        now_ms: u64,
    ) -> AfterMakeJoin {
        match answer.and_then(|template| self.signed(&template, sign, now_ms)) {
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

    fn signed(
        &self,
        template: &Value,
        sign: impl FnOnce(OwnMember) -> Result<CheckedPdu, FormatError>,
        now_ms: u64,
    ) -> Result<(CheckedPdu, Option<OwnedUserId>), RemoteFailure> {
        let Join { room_id, user_id, room_version, content } = &self.join;
        let membership = Membership::Join;
        let expect = Expected { room_id, user_id, membership, room_version: *room_version };
        let position = check_join_template(&expect, &self.server, template)?;
        let authorised_via = position.authorised_via.clone();
        let draft = join_draft(position, room_id.clone(), user_id.clone(), content.clone(), now_ms);
        let event = sign(draft)
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

/// What follows the answer to send_join.
#[derive(Debug)]
pub enum AfterSendJoin {
    /// Our join; in a restricted room with the authorising server's signature, still unchecked.
    Done(Pdu, Attempt),
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

    /// The event that is sent.
    pub fn event(&self) -> &CheckedPdu {
        &self.event
    }

    /// Of the answer only what is not in its lists (`state`, `auth_chain`) is looked at: those are
    /// read apart, event by event.
    pub fn on_answer(self, answer: Result<Value, RemoteFailure>) -> AfterSendJoin {
        let step = match self.api {
            SendApi::V2 => "send_join v2",
            SendApi::V1 => "send_join v1",
        };
        let failure = match answer.and_then(|answer| self.accepted(answer)) {
            Ok(event) => {
                let attempt = Attempt::of_send(&self.server, step, "accepted");
                return AfterSendJoin::Done(event, attempt);
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

    fn accepted(&self, answer: Value) -> Result<Pdu, RemoteFailure> {
        let wrong = |what: &str| RemoteFailure::Misbehaved(format!("send_join: {what}"));
        let answer = match (self.api, answer) {
            (SendApi::V2, answer) => answer,
            (SendApi::V1, Value::Array(mut pair)) if pair.len() == 2 => pair.remove(1),
            (SendApi::V1, _) => return Err(wrong("the answer is not a pair")),
        };
        let Value::Object(answer) = answer else {
            return Err(wrong("the answer is not an object"));
        };
        // We never ask for that, and could not tell who is in the room.
        if answer.get("members_omitted") == Some(&Value::Bool(true)) {
            return Err(wrong("member events are left out, which nobody asked for"));
        }
        self.cosigned(answer.get("event")).ok_or_else(|| {
            wrong("the authorising server's signature is missing or on another event")
        })
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
