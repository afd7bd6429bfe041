//! `PUT state/m.room.member`: the same verbs as the membership endpoints.

use exeunt_core::Object;
use exeunt_http::MatrixError;
use exeunt_room::Intent;
use exeunt_users::Session;
use ruma::{OwnedEventId, RoomId, UserId};
use serde_json::Value;

use crate::{
    ClientApi, gate,
    notices::check_leave,
    profile::{invited_profile, member_profile},
    room_error,
    upgrade::bring_along,
};

/// Changes a membership as the content says. Returns the member event that is in force then.
pub(crate) async fn put(
    api: &ClientApi,
    session: &Session,
    room_id: &RoomId,
    target: &UserId,
    content: Object,
) -> Result<OwnedEventId, MatrixError> {
    let sender = &session.user_id;
    let own = sender == target;
    let membership = content.get("membership").and_then(Value::as_str);
    let membership = membership
        .ok_or_else(|| MatrixError::bad_json("A member event has a membership"))?
        .to_owned();
    let reason = content.get("reason").and_then(Value::as_str).map(str::to_owned);
    let rooms = &api.rooms;
    match &*membership {
        "join" if own => {
            let content = over(member_profile(api, target).await?, content);
            rooms.join(sender, room_id, &[], content).await.map_err(room_error)?;
            bring_along(api, sender, room_id).await;
        }
        "invite" => {
            let content = over(invited_profile(api, target).await?, content);
            rooms.invite(sender, target, room_id, content).await.map_err(room_error)?;
        }
        "knock" if own => {
            let content = over(member_profile(api, target).await?, content);
            rooms.knock(sender, room_id, &[], content).await.map_err(room_error)?;
        }
        "leave" if own => {
            check_leave(api, sender, room_id).await?;
            rooms.leave(sender, room_id, reason).await.map_err(room_error)?;
        }
        // The gate takes it for a leave.
        "leave" if session.suspended => return Err(gate::suspended()),
        "leave" => {
            let event = match current(api, room_id, target).await? {
                Some((banned, _)) if banned == "ban" => {
                    rooms.unban(sender, target, room_id, reason).await
                }
                _ => rooms.kick(sender, target, room_id, reason).await,
            };
            return event.map_err(room_error);
        }
        "ban" => return rooms.ban(sender, target, room_id, reason).await.map_err(room_error),
        // The authorisation rules have the word on the rest.
        _ => {
            let intent = Intent::state(sender.clone(), "m.room.member", target.as_str(), content);
            return rooms.append(room_id, intent).await.map_err(room_error);
        }
    }
    let gone = || MatrixError::not_found("The membership has been changed again");
    current(api, room_id, target).await?.map(|(_, event_id)| event_id).ok_or_else(gone)
}

async fn current(
    api: &ClientApi,
    room_id: &RoomId,
    user: &UserId,
) -> Result<Option<(String, OwnedEventId)>, MatrixError> {
    api.rooms.member(room_id, user).await.map_err(room_error)
}

/// The content, with the profile where it says nothing else.
fn over(mut profile: Object, content: Object) -> Object {
    profile.extend(content);
    profile
}
