//! Search in the events that a user may see. Specification: client-server API, "Server Side
//! Search"; decision 0030.
//!
//! An event matches if it has all words of the search. The index gives the candidates of each room,
//! newest first; each is read, so that what the user may not see is neither given nor counted.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use exeunt_core::StateKey;
use exeunt_store::{Reader, tables};
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use super::{
    MemberProfile, Token, Viewer, access::RoomView, context::Around, filter::EventFilter,
    messages::senders,
};
use crate::{RoomError, graph::Known, words::words};

/// Most different words of a search; more are left out.
const MAX_TERMS: usize = 16;
/// Most rows of the index that are looked at, over all rooms of the user.
const MAX_ROWS: usize = 10_000;
/// Rows that are looked at in each room in any case.
const MIN_ROWS_PER_ROOM: usize = 50;
/// Most results of a page, and those of one where the filter names no limit.
const MAX_LIMIT: u64 = 100;
const DEFAULT_LIMIT: u64 = 10;
/// Most events before or after a result.
const MAX_CONTEXT: u64 = 50;
/// Words of a usual message: longer ones count for less.
const USUAL_LENGTH: f64 = 12.0;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SearchOrder {
    #[default]
    Rank,
    Recent,
}

#[derive(Debug, Clone)]
pub struct SearchRequest {
    pub viewer: Viewer,
    pub term: String,
    /// Types of events: each has one key that is searched.
    pub kinds: BTreeSet<&'static str>,
    pub filter: EventFilter,
    pub order: SearchOrder,
    pub context: Option<SearchContext>,
    pub include_state: bool,
    pub next_batch: Option<SearchToken>,
}

/// What is wanted around a result.
#[derive(Debug, Clone, Copy)]
pub struct SearchContext {
    pub before: u64,
    pub after: u64,
    pub profiles: bool,
}

#[derive(Debug, Clone, Default)]
pub struct SearchPage {
    /// Matches that were looked at, on this page and off it.
    pub count: usize,
    /// The words that were searched for.
    pub highlights: Vec<String>,
    pub results: Vec<SearchResult>,
    /// Current state of the rooms of the results; of departed ones, as of the departure.
    pub state: BTreeMap<OwnedRoomId, Vec<Value>>,
    pub next_batch: Option<SearchToken>,
}

#[derive(Debug, Clone)]
pub struct SearchResult {
    pub rank: f64,
    pub room_id: OwnedRoomId,
    pub sender: OwnedUserId,
    pub event: Value,
    pub context: Option<ResultContext>,
}

#[derive(Debug, Clone)]
pub struct ResultContext {
    /// Newest first.
    pub before: Vec<Value>,
    /// Oldest first.
    pub after: Vec<Value>,
    pub start: Token,
    pub end: Token,
    pub profiles: Option<BTreeMap<OwnedUserId, MemberProfile>>,
}

/// Where a page begins: how many results are before it, among those that there were when the
/// first page was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchToken {
    position: u64,
    skip: usize,
}

impl fmt::Display for SearchToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}_{}", self.position, self.skip)
    }
}

impl FromStr for SearchToken {
    type Err = RoomError;

    fn from_str(text: &str) -> Result<Self, RoomError> {
        let parts = text.strip_prefix('n').and_then(|text| text.split_once('_'));
        let token = parts.and_then(|(position, skip)| {
            Some(Self { position: position.parse().ok()?, skip: skip.parse().ok()? })
        });
        token.ok_or_else(|| RoomError::InvalidParam("The token is not one of ours".into()))
    }
}

struct Match<'v, 'r> {
    view: &'v RoomView<'r>,
    order: i64,
    known: Known,
    rank: f64,
}

impl Match<'_, '_> {
    /// Newest first. Of two rooms, only the senders' clocks tell; nobody's is ahead of ours.
    fn by_time(&self, other: &Self) -> Ordering {
        let time = |found: &Self| {
            let sent = found.known.pdu.origin_server_ts().min(found.view.viewer.now);
            Reverse((sent, found.order))
        };
        match self.view.graph.room_id == other.view.graph.room_id {
            true => other.order.cmp(&self.order),
            false => time(self).cmp(&time(other)),
        }
    }
}

