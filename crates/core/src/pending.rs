//! An invite or knock to a room that this server does not reside in.

use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::Object;

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
