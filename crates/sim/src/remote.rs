//! Requests, made by calling the other server's inbound methods.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use exeunt_core::{
    Object, VerifyKey,
    key::KnownKey,
    ruma::{OwnedServerName, RoomId, ServerName},
    wire::federation,
};
use exeunt_fed_api::matrix_error;
use exeunt_membership::{Membership, SendApi};
use exeunt_room::{
    Call, Remote, RemoteError, RoomError, Rooms, ServerKeys, WantedKeys,
    inbound::{InboundInvite, MissingEvents, Transaction},
};
use exeunt_sender::{SendError, TransactionAnswer, Transport};
use serde_json::{Value, json};

use crate::{Fault, Network, Scripted, network::Host, server::KEY_ID, weather::Trip};

/// The network as one server sees it, from a start to the next crash.
pub struct SimRemote {
    pub ours: OwnedServerName,
    pub net: Weak<Network>,
    /// How often we had crashed when this began.
    pub crashes: u64,
}

/// Where the connection is not refused, it is given up after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// For which the answer to an exchange is awaited.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(60);

/// A request that has arrived.
struct Arrival {
    host: Host,
    fault: Option<Fault>,
    trip: Trip,
    crashes: u64,
}

impl SimRemote {
    fn net(&self) -> Result<Arc<Network>, RemoteError> {
        self.net.upgrade().ok_or_else(gone)
    }

    /// What a server did that has crashed since goes no further.
    async fn go_on(&self, net: &Network) {
        if net.crashes(&self.ours) != self.crashes {
            std::future::pending::<()>().await;
        }
    }

    /// Brings a request to its server.
    async fn reach(
        &self,
        net: &Network,
        server: &ServerName,
        endpoint: &'static str,
    ) -> Result<Arrival, RemoteError> {
        self.go_on(net).await;
        let trip = net.trip();
        tracing::debug!(from = %self.ours, to = %server, endpoint, ?trip, "a request");
        pass(trip.out).await;
        self.go_on(net).await;
        if trip.lost {
            pass(PATIENCE).await;
            self.go_on(net).await;
            return Err(RemoteError::Unreachable("the request is lost".into()));
        }
        let crashes = net.crashes(server);
        match net.route(&self.ours, server, endpoint) {
            Ok((host, fault)) => Ok(Arrival { host, fault, trip, crashes }),
            Err(error) => {
                if trip.silent {
                    pass(PATIENCE).await;
                    self.go_on(net).await;
                }
                Err(error)
            }
        }
    }

    /// The server that was reached checks whose request it is, as it does where signatures are on
    /// the wire, and takes it for a sign of life.
    async fn identify(&self, host: &Host) -> Result<(), RemoteError> {
        let Some(alive) = &host.alive else { return Ok(()) };
        let keys = host.rooms.keys().for_request(&self.ours, KEY_ID).await;
        if keys.is_ok_and(|ring| ring.get(&self.ours, KEY_ID).is_some()) {
            alive(&self.ours);
            return Ok(());
        }
        let (errcode, message) = ("M_UNAUTHORIZED".into(), "the keys cannot be had".into());
        Err(RemoteError::Refused { status: 401, errcode, message })
    }

    /// Brings the answer back.
    async fn come_back(
        &self,
        net: &Network,
        server: &ServerName,
        arrival: &Arrival,
    ) -> Result<(), RemoteError> {
        pass(arrival.trip.back).await;
        self.go_on(net).await;
        let lost = matches!(arrival.fault, Some(Fault::AnswerLost)) || arrival.trip.answer_lost;
        if lost || net.crashes(server) != arrival.crashes || net.is_cut(server, &self.ours) {
            return Err(RemoteError::Unreachable("the answer is lost".into()));
        }
        Ok(())
    }
}

