//! The long poll: answers at once when there is news, else when there is or the time is up.

use exeunt_http::MatrixError;
use exeunt_room::{
    EphemeralView,
    views::{Filter, SyncRequest, SyncView},
};
use exeunt_users::{AccountData, Session};
use ruma::{OwnedRoomId, UserId};
use tokio::time::{Instant, timeout_at};

use super::{SyncCall, request::StateSection};
use crate::{ClientApi, room_error, users_error};

/// What `/sync` tells.
#[derive(Debug, Clone)]
pub struct Answer {
    pub view: SyncView,
    pub ephemeral: EphemeralView,
    pub account_data: Vec<AccountData>,
}

impl Answer {
    fn is_empty(&self) -> bool {
        self.view.is_empty() && self.ephemeral.is_empty() && self.account_data.is_empty()
    }
}

/// Reads what is new to the session, and waits for it if nothing is. While it waits it holds as little
/// as it can: the futures of reading are boxed, and gone by then.
///
/// The subscription is there before the first read, so what is committed after the read wakes it.
pub async fn poll(
    api: &ClientApi,
    session: &Session,
    call: &SyncCall,
) -> Result<Answer, MatrixError> {
    let deadline = Instant::now() + call.timeout;
    let (user, device) = (&session.user_id, &session.device_id);
    let there = api.rooms.present_by_sync(user, device, call.presence, call.timeout);
    Box::pin(there).await.map_err(room_error)?;
    let mut news = api.rooms.subscribe(&session.user_id);
    let at_once = call.since.is_none() || call.full_state;
    loop {
        news.borrow_and_update();
        let answer = Box::pin(read(api, session, call)).await?;
        if at_once || !answer.is_empty() {
            return Ok(answer);
        }
        match timeout_at(deadline, news.changed()).await {
            Ok(Ok(())) => {}
            // The sender goes only when the server does.
            Ok(Err(_)) | Err(_) => return Ok(answer),
        }
    }
}

async fn read(api: &ClientApi, session: &Session, call: &SyncCall) -> Result<Answer, MatrixError> {
    let user = &session.user_id;
    let request = SyncRequest {
        viewer: api.rooms.viewer(user, Some(session.device_id.clone())),
        since: call.since,
        filter: call.filter().clone(),
        full_state: call.full_state,
        use_state_after: call.state != StateSection::State,
    };
    let mut view = api.rooms.sync(request).await.map_err(room_error)?;
    let ephemeral = api.rooms.ephemeral(user, call.since, &mut view, call.filter()).await;
    let ephemeral = ephemeral.map_err(room_error)?;
    let account_data = account_data(api, user, call, &view).await?;
    Ok(Answer { view, ephemeral, account_data })
}

/// What is new, of the account and of the rooms that are told of; of a room that is new to the
/// client, all.
async fn account_data(
    api: &ClientApi,
    user: &UserId,
    call: &SyncCall,
    view: &SyncView,
) -> Result<Vec<AccountData>, MatrixError> {
    let since = call.since.unwrap_or(0);
    let is_new = |room_id: &OwnedRoomId| view.joined.get(room_id).is_some_and(|is_new| *is_new);
    let news = api.users.account_data_since(user, since, view.next_batch).await;
    let mut data = news.map_err(users_error)?;
    // What everybody has without having set it is from before any position.
    data.retain(|data| call.since.is_none() || data.position > since);
    if since > 0 && view.joined.values().any(|is_new| *is_new) {
        let before = api.users.account_data_since(user, 0, since).await.map_err(users_error)?;
        data.extend(before.into_iter().filter(|data| data.room_id.as_ref().is_some_and(is_new)));
    }
    let Filter { account_data: of_account, room, .. } = call.filter();
    data.retain(|data| match &data.room_id {
        None => of_account.allows_kind(&data.kind),
        Some(room_id) => {
            let is_told = view.joined.contains_key(room_id) || view.leave.contains_key(room_id);
            let wanted = &room.account_data;
            is_told && wanted.allows_room(room_id) && wanted.allows_kind(&data.kind)
        }
    });
    Ok(data)
}
