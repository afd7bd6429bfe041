//! The query of `/sync`.

use std::{sync::LazyLock, time::Duration};

use exeunt_http::{MatrixError, RawCall, RequestHead};
use exeunt_room::{
    Presence,
    views::{Filter, Token},
};
use exeunt_users::Session;
use serde_json::Value;

use crate::{ClientApi, room_error, users_error};

/// Longest time that a request waits for news.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Up to where a client wants the state, and under which name: the one that it asked with, for a
/// client that does not find its name believes that the server knows nothing of it (MSC4222).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StateSection {
    /// Up to the start of the timeline.
    #[default]
    State,
    /// Up to its end.
    StateAfter,
    Msc4222StateAfter,
}

impl StateSection {
    pub fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::StateAfter => "state_after",
            Self::Msc4222StateAfter => "org.matrix.msc4222.state_after",
        }
    }
}

/// What a client asks of `/sync`.
#[derive(Debug, Clone, Default)]
pub struct SyncCall {
    pub since: Option<u64>,
    filter: Option<Box<Filter>>,
    pub full_state: bool,
    pub state: StateSection,
    pub timeout: Duration,
    /// What the sync says of its user; offline: nothing.
    pub presence: Presence,
}

impl SyncCall {
    pub fn filter(&self) -> &Filter {
        static ALL: LazyLock<Filter> = LazyLock::new(Filter::default);
        self.filter.as_deref().unwrap_or(&ALL)
    }
}

pub(super) async fn read(
    api: &ClientApi,
    session: &Session,
    call: RawCall,
) -> Result<Box<SyncCall>, MatrixError> {
    let head = &call.head;
    let since = match head.query("since").filter(|token| !token.is_empty()) {
        Some(token) => match token.parse().map_err(room_error)? {
            Token::Stream(position) => Some(position),
            Token::Timeline(_) => return Err(bad("since")),
        },
        None => None,
    };
    let timeout = match head.query("timeout") {
        Some(text) => text.parse().map_err(|_| bad("timeout"))?,
        None => 0,
    };
    let presence = match head.query("set_presence") {
        Some(text) => Presence::parse(&text).ok_or_else(|| bad("set_presence"))?,
        None => Presence::Online,
    };
    let call = SyncCall {
        since,
        filter: filter(api, session, head.query("filter")).await?,
        full_state: flag(head, "full_state")?,
        state: if flag(head, "use_state_after")? {
            StateSection::StateAfter
        } else if flag(head, "org.matrix.msc4222.use_state_after")? {
            StateSection::Msc4222StateAfter
        } else {
            StateSection::State
        },
        timeout: Duration::from_millis(timeout).min(MAX_TIMEOUT),
        presence,
    };
    Ok(Box::new(call))
}

/// A filter: JSON if it begins with a brace, else the id of a stored one. `None`: nothing is left out.
async fn filter(
    api: &ClientApi,
    session: &Session,
    text: Option<String>,
) -> Result<Option<Box<Filter>>, MatrixError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let value = if text.starts_with('{') {
        serde_json::from_str(&text).map_err(|_| bad("filter"))?
    } else {
        let id = text.parse().map_err(|_| bad("filter"))?;
        let stored = api.users.filter(&session.user_id, id).await.map_err(users_error)?;
        Value::Object(stored.ok_or_else(|| bad("filter"))?)
    };
    serde_json::from_value(value).map(Some).map_err(|_| bad("filter"))
}

fn flag(head: &RequestHead, name: &str) -> Result<bool, MatrixError> {
    match head.query(name).as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(bad(name)),
    }
}

fn bad(name: &str) -> MatrixError {
    MatrixError::invalid_param(format!("{name} is not valid"))
}
