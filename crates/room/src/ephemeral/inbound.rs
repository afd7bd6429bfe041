//! What other servers say of the moment. Specification: server-server API, "EDUs".
//!
//! A server speaks for its own users only (GHSA-rgv2-84w7-5j9p), and of a room only if the room's
//! ACL lets it in, room by room (MSC4163). What does not fit is dropped alone.

use exeunt_core::Object;
use ruma::{EventId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Presence, Receipt, ReceiptKind,
    presence::{Entry, MAX_STATUS_BYTES},
    receipts::MAX_THREAD_BYTES,
};
use crate::{RoomError, Rooms, inbound::is_ours};

/// Receipts of one EDU that are taken.
pub const MAX_RECEIPTS: usize = 200;
/// Users of one presence EDU that are taken.
pub const MAX_PRESENCE: usize = 200;
/// How long a user of another server is there without its saying so again.
pub const REMOTE_PRESENCE_MS: u64 = 3_600_000;

#[derive(Deserialize)]
struct Typing {
    room_id: String,
    user_id: String,
    typing: bool,
}

#[derive(Deserialize)]
struct Push {
    push: Vec<Value>,
}

#[derive(Deserialize)]
struct Update {
    user_id: String,
    presence: String,
    status_msg: Option<String>,
    last_active_ago: Option<u64>,
    #[serde(default)]
    currently_active: bool,
}

impl Rooms {
    /// Takes the EDUs of a transaction. An error is a failure of ours.
    pub(crate) async fn receive_edus(
        &self,
        origin: &ServerName,
        edus: Vec<Value>,
    ) -> Result<(), RoomError> {
        for edu in edus {
            let Value::Object(mut edu) = edu else { continue };
            let Some(content) = edu.remove("content") else { continue };
            let kind = edu.get("edu_type").and_then(Value::as_str).unwrap_or_default();
            let taken = match kind {
                "m.typing" => self.receive_typing(origin, content).await,
                "m.receipt" => self.receive_receipts(origin, content).await,
                "m.presence" => self.receive_presence(origin, content).await,
                _ => {
                    tracing::debug!(%origin, kind, "an EDU of a type that is not taken");
                    Ok(())
                }
            };
            match taken {
                Err(error) if is_ours(&error) => return Err(error),
                Err(error) => tracing::debug!(%origin, kind, %error, "an EDU was not taken"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn receive_typing(&self, origin: &ServerName, content: Value) -> Result<(), RoomError> {
        let said: Typing = read(content)?;
        let user = user_of(origin, &said.user_id)?;
        let room_id = RoomId::parse(&said.room_id).map_err(malformed)?;
        self.admit(origin, &room_id).await?;
        self.remote_typing(&user, &room_id, said.typing).await
    }

    async fn receive_receipts(&self, origin: &ServerName, content: Value) -> Result<(), RoomError> {
        let rooms: Object = read(content)?;
        let mut left = MAX_RECEIPTS;
        for (room_id, content) in rooms {
            let taken = self.receive_receipts_of(origin, &room_id, &content, &mut left).await;
            match taken {
                Err(error) if is_ours(&error) => return Err(error),
                Err(error) => {
                    tracing::debug!(%origin, room_id, %error, "receipts were not taken");
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn receive_receipts_of(
        &self,
        origin: &ServerName,
        room_id: &str,
        content: &Value,
        left: &mut usize,
    ) -> Result<(), RoomError> {
        let room_id = RoomId::parse(room_id).map_err(malformed)?;
        let users = content.get(ReceiptKind::Read.as_str()).and_then(Value::as_object);
        let Some(users) = users.filter(|_| *left > 0) else { return Ok(()) };
        self.admit(origin, &room_id).await?;
        let mut receipts = Vec::new();
        for (user, said) in users {
            if *left == 0 {
                break;
            }
            *left -= 1;
            let Ok(user) = user_of(origin, user) else { continue };
            let Some(receipt) = receipt(user, said, self.now()) else { continue };
            match self.check_joined(&receipt.0.user, &room_id).await {
                Ok(()) => receipts.push(receipt),
                Err(error) if is_ours(&error) => return Err(error),
                Err(_) => {}
            }
        }
        self.remote_receipts(&room_id, receipts).await
    }

    async fn receive_presence(&self, origin: &ServerName, content: Value) -> Result<(), RoomError> {
        if !self.options().presence {
            return Ok(());
        }
        let Push { push } = read(content)?;
        let now = self.now();
        let updates = push.into_iter().take(MAX_PRESENCE);
        let users = updates.filter_map(|update| presence(origin, update, now)).collect();
        self.remote_presence(&OwnedServerName::from(origin), users).await
    }
}

/// What a receipt says; `None` if it makes no sense.
fn receipt(user: OwnedUserId, said: &Value, now: u64) -> Option<(Receipt, u64)> {
    let event_id = EventId::parse(said["event_ids"].get(0)?.as_str()?).ok()?;
    let thread = match &said["data"]["thread_id"] {
        Value::Null => None,
        Value::String(id) if !id.is_empty() && id.len() <= MAX_THREAD_BYTES => Some(id.clone()),
        _ => return None,
    };
    let ts = said["data"]["ts"].as_u64().unwrap_or(now);
    Some((Receipt { user, kind: ReceiptKind::Read, event_id, thread }, ts))
}

fn presence(origin: &ServerName, update: Value, now: u64) -> Option<(OwnedUserId, Entry)> {
    let update: Update = serde_json::from_value(update).ok()?;
    let user = user_of(origin, &update.user_id).ok()?;
    let entry = Entry {
        presence: Presence::parse(&update.presence)?,
        status: update.status_msg.filter(|status| status.len() <= MAX_STATUS_BYTES),
        active_at: update.last_active_ago.map(|ago| now.saturating_sub(ago)),
        is_active: update.currently_active,
        until: now.saturating_add(REMOTE_PRESENCE_MS),
        ..Entry::default()
    };
    Some((user, entry))
}

/// A user of the server that speaks.
fn user_of(origin: &ServerName, user: &str) -> Result<OwnedUserId, RoomError> {
    let user = UserId::parse(user).map_err(malformed)?;
    match user.server_name() == origin {
        true => Ok(user),
        false => Err(RoomError::Forbidden(format!("{user} is not a user of {origin}"))),
    }
}

fn read<T: for<'de> Deserialize<'de>>(content: Value) -> Result<T, RoomError> {
    serde_json::from_value(content).map_err(malformed)
}

fn malformed(error: impl std::fmt::Display) -> RoomError {
    RoomError::InvalidParam(error.to_string())
}
