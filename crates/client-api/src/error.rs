//! Errors of the services as Matrix errors: one exhaustive match for each.

use exeunt_core::FormatError;
use exeunt_http::MatrixError;
use exeunt_room::{Attempt, RemoteError, RoomError};
use exeunt_users::UsersError;
use ruma::ServerName;
use serde_json::{Value, json};

use crate::words;

/// What a client is told of a failure in a room.
///
/// An answer of another server is never a 401 or `M_UNKNOWN_TOKEN` (GHSA-95fh-hv8c-chvq): clients
/// would log out.
pub fn room_error(error: RoomError) -> MatrixError {
    let text = error.to_string();
    match error {
        RoomError::NotFound(_) => MatrixError::not_found(text),
        RoomError::Auth(auth) if auth.is_lookup() => MatrixError::internal(&auth),
        RoomError::Auth(auth) if auth.is_malformed() => MatrixError::bad_json(text),
        RoomError::Auth(auth) => MatrixError::forbidden(words::refused(&auth)),
        RoomError::Hearsay(_) | RoomError::Forbidden(_) => MatrixError::forbidden(text),
        RoomError::SelfLockout => MatrixError::bad_json(text),
        RoomError::UnableToAuthorise => MatrixError::new(400, UNABLE[0], text),
        RoomError::UnableToGrant => MatrixError::new(400, UNABLE[1], text),
        RoomError::NotLeft(_) => MatrixError::unknown(text),
        RoomError::InvalidParam(_) => MatrixError::invalid_param(text),
        RoomError::InvalidRelation(_) => MatrixError::unknown(text),
        RoomError::DuplicateAnnotation => MatrixError::new(400, "M_DUPLICATE_ANNOTATION", text),
        RoomError::MissingParam(_) => MatrixError::missing_param(text),
        RoomError::UnsupportedVersion(_) => unsupported_version(text),
        RoomError::Format(FormatError::TooLarge(_)) => MatrixError::new(413, "M_TOO_LARGE", text),
        RoomError::Format(_) => MatrixError::bad_json(text),
        RoomError::Remote { server, error } => remote_error(&server, &error),
        RoomError::NoServer(attempts) => {
            let text = words::no_server(&attempts);
            if attempts.is_empty() {
                return MatrixError::not_found(text);
            }
            MatrixError::new(502, "M_UNKNOWN", text).with("attempts", told(&attempts))
        }
        RoomError::EntryRefused { server, error, attempts } => {
            remote_error(&server, &error).with("attempts", told(&attempts))
        }
        RoomError::InviteBlocked => MatrixError::new(403, "M_INVITE_BLOCKED", text),
        RoomError::TooManyReports => MatrixError::limit_exceeded(REPORTS_RETRY_MS),
        RoomError::AliasTaken => MatrixError::new(400, "M_ROOM_IN_USE", text),
        RoomError::BadAlias(_) => MatrixError::new(400, "M_BAD_ALIAS", text),
        // Of what other servers send: a client's request does not lead there.
        RoomError::Inbound(_)
        | RoomError::Signature(_)
        | RoomError::NoKeys(_)
        | RoomError::Missing(_)
        | RoomError::Busy
        | RoomError::Resolve(_)
        | RoomError::Store(_) => MatrixError::internal(&error),
    }
}

/// How each server that was asked answered: an addition of ours to the error.
fn told(attempts: &[Attempt]) -> Value {
    let told = attempts.iter().map(|a| json!({ "server": a.server, "outcome": words::outcome(a) }));
    told.collect()
}

/// What servers say that cannot help with a join while others may.
const UNABLE: [&str; 2] = ["M_UNABLE_TO_AUTHORISE_JOIN", "M_UNABLE_TO_GRANT_JOIN"];

fn unsupported_version(text: String) -> MatrixError {
    MatrixError::new(400, "M_UNSUPPORTED_ROOM_VERSION", text)
}

fn remote_error(server: &ServerName, error: &RemoteError) -> MatrixError {
    tracing::info!(%server, %error, "another server did not help");
    let text = words::remote(server, error);
    match error {
        RemoteError::Refused { status: 403, errcode, .. }
            if matches!(&**errcode, "M_FORBIDDEN" | "M_INVITE_BLOCKED") =>
        {
            MatrixError::new(403, errcode, text)
        }
        RemoteError::Refused { errcode, .. } if errcode == "M_INCOMPATIBLE_ROOM_VERSION" => {
            unsupported_version(text)
        }
        RemoteError::Refused { status: 400, errcode, .. } if UNABLE.contains(&&**errcode) => {
            MatrixError::new(400, errcode, text)
        }
        RemoteError::Refused { status: 404, .. } => MatrixError::not_found(text),
        RemoteError::Incompatible(_) => unsupported_version(text),
        RemoteError::Refused { .. } | RemoteError::Unreachable(_) | RemoteError::Misbehaved(_) => {
            MatrixError::new(502, "M_UNKNOWN", text)
        }
    }
}

/// What a client is told of a failure with an account.
pub fn users_error(error: UsersError) -> MatrixError {
    let text = error.to_string();
    let code = |status, errcode: &str| MatrixError::new(status, errcode, text.clone());
    match error {
        UsersError::InvalidUsername(_) => code(400, "M_INVALID_USERNAME"),
        UsersError::UserInUse(_) => code(400, "M_USER_IN_USE"),
        UsersError::WeakPassword(_) => code(400, "M_WEAK_PASSWORD"),
        UsersError::WrongPassword
        | UsersError::WrongToken
        | UsersError::AnotherUser
        | UsersError::OutsideNamespace
        | UsersError::NotRegistered
        | UsersError::RegistrationClosed => code(403, "M_FORBIDDEN"),
        UsersError::Expired => MatrixError::unknown_token(true),
        UsersError::Locked => code(401, "M_USER_LOCKED").with("soft_logout", true),
        UsersError::Deactivated => code(403, "M_USER_DEACTIVATED"),
        UsersError::UnknownUser | UsersError::UnknownDevice => code(404, "M_NOT_FOUND"),
        UsersError::TooLarge { .. } => code(400, "M_TOO_LARGE"),
        UsersError::Empty(_)
        | UsersError::InvalidToken
        | UsersError::TokenInUse
        | UsersError::InvalidKey => code(400, "M_INVALID_PARAM"),
        UsersError::ProfileTooLarge { .. } => code(400, "M_PROFILE_TOO_LARGE"),
        UsersError::KeyTooLarge { .. } => code(400, "M_KEY_TOO_LARGE"),
        UsersError::TooMany { .. } => code(400, "M_RESOURCE_LIMIT_EXCEEDED"),
        UsersError::Busy => MatrixError::limit_exceeded(BUSY_RETRY_MS),
        UsersError::Random
        | UsersError::Hash(_)
        | UsersError::PushRules(_)
        | UsersError::Store(_) => MatrixError::internal(&error),
    }
}

/// When a user may make reports again: not before somebody has looked at them.
const REPORTS_RETRY_MS: u64 = 24 * 3600 * 1000;
/// When a client whose password could not be hashed may come again.
const BUSY_RETRY_MS: u64 = 2000;
