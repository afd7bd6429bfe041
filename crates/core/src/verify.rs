//! Signatures and hashes of received events.
//!
//! Specification: server-server API, "Validating hashes and signatures on received events";
//! rooms/v5 (key validity), rooms/v8 (the authorising server).

use std::ops::Deref;

use ruma::{OwnedServerName, ServerName, UserId};
use thiserror::Error;

use crate::{KeyRing, Pdu, Signer, canonical, hash, redact};

/// An event whose signatures hold. If its content hash did not, it is the redacted event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedPdu(Pdu);

/// An event lacks a valid signature that its room version demands.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no valid signature by {server}")]
pub struct SignatureError {
    pub server: OwnedServerName,
    /// It may be that an integer beyond 64 bits stands in the way (decision 0011).
    pub has_lost_integer: bool,
}

/// The servers that must have signed the event.
pub fn required_signers(pdu: &Pdu) -> Vec<OwnedServerName> {
    let rules = &pdu.version().rules().signatures;
    let is_3pid_invite =
        pdu.membership() == Some("invite") && pdu.content().contains_key("third_party_invite");
    let mut servers = Vec::new();
    if !is_3pid_invite {
        servers.push(pdu.origin().to_owned());
    }
    if rules.check_event_id_server
        && let Some(server) = pdu.event_id().server_name()
    {
        servers.push(server.to_owned());
    }
    if rules.check_join_authorised_via_users_server
        && pdu.membership() == Some("join")
        && let Some(user) = pdu.content_str("join_authorised_via_users_server")
        && let Ok(user) = <&UserId>::try_from(user)
    {
        servers.push(user.server_name().to_owned());
    }
    servers.sort();
    servers.dedup();
    servers
}

impl Pdu {
    /// Checks signatures, then the content hash; a wrong hash redacts the event.
    ///
    /// `keys` must already hold the keys of [`required_signers`], as far as they can be had.
    pub fn check(self, keys: &KeyRing) -> Result<CheckedPdu, SignatureError> {
        let at = self.version().rules().enforce_key_validity.then(|| self.origin_server_ts());
        let redacted = redact::redact(self.version(), self.object());
        for server in required_signers(&self) {
            if !keys.signed_by(&redacted, &server, at) {
                let mut values = redacted.values();
                let has_lost_integer = values.any(canonical::has_lost_integer);
                return Err(SignatureError { server, has_lost_integer });
            }
        }
        Ok(CheckedPdu(if hash::content_hash_holds(self.object()) { self } else { self.redacted() }))
    }
}

impl CheckedPdu {
    /// An event that was checked before it was stored, or that we signed ourselves.
    pub fn trusted(pdu: Pdu) -> Self {
        Self(pdu)
    }

    pub fn pdu(&self) -> &Pdu {
        &self.0
    }

    pub fn into_pdu(self) -> Pdu {
        self.0
    }

    /// Adds our signature to an invite of one of our users that another server sent us.
    ///
    /// The only event not built here that we sign (server-server API, "Inviting to a room").
    /// `None` unless the event is exactly that: a member event with membership `invite`, its state
    /// key a user of ours, its sender a user of `origin` and not of ours (CVE-2025-68667).
    pub fn cosign_invite(&self, signer: &Signer, origin: &ServerName) -> Option<CheckedPdu> {
        let target = self.target()?;
        let is_invite = self.membership() == Some("invite");
        let ours = signer.server();
        if !is_invite
            || target.server_name() != ours
            || self.origin() != origin
            || self.origin() == ours
        {
            return None;
        }
        self.add_signature(signer)
    }

    /// Adds our signature as the authorising server of a restricted join (rooms/v8).
    ///
    /// `None` unless the event is a join that names a user of ours as its authoriser.
    pub fn cosign_restricted_join(&self, signer: &Signer) -> Option<CheckedPdu> {
        let authoriser = self.content_str("join_authorised_via_users_server")?;
        let authoriser = <&UserId>::try_from(authoriser).ok()?;
        let joins = self.membership() == Some("join") && self.target() == Some(self.sender());
        let restricted = self.version().rules().signatures.check_join_authorised_via_users_server;
        if !restricted || !joins || authoriser.server_name() != signer.server() {
            return None;
        }
        self.add_signature(signer)
    }

    /// The event with the signatures of `server` that `copy` carries; nothing else of the copy is
    /// taken. `None` if the copy is of another event or has no such signatures.
    pub fn with_signatures_of(&self, copy: &Pdu, server: &ServerName) -> Option<CheckedPdu> {
        if copy.event_id() != self.event_id() {
            return None;
        }
        let signatures = copy.object().get("signatures")?.get(server.as_str())?.clone();
        let mut object = self.object().clone();
        object.get_mut("signatures")?.as_object_mut()?.insert(server.to_string(), signatures);
        Pdu::from_object(self.version(), object).ok().map(CheckedPdu)
    }

    /// Whether a signature of `server` on the event holds.
    pub fn signed_by(&self, server: &ServerName, keys: &KeyRing) -> bool {
        let at = self.version().rules().enforce_key_validity.then(|| self.origin_server_ts());
        keys.signed_by(&redact::redact(self.version(), self.object()), server, at)
    }

    fn add_signature(&self, signer: &Signer) -> Option<CheckedPdu> {
        let signature = signer.signature_of(&redact::redact(self.version(), self.object()));
        let mut object = self.object().clone();
        signer.add_signature(&mut object, signature);
        Pdu::from_object(self.version(), object).ok().map(CheckedPdu)
    }
}

impl Deref for CheckedPdu {
    type Target = Pdu;

    fn deref(&self) -> &Pdu {
        &self.0
    }
}
