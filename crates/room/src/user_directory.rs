//! Who can be found: the user directory, and the rooms that two users share.
//!
//! The index is in memory, by room. A search brings it up to date by the difference of two states,
//! so nothing is written for it and nothing hangs on the write path (decision 0025).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard},
};

use exeunt_store::{
    Reader,
    records::{ProfileRecord, RoomRecord, Root},
    tables::{Memberships, Profiles, Rooms as RoomTable},
};
use ruma::{OwnedRoomId, OwnedUserId, ServerName, UserId};
use serde::Serialize;

use crate::{
    RoomError, Rooms,
    graph::{Graph, is_joined},
};

/// Most users that one search finds, and how many if the client does not say.
const MAX_FOUND: usize = 50;
const DEFAULT_FOUND: usize = 10;
/// Longest search term in bytes; what is longer finds nobody.
const MAX_TERM: usize = 255;
/// Members that the index keeps between searches. With more it starts afresh.
const MAX_INDEXED: usize = 500_000;

/// A user whom a search has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundUser {
    pub user_id: OwnedUserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
}

/// What a search has found, the best first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FoundUsers {
    pub results: Vec<FoundUser>,
    /// Whether there are more.
    pub limited: bool,
}

/// Members by room.
#[derive(Default)]
pub(crate) struct Index(Mutex<HashMap<OwnedRoomId, Indexed>>);

impl Index {
    fn lock(&self) -> MutexGuard<'_, HashMap<OwnedRoomId, Indexed>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The members of a room in one of its states.
struct Indexed {
    root: Root,
    members: BTreeMap<OwnedUserId, Names>,
}

#[derive(Default, Clone)]
struct Names {
    display_name: Option<String>,
    avatar_url: Option<String>,
}

impl Rooms {
    /// Finds users by name or id: those who share a room with the searcher, and those in rooms that
    /// anyone may join or read. Local users go by their profile, others by what a room that the
    /// searcher may look into calls them (client-server API, "User Directory").
    pub async fn search_users(
        &self,
        searcher: &UserId,
        term: &str,
        limit: Option<usize>,
    ) -> Result<FoundUsers, RoomError> {
        let term = term.trim().to_lowercase();
        if term.is_empty() || term.len() > MAX_TERM {
            return Ok(FoundUsers::default());
        }
        let limit = limit.unwrap_or(DEFAULT_FOUND).clamp(1, MAX_FOUND);
        let (rooms, searcher) = (self.clone(), searcher.to_owned());
        // It brings the index up to date, which is more than reading.
        let found = self.inner.store.read_long(move |reader| {
            let mut index = rooms.inner.users.lock();
            let visible = visible_rooms(reader, &searcher, rooms.server_name())?;
            for (room_id, head) in &visible {
                bring_up_to_date(reader, &mut index, room_id, head)?;
            }
            let found = search(reader, &rooms, &index, &visible, &searcher, &term, limit);
            if index.values().map(|room| room.members.len()).sum::<usize>() > MAX_INDEXED {
                index.clear();
            }
            found
        });
        found.await
    }

