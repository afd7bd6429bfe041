//! Walking the tree of a space, page by page: a room, then its children in their order, each with
//! all that is below it.
//!
//! Specification: client-server API, "GET /rooms/{roomId}/hierarchy".

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use exeunt_store::{Reader, tables};
use futures_util::future::join_all;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName};
use tokio::time::Instant;

use super::{
    HierarchyRoom,
    access::{may_see_told, shown_to_user},
    ask::Told,
    children::{Child, children_of},
};
use crate::{
    RoomError, RoomSummary, Rooms,
    graph::{Graph, is_joined, joined_servers},
};

/// Most rooms of a page, and how many there are if the client does not say.
pub const MAX_PAGE: usize = 50;
/// Most steps from the space down, and how many if the client does not say.
pub const MAX_DEPTH: usize = 50;
/// Most rooms that one walk looks at, and most that wait to be looked at.
const MAX_WALKED: usize = 5_000;
const MAX_QUEUED: usize = 10_000;
/// Rooms that other servers are asked about side by side.
const ASKED_AT_ONCE: usize = 8;
/// After this, no more servers are asked for a page: it ends with what there is.
const ASKING_TIME: Duration = Duration::from_secs(15);
/// How long the next page of a walk can be had, and how many pages wait at most.
pub const WALK_LIFE_MS: u64 = 10 * 60 * 1000;
const MAX_WALKS: usize = 500;

/// What a client wants to see of a tree.
#[derive(Debug, Clone)]
pub struct HierarchyRequest {
    pub user: OwnedUserId,
    pub room_id: OwnedRoomId,
    /// Servers that may know the room where we do not (MSC4235).
    pub via: Vec<OwnedServerName>,
    pub suggested_only: Option<bool>,
    pub limit: Option<usize>,
    pub max_depth: Option<usize>,
    /// `next_batch` of the page before.
    pub from: Option<String>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct HierarchyPage {
    pub rooms: Vec<HierarchyRoom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
}

/// A walk between two pages.
#[derive(Clone)]
struct Walk {
    user: OwnedUserId,
    room_id: OwnedRoomId,
    suggested_only: bool,
    max_depth: usize,
    /// The rooms to come; the next one is the last.
    queue: Vec<Step>,
    seen: BTreeSet<OwnedRoomId>,
    known: BTreeMap<OwnedRoomId, Known>,
    /// The rooms that others were asked about.
    asked: BTreeSet<OwnedRoomId>,
}

#[derive(Clone)]
struct Step {
    room_id: OwnedRoomId,
    depth: usize,
    via: Vec<OwnedServerName>,
}

/// What is known of a room that we do not reside in.
#[derive(Clone)]
enum Known {
    Told(Arc<Told>),
    /// By a server that was asked about the parent: without its children.
    Listed(Box<RoomSummary>),
    Nothing,
}

/// Walks of which the next page may be asked for, by the time (ms) at which they stopped, or a
/// little later where two did at once.
#[derive(Default)]
pub(crate) struct Walks(Mutex<BTreeMap<u64, Walk>>);

impl Walks {
    /// Keeps a walk; gives the token for its next page.
    fn put(&self, walk: Walk, now: u64) -> String {
        let mut walks = self.lock();
        walks.retain(|at, _| now < at + WALK_LIFE_MS);
        if walks.len() >= MAX_WALKS {
            walks.pop_first();
        }
        let key = walks.last_key_value().map_or(now, |(last, _)| now.max(last + 1));
        walks.insert(key, walk);
        format!("h{key}")
    }

