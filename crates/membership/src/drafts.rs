//! The events of handshakes, built field by field by us.

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_core::{Draft, Object};

use crate::{GraphPosition, JoinPosition, Membership};

/// Longest reason of a leave; a longer one is cut, because a departure must not fail over it.
pub const MAX_REASON_BYTES: usize = 8192;

/// A member event of a user about themselves, made by [`leave_draft`], [`join_draft`] or
/// [`knock_draft`]: the only thing that a handshake has us sign.
#[derive(Debug, Clone)]
pub struct OwnMember {
    membership: Membership,
    draft: Draft,
}

impl OwnMember {
    pub fn membership(&self) -> Membership {
        self.membership
    }

    pub fn into_draft(self) -> Draft {
        self.draft
    }
}

/// A leave of `user_id` at `position`.
pub fn leave_draft(
    position: GraphPosition,
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    reason: Option<String>,
    now_ms: u64,
) -> OwnMember {
    let mut content = Object::new();
    if let Some(reason) = reason {
        content.insert("reason".into(), cut(reason, MAX_REASON_BYTES).into());
    }
    member_draft(position, room_id, user_id, Membership::Leave, content, now_ms)
}

/// A join of `user_id` at `position`; `content` holds the profile and the reason.
pub fn join_draft(
    position: JoinPosition,
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    mut content: Object,
    now_ms: u64,
) -> OwnMember {
    content.remove("join_authorised_via_users_server");
    if let Some(user) = &position.authorised_via {
        content.insert("join_authorised_via_users_server".into(), user.as_str().into());
    }
    member_draft(position.position, room_id, user_id, Membership::Join, content, now_ms)
}

/// A knock of `user_id` at `position`; `content` holds the profile and the reason.
pub fn knock_draft(
    position: GraphPosition,
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    mut content: Object,
    now_ms: u64,
) -> OwnMember {
    content.remove("join_authorised_via_users_server");
    member_draft(position, room_id, user_id, Membership::Knock, content, now_ms)
}

fn member_draft(
    position: GraphPosition,
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    membership: Membership,
    mut content: Object,
    now_ms: u64,
) -> OwnMember {
    content.insert("membership".into(), membership.as_str().into());
    let draft = Draft {
        version: position.version,
        room_id: Some(room_id),
        state_key: Some(user_id.to_string()),
        sender: user_id,
        kind: "m.room.member".into(),
        content,
        redacts: None,
        prev_events: position.prev_events,
        auth_events: position.auth_events,
        depth: position.depth,
        origin_server_ts: now_ms,
    };
    OwnMember { membership, draft }
}

/// The text, or as much of its beginning as fits into `max` bytes.
pub(crate) fn cut(mut text: String, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
