//! Authorisation rules of room versions 1 to 12.
//!
//! Specification: rooms/v1 to v12, "Authorisation rules". Each check names its rule by the
//! numbers of rooms/v12 unless it is gone there.

use exeunt_core::{Pdu, RoomVersion, StateKey};
use ruma::UserId;

mod alter_levels;
mod auth_events;
mod create;
mod error;
mod member;
mod power_levels;
mod third_party;

pub use auth_events::{AuthEvent, auth_types, check_auth_events};
pub use create::check_create;
pub(crate) use create::creators;
pub use error::{AuthError, Membership};
pub use power_levels::{Level, MalformedLevel, PowerLevels};

use crate::StateLookup;

/// The rules that depend on state: `state` is the auth events' for check 4 on receipt, the state
/// before the event for check 5, the current state for check 6.
///
/// `create` is the room's create event. Signatures are not looked at: a
/// [`CheckedPdu`](exeunt_core::CheckedPdu) has them.
pub fn check_auth(pdu: &Pdu, create: &Pdu, state: &dyn StateLookup) -> Result<(), AuthError> {
    if pdu.kind() == "m.room.create" {
        return check_create(pdu);
    }
    Check { pdu, create, version: pdu.version(), state }.run()
}

/// One event and what it is judged against.
struct Check<'a> {
    pdu: &'a Pdu,
    create: &'a Pdu,
    version: RoomVersion,
    state: &'a dyn StateLookup,
}

impl Check<'_> {
    fn run(&self) -> Result<(), AuthError> {
        let rules = &self.version.rules().authorization;
        self.check_federate()?;
        if rules.special_case_room_aliases && self.pdu.kind() == "m.room.aliases" {
            return self.check_aliases();
        }
        if self.pdu.kind() == "m.room.member" {
            return self.check_member();
        }
        self.check_joined(self.pdu.sender())?;
        let levels = self.power_levels()?;
        let sender_level = levels.user(self.pdu.sender())?;
        if self.pdu.kind() == "m.room.third_party_invite" {
            return need(sender_level, levels.invite()?, AuthError::InvitePower);
        }
        let required = levels.event(self.pdu.kind(), self.pdu.state_key().is_some())?;
        need(sender_level, required, AuthError::EventPower)?;
        self.check_state_key()?;
        if self.pdu.kind() == "m.room.power_levels" {
            return self.check_power_levels(&levels, sender_level);
        }
        if rules.special_case_room_redaction && self.pdu.kind() == "m.room.redaction" {
            return self.check_redaction(&levels, sender_level);
        }
        Ok(())
    }

    /// Rule 4: `m.federate`.
    fn check_federate(&self) -> Result<(), AuthError> {
        let closed = self.create.content().get("m.federate") == Some(&false.into());
        if closed && self.create.origin() != self.pdu.origin() {
            return Err(AuthError::NotFederated);
        }
        Ok(())
    }

    /// `m.room.aliases`, room versions 1 to 5.
    fn check_aliases(&self) -> Result<(), AuthError> {
        match self.pdu.state_key() {
            Some(key) if key == self.pdu.origin().as_str() => Ok(()),
            _ => Err(AuthError::AliasesOfOtherServer),
        }
    }

    /// Rule 6: the sender is joined.
    fn check_joined(&self, user: &UserId) -> Result<(), AuthError> {
        match self.membership(user)? {
            Membership::Join => Ok(()),
            _ => Err(AuthError::SenderNotJoined),
        }
    }

    /// Rule 9: state keyed by a user is that user's.
    fn check_state_key(&self) -> Result<(), AuthError> {
        match self.pdu.state_key() {
            Some(key) if key.starts_with('@') && key != self.pdu.sender() => {
                Err(AuthError::StateOfOtherUser)
            }
            _ => Ok(()),
        }
    }

    /// `m.room.redaction`, room versions 1 and 2.
    fn check_redaction(&self, levels: &PowerLevels, sender: Level) -> Result<(), AuthError> {
        if sender >= levels.redact()? {
            return Ok(());
        }
        let redacts = self.pdu.redacts();
        let theirs = redacts.as_ref().and_then(|id| id.server_name());
        if theirs.is_some() && theirs == self.pdu.event_id().server_name() {
            return Ok(());
        }
        Err(AuthError::RedactPower)
    }

    fn lookup(&self, key: StateKey) -> Result<Option<Pdu>, AuthError> {
        Ok(self.state.get(&key)?)
    }

    /// Membership in the state. A user without a member event has none; that is a definite answer.
    fn membership(&self, user: &UserId) -> Result<Membership, AuthError> {
        let event = self.lookup(StateKey::member(user))?;
        Ok(event.as_ref().map_or(Membership::Absent, Membership::of))
    }

    fn power_levels(&self) -> Result<PowerLevels, AuthError> {
        Ok(self.state.power_levels(self.create)?)
    }
}

/// `level` must reach `required`.
fn need(level: Level, required: Level, otherwise: AuthError) -> Result<(), AuthError> {
    if level >= required { Ok(()) } else { Err(otherwise) }
}
