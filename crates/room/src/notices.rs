//! Server notices: the one room in which the server speaks to a user.
//!
//! Specification: client-server API, "Server Notices".

use exeunt_core::Object;
use exeunt_store::{
    Batch,
    tables::{Memberships, NoticeRooms},
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};

use crate::{ClientTransaction, Intent, NewRoom, Preset, RoomError, Rooms, graph::Graph};

/// What everybody but the server has in power: they do not speak.
const READER_LEVEL: i64 = -10;

/// Something that the server says to a local user.
#[derive(Debug, Clone)]
pub struct Notice {
    /// The user id by which the server speaks.
    pub sender: OwnedUserId,
    pub user: OwnedUserId,
    pub kind: String,
    pub state_key: Option<String>,
    pub content: Object,
    pub transaction: Option<ClientTransaction>,
}

impl Rooms {
    /// The room for notices to a user; made, where there is none, without the user. `profile` is
    /// the sender's.
    pub async fn notice_room(
        &self,
        sender: &UserId,
        user: &UserId,
        name: &str,
        profile: Object,
    ) -> Result<OwnedRoomId, RoomError> {
        let _turn = self.inner.notices.lock(user.to_owned()).await;
        let (key, speaker) = (user.to_owned(), sender.to_owned());
        let known = self.store().read(move |reader| {
            let Some(room_id) = reader.get::<NoticeRooms>(&key)? else { return Ok(None) };
            // It may have been deleted.
            let Some(graph) = Graph::open(reader, &room_id)? else { return Ok(None) };
            let speaks = graph.membership(&speaker)?.as_deref() == Some("join");
            Ok::<_, RoomError>(speaks.then_some(room_id))
        });
        if let Some(room_id) = known.await? {
            return Ok(room_id);
        }
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        let room = NewRoom {
            profile,
            name: Some(name.to_owned()),
            creation_content: object(json!({ "m.federate": false })),
            power_level_override: object(json!({ "users_default": READER_LEVEL })),
            ..NewRoom::new(sender.to_owned(), self.options().default_version, Preset::Private)
        };
        let room_id = self.create_room(room).await?;
        let mut batch = Batch::default();
        batch.put::<NoticeRooms>(&user.to_owned(), &room_id);
        self.store().commit(batch).await?;
        Ok(room_id)
    }

    /// Says something in the room for notices, and invites the user who is not there. What users
    /// say of whom they take invites from does not count: the server is no other user.
    pub async fn send_notice(
        &self,
        room_id: &RoomId,
        notice: Notice,
    ) -> Result<OwnedEventId, RoomError> {
        let Notice { sender, user, kind, state_key, content, transaction } = notice;
        let _turn = self.inner.notices.lock(user.clone()).await;
        let member = self.member(room_id, &user).await?;
        if !member.is_some_and(|(membership, _)| matches!(&*membership, "join" | "invite")) {
            let invite = Object::from_iter([("membership".to_owned(), "invite".into())]);
            let invite = Intent::state(sender.clone(), "m.room.member", user.as_str(), invite);
            self.append(room_id, invite).await?;
        }
        let intent = Intent { transaction, state_key, ..Intent::message(sender, kind, content) };
        self.append(room_id, intent).await
    }

    /// Whether the user is invited to the room for notices: that invite cannot be rejected.
    pub async fn is_notice_invite(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<bool, RoomError> {
        let key = (user.to_owned(), room_id.to_owned());
        self.store()
            .read(move |reader| {
                if reader.get::<NoticeRooms>(&key.0)?.as_ref() != Some(&key.1) {
                    return Ok(false);
                }
                let record = reader.get::<Memberships>(&key)?;
                Ok(record.is_some_and(|record| record.membership == "invite"))
            })
            .await
    }
}