    /// The rooms that a local user and somebody else are both joined to, by id.
    pub async fn mutual_rooms(
        &self,
        user: &UserId,
        other: &UserId,
    ) -> Result<Vec<OwnedRoomId>, RoomError> {
        let (user, other) = (user.to_owned(), other.to_owned());
        let is_local = other.server_name() == self.server_name();
        self.inner
            .store
            .read(move |reader| {
                let mut mutual = Vec::new();
                for room_id in joined_rooms(reader, &user)? {
                    let membership = if is_local {
                        let row = reader.get::<Memberships>(&(other.clone(), room_id.clone()))?;
                        row.map(|row| row.membership)
                    } else {
                        Graph::of(reader, &room_id)?.membership(&other)?
                    };
                    if membership.as_deref() == Some("join") {
                        mutual.push(room_id);
                    }
                }
                Ok(mutual)
            })
            .await
    }
}

fn joined_rooms(reader: &Reader<'_>, user: &UserId) -> Result<Vec<OwnedRoomId>, RoomError> {
    let rows = reader.scan::<Memberships>(user.to_owned()).collect()?;
    let joined = rows.into_iter().filter(|(_, record)| record.membership == "join");
    Ok(joined.map(|((_, room_id), _)| room_id).collect())
}

/// The rooms that a user may look into, of those that we reside in.
fn visible_rooms(
    reader: &Reader<'_>,
    user: &UserId,
    ours: &ServerName,
) -> Result<Vec<(OwnedRoomId, RoomRecord)>, RoomError> {
    let joined = joined_rooms(reader, user)?;
    let mut visible = Vec::new();
    for row in reader.scan::<RoomTable>(()).iter() {
        let (room_id, head) = row?;
        let is_visible = joined.binary_search(&room_id).is_ok()
            || is_joined(reader, &room_id, ours)? && is_open(reader, &room_id, &head)?;
        if is_visible {
            visible.push((room_id, head));
        }
    }
    Ok(visible)
}

/// Whether anyone may join the room, or read it.
fn is_open(
    reader: &Reader<'_>,
    room_id: &OwnedRoomId,
    head: &RoomRecord,
) -> Result<bool, RoomError> {
    let graph = Graph::with_head(reader, room_id.clone(), head.clone())?;
    let says = |kind: &str, field: &str, value: &str| {
        let event = graph.current(kind, "")?;
        Ok::<_, RoomError>(event.is_some_and(|event| event.content_str(field) == Some(value)))
    };
    Ok(says("m.room.join_rules", "join_rule", "public")?
        || says("m.room.history_visibility", "history_visibility", "world_readable")?)
}

/// Reads what has changed in a room since it was looked at last.
fn bring_up_to_date(
    reader: &Reader<'_>,
    index: &mut HashMap<OwnedRoomId, Indexed>,
    room_id: &OwnedRoomId,
    head: &RoomRecord,
) -> Result<(), RoomError> {
    let known = index.remove(room_id);
    let mut room = known.unwrap_or(Indexed { root: Root::EMPTY, members: BTreeMap::new() });
    if room.root != head.state {
        let graph = Graph::with_head(reader, room_id.clone(), head.clone())?;
        for change in graph.diff(room.root, head.state)? {
            let Some(user) = member_of(&change.key) else { continue };
            let event = change.after.map(|id| graph.event_here(&id)).transpose()?;
            match event.filter(|event| event.pdu.membership() == Some("join")) {
                Some(event) => {
                    let text = |field| event.pdu.content_str(field).map(str::to_owned);
                    let (display_name, avatar_url) = (text("displayname"), text("avatar_url"));
                    room.members.insert(user, Names { display_name, avatar_url });
                }
                None => drop(room.members.remove(&user)),
            }
        }
        room.root = head.state;
    }
    index.insert(room_id.clone(), room);
    Ok(())
}

fn member_of(key: &exeunt_core::StateKey) -> Option<OwnedUserId> {
    (key.kind == "m.room.member").then(|| UserId::parse(&key.key).ok())?
}

fn search(
    reader: &Reader<'_>,
    rooms: &Rooms,
    index: &HashMap<OwnedRoomId, Indexed>,
    visible: &[(OwnedRoomId, RoomRecord)],
    searcher: &UserId,
    term: &str,
    limit: usize,
) -> Result<FoundUsers, RoomError> {
    let profiles: HashMap<OwnedUserId, ProfileRecord> =
        reader.scan::<Profiles>(()).collect()?.into_iter().collect();
    let mut users: BTreeMap<&OwnedUserId, &Names> = BTreeMap::new();
    for (user, names) in visible.iter().filter_map(|(id, _)| index.get(id)).flat_map(|r| &r.members)
    {
        let kept = users.entry(user).or_insert(names);
        // A room may know more than another.
        if kept.display_name.is_none() {
            *kept = names;
        }
    }
    let mut found = Vec::new();
    for (user, names) in users.into_iter().filter(|(user, _)| *user != searcher) {
        let names = if user.server_name() == rooms.server_name() {
            let profile = profiles.get(user).cloned().unwrap_or_default();
            Names { display_name: profile.displayname, avatar_url: profile.avatar_url }
        } else {
            names.clone()
        };
        if let Some(rank) = rank(user, names.display_name.as_deref(), term) {
            found.push((rank, names.display_name.is_none(), user, names));
        }
    }
    found.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
    let limited = found.len() > limit;
    let results = found.into_iter().take(limit).map(|(_, _, user, names)| FoundUser {
        user_id: user.clone(),
        display_name: names.display_name,
        avatar_url: names.avatar_url,
    });
    Ok(FoundUsers { results: results.collect(), limited })
}

/// How well a user fits, 0 best: the whole name, its beginning, that of a word, anything. Every word
/// of the term has to be found.
fn rank(user: &UserId, name: Option<&str>, term: &str) -> Option<u8> {
    let (id, name) = (user.as_str().to_lowercase(), name.unwrap_or_default().to_lowercase());
    let localpart = user.localpart().to_lowercase();
    let texts = [&*id, &*localpart, &*name];
    if texts.contains(&term) {
        return Some(0);
    }
    if texts.iter().any(|text| text.starts_with(term)) {
        return Some(1);
    }
    if name.split_whitespace().any(|word| word.starts_with(term)) {
        return Some(2);
    }
    let is_there = |word: &str| id.contains(word) || name.contains(word);
    term.split_whitespace().all(is_there).then_some(3)
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn ranks() {
        let user = user_id!("@ann.smith:example.org");
        let check = |term: &str, expected: Option<u8>| {
            assert_eq!(rank(user, Some("Äda Lovelace-King"), term), expected, "{term}");
        };
        check("ann.smith", Some(0));
        check("@ann.smith:example.org", Some(0));
        check("äda lovelace-king", Some(0));
        check("@ann", Some(1));
        check("äd", Some(1));
        check("love", Some(2));
        check("king", Some(3));
        check("king äda", Some(3));
        check("smith äda", Some(3));
        check("smith bob", None);
        check("bob", None);
        assert_eq!(rank(user, None, "äda"), None);
    }
}
