//! `PUT exchange_third_party_invite`: a user of another server redeems an invite that one of our
//! users sent to an email address or phone number.
//!
//! Specification: server-server API, "Third-party invites"; rooms/v1, rule 5.4.1.

use exeunt_core::{Object, canonical};
use ruma::{OwnedUserId, UserId};
use serde_json::{Value, json};

use super::{Admitted, gate::resident};
use crate::{RoomError, Rooms};

/// Largest `signed` object that is put into an invite.
const MAX_SIGNED_BYTES: usize = 4096;

/// What of the request counts; the rest of the invite is of our making.
struct Exchange {
    inviter: OwnedUserId,
    invited: OwnedUserId,
    token: String,
    signed: Object,
}

impl Rooms {
    /// Invites the user in the name of the user of ours who sent the third-party invite, if the
    /// authorisation rules allow it: the keys of that invite must have signed the exchange.
    pub async fn exchange_third_party_invite(
        &self,
        entry: &Admitted,
        body: &Object,
    ) -> Result<(), RoomError> {
        let exchange = self.read_exchange(entry, body)?;
        let (room_id, ours) = (entry.room_id().to_owned(), self.server_name().to_owned());
        let (token, inviter) = (exchange.token, exchange.inviter.clone());
        // The rules look for the same; here before anything is signed.
        let display_name = self
            .store()
            .read(move |reader| {
                let graph = resident(reader, &room_id, &ours)?;
                let invite = graph.current("m.room.third_party_invite", &token)?;
                let invite = invite.filter(|invite| invite.sender() == inviter);
                let invite =
                    invite.ok_or_else(|| RoomError::Forbidden("There is no such invite".into()))?;
                Ok::<_, RoomError>(invite.content_str("display_name").map(str::to_owned))
            })
            .await?;
        let invite = json!({
            "display_name": display_name.unwrap_or_default(),
            "signed": exchange.signed,
        });
        let mut content = Object::new();
        content.insert("third_party_invite".into(), invite);
        let Exchange { inviter, invited, .. } = exchange;
        self.invite_by_exchange(&inviter, &invited, entry.room_id(), content).await
    }

    fn read_exchange(&self, entry: &Admitted, body: &Object) -> Result<Exchange, RoomError> {
        let invalid = |what: &str| RoomError::InvalidParam(what.into());
        let text = |field: &str| body.get(field).and_then(Value::as_str);
        let user = |field: &str| text(field).and_then(|text| UserId::parse(text).ok());
        let content = body.get("content").and_then(Value::as_object);
        let content = content.ok_or_else(|| invalid("There is no content"))?;
        if text("type") != Some("m.room.member")
            || content.get("membership").and_then(Value::as_str) != Some("invite")
        {
            return Err(invalid("Not an invite"));
        }
        if text("room_id") != Some(entry.room_id().as_str()) {
            return Err(invalid("The event is of another room than the path"));
        }
        let inviter = user("sender").filter(|user| user.server_name() == self.server_name());
        let inviter = inviter.ok_or_else(|| invalid("The inviter is not of this server"))?;
        let invited = user("state_key").filter(|user| user.server_name() == entry.origin());
        let invited = invited.ok_or_else(|| {
            RoomError::Forbidden("The invited user is not of the asking server".into())
        })?;
        let signed = content.get("third_party_invite").and_then(|invite| invite.get("signed"));
        let signed = signed.and_then(Value::as_object);
        let signed = signed.ok_or_else(|| invalid("There is no signed third-party invite"))?;
        let token = signed.get("token").and_then(Value::as_str);
        let token = token.ok_or_else(|| invalid("The third-party invite has no token"))?;
        if signed.get("mxid").and_then(Value::as_str) != Some(invited.as_str()) {
            return Err(RoomError::Forbidden("It is another user who was signed for".into()));
        }
        if canonical::encode(signed).len() > MAX_SIGNED_BYTES {
            return Err(invalid("The signed third-party invite is too large"));
        }
        Ok(Exchange { inviter, invited, token: token.to_owned(), signed: signed.clone() })
    }
}
