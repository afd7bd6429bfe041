//! What people are told of a failure in a room: one sentence, in their terms.

use exeunt_room::{Attempt, AuthError, RemoteError};
use ruma::ServerName;

/// What the authorisation rules say, to the user whose event they refuse.
pub(crate) fn refused(error: &AuthError) -> String {
    let words = match error {
        AuthError::Banned => "You are banned from the room",
        AuthError::KnockJoined => "You are in the room already",
        AuthError::KnockInvited => "You are invited to the room already",
        AuthError::JoinRule => "The room's join rule does not allow it",
        AuthError::SenderNotJoined => "You are not in the room",
        AuthError::NothingToLeave => "You have no place in the room that you could leave",
        AuthError::TargetJoined => "The user is in the room already",
        AuthError::TargetBanned => "The user is banned from the room",
        AuthError::InvitePower => "You may not invite users to the room",
        AuthError::KickPower => "You may not remove this user from the room",
        AuthError::BanPower => "You may not ban this user from the room",
        AuthError::UnbanPower => "You may not lift bans in the room",
        AuthError::EventPower => "You may not send events of this type to the room",
        AuthError::RedactPower => "You may not redact this event",
        AuthError::NotFederated => "The room is not open to users of other servers",
        other => return other.to_string(),
    };
    words.to_owned()
}

/// What another server said or did. How it could not be reached is for the log.
pub(crate) fn remote(server: &ServerName, error: &RemoteError) -> String {
    match error {
        RemoteError::Unreachable(_) => format!("{server} cannot be reached"),
        RemoteError::Refused { status: 500.., .. } => format!("{server} failed to answer"),
        RemoteError::Refused { message, .. } if message.is_empty() => format!("{server} refused"),
        RemoteError::Refused { message, .. } => format!("{server} refused: {message}"),
        RemoteError::Misbehaved(_) => format!("{server} gave an answer that cannot be used"),
        RemoteError::Incompatible(why) => format!("{server} cannot be dealt with: {why}"),
    }
}

/// Nobody who was asked could let the user in.
pub(crate) fn no_server(attempts: &[Attempt]) -> String {
    if attempts.is_empty() {
        return "No server is known that is in the room: name one with `via`".to_owned();
    }
    let servers: Vec<_> = attempts.iter().map(|attempt| attempt.server.as_str()).collect();
    format!("No server that was asked could help: {}", servers.join(", "))
}

/// What an attempt came to, without how the server could not be reached.
pub(crate) fn outcome(attempt: &Attempt) -> &str {
    const UNREACHABLE: &str = ": unreachable";
    match attempt.outcome.find(UNREACHABLE) {
        Some(at) => &attempt.outcome[..at + UNREACHABLE.len()],
        None => &attempt.outcome,
    }
}
