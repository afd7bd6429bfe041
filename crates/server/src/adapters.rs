//! The ports of rooms and of the sender, over real federation.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use exeunt_fed_client::{FederationClient, Listing, Method, Request, RequestError};
use exeunt_room::{
    Call, Entry, Remote, RemoteError, Rooms, ServerKeys, Wake, WantedKeys, leave, remote::Wire,
};
use exeunt_sender::{
    DepartureOutcome, DepartureRunner, Departures, SendError, Sender, TransactionAnswer, Transport,
};
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName, UserId};
use serde_json::Value;
use tokio::sync::mpsc;

/// Other servers over HTTPS; `None` where federation is switched off, so that no socket is opened.
pub struct Federation(pub Option<FederationClient>);

#[async_trait]
impl Remote for Federation {
    async fn call(&self, server: &ServerName, call: Call<'_>) -> Result<Value, RemoteError> {
        let client = self.0.as_ref().ok_or_else(switched_off)?;
        let wire = call.wire();
        client.request(request(server, &wire)).await.map_err(remote_error)
    }

    async fn call_listing(
        &self,
        server: &ServerName,
        call: Call<'_>,
        entries: mpsc::Sender<Entry>,
    ) -> Result<Value, RemoteError> {
        let client = self.0.as_ref().ok_or_else(switched_off)?;
        let (wire, listing) = (call.wire(), call.listing());
        let listing = Listing { lists: listing.lists, values: listing.values };
        let answer = client.request_listing(request(server, &wire), listing, entries).await;
        answer.map_err(remote_error)
    }

    async fn server_keys(&self, server: &ServerName) -> Result<ServerKeys, RemoteError> {
        let client = self.0.as_ref().ok_or_else(switched_off)?;
        client.server_keys(server).await.map(server_keys).map_err(remote_error)
    }

    async fn keys_by_notary(
        &self,
        notary: &ServerName,
        wanted: &WantedKeys,
    ) -> Result<Vec<(OwnedServerName, ServerKeys)>, RemoteError> {
        let client = self.0.as_ref().ok_or_else(switched_off)?;
        let keys = client.keys_by_notary(notary, wanted).await.map_err(remote_error)?;
        Ok(keys.into_iter().map(|keys| (keys.server.clone(), server_keys(keys))).collect())
    }
}

fn request<'a>(server: &'a ServerName, wire: &'a Wire) -> Request<'a> {
    Request {
        destination: server,
        method: match wire.method {
            "GET" => Method::Get,
            "PUT" => Method::Put,
            _ => Method::Post,
        },
        path: &wire.path,
        body: wire.body.as_ref(),
        timeout: Some(wire.timeout),
        max_bytes: Some(wire.max_bytes),
    }
}

fn server_keys(keys: exeunt_fed_client::ServerKeys) -> ServerKeys {
    ServerKeys { current: keys.keys, old: keys.old_keys, document: keys.document }
}

fn switched_off() -> RemoteError {
    RemoteError::Incompatible("federation is switched off here (federation.enabled)".into())
}

fn remote_error(error: RequestError) -> RemoteError {
    match error {
        RequestError::Unreachable(why) => RemoteError::Unreachable(why),
        // An error page of a gateway says that the server behind it is not there.
        RequestError::Refused { status: 500.., errcode: None, message } => {
            RemoteError::Unreachable(message)
        }
        RequestError::Refused { status, errcode, message } => {
            RemoteError::Refused { status, errcode: errcode.unwrap_or_default(), message }
        }
        RequestError::Misbehaved(why) => RemoteError::Misbehaved(why),
        RequestError::Unsendable(why) => RemoteError::Incompatible(why),
    }
}

#[async_trait]
impl Transport for Federation {
    async fn send_transaction(
        &self,
        destination: &ServerName,
        txn_id: &str,
        body: Value,
    ) -> Result<TransactionAnswer, SendError> {
        let Some(client) = &self.0 else {
            return Err(SendError::Unreachable(switched_off().to_string()));
        };
        let path = format!("/_matrix/federation/v1/send/{txn_id}");
        let request = Request::put(destination, &path, &body);
        match client.request(request).await {
            Ok(answer) => Ok(TransactionAnswer { pdus: refused_events(&answer) }),
            Err(RequestError::Unreachable(why)) => Err(SendError::Unreachable(why)),
            Err(RequestError::Refused { status, message, .. }) => {
                Err(SendError::Refused { status, message })
            }
            Err(RequestError::Misbehaved(why) | RequestError::Unsendable(why)) => {
                Err(SendError::Misbehaved(why))
            }
        }
    }
}

/// The events of a transaction that the server says it did not take.
fn refused_events(answer: &Value) -> BTreeMap<OwnedEventId, Result<(), String>> {
    let Some(pdus) = answer.get("pdus").and_then(Value::as_object) else {
        return BTreeMap::new();
    };
    pdus.iter()
        .filter_map(|(id, outcome)| {
            let why = outcome.get("error")?.as_str()?;
            Some((EventId::parse(id).ok()?, Err(why.to_owned())))
        })
        .collect()
}

/// Wakes the sender and the departure outbox.
pub struct Wakers {
    pub sender: Sender,
    pub departures: Departures,
}

impl Wake for Wakers {
    fn wake(&self, destinations: &[OwnedServerName]) {
        self.sender.wake(destinations);
    }

    fn departure_queued(&self) {
        self.departures.departure_queued();
    }
}

/// Runs queued departures through the rooms service.
pub struct Runner(pub Rooms);

#[async_trait]
impl DepartureRunner for Runner {
    async fn attempt(&self, user: &UserId, room: &RoomId) -> DepartureOutcome {
        match self.0.attempt_departure(user, room).await {
            Ok(leave::DepartureOutcome::Delivered) => DepartureOutcome::Delivered,
            Ok(leave::DepartureOutcome::Ended) => DepartureOutcome::Ended,
            Ok(leave::DepartureOutcome::Retry) => DepartureOutcome::Retry,
            Err(error) => {
                tracing::error!(%user, %room, %error, "a departure could not be tried");
                DepartureOutcome::Retry
            }
        }
    }
}

/// Tells both queues that a server is there.
pub fn alive(sender: &Sender, departures: &Departures) -> Arc<dyn Fn(&ServerName) + Send + Sync> {
    let (sender, departures) = (sender.clone(), departures.clone());
    Arc::new(move |server| {
        sender.alive(server);
        departures.alive(server);
    })
}
