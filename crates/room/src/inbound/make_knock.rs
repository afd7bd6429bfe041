//! `GET make_knock`: spec-map 4.8.

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
    /// The template of a knock. `versions` are the room versions that the other server knows.
    pub async fn make_knock(
        &self,
        entry: &Admitted,
        user: &UserId,
        versions: &[String],
    ) -> Result<Value, RoomError> {
        check_user(entry.origin(), user)?;
        let (entry, user, versions) = (entry.clone(), user.to_owned(), versions.to_vec());
        let (ours, now) = (self.server_name().to_owned(), self.now());
        self.store()
            .read(move |reader| {
                let graph = resident(reader, entry.room_id(), &ours)?;
                if !graph.version.rules().authorization.knocking {
                    return Err(RoomError::Forbidden("The room is too old for knocking".into()));
                }
                let version = graph.version.as_str();
                if !versions.iter().any(|known| known == version) {
                    return Err(RoomError::UnsupportedVersion(version.into()));
                }
                let mut content = Object::new();
                content.insert("membership".into(), "knock".into());
                member_template(&graph, &user, content, now)
            })
            .await
    }
}
