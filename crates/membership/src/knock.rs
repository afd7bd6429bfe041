//! The knock handshake with one candidate: make_knock, then send_knock (there is only v1).
//!
//! Server-server API, "Knocking upon a room".

use exeunt_core::ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use exeunt_core::{CheckedPdu, FormatError, Object, RoomVersion};
use serde_json::Value;

use crate::{
    Attempt, Expected, MakeRequest, Membership, OwnMember, RemoteFailure, SendApi, SendRequest,
    check_template, knock_draft,
};

/// Who knocks where, the same for every candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Knock {
    pub room_id: OwnedRoomId,
    pub user_id: OwnedUserId,
    /// Where we know it, from an earlier knock for example.
    pub room_version: Option<RoomVersion>,
    /// Profile and reason of the member event.
    pub content: Object,
}

/// Waits for the template.
#[derive(Debug)]
#[must_use]
pub struct MakeKnock {
    knock: Knock,
    server: OwnedServerName,
}

/// What follows the answer to make_knock.
#[derive(Debug)]
pub enum AfterMakeKnock {
    /// Our own event, signed: send it.
    Send(SendKnock, SendRequest),
    /// Nothing was signed; ask somebody else.
    NextCandidate(Attempt, RemoteFailure),
}

impl MakeKnock {
    pub fn new(knock: Knock, server: OwnedServerName) -> (Self, MakeRequest) {
        let known = knock.room_version;
        let versions = RoomVersion::all()
            .filter(|version| version.rules().authorization.knocking)
            .filter(|version| known.is_none_or(|known| version.shares_events_with(known)));
        let request = MakeRequest {
            server: server.clone(),
            membership: Membership::Knock,
            room_id: knock.room_id.clone(),
            user_id: knock.user_id.clone(),
            versions: versions.map(RoomVersion::as_str).collect(),
        };
        (Self { knock, server }, request)
    }

    /// Checks the template, discards it, and has a knock of our own making signed in its place.
    pub fn on_answer(
        self,
        answer: Result<Value, RemoteFailure>,
        sign: impl FnOnce(OwnMember) -> Result<CheckedPdu, FormatError>,
        now_ms: u64,
    ) -> AfterMakeKnock {
        match answer.and_then(|template| self.signed(&template, sign, now_ms)) {
            Ok(event) => {
                let server = self.server;
                let request = SendRequest::new(&server, Membership::Knock, SendApi::V1, &event);
                AfterMakeKnock::Send(SendKnock { server, event }, request)
            }
            Err(failure) => {
                let attempt = Attempt::of_make(&self.server, "make_knock", &failure);
                AfterMakeKnock::NextCandidate(attempt, failure)
            }
        }
    }

    fn signed(
        &self,
        template: &Value,
        sign: impl FnOnce(OwnMember) -> Result<CheckedPdu, FormatError>,
        now_ms: u64,
    ) -> Result<CheckedPdu, RemoteFailure> {
        let Knock { room_id, user_id, room_version, content } = &self.knock;
        let membership = Membership::Knock;
        let expect = Expected { room_id, user_id, membership, room_version: *room_version };
        let position = check_template(&expect, template)?;
        if !position.version.rules().authorization.knocking {
            let version = position.version;
            let text = format!("room version {version} does not support knocking");
            return Err(RemoteFailure::Incompatible(text));
        }
        sign(knock_draft(position, room_id.clone(), user_id.clone(), content.clone(), now_ms))
            .map_err(|e| RemoteFailure::Misbehaved(format!("the template does not fit: {e}")))
    }
}

/// Waits for the knock to be taken.
#[derive(Debug)]
#[must_use]
pub struct SendKnock {
    server: OwnedServerName,
    event: CheckedPdu,
}

/// What follows the answer to send_knock.
#[derive(Debug)]
pub enum AfterSendKnock {
    /// The room has our knock. The peer's `knock_room_state` comes as it is, unchecked.
    Done { event: CheckedPdu, room_state: Value, attempt: Attempt },
    /// The peer said no: ask somebody else, or tell the client.
    Refused(Attempt, RemoteFailure),
    /// No clear answer. The peer may have the event.
    Failed(CheckedPdu, Attempt, RemoteFailure),
}

impl SendKnock {
    /// An answer without usable state is still a success: the room has the knock.
    pub fn on_answer(self, answer: Result<Value, RemoteFailure>) -> AfterSendKnock {
        let failure = match answer {
            Ok(mut answer) => {
                let state = answer.get_mut("knock_room_state").map(Value::take);
                let attempt = Attempt::of_send(&self.server, "send_knock", "accepted");
                let room_state = state.unwrap_or_default();
                return AfterSendKnock::Done { event: self.event, room_state, attempt };
            }
            Err(failure) => failure,
        };
        let attempt = Attempt::of_send(&self.server, "send_knock", &failure);
        match failure {
            RemoteFailure::Refused { status: 400..500, .. } => {
                AfterSendKnock::Refused(attempt, failure)
            }
            _ => AfterSendKnock::Failed(self.event, attempt, failure),
        }
    }
}