pub(super) fn search(
    reader: &Reader<'_>,
    request: &SearchRequest,
) -> Result<SearchPage, RoomError> {
    let mut terms: Vec<String> = Vec::new();
    for term in words(&request.term) {
        if terms.len() < MAX_TERMS && !terms.contains(&term) {
            terms.push(term);
        }
    }
    let token = request.next_batch;
    let SearchToken { position, skip } =
        token.unwrap_or(SearchToken { position: reader.position()?, skip: 0 });
    let mut page = SearchPage { highlights: terms.clone(), ..SearchPage::default() };
    let rooms = searched_rooms(reader, request)?;
    let rows = (MAX_ROWS / rooms.len().max(1)).max(MIN_ROWS_PER_ROOM);
    // The longest word is the rarest, as a rule.
    terms.sort_by_key(|term| Reverse(term.len()));
    let mut found = Vec::new();
    for (view, until) in &rooms {
        found.extend(matches(view, request, &terms, (*until).min(position), rows)?);
    }
    match request.order {
        SearchOrder::Recent => found.sort_by(Match::by_time),
        SearchOrder::Rank => {
            found.sort_by(|a, b| b.rank.total_cmp(&a.rank).then_with(|| a.by_time(b)));
        }
    }
    page.count = found.len();
    let limit = request.filter.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT) as usize;
    for one in found.iter().skip(skip).take(limit) {
        let room_id = one.view.graph.room_id.clone();
        if request.include_state && !page.state.contains_key(&room_id) {
            page.state.insert(room_id, state_of(one.view)?);
        }
        page.results.push(result(one, request.context)?);
    }
    if page.results.len() == limit {
        page.next_batch = Some(SearchToken { position, skip: skip + limit });
    }
    Ok(page)
}

/// The rooms that the user was ever in and may read, up to where; not the encrypted ones.
fn searched_rooms<'r>(
    reader: &'r Reader<'r>,
    request: &'r SearchRequest,
) -> Result<Vec<(RoomView<'r>, u64)>, RoomError> {
    let mut rooms = Vec::new();
    for row in reader.scan::<tables::Memberships>(request.viewer.user.clone()).iter() {
        let ((_, room_id), _) = row?;
        if !request.filter.allows_room(&room_id) {
            continue;
        }
        let Some(view) = RoomView::open(reader, &request.viewer, &room_id)? else { continue };
        let Some(until) = view.until()? else { continue };
        let encryption = StateKey::single("m.room.encryption");
        if view.stay.is_some() && view.graph.state_id(view.root_at(until)?, &encryption)?.is_none()
        {
            rooms.push((view, until));
        }
    }
    Ok(rooms)
}

/// The events of a room that have all words, and that the user sees and wants.
fn matches<'v, 'r>(
    view: &'v RoomView<'r>,
    request: &SearchRequest,
    terms: &[String],
    until: u64,
    rows: usize,
) -> Result<Vec<Match<'v, 'r>>, RoomError> {
    let Some((first, others)) = terms.split_first() else { return Ok(Vec::new()) };
    let (reader, room_id) = (view.graph.reader, &view.graph.room_id);
    let key = |term: &String, order: i64| (room_id.clone(), term.clone(), order);
    let until = Token::Stream(until).order();
    let scan = reader.scan::<tables::Words>((room_id.clone(), first.clone()));
    let scan = scan.before(key(first, until.saturating_add(1))).rev().limit(rows);
    let mut found = Vec::new();
    'rows: for row in scan.iter() {
        let ((_, _, order), (count, length)) = row?;
        let mut rank = weight(count, length);
        for term in others {
            match reader.get::<tables::Words>(&key(term, order))? {
                Some((count, length)) => rank += weight(count, length),
                None => continue 'rows,
            }
        }
        let Some(event_id) = reader.get::<tables::Timeline>(&(room_id.clone(), order))? else {
            continue;
        };
        let known = view.graph.event_here(&event_id)?;
        let wanted =
            request.kinds.contains(known.pdu.kind()) && view.passes(&request.filter, &known)?;
        if wanted && view.sees(&known, order)? && !view.is_erased(&known)? {
            found.push(Match { view, order, known, rank });
        }
    }
    Ok(found)
}

