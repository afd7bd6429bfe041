//! Checks on the events of inbound handshakes, before signatures and authorisation.
//!
//! CVE-2019-18835 (origin), CVE-2020-26257 (room id of the path), CVE-2025-68667 (what an invite
//! may be). Signatures are [`Pdu::check`]'s business, authorisation the room's.

use exeunt_core::Pdu;
use exeunt_core::pdu::FormatError;
use exeunt_core::ruma::{EventId, RoomId, ServerName};
use thiserror::Error;

use crate::Membership;

/// Why an event is not one that its endpoint takes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InboundError {
    /// 400 `M_INVALID_PARAM`.
    #[error("{0}")]
    InvalidParam(&'static str),
    /// 403 `M_FORBIDDEN`.
    #[error("{0}")]
    Forbidden(&'static str),
    /// 400 `M_BAD_JSON`.
    #[error("malformed event: {0}")]
    BadJson(#[from] FormatError),
}

/// An event at `PUT send_leave`: a leave by its own sender, who is a user of `origin`.
pub fn check_send_leave(
    origin: &ServerName,
    room_id: &RoomId,
    event_id: &EventId,
    pdu: &Pdu,
) -> Result<(), InboundError> {
    check_own_member_event(origin, room_id, event_id, pdu, Membership::Leave)
}

/// An event at `PUT send_join`: a join by its own sender, who is a user of `origin`.
pub fn check_send_join(
    origin: &ServerName,
    room_id: &RoomId,
    event_id: &EventId,
    pdu: &Pdu,
) -> Result<(), InboundError> {
    check_own_member_event(origin, room_id, event_id, pdu, Membership::Join)
}

/// An event at `PUT send_knock`: a knock by its own sender, who is a user of `origin`.
pub fn check_send_knock(
    origin: &ServerName,
    room_id: &RoomId,
    event_id: &EventId,
    pdu: &Pdu,
) -> Result<(), InboundError> {
    if !pdu.version().rules().authorization.knocking {
        return Err(InboundError::Forbidden("The room version does not support knocking."));
    }
    check_own_member_event(origin, room_id, event_id, pdu, Membership::Knock)
}

/// An event at `PUT invite`: an invite of a user of `ours` by a user of `origin`, and not by one
/// of ours. Only such an event is ever co-signed.
pub fn check_invite(
    origin: &ServerName,
    ours: &ServerName,
    room_id: &RoomId,
    event_id: &EventId,
    pdu: &Pdu,
) -> Result<(), InboundError> {
    check_member_event(room_id, event_id, pdu, Membership::Invite)?;
    match pdu.target() {
        Some(user) if user.server_name() == ours => {}
        _ => return Err(InboundError::InvalidParam("The invited user is not of this server.")),
    }
    if pdu.origin() == ours || pdu.origin() != origin {
        return Err(InboundError::InvalidParam("The inviter is not of the sending server."));
    }
    Ok(())
}

fn check_own_member_event(
    origin: &ServerName,
    room_id: &RoomId,
    event_id: &EventId,
    pdu: &Pdu,
    membership: Membership,
) -> Result<(), InboundError> {
    check_member_event(room_id, event_id, pdu, membership)?;
    if pdu.target() != Some(pdu.sender()) {
        return Err(InboundError::InvalidParam("The state key is not the sender."));
    }
    if pdu.origin() != origin {
        return Err(InboundError::Forbidden("The sender is not of the sending server."));
    }
    Ok(())
}

fn check_member_event(
    room_id: &RoomId,
    event_id: &EventId,
    pdu: &Pdu,
    membership: Membership,
) -> Result<(), InboundError> {
    if pdu.kind() != "m.room.member" {
        return Err(InboundError::InvalidParam("Not a membership event."));
    }
    if pdu.state_key().is_none() {
        return Err(InboundError::InvalidParam("Not a state event."));
    }
    if pdu.membership() != Some(membership.as_str()) {
        return Err(InboundError::InvalidParam("Not the membership that belongs here."));
    }
    if pdu.room_id() != room_id {
        return Err(InboundError::InvalidParam("The event is of another room than the path."));
    }
    if pdu.event_id() != event_id {
        return Err(InboundError::InvalidParam("The event has another id than the path."));
    }
    pdu.check_reference_limits()?;
    Ok(())
}
