//! A server to send requests to.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use actix_web::{App, http::Method, test};
use async_trait::async_trait;
use exeunt_client_api::{ClientApi, Options, routes};
use exeunt_core::Signer;
use exeunt_http::Service;
use exeunt_room::{Call, NoWake, Remote, RemoteError, Rooms, ServerKeys};
use exeunt_store::Store;
use exeunt_users::{NewAccount, NewSession, RegistrationPolicy, Users};
use ring::rand::SystemRandom;
use ruma::{ServerName, UserId, server_name};
use serde_json::{Value, json};

/// A server in memory. Other servers answer every request with the same failure.
pub struct Server {
    pub api: ClientApi,
    service: Service,
    failure: Arc<Mutex<RemoteError>>,
    now: Arc<AtomicU64>,
}

struct Failing(Arc<Mutex<RemoteError>>);

#[async_trait]
impl Remote for Failing {
    async fn call(&self, _: &ServerName, _: Call<'_>) -> Result<Value, RemoteError> {
        Err(self.0.lock().unwrap().clone())
    }

    async fn server_keys(&self, _: &ServerName) -> Result<ServerKeys, RemoteError> {
        Err(self.0.lock().unwrap().clone())
    }
}

impl Server {
    /// Open for registration.
    pub fn new() -> Self {
        let registration = RegistrationPolicy { open: true, ..RegistrationPolicy::default() };
        Self::with(Options { registration, ..Options::default() })
    }

    pub fn with(options: Options) -> Self {
        let failure = Arc::new(Mutex::new(RemoteError::Unreachable("no network".into())));
        let (store, name) = (Store::memory(), server_name!("example.org"));
        let signer = Signer::new(name.to_owned(), "ed25519:a", &[7; 32]).unwrap();
        let now = Arc::new(AtomicU64::new(1_700_000_000_000));
        let time = now.clone();
        let clock: exeunt_room::Clock = Arc::new(move || time.load(Ordering::SeqCst));
        let rng = SystemRandom::new();
        let rooms = Rooms::new(
            store.clone(),
            Arc::new(signer),
            Arc::new(Failing(failure.clone())),
            Arc::new(NoWake),
            clock.clone(),
            exeunt_room::Options::default(),
        );
        let users = Users::new(store, name.to_owned(), clock.clone(), rng.clone());
        let api = ClientApi::new(rooms, users, options, clock, rng);
        let service = Service::new().mount(routes(api.clone()));
        Self { api, service, failure, now }
    }

    /// Moves the clock on.
    pub fn later(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }

    /// How other servers fail from now on.
    pub fn others_fail_with(&self, failure: RemoteError) {
        *self.failure.lock().unwrap() = failure;
    }

    pub fn others_refuse_with(&self, status: u16, errcode: &str) {
        let (errcode, message) = (errcode.to_owned(), "for a reason".to_owned());
        self.others_fail_with(RemoteError::Refused { status, errcode, message });
    }

    /// A user without a password, logged in.
    pub async fn user(&self, localpart: &str) -> Client<'_> {
        let account = NewAccount { localpart: Some(localpart), ..NewAccount::default() };
        let user = self.api.users.register(account).await.unwrap();
        self.login(&user).await
    }

    /// The same, an administrator.
    pub async fn admin(&self, localpart: &str) -> Client<'_> {
        let account =
            NewAccount { localpart: Some(localpart), admin: true, ..NewAccount::default() };
        let user = self.api.users.register(account).await.unwrap();
        self.login(&user).await
    }

    /// One more device of a user.
    pub async fn login(&self, user: &UserId) -> Client<'_> {
        let login = self.api.users.login(user, NewSession::default()).await.unwrap();
        let token = Some(login.access_token);
        Client { server: self, user: user.to_string(), token }
    }

    pub fn anyone(&self) -> Client<'_> {
        self.bearer(None)
    }

    pub fn bearer(&self, token: Option<&str>) -> Client<'_> {
        Client { server: self, user: String::new(), token: token.map(str::to_owned) }
    }
}

/// Whoever sends requests.
pub struct Client<'a> {
    server: &'a Server,
    /// The user id, empty for those who are not logged in.
    pub user: String,
    pub token: Option<String>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// Compares status and errcode of a failure; returns what it says.
    #[track_caller]
    pub fn fails(self, status: u16, errcode: &str) -> String {
        let found = (self.status, self.body["errcode"].as_str());
        assert_eq!(found, (status, Some(errcode)), "{}", self.body);
        self.body["error"].as_str().expect("words for people").to_owned()
    }
}

impl Client<'_> {
    /// Sends a request; `path` follows `/_matrix/client/v3` unless it starts with `/_` or `/.`.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send_bytes(method, path, body.map(|body| body.to_string().into_bytes())).await
    }

    pub async fn send_bytes(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Answer {
        let service = &self.server.service;
        let app =
            test::init_service(App::new().configure(|config| service.configure(config))).await;
        let whole = path.starts_with("/_") || path.starts_with("/.");
        let uri = if whole { path.to_owned() } else { format!("/_matrix/client/v3{path}") };
        let mut request = test::TestRequest::with_uri(&uri).method(method);
        if let Some(token) = &self.token {
            request = request.insert_header(("Authorization", format!("Bearer {token}")));
        }
        if let Some(body) = body {
            request = request.set_payload(body);
        }
        let response = test::call_service(&app, request.to_request()).await;
        let status = response.status().as_u16();
        let bytes = test::read_body(response).await;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|error| panic!("{uri} answered {bytes:?}: {error}"));
        Answer { status, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    /// Creates a room and returns its id.
    pub async fn create_room(&self, body: Value) -> String {
        let body = self.post("/createRoom", body).await.ok();
        body["room_id"].as_str().expect("a room id").to_owned()
    }

    pub async fn public_room(&self) -> String {
        self.create_room(json!({ "preset": "public_chat" })).await
    }

    pub async fn join(&self, room_id: &str) {
        self.post(&format!("/join/{}", escape(room_id)), json!({})).await.ok();
    }

    /// The content of a state event as the store has it.
    pub async fn state(&self, room_id: &str, kind: &str, key: &str) -> Option<Value> {
        let room_id = ruma::RoomId::parse(room_id).unwrap();
        let (kind, key) = (kind.to_owned(), key.to_owned());
        let store = self.server.api.rooms.store();
        let event = store
            .read(move |reader| {
                exeunt_room::graph::Graph::of(reader, &room_id)?.current(&kind, &key)
            })
            .await
            .unwrap();
        event.map(|event| Value::Object(event.content().clone()))
    }

    /// A user's membership in a room we know.
    pub async fn membership(&self, room_id: &str, user: &str) -> Option<String> {
        let room_id = ruma::RoomId::parse(room_id).unwrap();
        let user = UserId::parse(user).unwrap();
        let member = self.server.api.rooms.member(&room_id, &user).await.unwrap();
        member.map(|(membership, _)| membership)
    }
}

/// Percent-encodes an id for a path.
pub fn escape(id: &str) -> String {
    id.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
