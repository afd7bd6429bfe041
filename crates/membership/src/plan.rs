//! What a leave of one of our users amounts to: the decision table, without any I/O.

use exeunt_core::PendingMembership;
use exeunt_core::ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};

use crate::candidates;

/// A user's membership in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Membership {
    Join,
    Invite,
    Knock,
    Leave,
    Ban,
}

impl Membership {
    /// `None` for anything that the specification does not name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "join" => Self::Join,
            "invite" => Self::Invite,
            "knock" => Self::Knock,
            "leave" => Self::Leave,
            "ban" => Self::Ban,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Knock => "knock",
            Self::Leave => "leave",
            Self::Ban => "ban",
        }
    }
}

/// All that decides how a user leaves, read in one go.
#[derive(Debug, Clone, Copy)]
pub struct LeaveView<'a> {
    /// We have the room's graph with joined members of ours, and `membership` is read from it.
    pub resident: bool,
    /// The user's membership as we know it; where we do not reside, the last one we saw.
    pub membership: Option<Membership>,
    /// The invite or knock that we hold from outside the room.
    pub pending: Option<&'a PendingMembership>,
    pub ours: &'a ServerName,
}

/// How a user leaves.
#[derive(Debug, Clone, PartialEq)]
pub enum LeavePlan<'a> {
    /// Build the event in our graph and persist it.
    Local,
    /// make_leave and send_leave with these servers.
    Handshake { candidates: Vec<OwnedServerName>, pending: &'a PendingMembership },
    /// Nobody can be asked (an invite of a room that only we were in): the user is out by our own
    /// record.
    OutOfBand,
    /// Nothing to do; the request succeeds.
    AlreadyLeft,
    /// The user never had to do with the room: `M_NOT_FOUND`.
    NotKnown,
    /// A banned user cannot leave: `M_FORBIDDEN`.
    Banned,
}

/// Decides how a user leaves.
///
/// Where we do not reside, what is left of an old graph says nothing: a pending invite or knock
/// counts first. Where we do and the graph knows no way out, a pending one still gets its
/// handshake, so that no invite is ever stuck.
pub fn plan_leave(view: LeaveView<'_>) -> LeavePlan<'_> {
    use Membership::*;
    let present = matches!(view.membership, Some(Join | Invite | Knock));
    if view.resident && present {
        return LeavePlan::Local;
    }
    if let Some(pending) = view.pending {
        return plan_pending(pending, view.ours);
    }
    match view.membership {
        Some(Join | Invite | Knock) => LeavePlan::OutOfBand,
        Some(Leave) => LeavePlan::AlreadyLeft,
        Some(Ban) => LeavePlan::Banned,
        None => LeavePlan::NotKnown,
    }
}

fn plan_pending<'a>(pending: &'a PendingMembership, ours: &ServerName) -> LeavePlan<'a> {
    let candidates = candidates(pending, ours);
    if candidates.is_empty() {
        return LeavePlan::OutOfBand;
    }
    LeavePlan::Handshake { candidates, pending }
}