/// What a word counts: the more often it occurs, and the shorter the text. Since all words must
/// occur, how rare they are makes no difference.
fn weight(count: u64, length: u64) -> f64 {
    let (count, length) = (count as f64, length as f64);
    count / (count + 0.3 + 0.9 * length / USUAL_LENGTH)
}

fn result(found: &Match<'_, '_>, wanted: Option<SearchContext>) -> Result<SearchResult, RoomError> {
    let Match { view, order, known, rank } = found;
    let context = match wanted {
        Some(wanted) => Some(context(view, *order, known, wanted)?),
        None => None,
    };
    Ok(SearchResult {
        rank: *rank,
        room_id: view.graph.room_id.clone(),
        sender: known.pdu.sender().to_owned(),
        event: view.client_event(known)?,
        context,
    })
}

fn context(
    view: &RoomView<'_>,
    order: i64,
    known: &Known,
    wanted: SearchContext,
) -> Result<ResultContext, RoomError> {
    let limits = [wanted.before, wanted.after].map(|limit| limit.min(MAX_CONTEXT) as usize);
    let around = Around::walk(view, order, limits, &EventFilter::default())?;
    let profiles = match wanted.profiles {
        true => {
            let all = around.before.iter().chain(&around.after).cloned();
            let events: Vec<_> = all.chain([(order, known.clone())]).collect();
            Some(profiles(view, &events)?)
        }
        false => None,
    };
    let form = |events: &[(i64, Known)]| -> Result<Vec<Value>, RoomError> {
        events.iter().map(|(_, known)| view.client_event(known)).collect()
    };
    Ok(ResultContext {
        before: form(&around.before)?,
        after: form(&around.after)?,
        start: around.start,
        end: around.end,
        profiles,
    })
}

fn profiles(
    view: &RoomView<'_>,
    events: &[(i64, Known)],
) -> Result<BTreeMap<OwnedUserId, MemberProfile>, RoomError> {
    let mut profiles = BTreeMap::new();
    for member in senders(view, events)? {
        let user = member["state_key"].as_str().and_then(|key| OwnedUserId::try_from(key).ok());
        let Some(user) = user else { continue };
        let text = |field: &str| member["content"][field].as_str().map(str::to_owned);
        let (display_name, avatar_url) = (text("displayname"), text("avatar_url"));
        profiles.insert(user, MemberProfile { display_name, avatar_url });
    }
    Ok(profiles)
}

fn state_of(view: &RoomView<'_>) -> Result<Vec<Value>, RoomError> {
    let Some(until) = view.until()? else { return Ok(Vec::new()) };
    let ids = view.graph.state_ids(view.root_at(until)?)?;
    ids.values().map(|id| view.client_event(&view.graph.event_here(id)?)).collect()
}

impl ResultContext {
    /// The form for clients.
    pub fn to_json(&self) -> Value {
        let mut form = json!({
            "events_before": self.before,
            "events_after": self.after,
            "start": self.start.to_string(),
            "end": self.end.to_string(),
        });
        if let Some(profiles) = &self.profiles {
            form["profile_info"] = profiles
                .iter()
                .map(|(user, MemberProfile { display_name, avatar_url })| {
                    let profile = json!({ "displayname": display_name, "avatar_url": avatar_url });
                    (user.to_string(), profile)
                })
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        form
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_as_written_and_nothing_else_does() {
        let token = SearchToken { position: 7, skip: 20 };
        assert_eq!(token.to_string().parse::<SearchToken>().unwrap(), token);
        for bad in ["", "n", "n7", "7_20", "n7_", "n_20", "n-7_20", "n7_x", "s7"] {
            assert!(bad.parse::<SearchToken>().is_err(), "{bad}");
        }
    }

    #[test]
    fn short_texts_and_many_occurrences_weigh_more() {
        assert!(weight(1, 3) > weight(1, 30));
        assert!(weight(2, 10) > weight(1, 10));
    }
}
