//! Whether an event from outside takes back an invite or turns down a knock of one of our users.
//!
//! We do not reside in the room, so power levels cannot be checked: proof is that the event stands
//! on the very invite, by its own inviter. Where there is no proof, the inviter's server can be
//! asked.

use exeunt_core::ruma::{OwnedEventId, OwnedServerName, ServerName};
use exeunt_core::{CheckedPdu, Pdu, PendingMembership, RoomVersion};
use serde_json::Value;

use crate::{
    Class, Departure, Expected, MakeLeave, MakeRequest, Membership, RemoteFailure, check_template,
};

/// What an event means for a pending invite or knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescission {
    /// The invite is withdrawn, or the knock turned down: the user is out.
    Withdrawn,
    /// It claims that, but its sender's right to it cannot be seen from here: the invite stays.
    Unproven,
    /// It is about something else.
    Unrelated,
}

/// Judges a leave or ban of our user. Takes an event whose signatures hold.
///
/// An invite is withdrawn by its sender, with the invite among the auth events. A knock is turned
/// down by any user of the server that we knocked at, with the knock among the auth events: that
/// server took the knock in the room's name, so it is trusted with the answer too.
pub fn check_rescission(pending: &PendingMembership, pdu: &CheckedPdu) -> Rescission {
    let expels = matches!(pdu.membership(), Some("leave" | "ban"));
    let ours = pdu.state_key() == Some(pending.user_id.as_str());
    let by_other = pdu.sender() != pending.user_id;
    if !expels || !ours || !by_other || pdu.room_id() != pending.room_id {
        return Rescission::Unrelated;
    }
    let entitled = if pending.membership == "knock" {
        pending.delivered_by.as_deref() == Some(pdu.origin())
    } else {
        pdu.sender() == pending.sender
    };
    let proven = pending_event_id(pending).is_some_and(|id| pdu.auth_events().contains(&id));
    if entitled && proven { Rescission::Withdrawn } else { Rescission::Unproven }
}

fn pending_event_id(pending: &PendingMembership) -> Option<OwnedEventId> {
    let version = RoomVersion::parse(&pending.room_version).ok()?;
    let event = Pdu::from_object(version, pending.event.clone()).ok()?;
    Some(event.event_id().to_owned())
}

/// What a probe says of an invite that somebody claims to be withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// The user could leave: the invite or knock stands.
    Live,
    /// The server that would know says that there is nothing to leave.
    Gone,
    /// No clear answer.
    Unknown,
}

/// The servers whose word on a pending invite or knock counts: the inviter's, and the one that
/// delivered the invite or took the knock. Of an invite by a user of ours, those that were in the
/// room when we left it.
pub fn probe_servers(pending: &PendingMembership, ours: &ServerName) -> Vec<OwnedServerName> {
    let mut servers = vec![pending.sender.server_name().to_owned()];
    servers.extend(pending.delivered_by.clone());
    servers.dedup();
    servers.retain(|server| server != ours);
    if servers.is_empty() {
        servers.extend(pending.candidates.clone());
    }
    servers
}

/// The probe: a make_leave, whose template nobody signs.
pub fn probe_request(pending: &PendingMembership, server: OwnedServerName) -> MakeRequest {
    MakeLeave::new(Departure::of(pending, None), server).1
}

/// Reads the answer to a probe.
pub fn judge_probe(pending: &PendingMembership, answer: &Result<Value, RemoteFailure>) -> Probed {
    let expect = Expected {
        room_id: &pending.room_id,
        user_id: &pending.user_id,
        membership: Membership::Leave,
        room_version: RoomVersion::parse(&pending.room_version).ok(),
    };
    match answer {
        Ok(template) if check_template(&expect, template).is_ok() => Probed::Live,
        Err(failure) if failure.class() != Class::Transient => Probed::Gone,
        Ok(_) | Err(_) => Probed::Unknown,
    }
}
