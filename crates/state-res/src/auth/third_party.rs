//! Invites that redeem a third-party invite.
//!
//! Specification: rooms/v1 to v12, rule 5.4.1.

use exeunt_core::{Object, Pdu, StateKey, VerifyKey};
use ruma::UserId;
use serde_json::Value;

use super::{AuthError, Check, Membership};

/// Most keys of a third-party invite, and most signatures, that are tried.
const MAX_TRIED: usize = 32;

impl Check<'_> {
    pub(super) fn check_third_party_invite(
        &self,
        target: &UserId,
        invite: &Value,
    ) -> Result<(), AuthError> {
        let bad = || AuthError::ThirdPartyInvite;
        if self.membership(target)? == Membership::Ban {
            return Err(AuthError::Banned);
        }
        let signed = invite.get("signed").and_then(Value::as_object).ok_or_else(bad)?;
        let mxid = signed.get("mxid").and_then(Value::as_str).ok_or_else(bad)?;
        let token = signed.get("token").and_then(Value::as_str).ok_or_else(bad)?;
        if mxid != target {
            return Err(bad());
        }
        let key = StateKey::new("m.room.third_party_invite", token);
        let event = self.lookup(key)?.ok_or_else(bad)?;
        if event.sender() != self.pdu.sender() || !is_signed(signed, &public_keys(&event)) {
            return Err(bad());
        }
        Ok(())
    }
}

/// The keys of an `m.room.third_party_invite`: `public_key` and those of `public_keys`.
fn public_keys(event: &Pdu) -> Vec<VerifyKey> {
    let content = event.content();
    let listed = content.get("public_keys").and_then(Value::as_array).into_iter().flatten();
    let listed = listed.filter_map(|entry| entry.get("public_key"));
    let all = content.get("public_key").into_iter().chain(listed).take(MAX_TRIED);
    all.filter_map(|key| VerifyKey::from_base64(key.as_str()?).ok()).collect()
}

/// Whether any signature of the object is by any of the keys.
fn is_signed(signed: &Object, keys: &[VerifyKey]) -> bool {
    let servers = signed.get("signatures").and_then(Value::as_object);
    let signatures = servers.into_iter().flat_map(Object::values).filter_map(Value::as_object);
    signatures
        .flatten()
        .filter(|(key_id, _)| key_id.starts_with("ed25519:"))
        .take(MAX_TRIED)
        .filter_map(|(_, signature)| signature.as_str())
        .any(|signature| keys.iter().any(|key| key.verifies(signed, signature)))
}
