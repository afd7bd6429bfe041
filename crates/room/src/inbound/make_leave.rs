//! `GET make_leave`: rows ML1 to ML7.

use exeunt_core::Object;
use ruma::UserId;
use serde_json::Value;

use super::{
    Admitted,
    gate::resident,
    template::{check_user, member_template},
};
use crate::{RoomError, Rooms};

impl Rooms {
    /// The template of a leave, for a user who is in the room, invited or knocking.
    pub async fn make_leave(&self, entry: &Admitted, user: &UserId) -> Result<Value, RoomError> {
        check_user(entry.origin(), user)?;
        let (entry, user) = (entry.clone(), user.to_owned());
        let (ours, now) = (self.server_name().to_owned(), self.now());
        self.store()
            .read(move |reader| {
                let graph = resident(reader, entry.room_id(), &ours)?;
                match graph.membership(&user)?.as_deref() {
                    Some("join" | "invite" | "knock") => {}
                    _ => return Err(RoomError::Forbidden("User is not in the room.".into())),
                }
                let mut content = Object::new();
                content.insert("membership".into(), "leave".into());
                member_template(&graph, &user, content, now)
            })
            .await
    }
}
