use exeunt_core::ruma::OwnedUserId;
use exeunt_store::StoreError;
use thiserror::Error;

/// What can go wrong with a local user. The API crate chooses the wire code.
#[derive(Debug, Error)]
pub enum UsersError {
    /// `M_INVALID_USERNAME`
    #[error("not a valid user name: {0}")]
    InvalidUsername(&'static str),
    /// `M_USER_IN_USE`
    #[error("{0} is taken")]
    UserInUse(OwnedUserId),
    /// `M_WEAK_PASSWORD`
    #[error("the password is not acceptable: {0}")]
    WeakPassword(&'static str),
    /// `M_FORBIDDEN`: an unknown user and a wrong password look the same.
    #[error("wrong user name or password")]
    WrongPassword,
    /// `M_INVALID_PARAM`
    #[error("a registration token has 1 to 64 of A-Z, a-z, 0-9 and . _ ~ -")]
    InvalidToken,
    /// `M_INVALID_PARAM`
    #[error("there is such a registration token already")]
    TokenInUse,
    /// `M_PROFILE_TOO_LARGE`
    #[error("a profile has no more than {max} bytes")]
    ProfileTooLarge { max: usize },
    /// `M_KEY_TOO_LARGE`
    #[error("the name of a profile field has no more than {max} bytes")]
    KeyTooLarge { max: usize },
    /// `M_INVALID_PARAM`
    #[error("the name of a profile field begins with a-z; a-z, 0-9 and . _ - follow")]
    InvalidKey,
    /// `M_FORBIDDEN`: a token to register or log in with that is unknown, used or too old.
    #[error("the token is not valid")]
    WrongToken,
    /// `M_FORBIDDEN`: somebody proved to be somebody else.
    #[error("the account is another user's")]
    AnotherUser,
    /// `M_UNKNOWN_TOKEN` with `soft_logout`: the access token has to be refreshed.
    #[error("the access token has expired")]
    Expired,
    /// `M_USER_LOCKED`
    #[error("the account has been locked")]
    Locked,
    /// `M_USER_DEACTIVATED`
    #[error("the account has been deactivated")]
    Deactivated,
    /// `M_FORBIDDEN`
    #[error("the application service may not act for this user")]
    OutsideNamespace,
    /// `M_FORBIDDEN`
    #[error("the application service has not registered this user")]
    NotRegistered,
    /// `M_NOT_FOUND`
    #[error("no such user")]
    UnknownUser,
    /// `M_NOT_FOUND`
    #[error("no such device")]
    UnknownDevice,
    /// `M_FORBIDDEN`
    #[error("registration is closed")]
    RegistrationClosed,
    /// `M_TOO_LARGE`
    #[error("{what} is larger than {max} bytes")]
    TooLarge { what: &'static str, max: usize },
    /// `M_INVALID_PARAM`
    #[error("{0} must not be empty")]
    Empty(&'static str),
    /// `M_RESOURCE_LIMIT_EXCEEDED`
    #[error("no more than {max} {what} for one user")]
    TooMany { what: &'static str, max: usize },
    /// `M_LIMIT_EXCEEDED`: too many passwords wait to be hashed.
    #[error("the server is busy, try again")]
    Busy,
    #[error("no randomness from the system")]
    Random,
    #[error("hashing a password failed: {0}")]
    Hash(String),
    #[error("stored push rules cannot be read or written: {0}")]
    PushRules(#[from] serde_json::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Refuses `text` when it is longer than `max` bytes.
pub(crate) fn bounded(what: &'static str, text: &str, max: usize) -> Result<(), UsersError> {
    if text.len() > max { Err(UsersError::TooLarge { what, max }) } else { Ok(()) }
}
