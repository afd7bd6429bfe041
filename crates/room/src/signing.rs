//! The one place that puts our signature on events. Each purpose has a method that takes only what
//! it is for, and each signature goes to the journal (purpose, event, peer) before it leaves this
//! process: with the event's own batch, or in one of its own where a peer is to see it first. There
//! it stays for as long as the operator says ([`Options::keep_signatures`](crate::Options)).
//!
//! CVE-2025-68667 and CVE-2026-24471: servers that signed what they were handed.

use std::time::Duration;

use exeunt_core::{CheckedPdu, Draft, FormatError};
use exeunt_membership::{Membership, OwnMember};
use exeunt_store::{Batch, records::SignatureRecord, tables};
use metrics::counter;
use ruma::{OwnedEventId, OwnedServerName, ServerName, UserId};
use serde_json::Value;

use crate::{RoomError, Rooms, forget::millis};

/// For how long it is known what was signed, unless the operator says otherwise.
pub(crate) const KEEP_SIGNATURES: Duration = Duration::from_secs(90 * 24 * 3600);
const DROPPED_AT_A_TIME: usize = 1_000;

/// A use of the signing key that has yet to be journaled.
#[derive(Debug, Clone)]
#[must_use = "every signature is journaled"]
pub(crate) struct Signature {
    purpose: &'static str,
    event_id: OwnedEventId,
    peer: Option<OwnedServerName>,
}

impl Signature {
    fn new(purpose: &'static str, event: &CheckedPdu, peer: Option<&ServerName>) -> Self {
        let event_id = event.event_id().to_owned();
        Self { purpose, event_id, peer: peer.map(ToOwned::to_owned) }
    }

    /// Puts it into the journal with the batch.
    pub fn journal(self, batch: &mut Batch, now: u64) {
        let Self { purpose, event_id, peer } = self;
        let record = SignatureRecord { purpose: purpose.into(), event_id, peer, at: now };
        batch.at_position(move |position, batch| {
            counter!("exeunt_signatures_total", "purpose" => purpose).increment(1);
            batch.put::<tables::SigningJournal>(&position, &record);
        });
    }
}

/// What is signed for the handshake with one server.
pub(crate) struct Signing<'a> {
    rooms: &'a Rooms,
    peer: &'a ServerName,
    made: Option<Signature>,
}

impl Signing<'_> {
    /// Signs a leave, join or knock of a user of ours.
    pub fn sign(&mut self, event: OwnMember) -> Result<CheckedPdu, FormatError> {
        let purpose = match event.membership() {
            Membership::Join => "join",
            Membership::Knock => "knock",
            Membership::Leave | Membership::Invite | Membership::Ban => "departure",
        };
        let event = event.into_draft().sign(&self.rooms.inner.signer)?;
        self.made = Some(Signature::new(purpose, &event, Some(self.peer)));
        Ok(event)
    }

    /// Makes the journal durable. What was signed may be sent then.
    pub async fn journal(self) -> Result<(), RoomError> {
        self.journal_with(Batch::default()).await
    }

    /// The same, in one batch with what else has to be known before it is sent.
    pub async fn journal_with(self, mut batch: Batch) -> Result<(), RoomError> {
        let Some(signature) = self.made else { return Ok(()) };
        signature.journal(&mut batch, self.rooms.now());
        self.rooms.store().commit(batch).await?;
        Ok(())
    }
}

impl Rooms {
    /// Signs an event of a user of ours for a room that we reside in.
    pub(crate) fn sign_event(&self, draft: Draft) -> Result<(CheckedPdu, Signature), FormatError> {
        self.sign_draft(draft, "event", None)
    }

    /// Signs the invite in the name of a user of ours that `peer` redeems for a user of its own,
    /// and nothing else.
    pub(crate) fn sign_exchange(
        &self,
        draft: Draft,
        peer: &ServerName,
    ) -> Result<(CheckedPdu, Signature), RoomError> {
        let content = |field| draft.content.get(field);
        let signed = content("third_party_invite").and_then(|invite| invite.get("signed"));
        let invited = signed.and_then(|signed| signed.get("mxid")).and_then(Value::as_str);
        let user = invited.and_then(|user| <&UserId>::try_from(user).ok());
        if draft.kind != "m.room.member"
            || content("membership").and_then(Value::as_str) != Some("invite")
            || user.is_none_or(|user| user.server_name() != peer)
            || draft.state_key.as_deref() != invited
        {
            return Err(RoomError::InvalidParam("Not a third-party invite".into()));
        }
        Ok(self.sign_draft(draft, "third-party invite", Some(peer))?)
    }

    fn sign_draft(
        &self,
        draft: Draft,
        purpose: &'static str,
        peer: Option<&ServerName>,
    ) -> Result<(CheckedPdu, Signature), FormatError> {
        let event = draft.sign(&self.inner.signer)?;
        let signature = Signature::new(purpose, &event, peer);
        Ok((event, signature))
    }

    /// Signs the leave of a user of ours that is for their own clients, and sent to nobody.
    pub(crate) fn sign_local_leave(
        &self,
        leave: OwnMember,
    ) -> Result<(CheckedPdu, Signature), FormatError> {
        let event = leave.into_draft().sign(&self.inner.signer)?;
        let signature = Signature::new("out-of-band leave", &event, None);
        Ok((event, signature))
    }

    /// Signs what the handshake with a server needs.
    pub(crate) fn signing_with<'a>(&'a self, peer: &'a ServerName) -> Signing<'a> {
        Signing { rooms: self, peer, made: None }
    }

    /// Adds our signature to an invite of a user of ours by a user of `origin`; `None` for any
    /// other event.
    pub(crate) fn cosign_invite(
        &self,
        invite: &CheckedPdu,
        origin: &ServerName,
    ) -> Option<(CheckedPdu, Signature)> {
        let event = invite.cosign_invite(&self.inner.signer, origin)?;
        let signature = Signature::new("invite", &event, Some(origin));
        Some((event, signature))
    }

    /// Adds our signature to a restricted join that names a user of ours as the one who lets the
    /// other in; `None` for any other event.
    pub(crate) fn cosign_restricted_join(
        &self,
        join: &CheckedPdu,
        origin: &ServerName,
    ) -> Option<(CheckedPdu, Signature)> {
        let event = join.cosign_restricted_join(&self.inner.signer)?;
        let signature = Signature::new("restricted join", &event, Some(origin));
        Some((event, signature))
    }

    /// Drops the signatures that are older than the operator wants to know of.
    pub async fn sweep_journal(&self) -> Result<(), RoomError> {
        let before = self.now().saturating_sub(millis(self.options().keep_signatures));
        loop {
            let old = self.store().read(move |reader| {
                let oldest = reader.scan::<tables::SigningJournal>(()).limit(DROPPED_AT_A_TIME);
                let rows = oldest.collect()?.into_iter();
                Ok::<_, RoomError>(Vec::from_iter(rows.take_while(|(_, row)| row.at < before)))
            });
            let mut batch = Batch::default();
            let old = old.await?;
            old.iter().for_each(|(key, _)| batch.delete::<tables::SigningJournal>(key));
            self.store().commit(batch).await?;
            if old.len() < DROPPED_AT_A_TIME {
                return Ok(());
            }
        }
    }

    /// Journals a signature in a batch of its own, durably.
    pub(crate) async fn journal(&self, signature: Signature) -> Result<(), RoomError> {
        let mut batch = Batch::default();
        signature.journal(&mut batch, self.now());
        self.inner.store.commit(batch).await?;
        Ok(())
    }
}
