//! Room aliases: of this server from the store, of others by asking them.
//!
//! Specification: client-server API, "Room aliases"; server-server API, "GET query/directory".

use std::collections::BTreeSet;

use exeunt_core::Object;
use exeunt_store::{
    Batch, Reader,
    records::AliasRecord,
    tables::{Aliases, RoomAliases},
};
use futures_util::future::join_all;
use ruma::{
    OwnedRoomAliasId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, ServerName, UserId,
};
use serde_json::Value;

use crate::{
    Call, Intent, RemoteError, RoomError, Rooms,
    describe::describe,
    graph::{Graph, joined_servers},
};

/// Most servers that go with a resolved alias.
const MAX_ALIAS_SERVERS: usize = 50;
/// Most aliases that one event can add to a room: each is looked up, some at other servers.
const MAX_ADDED_ALIASES: usize = 20;
const CANONICAL_ALIAS: &str = "m.room.canonical_alias";

impl Rooms {
    /// The room that an alias means, and servers that can help to join it.
    pub async fn resolve_alias(
        &self,
        alias: &RoomAliasId,
    ) -> Result<(OwnedRoomId, Vec<OwnedServerName>), RoomError> {
        if alias.server_name() == self.server_name() {
            self.local_alias(alias).await?.ok_or_else(unknown_alias)
        } else {
            self.remote_alias(alias).await
        }
    }

    /// What one of this server's aliases means; `None` if there is no such alias.
    pub async fn local_alias(
        &self,
        alias: &RoomAliasId,
    ) -> Result<Option<(OwnedRoomId, Vec<OwnedServerName>)>, RoomError> {
        let (alias, ours) = (alias.to_owned(), self.server_name().to_owned());
        self.inner
            .store
            .read(move |reader| {
                let Some(record) = reader.get::<Aliases>(&alias)? else { return Ok(None) };
                let mut servers = vec![ours];
                for server in joined_servers(reader, &record.room_id)? {
                    if servers.len() < MAX_ALIAS_SERVERS && server != servers[0] {
                        servers.push(server);
                    }
                }
                Ok(Some((record.room_id, servers)))
            })
            .await
    }

    async fn remote_alias(
        &self,
        alias: &RoomAliasId,
    ) -> Result<(OwnedRoomId, Vec<OwnedServerName>), RoomError> {
        let server = alias.server_name();
        let remote = |error| RoomError::Remote { server: server.to_owned(), error };
        let answer = self.call(server, Call::Directory { alias }).await.map_err(remote)?;
        let room_id = answer
            .get("room_id")
            .and_then(Value::as_str)
            .and_then(|id| RoomId::parse(id).ok())
            .ok_or_else(|| remote(RemoteError::Misbehaved("the answer names no room".into())))?;
        let named = answer.get("servers").and_then(Value::as_array).into_iter().flatten();
        let mut servers: Vec<OwnedServerName> = named
            .filter_map(|name| ServerName::parse(name.as_str()?).ok())
            .take(MAX_ALIAS_SERVERS)
            .collect();
        if servers.is_empty() {
            servers.push(server.to_owned());
        }
        Ok((room_id, servers))
    }

    /// Makes an alias for a room that its creator is joined to.
    pub async fn create_alias(
        &self,
        alias: &RoomAliasId,
        room_id: &RoomId,
        creator: &UserId,
    ) -> Result<(), RoomError> {
        if alias.server_name() != self.server_name() {
            return Err(RoomError::InvalidParam("The alias is of another server".into()));
        }
        self.require_joined(room_id, creator).await?;
        self.put_alias(alias, room_id, creator).await
    }

