//! The port to other servers: what rooms ask of them, in one list.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use exeunt_core::{Object, Pdu, key::KnownKey};
use exeunt_membership::{MakeRequest, Membership, SendApi, SendRequest};
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomAliasId, RoomId, ServerName, UserId};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use tokio::sync::mpsc;

pub use exeunt_membership::RemoteFailure as RemoteError;

use crate::{PublicRoomsRequest, views::Direction};

/// Other servers, as rooms need them. Implemented over real federation, and over a simulated one.
#[async_trait]
pub trait Remote: Send + Sync + 'static {
    /// Makes one signed request. The answer is JSON of unknown shape and unknown intent.
    async fn call(&self, server: &ServerName, call: Call<'_>) -> Result<Value, RemoteError>;

    /// The same for an answer with long lists ([`Call::listing`]): their entries go to `entries` as
    /// they arrive, what is left of the answer is returned. Implementations over a real network do
    /// not hold the answer as a whole.
    async fn call_listing(
        &self,
        server: &ServerName,
        call: Call<'_>,
        entries: mpsc::Sender<Entry>,
    ) -> Result<Value, RemoteError> {
        let lists = call.listing().lists;
        let mut answer = self.call(server, call).await?;
        let object = match &mut answer {
            Value::Array(pair) if pair.len() == 2 => &mut pair[1],
            other => other,
        };
        for (index, name) in lists.iter().enumerate() {
            let Some(Value::Array(list)) = object.as_object_mut().and_then(|o| o.remove(*name))
            else {
                return Err(RemoteError::Misbehaved(format!("{name} is not a list")));
            };
            for entry in list {
                let json = to_raw_value(&entry)
                    .map_err(|error| RemoteError::Misbehaved(error.to_string()))?;
                if entries.send((index, json)).await.is_err() {
                    return Err(RemoteError::Misbehaved("the entries were not wanted".into()));
                }
            }
        }
        Ok(answer)
    }

    /// The server's own keys; its signature on them has been checked.
    async fn server_keys(&self, server: &ServerName) -> Result<ServerKeys, RemoteError>;

    /// Keys of other servers, as a notary has them. The servers' own signatures have been checked,
    /// the notary's has not. Nothing else is promised: they may be of servers nobody asked about.
    async fn keys_by_notary(
        &self,
        notary: &ServerName,
        _wanted: &WantedKeys,
    ) -> Result<Vec<(OwnedServerName, ServerKeys)>, RemoteError> {
        Err(RemoteError::Incompatible(format!("{notary} is not asked as a notary")))
    }
}

/// An entry of a list in an answer: the list's index in [`Listing::lists`], and its JSON.
pub type Entry = (usize, Box<RawValue>);

/// What is read of an answer entry by entry, and what else is wanted of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listing {
    pub lists: &'static [&'static str],
    pub values: &'static [&'static str],
}

/// Keys that a check needs: by server, the key id and the time (ms) at which it must be valid.
pub type WantedKeys = BTreeMap<OwnedServerName, BTreeMap<String, u64>>;

/// Keys of a server by key id.
#[derive(Debug, Clone, Default)]
pub struct ServerKeys {
    pub current: BTreeMap<String, KnownKey>,
    pub old: BTreeMap<String, KnownKey>,
    /// The document as the server signed it, for those who ask us as a notary.
    pub document: Object,
}

