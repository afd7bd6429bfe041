//! What every request passes, by its endpoint: rate limits, and what locked and suspended users may
//! not do (client-server API, "Account moderation").

use exeunt_http::{MatrixError, Method, RequestHead};
use exeunt_users::{Session, UsersError};
use serde::Deserialize;

use crate::{ClientApi, limits::Class, users_error};

/// What an endpoint is to the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// `None`: never limited.
    class: Option<Class>,
    /// Whether suspended users may.
    suspended: bool,
}

const READING: Kind = Kind { class: Some(Class::Others), suspended: true };
const LEAVING: Kind = Kind { class: None, suspended: true };

/// Lets a user in whose session is good.
pub(crate) fn pass(
    api: &ClientApi,
    session: &Session,
    head: &RequestHead,
    body: &[u8],
) -> Result<(), MatrixError> {
    let endpoint = endpoint(head.template);
    if session.locked && !matches!(endpoint, "logout" | "logout/all") {
        return Err(users_error(UsersError::Locked));
    }
    let kind = match kind(&head.method, endpoint) {
        _ if leaves_by_state(head, endpoint, body) => LEAVING,
        kind => kind,
    };
    if session.suspended && !kind.suspended {
        return Err(suspended());
    }
    match kind.class {
        Some(class) if session.is_limited() => {
            api.limits().take(class, session.user_id.as_str(), 1)
        }
        _ => Ok(()),
    }
}

/// Lets anyone in, by address.
pub(crate) fn pass_anyone(api: &ClientApi, head: &RequestHead) -> Result<(), MatrixError> {
    match kind(&head.method, endpoint(head.template)).class {
        Some(class) => api.limits().take_address(class, head.client_ip()),
        None => Ok(()),
    }
}

pub(crate) fn suspended() -> MatrixError {
    MatrixError::new(403, "M_USER_SUSPENDED", "You cannot perform this action while suspended.")
}

/// The path without `/_matrix/client/v3/`.
fn endpoint(template: &'static str) -> &'static str {
    let versioned = template.strip_prefix("/_matrix/client/");
    versioned.and_then(|path| path.split_once('/')).map_or(template, |(_, endpoint)| endpoint)
}

fn kind(method: &Method, endpoint: &str) -> Kind {
    let acts = |class| Kind { class: Some(class), suspended: false };
    let guesses = |class| Kind { class: Some(class), suspended: true };
    match (method.as_str(), endpoint) {
        (_, "rooms/{room_id}/leave" | "rooms/{room_id}/forget" | "logout" | "logout/all") => {
            LEAVING
        }
        ("POST", "login" | "login/get_token") => guesses(Class::Login),
        ("GET", "register/m.login.registration_token/validity") => guesses(Class::Login),
        ("POST", "register") => guesses(Class::Registration),
        // Whose event it is decides, see `send.rs`.
        ("PUT", "rooms/{room_id}/redact/{event_id}/{txn_id}") => guesses(Class::Sending),
        ("PUT", path)
            if path.starts_with("rooms/{room_id}/send/")
                || path.starts_with("rooms/{room_id}/state/") =>
        {
            acts(Class::Sending)
        }
        ("POST", "createRoom" | "join/{room_id_or_alias}" | "knock/{room_id_or_alias}")
        | ("POST", "rooms/{room_id}/join" | "rooms/{room_id}/upgrade") => acts(Class::Joins),
        ("POST", "rooms/{room_id}/invite") => acts(Class::Invites),
        ("POST", "rooms/{room_id}/kick" | "rooms/{room_id}/ban" | "rooms/{room_id}/unban")
        | ("PUT" | "DELETE", "profile/{user_id}/{field}") => acts(Class::Others),
        _ => READING,
    }
}

/// Whether a member event is put that says `leave`: of somebody else it is a kick, which
/// `send_member.rs` knows.
fn leaves_by_state(head: &RequestHead, endpoint: &str, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Content {
        membership: String,
    }
    endpoint.starts_with("rooms/{room_id}/state/")
        && head.path().contains("/state/m.room.member/")
        && serde_json::from_slice(body).is_ok_and(|content: Content| content.membership == "leave")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of arguments are those that the routes have: a new spelling is found here.
    #[test]
    fn kinds_of_endpoints() {
        let check = |method: Method, template: &'static str, class, suspended| {
            assert_eq!(kind(&method, endpoint(template)), Kind { class, suspended }, "{template}");
        };
        for version in ["/_matrix/client/v3/rooms/{room_id}/leave", "/_matrix/client/r0/logout"] {
            check(Method::POST, version, None, true);
        }
        check(Method::POST, "/_matrix/client/v3/login", Some(Class::Login), true);
        check(Method::GET, "/_matrix/client/v3/login", Some(Class::Others), true);
        check(Method::GET, "/_matrix/client/v3/sync", Some(Class::Others), true);
        let send = "/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}";
        check(Method::PUT, send, Some(Class::Sending), false);
        let state = "/_matrix/client/v3/rooms/{room_id}/state/{event_type}";
        check(Method::PUT, state, Some(Class::Sending), false);
        check(Method::GET, state, Some(Class::Others), true);
        check(Method::POST, "/_matrix/client/v3/createRoom", Some(Class::Joins), false);
        check(
            Method::PUT,
            "/_matrix/client/v3/profile/{user_id}/{field}",
            Some(Class::Others),
            false,
        );
        check(Method::GET, "/_exeunt/admin/v1/invites", Some(Class::Others), true);
    }
}
