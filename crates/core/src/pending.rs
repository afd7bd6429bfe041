//! An invite or knock to a room that this server does not reside in.

use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::{Object, Pdu};

/// Everything a later join or departure needs: our event, the stripped state, whom to ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingMembership {
    pub user_id: OwnedUserId,
    pub room_id: OwnedRoomId,
    /// `invite` or `knock`.
    pub membership: String,
    pub room_version: String,
    /// The member event in federation form, with our signature.
    pub event: Object,
    /// `invite_room_state` as the inviting server sent it, bounded and cleaned.
    pub stripped_state: Vec<Object>,
    /// The inviter; of a knock, the user.
    pub sender: OwnedUserId,
    /// The server that delivered the invite, or that was knocked at.
    pub delivered_by: Option<OwnedServerName>,
    /// Servers learnt elsewhere (`via`, room aliases).
    pub candidates: Vec<OwnedServerName>,
    /// Milliseconds since the epoch.
    pub received_at: u64,
}

impl PendingMembership {
    /// What the member event of a user of ours says, without stripped state and servers to ask.
    pub fn of(user: &UserId, event: &Pdu, received_at: u64) -> Self {
        Self {
            user_id: user.to_owned(),
            room_id: event.room_id().to_owned(),
            membership: event.membership().unwrap_or_default().to_owned(),
            room_version: event.version().as_str().to_owned(),
            event: event.object().clone(),
            stripped_state: Vec::new(),
            sender: event.sender().to_owned(),
            delivered_by: None,
            candidates: Vec::new(),
            received_at,
        }
    }

    /// The date of its event, in milliseconds since the epoch.
    pub fn origin_server_ts(&self) -> Option<u64> {
        self.event.get("origin_server_ts")?.as_u64()
    }
}
