//! `POST /search`

use std::collections::{BTreeMap, BTreeSet};

use exeunt_http::{MatrixError, Method, RawCall, Reply, Routes};
use exeunt_room::views::{
    EventFilter, SearchContext, SearchOrder, SearchRequest, SearchResult, SearchToken,
};
use exeunt_users::Session;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ClientApi, body, room_error};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes.authed_raw(Method::POST, "/_matrix/client/v3/search", post)
}

#[derive(Deserialize)]
struct Body {
    search_categories: Categories,
}

#[derive(Deserialize)]
struct Categories {
    room_events: Option<Criteria>,
}

#[derive(Deserialize)]
struct Criteria {
    search_term: String,
    keys: Option<Vec<Key>>,
    #[serde(default)]
    filter: EventFilter,
    #[serde(default)]
    order_by: Order,
    event_context: Option<Context>,
    #[serde(default)]
    include_state: bool,
    #[serde(default)]
    groupings: Groupings,
}

/// What is searched: each key stands for the one type of events that has it.
#[derive(Deserialize, Clone, Copy)]
enum Key {
    #[serde(rename = "content.body")]
    Body,
    #[serde(rename = "content.name")]
    Name,
    #[serde(rename = "content.topic")]
    Topic,
}

impl Key {
    const ALL: [Key; 3] = [Key::Body, Key::Name, Key::Topic];

    fn kind(self) -> &'static str {
        match self {
            Key::Body => "m.room.message",
            Key::Name => "m.room.name",
            Key::Topic => "m.room.topic",
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Order {
    #[default]
    Rank,
    Recent,
}

#[derive(Deserialize)]
struct Context {
    before_limit: Option<u64>,
    after_limit: Option<u64>,
    #[serde(default)]
    include_profile: bool,
}

#[derive(Deserialize, Default)]
struct Groupings {
    #[serde(default)]
    group_by: Vec<Grouping>,
}

#[derive(Deserialize)]
struct Grouping {
    key: GroupKey,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum GroupKey {
    RoomId,
    Sender,
}

/// Events before and after a result where the request names no limit.
const DEFAULT_CONTEXT: u64 = 5;

/// `POST /_matrix/client/v3/search`
async fn post(api: ClientApi, session: Session, call: RawCall) -> Result<Reply, MatrixError> {
    let next_batch = match call.head.query("next_batch").filter(|text| !text.is_empty()) {
        Some(text) => Some(text.parse::<SearchToken>().map_err(room_error)?),
        None => None,
    };
    let Body { search_categories } = body::read(&call)?;
    let Some(criteria) = search_categories.room_events else {
        return Ok(Reply::json(json!({ "search_categories": {} })));
    };
    let keys = criteria.keys.as_deref().unwrap_or(&Key::ALL);
    let request = SearchRequest {
        viewer: api.rooms.viewer(&session.user_id, Some(session.device_id)),
        term: criteria.search_term,
        kinds: keys.iter().map(|key| key.kind()).collect::<BTreeSet<_>>(),
        filter: criteria.filter,
        order: match criteria.order_by {
            Order::Rank => SearchOrder::Rank,
            Order::Recent => SearchOrder::Recent,
        },
        context: criteria.event_context.map(|context| SearchContext {
            before: context.before_limit.unwrap_or(DEFAULT_CONTEXT),
            after: context.after_limit.unwrap_or(DEFAULT_CONTEXT),
            profiles: context.include_profile,
        }),
        include_state: criteria.include_state,
        next_batch,
    };
    let page = api.rooms.search(request).await.map_err(room_error)?;
    let mut found = json!({
        "count": page.count,
        "highlights": page.highlights,
        "results": page.results.iter().map(result).collect::<Vec<_>>(),
    });
    if !page.state.is_empty() {
        found["state"] = json!(page.state);
    }
    if let Some(token) = page.next_batch {
        found["next_batch"] = token.to_string().into();
    }
    for Grouping { key } in criteria.groupings.group_by {
        let (name, groups) = match key {
            GroupKey::RoomId => ("room_id", group(&page.results, |one| one.room_id.to_string())),
            GroupKey::Sender => ("sender", group(&page.results, |one| one.sender.to_string())),
        };
        found["groups"][name] = groups;
    }
    Ok(Reply::json(json!({ "search_categories": { "room_events": found } })))
}

fn result(found: &SearchResult) -> Value {
    let mut form = json!({ "rank": found.rank, "result": found.event });
    if let Some(context) = &found.context {
        form["context"] = context.to_json();
    }
    form
}

/// The results of this page by a value, in the order in which the values come first.
fn group(results: &[SearchResult], value: impl Fn(&SearchResult) -> String) -> Value {
    let mut groups = BTreeMap::<String, (usize, Vec<&Value>)>::new();
    for one in results {
        let next = groups.len() + 1;
        let group = groups.entry(value(one)).or_insert_with(|| (next, Vec::new()));
        group.1.push(&one.event["event_id"]);
    }
    let form = |(order, ids)| json!({ "order": order, "results": ids });
    groups.into_iter().map(|(value, group)| (value, form(group))).collect()
}