    /// Removes an alias: its creator may, an administrator of the server, and whoever may change
    /// the room's canonical alias. That event loses it too, if the user may send it.
    pub async fn delete_alias(
        &self,
        alias: &RoomAliasId,
        user: &UserId,
        is_admin: bool,
    ) -> Result<(), RoomError> {
        let _lock = self.inner.alias_lock.lock().await;
        let (key, who) = (alias.to_owned(), user.to_owned());
        let (room_id, canonical) = self
            .inner
            .store
            .read(move |reader| {
                let record = reader.get::<Aliases>(&key)?.ok_or_else(unknown_alias)?;
                let graph = Graph::open(reader, &record.room_id)?;
                let may = is_admin
                    || record.creator == who
                    || graph.as_ref().map_or(Ok(false), |graph| may_change_aliases(graph, &who))?;
                if !may {
                    return Err(RoomError::Forbidden("The alias is another user's".into()));
                }
                let canonical = match &graph {
                    Some(graph) => graph.current(CANONICAL_ALIAS, "")?,
                    None => None,
                };
                let content = canonical.and_then(|event| without_alias(event.content(), &key));
                Ok::<_, RoomError>((record.room_id, content))
            })
            .await?;
        let mut batch = Batch::default();
        batch.delete::<Aliases>(&alias.to_owned());
        batch.delete::<RoomAliases>(&(room_id.clone(), alias.to_owned()));
        self.inner.store.commit(batch).await?;
        if let Some(content) = canonical {
            let intent = Intent::state(user.to_owned(), CANONICAL_ALIAS, "", content);
            if let Err(error) = self.append(&room_id, intent).await {
                tracing::info!(%room_id, %alias, %error, "the canonical alias stays");
            }
        }
        Ok(())
    }

