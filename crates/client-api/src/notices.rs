//! Server notices: what administrators have the server say to a user.

use exeunt_core::Object;
use exeunt_http::{MatrixError, RawCall};
use exeunt_room::{ClientTransaction, Notice};
use exeunt_users::{Session, UsersError};
use ruma::{OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ClientApi, body, profile::member_profile, room_error, tags, users_error};

/// What clients know the room for notices by.
const TAG: &str = "m.server_notice";

/// From the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeOptions {
    /// Local part of the user id by which the server speaks.
    pub localpart: String,
    /// Its display name, and the name of the rooms in which it speaks.
    pub name: String,
}

impl Default for NoticeOptions {
    fn default() -> Self {
        Self { localpart: "_server".into(), name: "Server notices".into() }
    }
}

#[derive(Deserialize)]
struct Body {
    user_id: OwnedUserId,
    content: Object,
    #[serde(rename = "type", default = "message")]
    kind: String,
    state_key: Option<String>,
}

fn message() -> String {
    "m.room.message".into()
}

/// Sends the notice of the body, for an administrator, or for the operator. With `transaction`, an
/// id of the administrator's device, one sent before is not sent again.
pub(crate) async fn send(
    api: &ClientApi,
    admin: Option<Session>,
    transaction: Option<&str>,
    call: &RawCall,
) -> Result<Value, MatrixError> {
    let Body { user_id: user, content, kind, state_key } = body::read(call)?;
    if !api.users.exists(&user).await.map_err(users_error)? {
        return Err(MatrixError::not_found("There is no such user here"));
    }
    let NoticeOptions { localpart, name } = &api.options().notices;
    let sender = api.users.notice_account(localpart, name).await.map_err(|error| match error {
        UsersError::UserInUse(user) => {
            let text =
                format!("{user} is a person's account; name another one (notices.localpart)");
            MatrixError::new(409, "M_USER_IN_USE", text)
        }
        error => users_error(error),
    })?;
    if user == sender {
        return Err(MatrixError::invalid_param("The server does not speak to itself"));
    }
    let profile = member_profile(api, &sender).await?;
    let room_id = api.rooms.notice_room(&sender, &user, name, profile).await.map_err(room_error)?;
    // Before the invite, so that clients know what it is.
    tags::change(api, &user, &room_id, |tags| {
        tags.entry(TAG).or_insert_with(|| json!({}));
    })
    .await?;
    let (device, by) = match admin {
        Some(Session { user_id, device_id, .. }) => (device_id, user_id.to_string()),
        None => ("OPERATOR".into(), "operator".into()),
    };
    let transaction = transaction.map(|id| ClientTransaction {
        device,
        path: format!("notice/{by}/{user}"),
        id: id.to_owned(),
    });
    let notice = Notice { sender, user, kind, state_key, content, transaction };
    let event_id = api.rooms.send_notice(&room_id, notice).await.map_err(room_error)?;
    Ok(json!({ "event_id": event_id }))
}

/// Refuses to reject the invite to the room for notices.
pub(crate) async fn check_leave(
    api: &ClientApi,
    user: &UserId,
    room_id: &RoomId,
) -> Result<(), MatrixError> {
    match api.rooms.is_notice_invite(user, room_id).await.map_err(room_error)? {
        true => {
            let text = "The invite to the room for server notices cannot be rejected";
            Err(MatrixError::new(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", text))
        }
        false => Ok(()),
    }
}