/// A request to another server.
#[derive(Debug, Clone, Copy)]
pub enum Call<'a> {
    /// `make_join`, `make_knock`, `make_leave`.
    Make(&'a MakeRequest),
    /// `send_join`, `send_knock`, `send_leave`.
    Send(&'a SendRequest),
    Invite {
        event: &'a Pdu,
        room_state: &'a [Value],
        /// Version 1 has no place for the room version.
        api: SendApi,
    },
    Event {
        event: &'a EventId,
    },
    EventAuth {
        room: &'a RoomId,
        event: &'a EventId,
    },
    StateIds {
        room: &'a RoomId,
        event: &'a EventId,
    },
    State {
        room: &'a RoomId,
        event: &'a EventId,
    },
    MissingEvents {
        room: &'a RoomId,
        earliest: &'a [OwnedEventId],
        latest: &'a [OwnedEventId],
        limit: usize,
    },
    Backfill {
        room: &'a RoomId,
        from: &'a [OwnedEventId],
        limit: usize,
    },
    TimestampToEvent {
        room: &'a RoomId,
        /// Milliseconds since the epoch.
        ts: u64,
        direction: Direction,
    },
    Directory {
        alias: &'a RoomAliasId,
    },
    Profile {
        user: &'a UserId,
        field: Option<&'a str>,
    },
    PublicRooms {
        request: &'a PublicRoomsRequest,
    },
    Hierarchy {
        room: &'a RoomId,
    },
}

/// A [`Call`] as an HTTP request.
#[derive(Debug, Clone, PartialEq)]
pub struct Wire {
    pub method: &'static str,
    /// Path and query, percent-encoded.
    pub path: String,
    pub body: Option<Value>,
    pub timeout: Duration,
    /// Largest answer in bytes.
    pub max_bytes: usize,
}

const QUICK: Duration = Duration::from_secs(10);
const USUAL: Duration = Duration::from_secs(30);
/// Joining a large room takes the other server long.
const JOIN: Duration = Duration::from_secs(300);
/// Answers that hold at most a few events.
const SMALL: usize = 512 * 1024;
/// Answers that hold what describes many rooms.
const LISTS: usize = 4 * 1024 * 1024;
/// Answers that hold many events.
const LARGE: usize = 32 * 1024 * 1024;
/// Answers that hold a room's state, read event by event.
const STATE_LISTING: usize = 1024 * 1024 * 1024;

impl Call<'_> {
    /// The long lists of the answer, and the other values that count; both empty where it has none.
    pub fn listing(&self) -> Listing {
        match self {
            Call::Send(request) if request.membership == Membership::Join => Listing {
                lists: &["state", "auth_chain"],
                values: &["event", "members_omitted", "servers_in_room"],
            },
            Call::State { .. } => Listing { lists: &["pdus", "auth_chain"], values: &[] },
            _ => Listing::default(),
        }
    }

    /// Method, path, body and limits (server-server API).
    pub fn wire(&self) -> Wire {
        let get = |path: String, timeout, max_bytes| Wire {
            method: "GET",
            path: format!("/_matrix/federation{path}"),
            body: None,
            timeout,
            max_bytes,
        };
        let put = |path: String, body, timeout, max_bytes| Wire {
            method: "PUT",
            path: format!("/_matrix/federation{path}"),
            body: Some(body),
            timeout,
            max_bytes,
        };
        match *self {
            Call::Make(request) => {
                let versions: Vec<_> =
                    request.versions.iter().map(|v| format!("ver={}", encode(v))).collect();
                let query = if versions.is_empty() { "" } else { "?" };
                let path = format!(
                    "/v1/make_{}/{}/{}{query}{}",
                    request.membership.as_str(),
                    encode(request.room_id.as_str()),
                    encode(request.user_id.as_str()),
                    versions.join("&")
                );
                get(path, QUICK, SMALL)
            }
            Call::Send(request) => {
                let api = match request.api {
                    SendApi::V1 => "v1",
                    SendApi::V2 => "v2",
                };
                let membership = request.membership;
                let endpoint = format!("send_{}", membership.as_str());
                let (timeout, max_bytes) = if membership == Membership::Join {
                    (JOIN, STATE_LISTING)
                } else {
                    (QUICK, SMALL)
                };
                put(
                    send_path(api, &endpoint, &request.event),
                    federation(&request.event),
                    timeout,
                    max_bytes,
                )
            }
            Call::Invite { event, room_state, api: SendApi::V1 } => {
                let mut body = federation(event);
                body["unsigned"] = json!({ "invite_room_state": room_state });
                put(send_path("v1", "invite", event), body, USUAL, SMALL)
            }
            Call::Invite { event, room_state, api: SendApi::V2 } => put(
                send_path("v2", "invite", event),
                json!({
                    "room_version": event.version().as_str(),
                    "event": event.object(),
                    "invite_room_state": room_state,
                }),
                USUAL,
                SMALL,
            ),
            Call::Event { event } => {
                get(format!("/v1/event/{}", encode(event.as_str())), USUAL, SMALL)
            }
            Call::EventAuth { room, event } => {
                get(by_event("event_auth", room, event), USUAL, LARGE)
            }
            Call::StateIds { room, event } => {
                get(with_event("state_ids", room, event), USUAL, LARGE)
            }
            Call::State { room, event } => {
                get(with_event("state", room, event), JOIN, STATE_LISTING)
            }
            Call::MissingEvents { room, earliest, latest, limit } => Wire {
                method: "POST",
                path: format!(
                    "/_matrix/federation/v1/get_missing_events/{}",
                    encode(room.as_str())
                ),
                body: Some(json!({
                    "earliest_events": earliest,
                    "latest_events": latest,
                    "limit": limit,
                })),
                timeout: USUAL,
                max_bytes: LARGE,
            },
            Call::Backfill { room, from, limit } => {
                let from: String =
                    from.iter().map(|id| format!("v={}&", encode(id.as_str()))).collect();
                get(
                    format!("/v1/backfill/{}?{from}limit={limit}", encode(room.as_str())),
                    USUAL,
                    LARGE,
                )
            }
            Call::TimestampToEvent { room, ts, direction } => {
                let (room, dir) = (encode(room.as_str()), direction.as_str());
                get(format!("/v1/timestamp_to_event/{room}?ts={ts}&dir={dir}"), QUICK, SMALL)
            }
            Call::Directory { alias } => get(
                format!("/v1/query/directory?room_alias={}", encode(alias.as_str())),
                QUICK,
                SMALL,
            ),
            Call::Profile { user, field } => {
                let field = field.map(|f| format!("&field={}", encode(f))).unwrap_or_default();
                get(
                    format!("/v1/query/profile?user_id={}{field}", encode(user.as_str())),
                    QUICK,
                    SMALL,
                )
            }
            Call::PublicRooms { request } => public_rooms(request),
            Call::Hierarchy { room } => {
                get(format!("/v1/hierarchy/{}", encode(room.as_str())), QUICK, LISTS)
            }
        }
    }
}

