//! `GET make_join`: spec-map 4.9.

use exeunt_core::Object;
use ruma::UserId;
use serde_json::Value;

use super::{
    Admitted,
    gate::resident,
    restricted,
    template::{check_user, member_template},
};
use crate::{RoomError, Rooms};

impl Rooms {
    /// The template of a join. `versions` are the room versions that the other server knows.
    pub async fn make_join(
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
                let version = graph.version.as_str();
                if !versions.iter().any(|known| known == version) {
                    return Err(RoomError::UnsupportedVersion(version.into()));
                }
                let mut content = Object::new();
                content.insert("membership".into(), "join".into());
                let entrance = restricted::entrance(&graph, &user, &ours)?;
                if let Some(authoriser) = entrance.authoriser()? {
                    let field = "join_authorised_via_users_server";
                    content.insert(field.into(), authoriser.as_str().into());
                }
                member_template(&graph, &user, content, now)
            })
            .await
    }
}