impl SimRemote {
    /// `PUT exchange_third_party_invite`, of which this server is no client yet.
    pub async fn exchange_third_party_invite(
        &self,
        server: &ServerName,
        room: &RoomId,
        body: &Object,
    ) -> Result<(), RemoteError> {
        let net = self.net()?;
        let arrival = self.reach(&net, server, "exchange_third_party_invite").await?;
        self.identify(&arrival.host).await?;
        let rooms = &arrival.host.rooms;
        let exchanged = async {
            let entry = rooms.admit(&self.ours, room).await?;
            rooms.exchange_third_party_invite(&entry, body).await
        };
        // The server asks the invited user's in turn, and never ends that if it crashes.
        let exchanged = tokio::time::timeout(EXCHANGE_WITHIN, exchanged).await;
        self.come_back(&net, server, &arrival).await?;
        exchanged.map_err(|_| RemoteError::Unreachable("no answer".into()))?.map_err(refused)
    }
}

async fn pass(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

#[async_trait]
impl Remote for SimRemote {
    async fn call(&self, server: &ServerName, call: Call<'_>) -> Result<Value, RemoteError> {
        let net = self.net()?;
        let arrival = self.reach(&net, server, endpoint(&call)).await?;
        if let Some(Fault::Forged(answer)) = arrival.fault {
            return Ok(answer);
        }
        match net.scripted(server, &call) {
            Scripted::Honest => {}
            Scripted::Answer(answer) => return answer,
            Scripted::Silent => {
                let patience = call.wire().timeout;
                pass(patience).await;
                let why = format!("no answer within {} s", patience.as_secs());
                return Err(RemoteError::Unreachable(why));
            }
        }
        self.identify(&arrival.host).await?;
        let served = serve(&arrival.host.rooms, &self.ours, call).await.map_err(refused);
        if let Some(later) = arrival.trip.again {
            pass(later).await;
            // Whatever it says now, the first answer is on its way.
            drop(serve(&arrival.host.rooms, &self.ours, call).await);
        }
        self.come_back(&net, server, &arrival).await?;
        let mut answer = served?;
        match arrival.fault {
            Some(Fault::Tampered(change)) => {
                change(&mut answer);
                Ok(answer)
            }
            Some(Fault::Meanwhile(happens)) => {
                happens().await;
                Ok(answer)
            }
            _ => Ok(answer),
        }
    }

    async fn server_keys(&self, server: &ServerName) -> Result<ServerKeys, RemoteError> {
        let net = self.net()?;
        if let Some(document) = net.keys_of(server) {
            self.go_on(&net).await;
            return read_document(document);
        }
        let arrival = self.reach(&net, server, "keys").await?;
        if net.hides_keys(server) {
            return std::future::pending().await;
        }
        self.come_back(&net, server, &arrival).await?;
        read_document(arrival.host.rooms.key_document(0))
    }

    async fn keys_by_notary(
        &self,
        notary: &ServerName,
        wanted: &WantedKeys,
    ) -> Result<Vec<(OwnedServerName, ServerKeys)>, RemoteError> {
        let net = self.net()?;
        let arrival = self.reach(&net, notary, "notary").await?;
        let latest = |keys: &BTreeMap<String, u64>| keys.values().max().copied().unwrap_or(0);
        let wanted = wanted.iter().map(|(server, keys)| (server.clone(), latest(keys)));
        let documents = arrival.host.rooms.notarized_keys(wanted.collect()).await;
        self.come_back(&net, notary, &arrival).await?;
        let read = |document: Object| {
            let name = document.get("server_name").and_then(Value::as_str).unwrap_or_default();
            let name = OwnedServerName::try_from(name)
                .map_err(|error| RemoteError::Misbehaved(error.to_string()))?;
            Ok((name, read_document(document)?))
        };
        documents.into_iter().map(read).collect()
    }
}

/// The keys of a document. The simulation's last for ever.
fn read_document(document: Object) -> Result<ServerKeys, RemoteError> {
    let listed = document.get("verify_keys").and_then(Value::as_object);
    let mut current = BTreeMap::new();
    for (key_id, key) in listed.into_iter().flatten() {
        let key = key.get("key").and_then(Value::as_str).unwrap_or_default();
        let key = VerifyKey::from_base64(key)
            .map_err(|error| RemoteError::Misbehaved(error.to_string()))?;
        current.insert(key_id.clone(), KnownKey { key, valid_until: u64::MAX });
    }
    Ok(ServerKeys { current, old: BTreeMap::new(), document })
}

#[async_trait]
impl Transport for SimRemote {
    async fn send_transaction(
        &self,
        destination: &ServerName,
        txn_id: &str,
        body: Value,
    ) -> Result<TransactionAnswer, SendError> {
        let net = self.net().map_err(send_error)?;
        let arrival = self.reach(&net, destination, "send").await.map_err(send_error)?;
        self.identify(&arrival.host).await.map_err(send_error)?;
        let list = |key: &str| body.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let transaction = || Transaction { pdus: list("pdus"), edus: list("edus") };
        if let Some(later) = arrival.trip.again {
            let (rooms, origin) = (arrival.host.rooms.clone(), self.ours.clone());
            let (txn_id, transaction) = (txn_id.to_owned(), transaction());
            tokio::spawn(async move {
                pass(later).await;
                // Nobody waits for this answer.
                drop(rooms.receive_transaction(&origin, &txn_id, transaction).await);
            });
        }
        let rooms = &arrival.host.rooms;
        let answer = rooms.receive_transaction(&self.ours, txn_id, transaction()).await;
        self.come_back(&net, destination, &arrival).await.map_err(send_error)?;
        let answer = answer.map_err(|error| {
            let error = matrix_error(error);
            SendError::Refused { status: error.status, message: error.message }
        })?;
        let mut pdus = BTreeMap::new();
        for (id, outcome) in answer {
            let id = id.as_str().try_into().map_err(|_| SendError::Misbehaved(id.clone()))?;
            let error = outcome.get("error").and_then(Value::as_str).map(str::to_owned);
            pdus.insert(id, error.map_or(Ok(()), Err));
        }
        Ok(TransactionAnswer { pdus })
    }
}

fn send_error(error: RemoteError) -> SendError {
    match error {
        RemoteError::Refused { status, message, .. } => SendError::Refused { status, message },
        other => SendError::Unreachable(other.to_string()),
    }
}

/// The name by which faults and the log call an endpoint.
fn endpoint(call: &Call<'_>) -> &'static str {
    match call {
        Call::Make(request) => match request.membership {
            Membership::Join => "make_join",
            Membership::Knock => "make_knock",
            _ => "make_leave",
        },
        Call::Send(request) => match request.membership {
            Membership::Join => "send_join",
            Membership::Knock => "send_knock",
            _ => "send_leave",
        },
        Call::Invite { .. } => "invite",
        Call::Event { .. } => "event",
        Call::EventAuth { .. } => "event_auth",
        Call::StateIds { .. } => "state_ids",
        Call::State { .. } => "state",
        Call::MissingEvents { .. } => "get_missing_events",
        Call::Backfill { .. } => "backfill",
        Call::TimestampToEvent { .. } => "timestamp_to_event",
        Call::Directory { .. } => "directory",
        Call::Profile { .. } => "profile",
        Call::PublicRooms { .. } => "publicRooms",
        Call::Hierarchy { .. } => "hierarchy",
    }
}

/// What the routes do, without HTTP.
async fn serve(rooms: &Rooms, origin: &ServerName, call: Call<'_>) -> Result<Value, RoomError> {
    match call {
        Call::Make(request) => {
            let entry = rooms.admit(origin, &request.room_id).await?;
            let versions: Vec<_> = request.versions.iter().map(ToString::to_string).collect();
            match request.membership {
                Membership::Join => rooms.make_join(&entry, &request.user_id, &versions).await,
                Membership::Knock => rooms.make_knock(&entry, &request.user_id, &versions).await,
                Membership::Leave => rooms.make_leave(&entry, &request.user_id).await,
                _ => Err(unknown()),
            }
        }
        Call::Send(request) => {
            let entry = rooms.admit(origin, &request.room_id).await?;
            let (id, body) = (&request.event_id, request.event.object().clone());
            let answer = match request.membership {
                Membership::Join => rooms.send_join(&entry, id, body, false).await?.whole().await?,
                Membership::Leave => {
                    rooms.send_leave(&entry, id, body).await?;
                    json!({})
                }
                // There is one version, and it wraps nothing.
                Membership::Knock => return rooms.send_knock(&entry, id, body).await,
                _ => return Err(unknown()),
            };
            Ok(match request.api {
                SendApi::V2 => answer,
                SendApi::V1 => json!([200, answer]),
            })
        }
        Call::Invite { event, room_state, api } => {
            let entry = rooms.admit(origin, event.room_id()).await?;
            let mut body = event.object().clone();
            let invite = match api {
                SendApi::V2 => InboundInvite {
                    room_version: event.version().as_str().into(),
                    event: body,
                    invite_room_state: room_state.into(),
                },
                SendApi::V1 => {
                    let unsigned = json!({ "invite_room_state": room_state });
                    body.insert("unsigned".into(), unsigned);
                    InboundInvite::v1(body)?
                }
            };
            let signed = rooms.receive_invite(&entry, event.event_id(), invite).await?;
            let answer = json!({ "event": federation(&signed) });
            Ok(match api {
                SendApi::V2 => answer,
                SendApi::V1 => json!([200, answer]),
            })
        }
        Call::Event { event } => rooms.event_for_server(origin, event).await,
        Call::EventAuth { room, event } => {
            let entry = rooms.admit(origin, room).await?;
            rooms.event_auth_for_server(&entry, event).await?.whole().await
        }
        Call::StateIds { room, event } => {
            let entry = rooms.admit(origin, room).await?;
            rooms.state_ids_for_server(&entry, event).await?.whole().await
        }
        Call::State { room, event } => {
            let entry = rooms.admit(origin, room).await?;
            rooms.state_for_server(&entry, event).await?.whole().await
        }
        Call::MissingEvents { room, earliest, latest, limit } => {
            let entry = rooms.admit(origin, room).await?;
            let wanted = MissingEvents {
                earliest: earliest.to_vec(),
                latest: latest.to_vec(),
                limit: Some(limit),
                min_depth: 0,
            };
            rooms.missing_events_for_server(&entry, wanted).await
        }
        Call::Backfill { room, from, limit } => {
            let entry = rooms.admit(origin, room).await?;
            rooms.backfill_for_server(&entry, from, limit).await
        }
        Call::TimestampToEvent { room, ts, direction } => {
            let entry = rooms.admit(origin, room).await?;
            rooms.timestamp_for_server(&entry, ts, direction).await
        }
        Call::Directory { alias } => {
            let (room_id, servers) = rooms.query_directory(alias).await?;
            Ok(json!({ "room_id": room_id, "servers": servers }))
        }
        Call::PublicRooms { request } => {
            Ok(json!(rooms.public_rooms_for_server(origin, request.clone()).await?))
        }
        Call::Hierarchy { room } => {
            let entry = rooms.admit(origin, room).await?;
            rooms.hierarchy_for_server(&entry, false).await
        }
        // Rooms know no profiles.
        Call::Profile { .. } => Err(unknown()),
    }
}

fn unknown() -> RoomError {
    RoomError::NotFound("not served in the simulation".into())
}

fn refused(error: RoomError) -> RemoteError {
    let error = matrix_error(error);
    RemoteError::Refused { status: error.status, errcode: error.errcode, message: error.message }
}

fn gone() -> RemoteError {
    RemoteError::Unreachable("the network is gone".into())
}
