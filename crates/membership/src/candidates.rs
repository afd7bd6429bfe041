//! Whom to ask for a handshake about a room that we do not reside in.

use exeunt_core::PendingMembership;
use exeunt_core::ruma::{OwnedServerName, ServerName, UserId};
use serde_json::Value;

/// Most servers that one departure asks.
pub const MAX_CANDIDATES: usize = 20;
/// Most of them that only the stripped state names: it is the inviter's word, and must not crowd
/// out what we learnt elsewhere.
pub const MAX_FROM_STRIPPED_STATE: usize = 10;

/// The servers to ask, in order: the inviter's, the one that delivered the invite, those of the
/// stripped state's senders, those learnt elsewhere, the room id's domain where it has one.
///
/// Without duplicates and without `ours`; at most [`MAX_CANDIDATES`].
pub fn candidates(pending: &PendingMembership, ours: &ServerName) -> Vec<OwnedServerName> {
    let mut stripped = Vec::new();
    let senders = pending.stripped_state.iter().filter_map(|event| {
        let sender = event.get("sender").and_then(Value::as_str)?;
        <&UserId>::try_from(sender).ok().map(UserId::server_name)
    });
    for server in senders {
        if stripped.len() < MAX_FROM_STRIPPED_STATE && !stripped.contains(&server) {
            stripped.push(server);
        }
    }
    let in_order = std::iter::once(pending.sender.server_name())
        .chain(pending.delivered_by.as_deref())
        .chain(stripped)
        .chain(pending.candidates.iter().map(|server| &**server))
        .chain(pending.room_id.server_name());
    let mut out: Vec<OwnedServerName> = Vec::new();
    for server in in_order {
        if out.len() == MAX_CANDIDATES {
            break;
        }
        if server != ours && !out.iter().any(|known| known == server) {
            out.push(server.to_owned());
        }
    }
    out
}
