//! What a handshake asks of a peer, and how that can end.

use std::fmt::Display;

use exeunt_core::CheckedPdu;
use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::drafts::cut;
use crate::{Membership, TemplateError};

/// Longest outcome that is recorded: peers write their own messages into it.
pub const MAX_OUTCOME_BYTES: usize = 512;

/// Why a remote call failed, by whose fault it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RemoteFailure {
    /// No answer: DNS, TLS, time-out, a gateway's error page with a 5xx.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// A plain refusal. `errcode` is empty where the body held no Matrix error.
    #[error("refused with {status} {errcode}: {message}")]
    Refused { status: u16, errcode: String, message: String },
    /// An answer that breaks the specification.
    #[error("misbehaved: {0}")]
    Misbehaved(String),
    /// An answer that is right but not for us, such as an unsupported room version.
    #[error("incompatible: {0}")]
    Incompatible(String),
}

impl RemoteFailure {
    /// Whether the answer says that there is no such endpoint, as opposed to a real refusal.
    pub fn says_no_such_endpoint(&self) -> bool {
        matches!(
            self,
            Self::Refused { status: 400 | 404 | 405 | 501, errcode, .. }
                if errcode.is_empty() || errcode == "M_UNRECOGNIZED"
        )
    }

    /// What a refused make_* says of the room and the invite. A 403 or 404 without a Matrix error
    /// is a proxy's word and means nothing; that the room's ACL denies our server says nothing of
    /// the invite, and may end.
    pub fn class(&self) -> Class {
        let Self::Refused { status: 403 | 404, errcode, message } = self else {
            return Class::Transient;
        };
        match errcode.as_str() {
            _ if is_about_acl(message) => Class::Transient,
            "M_NOT_FOUND" => Class::NoRoom,
            "M_FORBIDDEN" => Class::NotInvited,
            _ => Class::Transient,
        }
    }
}

/// Whether a refusal is one of our server, by the room's ACL: there is no errcode for it. These are
/// the words of Synapse and us, of Dendrite, and of Conduit and what came of it.
fn is_about_acl(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["server is banned from", "server acl", "room acl", "server access denied"]
        .iter()
        .any(|words| message.contains(words))
}

impl From<TemplateError> for RemoteFailure {
    fn from(error: TemplateError) -> Self {
        match error {
            TemplateError::UnsupportedVersion(_) => Self::Incompatible(error.to_string()),
            other => Self::Misbehaved(other.to_string()),
        }
    }
}

/// What an answer says of the room and the invite, and so whether asking again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The server knows the room no more.
    NoRoom,
    /// It knows the room, in which the user is not invited: no more, or not yet.
    NotInvited,
    /// Nothing.
    Transient,
}

/// How the handshake with one candidate ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub server: OwnedServerName,
    /// For the timeline: the step and how it went.
    pub outcome: String,
    pub class: Class,
}

impl Attempt {
    pub(crate) fn of_make(server: &OwnedServerName, step: &str, failure: &RemoteFailure) -> Self {
        let outcome = cut(format!("{step}: {failure}"), MAX_OUTCOME_BYTES);
        Self { server: server.clone(), outcome, class: failure.class() }
    }

    /// An attempt after which the server may have our event.
    pub fn of_send(server: &OwnedServerName, step: &str, outcome: impl Display) -> Self {
        let outcome = cut(format!("{step}: {outcome}"), MAX_OUTCOME_BYTES);
        Self { server: server.clone(), outcome, class: Class::Transient }
    }
}

/// Whether the last word of every candidate is that there is nothing to leave. That the user is not
/// invited counts for nothing while the invite `is_fresh`: its own server may have yet to place it.
/// False without candidates: then nobody was asked.
pub fn nothing_to_leave(
    candidates: &[OwnedServerName],
    attempts: &[Attempt],
    is_fresh: bool,
) -> bool {
    let ends = |attempt: &Attempt| match attempt.class {
        Class::NoRoom => true,
        Class::NotInvited => !is_fresh,
        Class::Transient => false,
    };
    let last =
        |server: &OwnedServerName| attempts.iter().rfind(|attempt| attempt.server == *server);
    !candidates.is_empty() && candidates.iter().all(|server| last(server).is_some_and(ends))
}

/// `GET make_{membership}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakeRequest {
    pub server: OwnedServerName,
    pub membership: Membership,
    pub room_id: OwnedRoomId,
    pub user_id: OwnedUserId,
    /// `ver` of make_join and make_knock; empty for make_leave, which has none.
    pub versions: Vec<&'static str>,
}

/// Which of the two versions of a send_* endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendApi {
    V2,
    /// Wraps its answer in `[200, …]`.
    V1,
}

/// `PUT send_{membership}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendRequest {
    pub server: OwnedServerName,
    pub membership: Membership,
    pub api: SendApi,
    pub room_id: OwnedRoomId,
    pub event_id: OwnedEventId,
    pub event: CheckedPdu,
}

impl SendRequest {
    pub(crate) fn new(
        server: &OwnedServerName,
        membership: Membership,
        api: SendApi,
        event: &CheckedPdu,
    ) -> Self {
        Self {
            server: server.clone(),
            membership,
            api,
            room_id: event.room_id().to_owned(),
            event_id: event.event_id().to_owned(),
            event: event.clone(),
        }
    }
}
