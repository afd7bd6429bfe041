//! Why an event is not allowed, and the membership states that decide it.

use exeunt_core::Pdu;
use ruma::OwnedEventId;
use thiserror::Error;

use super::MalformedLevel;
use crate::LookupError;

/// The rule that an event breaks, or that it could not be judged ([`AuthError::is_lookup`]).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthError {
    #[error("a create event has no prev_events")]
    CreateHasPrevEvents,
    #[error("a room has one create event")]
    AnotherCreate,
    #[error("the create event's room id is not of its sender's server")]
    CreateRoomIdServer,
    #[error("the create event names an unknown room version")]
    CreateRoomVersion,
    #[error("the create event names no creator")]
    CreateWithoutCreator,
    #[error("additional_creators is not a list of user ids")]
    AdditionalCreators,

    #[error("the room's create event is unknown, rejected or of another room")]
    NoCreate,
    #[error("auth event {0} was not given")]
    MissingAuthEvent(OwnedEventId),
    #[error("auth event {0} repeats a key")]
    DuplicateAuthEvent(OwnedEventId),
    #[error("auth event {0} does not belong there")]
    UnexpectedAuthEvent(OwnedEventId),
    #[error("auth event {0} was rejected")]
    RejectedAuthEvent(OwnedEventId),
    #[error("auth event {0} is of another room")]
    ForeignAuthEvent(OwnedEventId),

    #[error("the room is not federated")]
    NotFederated,
    #[error("the aliases are of another server")]
    AliasesOfOtherServer,
    #[error("a member event has a user id as its state key")]
    MemberStateKey,
    #[error("the membership is missing or unknown")]
    UnknownMembership,
    #[error("users join and knock for themselves")]
    NotSelf,
    #[error("the user is banned")]
    Banned,
    #[error("the join rule does not allow it")]
    JoinRule,
    #[error("the authorising user is not joined or may not invite")]
    Authoriser,
    #[error("the target is joined already")]
    TargetJoined,
    #[error("the target is banned")]
    TargetBanned,
    #[error("the sender is not joined")]
    SenderNotJoined,
    #[error("who leaves was joined, invited or knocking")]
    NothingToLeave,
    #[error("who knocks is joined already")]
    KnockJoined,
    #[error("who knocks is invited already")]
    KnockInvited,
    #[error("the third-party invite is malformed, unknown or badly signed")]
    ThirdPartyInvite,

    #[error("the sender may not invite")]
    InvitePower,
    #[error("the sender may not kick the target")]
    KickPower,
    #[error("the sender may not ban the target")]
    BanPower,
    #[error("the sender may not lift a ban")]
    UnbanPower,
    #[error("the sender may not send events of this type")]
    EventPower,
    #[error("the sender may not redact")]
    RedactPower,
    #[error("the state is another user's")]
    StateOfOtherUser,
    #[error(transparent)]
    MalformedLevel(#[from] MalformedLevel),
    #[error("creators have no entry in users")]
    CreatorInUsers,
    #[error("the sender may not change {0}")]
    AlterPower(String),

    #[error(transparent)]
    Lookup(#[from] LookupError),
}

impl AuthError {
    /// Whether the event was not judged at all, because state could not be read.
    pub fn is_lookup(&self) -> bool {
        matches!(self, AuthError::Lookup(_))
    }

    /// Whether the event would be refused whoever sent it, whatever the state: it is wrong in
    /// itself.
    pub fn is_malformed(&self) -> bool {
        matches!(
            self,
            AuthError::CreateHasPrevEvents
                | AuthError::CreateRoomIdServer
                | AuthError::CreateRoomVersion
                | AuthError::CreateWithoutCreator
                | AuthError::AdditionalCreators
                | AuthError::MemberStateKey
                | AuthError::UnknownMembership
                | AuthError::MalformedLevel(_)
                | AuthError::CreatorInUsers
        )
    }
}

/// A user's membership in some state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    Join,
    Invite,
    Leave,
    Ban,
    Knock,
    /// A member event with a membership that the specification does not know.
    Unknown,
    /// No member event.
    Absent,
}

impl Membership {
    /// The membership that a member event carries.
    pub fn of(event: &Pdu) -> Membership {
        match event.membership() {
            Some("join") => Membership::Join,
            Some("invite") => Membership::Invite,
            Some("leave") => Membership::Leave,
            Some("ban") => Membership::Ban,
            Some("knock") => Membership::Knock,
            _ => Membership::Unknown,
        }
    }
}
