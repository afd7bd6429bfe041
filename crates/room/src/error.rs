//! Why a room operation failed, a variant per cause. The API crates turn them into errcodes.

use exeunt_core::FormatError;
use exeunt_membership::{Attempt, InboundError};
use exeunt_state_res::{AuthError, LookupError, ResolveError};
use exeunt_store::StoreError;
use ruma::{OwnedEventId, OwnedRoomAliasId, OwnedServerName};
use thiserror::Error;

use crate::remote::RemoteError;

#[derive(Debug, Error)]
pub enum RoomError {
    /// The room, or what was asked of it, is not known here.
    #[error("{0}")]
    NotFound(String),
    /// The authorisation rules refuse the event.
    #[error("{0}")]
    Auth(#[from] AuthError),
    /// Not allowed, for a reason outside the authorisation rules.
    #[error("{0}")]
    Forbidden(String),
    /// We cannot tell whether the user meets a condition of the join rule; another server may.
    #[error("This server cannot tell whether you meet the room's conditions")]
    UnableToAuthorise,
    /// A condition is met, and no user of ours can let anybody in; another server's may.
    #[error("Nobody on this server can let you in")]
    UnableToGrant,
    #[error("The server ACL would deny this server")]
    SelfLockout,
    /// The user has yet to leave the room; with the membership that they have.
    #[error("You have not left the room: your membership is {0}")]
    NotLeft(String),
    /// The request is well-formed and makes no sense here.
    #[error("{0}")]
    InvalidParam(String),
    /// The event relates to another one in a way that is not allowed.
    #[error("{0}")]
    InvalidRelation(String),
    #[error("You have annotated the event with this already")]
    DuplicateAnnotation,
    /// The request lacks something that it needs.
    #[error("{0}")]
    MissingParam(String),
    #[error("unsupported room version {0:?}")]
    UnsupportedVersion(String),
    /// The event cannot be built or read.
    #[error("{0}")]
    Format(#[from] FormatError),
    /// An event that another server wants placed does not fit the path it came by.
    #[error("{0}")]
    Inbound(#[from] InboundError),
    #[error("no valid signature by {0}")]
    Signature(OwnedServerName),
    /// The event is signed, and nobody could be asked for the key.
    #[error("the keys of {0} cannot be had")]
    NoKeys(OwnedServerName),
    /// The event needs events that we do not have.
    #[error("{} events are missing, {} among them", .0.len(), .0[0])]
    Missing(Vec<OwnedEventId>),
    /// The state before the event refuses it, and is what another server told: no verdict.
    #[error("{0}, by the state that another server told")]
    Hearsay(AuthError),
    /// Another server did not do its part.
    #[error("{server}: {error}")]
    Remote { server: OwnedServerName, error: RemoteError },
    /// No server that was asked let the user in. The one that counts said why.
    #[error("{server}: {error}")]
    EntryRefused { server: OwnedServerName, error: RemoteError, attempts: Vec<Attempt> },
    /// Every server that was asked refused or failed.
    #[error("{}", describe(.0))]
    NoServer(Vec<Attempt>),
    /// Too much waits to be worked on; what was sent or asked is to be sent or asked again later.
    #[error("too much waits to be worked on")]
    Busy,
    /// The user takes no invites, or none by this one (MSC4380, MSC4155).
    #[error("the user does not take this invite")]
    InviteBlocked,
    #[error("you have made many reports that nobody has looked at yet")]
    TooManyReports,
    #[error("the alias is taken")]
    AliasTaken,
    /// Of a canonical alias.
    #[error("{0} does not lead to this room")]
    BadAlias(OwnedRoomAliasId),
    #[error("{0}")]
    Resolve(#[from] ResolveError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl RoomError {
    /// Whether an event could not be judged, for want of others or of a state to go by.
    pub(crate) fn is_no_verdict(&self) -> bool {
        matches!(self, RoomError::Missing(_) | RoomError::Hearsay(_))
    }
}

impl From<LookupError> for RoomError {
    fn from(error: LookupError) -> Self {
        ResolveError::from(error).into()
    }
}

fn describe(attempts: &[Attempt]) -> String {
    if attempts.is_empty() {
        return "no server is known that could help".into();
    }
    let each: Vec<_> = attempts.iter().map(|a| format!("{}: {}", a.server, a.outcome)).collect();
    format!("no server could help ({})", each.join("; "))
}
