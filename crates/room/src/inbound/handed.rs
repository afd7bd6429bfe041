//! Events that another server hands us for one of its users: the common part of send_join,
//! send_knock and send_leave.

use exeunt_core::{CheckedPdu, Object, Pdu};
use exeunt_membership::InboundError;
use exeunt_store::records::{EventRecord, Verdict};
use ruma::{EventId, RoomId, ServerName};

use super::{Admitted, gate::resident, restricted};
use crate::{
    RoomError, Rooms,
    graph::{is_taken, load_event},
    place::Source,
};

/// A check of `exeunt_membership::inbound`.
pub(super) type Check = fn(&ServerName, &RoomId, &EventId, &Pdu) -> Result<(), InboundError>;

impl Rooms {
    /// Checks an event and places it. One that is placed already is fine: a peer that lost our
    /// answer asks again (row SL9).
    pub(super) async fn take(
        &self,
        entry: &Admitted,
        event_id: &EventId,
        body: Object,
        check: Check,
    ) -> Result<CheckedPdu, RoomError> {
        let (room_id, ours) = (entry.room_id().to_owned(), self.server_name().to_owned());
        let version = self
            .store()
            .read(move |reader| Ok::<_, RoomError>(resident(reader, &room_id, &ours)?.version))
            .await?;
        let pdu = Pdu::from_object(version, body)?;
        check(entry.origin(), entry.room_id(), event_id, &pdu)?;
        if pdu.prev_events().is_empty() {
            return Err(RoomError::InvalidParam("The event has no prev_events".into()));
        }
        let vouched_by_us = pdu.membership() == Some("join")
            && pdu
                .content_str("join_authorised_via_users_server")
                .and_then(|user| <&ruma::UserId>::try_from(user).ok())
                .is_some_and(|user| user.server_name() == self.server_name());
        let event =
            if vouched_by_us { self.vouch(entry, pdu).await? } else { self.checked(pdu).await? };
        let guard = self.inner.locks.lock(entry.room_id()).await;
        if self.is_taken(&event).await? {
            return Err(RoomError::InvalidParam("Another event has the id of this one".into()));
        }
        match self.stored(event_id).await?.filter(|known| known.states.is_some()) {
            Some(known) if known.verdict.is_accepted() => return Ok(event),
            Some(EventRecord {
                verdict: Verdict::Rejected(why) | Verdict::SoftFailed(why),
                ..
            }) => {
                return Err(RoomError::Forbidden(why));
            }
            _ => {}
        }
        let source = Source::Handshake { from: entry.owned_origin().clone() };
        match self.place(&guard, event.clone(), source, None).await {
            Err(RoomError::Missing(missing)) => {
                let what = format!("The event refers to {} events unknown here", missing.len());
                Err(RoomError::InvalidParam(what))
            }
            other => other.map(|_| event),
        }
    }

    /// Signs a join into a restricted room as the server of its authoriser, after the server of
    /// the user has signed it and while a condition of the join rule is met (rooms/v8).
    async fn vouch(&self, entry: &Admitted, pdu: Pdu) -> Result<CheckedPdu, RoomError> {
        let event = CheckedPdu::trusted(pdu);
        if !self.keys().is_signed_by(&event, entry.origin()).await? {
            return Err(RoomError::Signature(entry.origin().to_owned()));
        }
        let (room_id, ours) = (entry.room_id().to_owned(), self.server_name().to_owned());
        let user = event.sender().to_owned();
        let vouches = self
            .store()
            .read(move |reader| {
                let graph = resident(reader, &room_id, &ours)?;
                restricted::may_vouch(&graph, &user, &ours)
            })
            .await?;
        if !vouches {
            return Err(RoomError::Forbidden("You meet none of the room's conditions".into()));
        }
        let (signed, signature) = self
            .cosign_restricted_join(&event, entry.origin())
            .ok_or_else(|| RoomError::Forbidden("Not a restricted join".into()))?;
        self.journal(signature).await?;
        self.checked(signed.into_pdu()).await
    }

    async fn is_taken(&self, event: &CheckedPdu) -> Result<bool, RoomError> {
        let event = event.clone();
        self.store().read(move |reader| is_taken(reader, &event)).await
    }

    pub(crate) async fn stored(
        &self,
        event_id: &EventId,
    ) -> Result<Option<EventRecord>, RoomError> {
        let event_id = event_id.to_owned();
        self.store()
            .read(move |reader| Ok(load_event(reader, &event_id)?.map(|k| (*k.record).clone())))
            .await
    }
}
