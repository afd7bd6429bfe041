//! What other servers are told of a failure.

use exeunt_http::MatrixError;
use exeunt_room::{InboundError, RoomError};

/// When a server that sends us too much may come back.
const BUSY_RETRY_MS: u64 = 30_000;

/// Chooses status and errcode, in one exhaustive match.
pub fn matrix_error(error: RoomError) -> MatrixError {
    let message = error.to_string();
    match error {
        RoomError::NotFound(_) => MatrixError::not_found(message),
        RoomError::Auth(_)
        | RoomError::Hearsay(_)
        | RoomError::Forbidden(_)
        | RoomError::Signature(_)
        | RoomError::NoKeys(_) => MatrixError::forbidden(message),
        RoomError::UnableToAuthorise => {
            MatrixError::new(400, "M_UNABLE_TO_AUTHORISE_JOIN", message)
        }
        RoomError::UnableToGrant => MatrixError::new(400, "M_UNABLE_TO_GRANT_JOIN", message),
        RoomError::InvalidParam(_)
        | RoomError::InvalidRelation(_)
        | RoomError::DuplicateAnnotation
        | RoomError::Missing(_)
        | RoomError::NotLeft(_) => MatrixError::invalid_param(message),
        RoomError::MissingParam(_) => MatrixError::missing_param(message),
        RoomError::UnsupportedVersion(version) => {
            MatrixError::new(400, "M_INCOMPATIBLE_ROOM_VERSION", message)
                .with("room_version", version)
        }
        RoomError::Format(_) | RoomError::SelfLockout => MatrixError::bad_json(message),
        RoomError::Inbound(InboundError::InvalidParam(_)) => MatrixError::invalid_param(message),
        RoomError::Inbound(InboundError::Forbidden(_)) => MatrixError::forbidden(message),
        RoomError::Inbound(InboundError::BadJson(_)) => MatrixError::bad_json(message),
        RoomError::Busy | RoomError::TooManyReports => MatrixError::limit_exceeded(BUSY_RETRY_MS),
        RoomError::InviteBlocked => MatrixError::new(403, "M_INVITE_BLOCKED", message),
        RoomError::AliasTaken => MatrixError::new(409, "M_ROOM_IN_USE", message),
        RoomError::BadAlias(_) => MatrixError::new(400, "M_BAD_ALIAS", message),
        // What a third server answered us is nobody else's business.
        RoomError::Remote { .. } | RoomError::EntryRefused { .. } | RoomError::NoServer(_) => {
            tracing::info!(error = message, "another server did not help");
            MatrixError::new(502, "M_UNKNOWN", "Another server did not help")
        }
        RoomError::Resolve(error) => MatrixError::internal(&error),
        RoomError::Store(error) => MatrixError::internal(&error),
    }
}
