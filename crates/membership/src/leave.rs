//! The leave handshake with one candidate: make_leave, then send_leave (v2, then v1).
//!
//! Server-server API, "Leaving Rooms (Rejecting Invites)". Whoever drives it sends each request
//! and feeds the answer back; several candidates may run side by side.

use exeunt_core::ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use exeunt_core::{CheckedPdu, FormatError, PendingMembership, RoomVersion};
use serde_json::Value;

use crate::{
    Attempt, Expected, MakeRequest, Membership, OwnMember, RemoteFailure, SendApi, SendRequest,
    check_template, leave_draft,
};

/// Who leaves what, the same for every candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    pub room_id: OwnedRoomId,
    pub user_id: OwnedUserId,
    /// As the invite said; a candidate that claims another one is not believed.
    pub room_version: Option<RoomVersion>,
    pub reason: Option<String>,
}

impl Departure {
    /// The departure that ends a pending invite or knock.
    pub fn of(pending: &PendingMembership, reason: Option<String>) -> Self {
        Self {
            room_id: pending.room_id.clone(),
            user_id: pending.user_id.clone(),
            room_version: RoomVersion::parse(&pending.room_version).ok(),
            reason,
        }
    }
}

/// Waits for the template.
#[derive(Debug)]
#[must_use]
pub struct MakeLeave {
    departure: Departure,
    server: OwnedServerName,
}

/// What follows the answer to make_leave.
#[derive(Debug)]
pub enum AfterMakeLeave {
    /// Our own event, signed: send it.
    Send(SendLeave, SendRequest),
    /// Nothing was signed; ask somebody else.
    NextCandidate(Attempt, RemoteFailure),
}

impl MakeLeave {
    pub fn new(departure: Departure, server: OwnedServerName) -> (Self, MakeRequest) {
        let request = MakeRequest {
            server: server.clone(),
            membership: Membership::Leave,
            room_id: departure.room_id.clone(),
            user_id: departure.user_id.clone(),
            versions: Vec::new(),
        };
        (Self { departure, server }, request)
    }

    /// Checks the template, discards it, and has a leave of our own making signed in its place.
    pub fn on_answer(
        self,
        answer: Result<Value, RemoteFailure>,
        sign: impl FnOnce(OwnMember) -> Result<CheckedPdu, FormatError>,
        now_ms: u64,
    ) -> AfterMakeLeave {
        let signed = answer.and_then(|template| self.signed(&template, sign, now_ms));
        match signed {
            Ok(event) => {
                let (awaiting, request) = SendLeave::new(self.server, event);
                AfterMakeLeave::Send(awaiting, request)
            }
            Err(failure) => {
                let attempt = Attempt::of_make(&self.server, "make_leave", &failure);
                AfterMakeLeave::NextCandidate(attempt, failure)
            }
        }
    }

    fn signed(
        &self,
        template: &Value,
        sign: impl FnOnce(OwnMember) -> Result<CheckedPdu, FormatError>,
        now_ms: u64,
    ) -> Result<CheckedPdu, RemoteFailure> {
        let Departure { room_id, user_id, room_version, reason } = &self.departure;
        let membership = Membership::Leave;
        let expect = Expected { room_id, user_id, membership, room_version: *room_version };
        let position = check_template(&expect, template)?;
        sign(leave_draft(position, room_id.clone(), user_id.clone(), reason.clone(), now_ms))
            .map_err(|e| RemoteFailure::Misbehaved(format!("the template does not fit: {e}")))
    }
}

/// Waits for the leave to be taken.
#[derive(Debug)]
#[must_use]
pub struct SendLeave {
    server: OwnedServerName,
    event: CheckedPdu,
    api: SendApi,
}

/// What follows the answer to send_leave.
#[derive(Debug)]
pub enum AfterSendLeave {
    /// The resident server has the event.
    Done(CheckedPdu, Attempt),
    /// The peer does not know v2: the same event again, by v1.
    FallBackToV1(SendLeave, SendRequest),
    /// The peer said no: ask somebody else.
    Refused(Attempt, RemoteFailure),
    /// No clear answer. The peer may have the event: sending the very same one again is safe.
    Failed(CheckedPdu, Attempt, RemoteFailure),
}

impl SendLeave {
    /// Sends a leave that was signed before: after make_leave, or once more after a time-out.
    pub fn new(server: OwnedServerName, event: CheckedPdu) -> (Self, SendRequest) {
        let awaiting = Self { server, event, api: SendApi::V2 };
        let request = awaiting.request();
        (awaiting, request)
    }

    fn request(&self) -> SendRequest {
        SendRequest::new(&self.server, Membership::Leave, self.api, &self.event)
    }

    /// The body of a success says nothing (`{}`, in v1 `[200, {}]`) and is not looked at.
    pub fn on_answer(self, answer: Result<Value, RemoteFailure>) -> AfterSendLeave {
        let step = match self.api {
            SendApi::V2 => "send_leave v2",
            SendApi::V1 => "send_leave v1",
        };
        let failure = match answer {
            Ok(_) => {
                let attempt = Attempt::of_send(&self.server, step, "accepted");
                return AfterSendLeave::Done(self.event, attempt);
            }
            Err(failure) => failure,
        };
        if self.api == SendApi::V2 && failure.says_no_such_endpoint() {
            let awaiting = Self { api: SendApi::V1, ..self };
            let request = awaiting.request();
            return AfterSendLeave::FallBackToV1(awaiting, request);
        }
        let attempt = Attempt::of_send(&self.server, step, &failure);
        match failure {
            RemoteFailure::Refused { status: 400..500, .. } => {
                AfterSendLeave::Refused(attempt, failure)
            }
            _ => AfterSendLeave::Failed(self.event, attempt, failure),
        }
    }
}