    /// The walk that goes on at the token.
    fn get(&self, token: &str) -> Option<Walk> {
        let key = token.strip_prefix('h')?.parse().ok()?;
        self.lock().get(&key).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Walk>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Rooms {
    /// One page of the tree below a space, as far as its rooms may be shown to the user.
    pub async fn hierarchy(&self, request: HierarchyRequest) -> Result<HierarchyPage, RoomError> {
        let limit = request.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
        let mut walk = self.walk(&request).await?;
        let mut rooms = Vec::new();
        let until = Instant::now() + ASKING_TIME;
        loop {
            let (ours, max) = (self.server_name().to_owned(), limit - rooms.len());
            let (found, unknown);
            (walk, found, unknown) = self
                .store()
                .read(move |reader| {
                    let found = walk.go_on(reader, &ours, max)?;
                    let unknown = walk.unknown(reader, &ours)?;
                    Ok::<_, RoomError>((walk, found, unknown))
                })
                .await?;
            rooms.extend(found);
            let is_whole = rooms.len() == limit || unknown.is_empty() || !walk.goes_on();
            if is_whole || Instant::now() >= until {
                break;
            }
            let asked = unknown.iter().map(|step| self.ask_about(&step.room_id, &step.via));
            for (step, told) in unknown.iter().zip(join_all(asked).await) {
                walk.learn(&step.room_id, told);
            }
        }
        if rooms.is_empty() && request.from.is_none() {
            return Err(RoomError::Forbidden("You are not allowed to view this room".into()));
        }
        let next_batch = walk.goes_on().then(|| self.inner.walks.put(walk, self.now()));
        Ok(HierarchyPage { rooms, next_batch })
    }

    /// The walk that the request begins, or goes on with.
    async fn walk(&self, request: &HierarchyRequest) -> Result<Walk, RoomError> {
        let HierarchyRequest { user, room_id, via, suggested_only, max_depth, from, .. } = request;
        let max_depth = max_depth.map(|depth| depth.min(MAX_DEPTH));
        if let Some(token) = from {
            let walk = self.inner.walks.get(token);
            let walk = walk.filter(|walk| walk.user == *user && walk.room_id == *room_id);
            let unknown = || RoomError::InvalidParam("The token is unknown, or too old".into());
            let walk = walk.ok_or_else(unknown)?;
            if suggested_only.is_some_and(|only| only != walk.suggested_only)
                || max_depth.is_some_and(|depth| depth != walk.max_depth)
            {
                let text = "suggested_only and max_depth cannot change from page to page";
                return Err(RoomError::InvalidParam(text.into()));
            }
            return Ok(walk);
        }
        let key = (user.clone(), room_id.clone());
        let found = self.store().read(move |reader| {
            let last = joined_servers(reader, &key.1)?;
            Ok::<_, RoomError>((reader.get::<tables::Pending>(&key)?, last))
        });
        let (pending, last) = found.await?;
        let via = self.entry_candidates(room_id, via, pending.as_ref(), last);
        Ok(Walk {
            user: user.clone(),
            room_id: room_id.clone(),
            suggested_only: suggested_only.unwrap_or(false),
            max_depth: max_depth.unwrap_or(MAX_DEPTH),
            queue: vec![Step { room_id: room_id.clone(), depth: 0, via }],
            seen: BTreeSet::new(),
            known: BTreeMap::new(),
            asked: BTreeSet::new(),
        })
    }
}

impl Walk {
    fn goes_on(&self) -> bool {
        !self.queue.is_empty() && self.seen.len() < MAX_WALKED
    }

    /// Goes on until `max` rooms are found, or to a room of which nothing is known yet.
    fn go_on(
        &mut self,
        reader: &Reader<'_>,
        ours: &ServerName,
        max: usize,
    ) -> Result<Vec<HierarchyRoom>, RoomError> {
        let mut found = Vec::new();
        while found.len() < max && self.goes_on() {
            let Some(step) = self.queue.pop() else { break };
            if self.seen.contains(&step.room_id) {
                continue;
            }
            let look = if is_joined(reader, &step.room_id, ours)? {
                self.look_here(&Graph::of(reader, &step.room_id)?)?
            } else if self.is_known(&step) {
                self.look_at_told(reader, &step)?
            } else {
                self.queue.push(step);
                break;
            };
            self.seen.insert(step.room_id.clone());
            let Some((summary, mut children)) = look else { continue };
            if self.suggested_only {
                children.retain(|child| child.suggested);
            }
            if step.depth < self.max_depth {
                let below = children.iter().rev().map(|child| Step {
                    room_id: child.room_id.clone(),
                    depth: step.depth + 1,
                    via: child.via.clone(),
                });
                let room = MAX_QUEUED.saturating_sub(self.queue.len());
                let skipped = children.len().saturating_sub(room);
                self.queue.extend(below.skip(skipped));
            }
            let children_state = children.into_iter().map(|child| child.event).collect();
            found.push(HierarchyRoom { summary, children_state });
        }
        // What has been seen is no reason for another page.
        while self.queue.pop_if(|step| self.seen.contains(&step.room_id)).is_some() {}
        Ok(found)
    }

    fn look_here(&self, graph: &Graph<'_>) -> Result<Look, RoomError> {
        let Some(summary) = shown_to_user(graph, Some(&self.user))? else { return Ok(None) };
        let children = if summary.is_space() { children_of(graph)? } else { Vec::new() };
        Ok(Some((summary, children)))
    }

    fn look_at_told(&self, reader: &Reader<'_>, step: &Step) -> Result<Look, RoomError> {
        let (summary, children) = match self.known.get(&step.room_id) {
            Some(Known::Told(told)) => (&told.summary, &*told.children),
            Some(Known::Listed(summary)) => (&**summary, &[][..]),
            Some(Known::Nothing) | None => return Ok(None),
        };
        if !may_see_told(reader, summary, Some(&self.user))? {
            return Ok(None);
        }
        let children = if summary.is_space() { children.to_vec() } else { Vec::new() };
        Ok(Some((summary.clone(), children)))
    }

    /// Whether enough is known of a room that we do not reside in: of a space that is not at the
    /// end, its children too.
    fn is_known(&self, step: &Step) -> bool {
        match self.known.get(&step.room_id) {
            None => false,
            Some(Known::Listed(summary)) => {
                let is_asked = self.asked.contains(&step.room_id);
                is_asked || !summary.is_space() || step.depth >= self.max_depth
            }
            Some(Known::Told(_) | Known::Nothing) => true,
        }
    }

    /// The next rooms of which others have to be asked.
    fn unknown(&self, reader: &Reader<'_>, ours: &ServerName) -> Result<Vec<Step>, RoomError> {
        let mut unknown: Vec<Step> = Vec::new();
        for step in self.queue.iter().rev() {
            if unknown.len() == ASKED_AT_ONCE {
                break;
            }
            let is_new = !self.seen.contains(&step.room_id)
                && !self.is_known(step)
                && unknown.iter().all(|other| other.room_id != step.room_id);
            if is_new && !is_joined(reader, &step.room_id, ours)? {
                unknown.push(step.clone());
            }
        }
        Ok(unknown)
    }

    /// Takes in what was told of a room, if anything was. What a parent's server says of a child
    /// counts where nobody says more.
    fn learn(&mut self, room_id: &RoomId, told: Option<Arc<Told>>) {
        self.asked.insert(room_id.to_owned());
        let Some(told) = told else {
            self.known.entry(room_id.to_owned()).or_insert(Known::Nothing);
            return;
        };
        for child in &told.listed {
            let id = child.room.room_id.clone();
            self.known.entry(id).or_insert_with(|| Known::Listed(child.clone().into()));
        }
        for id in &told.inaccessible {
            self.known.entry(id.clone()).or_insert(Known::Nothing);
        }
        self.known.insert(room_id.to_owned(), Known::Told(told));
    }
}

/// A room that may be shown, with its children.
type Look = Option<(RoomSummary, Vec<Child>)>;