    /// This server's aliases of a room: for its members, and for all where it is world readable.
    pub async fn aliases_of(
        &self,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<Vec<OwnedRoomAliasId>, RoomError> {
        let (room, user) = (room_id.to_owned(), user.to_owned());
        self.inner
            .store
            .read(move |reader| {
                let graph = Graph::open(reader, &room)?.ok_or_else(not_in_room)?;
                let is_member = graph.membership(&user)?.as_deref() == Some("join");
                if !is_member && !describe(&graph)?.world_readable {
                    return Err(not_in_room());
                }
                aliases_of(reader, &room)
            })
            .await
    }

    /// Refuses the content of an `m.room.canonical_alias` that adds an alias which does not lead
    /// to the room. What the room has said before is not asked about again: it could not be
    /// mended otherwise.
    pub async fn check_canonical_alias(
        &self,
        room_id: &RoomId,
        content: &Object,
    ) -> Result<(), RoomError> {
        let mut added = named_aliases(content)?;
        if added.is_empty() {
            return Ok(());
        }
        let room = room_id.to_owned();
        let known = self.inner.store.read(move |reader| match Graph::open(reader, &room)? {
            Some(graph) => graph.current(CANONICAL_ALIAS, ""),
            None => Ok(None),
        });
        if let Some(event) = known.await? {
            let known = named_aliases(event.content()).unwrap_or_default();
            added.retain(|alias| !known.contains(alias));
        }
        if added.len() > MAX_ADDED_ALIASES {
            let text = format!("At most {MAX_ADDED_ALIASES} aliases can be added at once");
            return Err(RoomError::InvalidParam(text));
        }
        let asked = added.iter().map(|alias| self.resolve_alias(alias));
        for (alias, found) in added.iter().zip(join_all(asked).await) {
            match found {
                Ok((found, _)) if found == room_id => {}
                Err(RoomError::Store(error)) => return Err(error.into()),
                Ok(_) | Err(_) => return Err(RoomError::BadAlias(alias.clone())),
            }
        }
        Ok(())
    }

    /// Lets an alias of this server mean another room.
    pub(crate) async fn move_alias(
        &self,
        alias: &RoomAliasId,
        room_id: &RoomId,
    ) -> Result<(), RoomError> {
        let _lock = self.inner.alias_lock.lock().await;
        let key = alias.to_owned();
        let Some(old) = self.inner.store.read(move |reader| reader.get::<Aliases>(&key)).await?
        else {
            return Ok(());
        };
        let mut batch = Batch::default();
        batch.delete::<RoomAliases>(&(old.room_id, alias.to_owned()));
        let record = AliasRecord { room_id: room_id.to_owned(), creator: old.creator };
        batch.put::<Aliases>(&alias.to_owned(), &record);
        batch.put::<RoomAliases>(&(room_id.to_owned(), alias.to_owned()), &());
        self.inner.store.commit(batch).await?;
        Ok(())
    }

    async fn require_joined(&self, room_id: &RoomId, user: &UserId) -> Result<(), RoomError> {
        let (room, user) = (room_id.to_owned(), user.to_owned());
        let membership = self
            .inner
            .store
            .read(move |reader| match Graph::open(reader, &room)? {
                Some(graph) => graph.membership(&user),
                None => Ok(None),
            })
            .await?;
        match membership.as_deref() {
            Some("join") => Ok(()),
            _ => Err(not_in_room()),
        }
    }

    pub(crate) async fn check_alias_free(&self, alias: &RoomAliasId) -> Result<(), RoomError> {
        match self.local_alias(alias).await? {
            Some(_) => Err(RoomError::AliasTaken),
            None => Ok(()),
        }
    }

    pub(crate) async fn put_alias(
        &self,
        alias: &RoomAliasId,
        room_id: &RoomId,
        creator: &UserId,
    ) -> Result<(), RoomError> {
        let _lock = self.inner.alias_lock.lock().await;
        self.check_alias_free(alias).await?;
        let mut batch = Batch::default();
        let record = AliasRecord { room_id: room_id.to_owned(), creator: creator.to_owned() };
        batch.put::<Aliases>(&alias.to_owned(), &record);
        batch.put::<RoomAliases>(&(room_id.to_owned(), alias.to_owned()), &());
        self.inner.store.commit(batch).await?;
        Ok(())
    }
}

pub(crate) fn aliases_of(
    reader: &Reader<'_>,
    room_id: &RoomId,
) -> Result<Vec<OwnedRoomAliasId>, RoomError> {
    let keys = reader.scan::<RoomAliases>(room_id.to_owned()).keys()?;
    Ok(keys.into_iter().map(|(_, alias)| alias).collect())
}

fn not_in_room() -> RoomError {
    RoomError::Forbidden("You are not in the room".into())
}

/// The aliases that an `m.room.canonical_alias` names.
fn named_aliases(content: &Object) -> Result<BTreeSet<OwnedRoomAliasId>, RoomError> {
    let wrong = |key| RoomError::InvalidParam(format!("{key} has the wrong type"));
    let mut named: Vec<&Value> = match content.get("alias") {
        None | Some(Value::Null) => Vec::new(),
        // Old clients remove the alias with an empty text.
        Some(Value::String(alias)) if alias.is_empty() => Vec::new(),
        Some(alias) => vec![alias],
    };
    match content.get("alt_aliases") {
        None | Some(Value::Null) => {}
        Some(Value::Array(others)) => named.extend(others),
        Some(_) => return Err(wrong("alt_aliases")),
    }
    let parse = |alias: &Value| {
        let alias = alias.as_str().ok_or_else(|| wrong("an alias"))?;
        RoomAliasId::parse(alias)
            .map_err(|_| RoomError::InvalidParam(format!("{alias:?} is not a room alias")))
    };
    named.into_iter().map(parse).collect()
}

fn unknown_alias() -> RoomError {
    RoomError::NotFound("Unknown room alias".into())
}

/// Whether a member may change the room's canonical alias.
pub(crate) fn may_change_aliases(graph: &Graph<'_>, user: &UserId) -> Result<bool, RoomError> {
    Ok(graph.membership(user)?.as_deref() == Some("join")
        && graph.has_power_to_set(user, CANONICAL_ALIAS)?)
}

/// The content without the alias; `None` if it does not name it.
fn without_alias(content: &Object, alias: &RoomAliasId) -> Option<Object> {
    let is_it = |value: &Value| value.as_str() == Some(alias.as_str());
    let mut rest = content.clone();
    if rest.get("alias").is_some_and(is_it) {
        rest.remove("alias");
    }
    if let Some(Value::Array(others)) = rest.get_mut("alt_aliases") {
        others.retain(|other| !is_it(other));
        if others.is_empty() {
            rest.remove("alt_aliases");
        }
    }
    (rest != *content).then_some(rest)
}

#[cfg(test)]
mod tests {
    use ruma::room_alias_id;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_alias_leaves_the_canonical_alias() {
        let check = |content: Value, rest: Option<Value>| {
            let found = without_alias(content.as_object().unwrap(), room_alias_id!("#a:x"));
            assert_eq!(found.map(Value::Object), rest, "{content}");
        };
        check(json!({ "alias": "#a:x" }), Some(json!({})));
        check(json!({ "alias": "#a:x", "alt_aliases": ["#a:x"] }), Some(json!({})));
        let kept = json!({ "alias": "#b:x", "alt_aliases": ["#c:x"] });
        check(json!({ "alias": "#b:x", "alt_aliases": ["#a:x", "#c:x"] }), Some(kept.clone()));
        check(kept, None);
        check(json!({ "alias": 1, "alt_aliases": "#a:x" }), None);
    }
}
