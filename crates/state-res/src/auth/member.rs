//! Member events.
//!
//! Specification: rooms/v1, v7 (knocking), v8 (restricted), v10 (`knock_restricted`), v12, rule 5.

use exeunt_core::StateKey;
use ruma::UserId;

use super::{AuthError, Check, Membership, need};

/// A member event's target and what is known of both users.
struct Parties<'a> {
    target: &'a UserId,
    is_self: bool,
}

impl Check<'_> {
    pub(super) fn check_member(&self) -> Result<(), AuthError> {
        let target = self.pdu.target().ok_or(AuthError::MemberStateKey)?;
        let parties = Parties { target, is_self: self.pdu.sender() == target };
        match Membership::of(self.pdu) {
            Membership::Join => self.check_join(&parties),
            Membership::Invite => self.check_invite(&parties),
            Membership::Leave => self.check_leave(&parties),
            Membership::Ban => self.check_ban(&parties),
            Membership::Knock if self.version.rules().authorization.knocking => {
                self.check_knock(&parties)
            }
            _ => Err(AuthError::UnknownMembership),
        }
    }

    /// Rule 5.3.
    fn check_join(&self, parties: &Parties<'_>) -> Result<(), AuthError> {
        if self.is_first_join(parties.target) {
            return Ok(());
        }
        if !parties.is_self {
            return Err(AuthError::NotSelf);
        }
        let membership = self.membership(parties.target)?;
        if membership == Membership::Ban {
            return Err(AuthError::Banned);
        }
        let admitted = matches!(membership, Membership::Invite | Membership::Join);
        let rules = &self.version.rules().authorization;
        match self.join_rule()?.as_str() {
            "public" => Ok(()),
            "invite" if admitted => Ok(()),
            "knock" if admitted && rules.knocking => Ok(()),
            rule if self.is_restricted(rule) => {
                if admitted {
                    Ok(())
                } else {
                    self.check_authoriser()
                }
            }
            _ => Err(AuthError::JoinRule),
        }
    }

    /// Rule 5.3.1: the creator's join right after the create event.
    fn is_first_join(&self, target: &UserId) -> bool {
        let creator = match self.version.rules().authorization.use_room_create_sender {
            true => Some(self.create.sender().as_str()),
            false => self.create.content_str("creator"),
        };
        matches!(self.pdu.prev_events(), [only] if only == self.create.event_id())
            && creator == Some(target.as_str())
    }

    /// `restricted` (room version 8) or `knock_restricted` (10).
    fn is_restricted(&self, join_rule: &str) -> bool {
        let rules = &self.version.rules().authorization;
        match join_rule {
            "restricted" => rules.restricted_join_rule,
            "knock_restricted" => rules.knock_restricted_join_rule,
            _ => false,
        }
    }

    /// Rule 5.3.5.2: the authorising user is joined and may invite.
    fn check_authoriser(&self) -> Result<(), AuthError> {
        let user = self.pdu.content_str("join_authorised_via_users_server");
        let user = user.and_then(|user| <&UserId>::try_from(user).ok());
        let user = user.ok_or(AuthError::Authoriser)?;
        if self.membership(user)? != Membership::Join {
            return Err(AuthError::Authoriser);
        }
        let levels = self.power_levels()?;
        need(levels.user(user)?, levels.invite()?, AuthError::Authoriser)
    }

    /// Rule 5.4.
    fn check_invite(&self, parties: &Parties<'_>) -> Result<(), AuthError> {
        if let Some(invite) = self.pdu.content().get("third_party_invite") {
            return self.check_third_party_invite(parties.target, invite);
        }
        self.check_joined(self.pdu.sender())?;
        match self.membership(parties.target)? {
            Membership::Join => return Err(AuthError::TargetJoined),
            Membership::Ban => return Err(AuthError::TargetBanned),
            _ => {}
        }
        let levels = self.power_levels()?;
        need(levels.user(self.pdu.sender())?, levels.invite()?, AuthError::InvitePower)
    }

    /// Rule 5.5: leaving, declining an invite, retracting a knock; kicking, rescinding, unbanning.
    fn check_leave(&self, parties: &Parties<'_>) -> Result<(), AuthError> {
        let knocking = self.version.rules().authorization.knocking;
        if parties.is_self {
            return match self.membership(parties.target)? {
                Membership::Join | Membership::Invite => Ok(()),
                Membership::Knock if knocking => Ok(()),
                _ => Err(AuthError::NothingToLeave),
            };
        }
        self.check_joined(self.pdu.sender())?;
        let levels = self.power_levels()?;
        let sender = levels.user(self.pdu.sender())?;
        if self.membership(parties.target)? == Membership::Ban {
            need(sender, levels.ban()?, AuthError::UnbanPower)?;
        }
        need(sender, levels.kick()?, AuthError::KickPower)?;
        if levels.user(parties.target)? < sender { Ok(()) } else { Err(AuthError::KickPower) }
    }

    /// Rule 5.6.
    fn check_ban(&self, parties: &Parties<'_>) -> Result<(), AuthError> {
        self.check_joined(self.pdu.sender())?;
        let levels = self.power_levels()?;
        let sender = levels.user(self.pdu.sender())?;
        need(sender, levels.ban()?, AuthError::BanPower)?;
        if levels.user(parties.target)? < sender { Ok(()) } else { Err(AuthError::BanPower) }
    }

    /// Rule 5.7.
    fn check_knock(&self, parties: &Parties<'_>) -> Result<(), AuthError> {
        let rules = &self.version.rules().authorization;
        match self.join_rule()?.as_str() {
            "knock" => {}
            "knock_restricted" if rules.knock_restricted_join_rule => {}
            _ => return Err(AuthError::JoinRule),
        }
        if !parties.is_self {
            return Err(AuthError::NotSelf);
        }
        match self.membership(parties.target)? {
            Membership::Ban => Err(AuthError::Banned),
            Membership::Join => Err(AuthError::KnockJoined),
            Membership::Invite => Err(AuthError::KnockInvited),
            _ => Ok(()),
        }
    }

    /// The join rule in force. A room without one is joined by invite only, as in Synapse.
    fn join_rule(&self) -> Result<String, AuthError> {
        let event = self.lookup(StateKey::single("m.room.join_rules"))?;
        match event.as_ref().and_then(|event| event.content().get("join_rule")) {
            None => Ok("invite".to_owned()),
            Some(rule) => rule.as_str().map(str::to_owned).ok_or(AuthError::JoinRule),
        }
    }
}
