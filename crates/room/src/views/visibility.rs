//! Which events of a room a user may see: one function for every read.
//!
//! Specification: client-server API, "Room History Visibility", "Server behaviour".

use exeunt_core::StateKey;
use exeunt_store::{Reader, StoreError, records::Root, tables};
use ruma::UserId;

use super::access::RoomView;
use crate::{RoomError, graph::Known};

/// `m.room.history_visibility`. What is absent or unknown counts as `shared`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryVisibility {
    WorldReadable,
    Shared,
    Invited,
    Joined,
}

impl HistoryVisibility {
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("world_readable") => Self::WorldReadable,
            Some("invited") => Self::Invited,
            Some("joined") => Self::Joined,
            _ => Self::Shared,
        }
    }

    pub fn is_world_readable(self) -> bool {
        self == Self::WorldReadable
    }
}

/// What the rules ask of the state at an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standpoint {
    pub visibility: HistoryVisibility,
    /// The user's membership; `leave` for one who was never there.
    pub membership: String,
}

/// The rules in their order. `joined_later`: the user joined at some point after the event.
pub fn allows(at: &Standpoint, joined_later: bool) -> bool {
    match (at.visibility, at.membership.as_str()) {
        (HistoryVisibility::WorldReadable, _) | (_, "join") => true,
        (HistoryVisibility::Shared, _) => joined_later,
        (HistoryVisibility::Invited, "invite") => true,
        _ => false,
    }
}

impl RoomView<'_> {
    /// Whether the user may see an event that has that order in the timeline.
    ///
    /// An event that changes the visibility counts if the one before or after it allows. Users'
    /// own member events are always theirs to see: who rejects an invite learns that it worked.
    pub fn sees(&self, known: &Known, order: i64) -> Result<bool, RoomError> {
        if known.pdu.is_state("m.room.member", self.viewer.user.as_str()) {
            return Ok(true);
        }
        let joined_later = match self.stay {
            _ if self.is_joined() => true,
            Some(stay) => order <= i64::try_from(stay.joined).unwrap_or(i64::MAX),
            None => false,
        };
        let Some(states) = known.record.states else {
            // History from before our time: its state is not known, so the first one that is
            // speaks for it, and the user was not there.
            let visibility = self.standpoint(self.first_root()?)?.visibility;
            let at = Standpoint { visibility, membership: "leave".into() };
            return Ok(allows(&at, joined_later));
        };
        if allows(&self.standpoint(states.before)?, joined_later) {
            return Ok(true);
        }
        let changes_it = known.pdu.is_state("m.room.history_visibility", "");
        Ok(changes_it && allows(&self.standpoint(states.after)?, joined_later))
    }

    /// Whether the sender's account was closed with `erase` and the user was not in the room when
    /// the event came. Such an event is as good as redacted. State stays as it is where it is read
    /// as state, or the room would fall apart.
    ///
    /// Specification: client-server API, "POST /account/deactivate".
    pub fn is_erased(&self, known: &Known) -> Result<bool, RoomError> {
        let states = known.record.states.map(|states| [states.before, states.after]);
        for root in states.into_iter().flatten() {
            if self.standpoint(root)?.membership == "join" {
                return Ok(false);
            }
        }
        Ok(is_erased(self.graph.reader, known.pdu.sender())?)
    }

    /// The event without its content, if that is erased.
    pub fn unless_erased(&self, mut known: Known) -> Result<Known, RoomError> {
        if self.is_erased(&known)? {
            known.pdu = known.pdu.redacted();
        }
        Ok(known)
    }

    pub(crate) fn standpoint(&self, root: Root) -> Result<Standpoint, RoomError> {
        if let Some(known) = self.standpoints.borrow().get(&root) {
            return Ok(known.clone());
        }
        let visibility =
            self.graph.state_event(root, &StateKey::single("m.room.history_visibility"))?;
        let member = self.graph.state_event(root, &StateKey::member(&self.viewer.user))?;
        let standpoint = Standpoint {
            visibility: HistoryVisibility::parse(
                visibility.as_ref().and_then(|event| event.content_str("history_visibility")),
            ),
            membership: member.as_ref().and_then(|m| m.membership()).unwrap_or("leave").to_owned(),
        };
        self.standpoints.borrow_mut().insert(root, standpoint.clone());
        Ok(standpoint)
    }
}

/// Whether a user of ours closed the account and wanted what they sent erased.
pub(crate) fn is_erased(reader: &Reader<'_>, user: &UserId) -> Result<bool, StoreError> {
    let account = reader.get::<tables::Accounts>(&user.to_owned())?;
    Ok(account.is_some_and(|account| account.erased))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: the visibility; columns: membership at the event; cells: seen by one who joined
    /// later, seen by one who did not.
    #[test]
    fn the_table() {
        const MEMBERSHIPS: [&str; 5] = ["join", "invite", "knock", "leave", "ban"];
        let table = [
            ("world_readable", ["yy", "yy", "yy", "yy", "yy"]),
            ("shared", ["yy", "yn", "yn", "yn", "yn"]),
            ("invited", ["yy", "yy", "nn", "nn", "nn"]),
            ("joined", ["yy", "nn", "nn", "nn", "nn"]),
            ("nonsense", ["yy", "yn", "yn", "yn", "yn"]),
        ];
        for (visibility, row) in table {
            for (membership, cell) in MEMBERSHIPS.iter().zip(row) {
                let at = Standpoint {
                    visibility: HistoryVisibility::parse(Some(visibility)),
                    membership: (*membership).to_owned(),
                };
                let seen: String = [true, false]
                    .map(|joined_later| if allows(&at, joined_later) { 'y' } else { 'n' })
                    .iter()
                    .collect();
                assert_eq!(seen, cell, "{visibility} {membership}");
            }
        }
    }
}
