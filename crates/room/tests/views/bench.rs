//! A server with local users, and shorthands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use exeunt_core::{Draft, Object, PendingMembership, RoomVersion, Signer};
use exeunt_room::views::{
    Direction, EventFilter, Filter, MembersRequest, MessagesPage, MessagesRequest, SyncRequest,
    Token, Viewer,
};
use exeunt_room::{
    Call, Clock, Intent, NewRoom, NoWake, Options, Preset, Remote, RemoteError, RoomError, Rooms,
    ServerKeys,
};
use exeunt_store::{
    Batch, Store,
    records::{
        AccountDataRecord, AccountRecord, EventRecord, MembershipRecord, RoomRecord, States,
        Verdict,
    },
    tables,
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Value, json, value::RawValue};

use crate::answer::Answer;

struct Nobody;

#[async_trait]
impl Remote for Nobody {
    async fn call(&self, _: &ServerName, _: Call<'_>) -> Result<Value, RemoteError> {
        Err(RemoteError::Unreachable("no network".into()))
    }

    async fn server_keys(&self, _: &ServerName) -> Result<ServerKeys, RemoteError> {
        Err(RemoteError::Unreachable("no network".into()))
    }
}

pub struct Bench {
    pub rooms: Rooms,
    pub store: Store,
}

pub fn bench() -> Bench {
    let time = Arc::new(AtomicU64::new(1_700_000_000_000));
    bench_with(Arc::new(move || time.fetch_add(1, Ordering::SeqCst)), Options::default())
}

pub fn bench_with(clock: Clock, options: Options) -> Bench {
    let signer = Arc::new(signer());
    let store = Store::memory();
    let (remote, wake) = (Arc::new(Nobody), Arc::new(NoWake));
    let rooms = Rooms::new(store.clone(), signer, remote, wake, clock, options);
    Bench { rooms, store }
}

fn signer() -> Signer {
    let server = ServerName::parse("here.example").unwrap();
    Signer::new(server, "ed25519:1", &[7; 32]).unwrap()
}

pub fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:here.example")).unwrap()
}

pub fn object(value: Value) -> Object {
    value.as_object().cloned().unwrap()
}

pub fn filter(value: Value) -> Filter {
    serde_json::from_value(value).unwrap()
}

impl Bench {
    pub async fn room(&self, creator: &UserId, visibility: &str) -> OwnedRoomId {
        let content = object(json!({ "history_visibility": visibility }));
        let room = NewRoom {
            initial_state: vec![("m.room.history_visibility".into(), String::new(), content)],
            ..NewRoom::new(creator.to_owned(), RoomVersion::latest(), Preset::Public)
        };
        self.rooms.create_room(room).await.unwrap()
    }

    pub async fn say(&self, sender: &UserId, room: &RoomId, text: &str) -> OwnedEventId {
        let content = object(json!({ "msgtype": "m.text", "body": text }));
        let intent = Intent::message(sender.to_owned(), "m.room.message", content);
        self.rooms.append(room, intent).await.unwrap()
    }

    pub async fn set(
        &self,
        sender: &UserId,
        room: &RoomId,
        kind: &str,
        content: Value,
    ) -> OwnedEventId {
        let intent = Intent::state(sender.to_owned(), kind, "", object(content));
        self.rooms.append(room, intent).await.unwrap()
    }

    pub async fn join(&self, user: &UserId, room: &RoomId) {
        self.rooms.join(user, room, &[], Object::new()).await.unwrap();
    }

    pub async fn leave(&self, user: &UserId, room: &RoomId) {
        self.rooms.leave(user, room, None).await.unwrap();
    }

    pub async fn invite(&self, sender: &UserId, target: &UserId, room: &RoomId) {
        self.rooms.invite(sender, target, room, Object::new()).await.unwrap();
    }

    /// An invite by another server, as its handshake leaves it.
    pub async fn remote_invite(&self, target: &UserId) -> OwnedRoomId {
        let room_id = RoomId::parse("!away:away.example").unwrap();
        let event = json!({
            "type": "m.room.member",
            "state_key": target,
            "sender": "@host:away.example",
            "room_id": room_id,
            "content": { "membership": "invite", "is_direct": true },
            "depth": 5,
            "origin_server_ts": 1_000,
            "prev_events": ["$a"],
            "auth_events": ["$b"],
            "hashes": { "sha256": "" },
            "signatures": {},
        });
        let pending = PendingMembership {
            user_id: target.to_owned(),
            room_id: room_id.clone(),
            membership: "invite".into(),
            room_version: "10".into(),
            event: object(event),
            stripped_state: vec![
                object(json!({
                    "type": "m.room.name",
                    "state_key": "",
                    "sender": "@host:away.example",
                    "content": { "name": "Away" },
                    "event_id": "$extra",
                })),
                object(json!({ "type": "m.room.topic", "content": {} })),
            ],
            sender: UserId::parse("@host:away.example").unwrap(),
            delivered_by: Some(ServerName::parse("away.example").unwrap()),
            candidates: Vec::new(),
            received_at: 1_000,
        };
        let mut batch = Batch::default();
        let key = (target.to_owned(), room_id.clone());
        batch.put::<tables::Pending>(&key, &pending);
        batch.put::<tables::LocalMembers>(&(room_id.clone(), target.to_owned()), &"invite".into());
        batch.at_position(move |position, batch| {
            let record = MembershipRecord {
                membership: "invite".into(),
                event_id: OwnedEventId::try_from("$invite").unwrap(),
                sender: pending.sender,
                position,
                local_event: None,
                room_version: None,
                forgotten: false,
            };
            batch.put::<tables::Memberships>(&key, &record);
        });
        self.store.commit(batch).await.unwrap();
        room_id
    }