/// A search is a `POST`; servers that know no search know the rest.
fn public_rooms(request: &PublicRoomsRequest) -> Wire {
    let path = "/_matrix/federation/v1/publicRooms";
    if let Some(filter) = request.filter() {
        let mut body = json!({ "filter": filter });
        if let Some(limit) = request.limit {
            body["limit"] = limit.into();
        }
        if let Some(since) = &request.since {
            body["since"] = since.as_str().into();
        }
        let (method, path) = ("POST", path.to_owned());
        return Wire { method, path, body: Some(body), timeout: QUICK, max_bytes: LISTS };
    }
    let limit = request.limit.map(|limit| format!("limit={limit}"));
    let since = request.since.as_ref().map(|since| format!("since={}", encode(since)));
    let query: Vec<_> = limit.into_iter().chain(since).collect();
    let path = format!("{path}?{}", query.join("&"));
    Wire { method: "GET", path, body: None, timeout: QUICK, max_bytes: LISTS }
}

fn federation(event: &Pdu) -> Value {
    exeunt_core::wire::federation(event)
}

fn send_path(version: &str, endpoint: &str, event: &Pdu) -> String {
    let room = encode(event.room_id().as_str());
    format!("/{version}/{endpoint}/{room}/{}", encode(event.event_id().as_str()))
}

fn by_event(endpoint: &str, room: &RoomId, event: &EventId) -> String {
    format!("/v1/{endpoint}/{}/{}", encode(room.as_str()), encode(event.as_str()))
}

fn with_event(endpoint: &str, room: &RoomId, event: &EventId) -> String {
    format!("/v1/{endpoint}/{}?event_id={}", encode(room.as_str()), encode(event.as_str()))
}

/// Percent-encodes everything but the unreserved characters (RFC 3986).
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
