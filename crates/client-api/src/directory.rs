//! Room aliases.

use exeunt_http::{Authenticator, MatrixError, RequestHead, Routes};
use exeunt_users::Session;
use ruma::{
    RoomAliasId,
    api::client::{
        alias::{create_alias::v3 as create, delete_alias::v3 as delete, get_alias::v3 as get},
        room::aliases::v3 as list,
    },
};

use crate::{ClientApi, admin::is_admin, room_error};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.public_with_head(get).authed(create).authed(delete).authed(list)
}

/// `GET /_matrix/client/v3/directory/room/{roomAlias}`, of our own aliases also for those who are not
/// logged in.
async fn get(
    api: ClientApi,
    head: RequestHead,
    request: get::Request,
) -> Result<get::Response, MatrixError> {
    if request.room_alias.server_name() != api.server_name() {
        // Nobody makes us ask others but our users.
        api.authenticate(&head, &[]).await?;
    }
    let (room_id, servers) =
        api.rooms.resolve_alias(&request.room_alias).await.map_err(room_error)?;
    Ok(get::Response::new(room_id, servers))
}

/// `PUT /_matrix/client/v3/directory/room/{roomAlias}`
async fn create(
    api: ClientApi,
    session: Session,
    request: create::Request,
) -> Result<create::Response, MatrixError> {
    let create::Request { room_alias, room_id, .. } = request;
    check_alias(&api, &session, &room_alias)?;
    let created = api.rooms.create_alias(&room_alias, &room_id, &session.user_id).await;
    created.map_err(|error| match error {
        // Here the specification wants 409, where createRoom wants M_ROOM_IN_USE.
        exeunt_room::RoomError::AliasTaken => {
            MatrixError::new(409, "M_UNKNOWN", format!("{room_alias} is taken"))
        }
        error => room_error(error),
    })?;
    Ok(create::Response::new())
}

/// Refuses an alias that is kept for an application service.
pub(crate) fn check_alias(
    api: &ClientApi,
    session: &Session,
    alias: &RoomAliasId,
) -> Result<(), MatrixError> {
    match api.options().app_services.keep_alias(alias, session.by_service.as_ref()) {
        true => {
            let text = "The alias is kept for an application service";
            Err(MatrixError::new(400, "M_EXCLUSIVE", text))
        }
        false => Ok(()),
    }
}

/// `DELETE /_matrix/client/v3/directory/room/{roomAlias}`
async fn delete(
    api: ClientApi,
    session: Session,
    request: delete::Request,
) -> Result<delete::Response, MatrixError> {
    let is_admin = is_admin(&api, &session).await?;
    let deleted = api.rooms.delete_alias(&request.room_alias, &session.user_id, is_admin).await;
    deleted.map_err(room_error)?;
    Ok(delete::Response::new())
}

/// `GET /_matrix/client/v3/rooms/{roomId}/aliases`
async fn list(
    api: ClientApi,
    session: Session,
    request: list::Request,
) -> Result<list::Response, MatrixError> {
    let aliases = api.rooms.aliases_of(&request.room_id, &session.user_id).await;
    Ok(list::Response::new(aliases.map_err(room_error)?))
}