    /// Places a message whose predecessor never came, as the write path does when it has asked
    /// another server for the state there.
    pub async fn say_after_gap(&self, sender: &UserId, room: &RoomId, text: &str) {
        let (room_id, reader) = (room.to_owned(), self.store.reader());
        let head = reader.get::<tables::Rooms>(&room_id).unwrap().unwrap();
        let draft = Draft {
            version: RoomVersion::parse(&head.version).unwrap(),
            room_id: Some(room_id.clone()),
            sender: sender.to_owned(),
            kind: "m.room.message".into(),
            state_key: None,
            content: object(json!({ "body": text })),
            redacts: None,
            prev_events: vec![OwnedEventId::try_from("$nowhere").unwrap().into()],
            auth_events: Vec::new(),
            depth: head.depth + 9,
            origin_server_ts: 1_000,
        };
        let event = draft.sign(&signer()).unwrap();
        let event_id = event.event_id().to_owned();
        let mut record = EventRecord {
            json: RawValue::from_string(event.canonical_json()).unwrap().into(),
            room_id: room_id.clone(),
            room_version: head.version.clone(),
            verdict: Verdict::Accepted,
            generation: 0,
            states: Some(States { before: head.state, after: head.state, told: false }),
            replaces: Default::default(),
            order: None,
            redacted_because: None,
            received_from: None,
        };
        drop(reader);
        let mut batch = Batch::default();
        batch.at_position(move |position, batch| {
            let order = position.cast_signed();
            record.order = Some(order);
            batch.put::<tables::Events>(&event_id, &record);
            batch.put::<tables::Timeline>(&(room_id.clone(), order), &event_id);
            batch.put::<tables::Rooms>(&room_id, &RoomRecord { position, ..head });
        });
        self.store.commit(batch).await.unwrap();
    }

    /// Says so in account data, as the client API does.
    pub async fn ignore(&self, user: &UserId, whom: &UserId) {
        let content = json!({ "ignored_users": { whom.as_str(): {} } });
        self.account_data(user, "m.ignored_user_list", content).await;
    }

    pub async fn account_data(&self, user: &UserId, kind: &str, content: Value) {
        let key = (user.to_owned(), String::new(), kind.to_owned());
        let content = object(content);
        let mut batch = Batch::default();
        batch.at_position(move |position, batch| {
            batch.put::<tables::AccountData>(&key, &AccountDataRecord { content, position });
        });
        self.store.commit(batch).await.unwrap();
    }

    /// Closes an account as `POST /account/deactivate` does with `erase`; rooms stay joined.
    pub async fn erase(&self, user: &UserId) {
        let account = AccountRecord {
            password: None,
            admin: false,
            deactivated: true,
            created_at: 0,
            locked: false,
            suspended: false,
            erased: true,
        };
        let mut batch = Batch::default();
        batch.put::<tables::Accounts>(&user.to_owned(), &account);
        self.store.commit(batch).await.unwrap();
    }

    pub async fn forget(&self, user: &UserId, room: &RoomId) {
        self.rooms.forget(user, room).await.unwrap();
    }

    pub fn viewer(&self, user: &UserId) -> Viewer {
        self.rooms.viewer(user, Some("DEVICE".into()))
    }

    pub fn request(&self, user: &UserId, since: Option<u64>) -> SyncRequest {
        SyncRequest {
            viewer: self.viewer(user),
            since,
            filter: Filter::default(),
            full_state: false,
            use_state_after: false,
        }
    }

    pub async fn sync(&self, user: &UserId, since: Option<u64>) -> Answer {
        self.answer(self.request(user, since)).await
    }

    pub async fn sync_with(&self, user: &UserId, since: Option<u64>, given: Value) -> Answer {
        self.answer(SyncRequest { filter: filter(given), ..self.request(user, since) }).await
    }

    pub async fn answer(&self, request: SyncRequest) -> Answer {
        Answer::from(self.rooms.sync(request).await.unwrap())
    }

    pub async fn page(
        &self,
        user: &UserId,
        room: &RoomId,
        direction: Direction,
        from: Option<Token>,
        limit: u64,
    ) -> Result<MessagesPage, RoomError> {
        let request = MessagesRequest {
            viewer: self.viewer(user),
            room_id: room.to_owned(),
            from,
            to: None,
            direction,
            limit: Some(limit),
            filter: EventFilter::default(),
        };
        self.rooms.messages(request).await
    }

    /// Everything that a user can see of a room, oldest first.
    pub async fn history(&self, user: &UserId, room: &RoomId) -> Vec<String> {
        let page = self.page(user, room, Direction::Forward, None, 1_000).await.unwrap();
        ids(&page.chunk)
    }

    pub fn members_request(&self, user: &UserId, room: &RoomId) -> MembersRequest {
        MembersRequest {
            viewer: self.viewer(user),
            room_id: room.to_owned(),
            membership: None,
            not_membership: None,
            at: None,
        }
    }
}

pub fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

/// Bodies of messages, memberships, or types.
pub fn gist(events: &[Value]) -> Vec<String> {
    let gist = |event: &Value| {
        let content = &event["content"];
        let text = content["body"].as_str().or_else(|| content["membership"].as_str());
        text.or_else(|| event["type"].as_str()).unwrap().to_owned()
    };
    events.iter().map(gist).collect()
}

/// The event of that type and state key.
pub fn find<'e>(events: &'e [Value], kind: &str, key: &str) -> Option<&'e Value> {
    events.iter().find(|event| event["type"] == kind && event["state_key"] == key)
}

pub fn is_forbidden<T>(result: &Result<T, RoomError>) -> bool {
    matches!(result, Err(RoomError::Forbidden(_)))
}
