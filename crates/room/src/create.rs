//! Creating a room: its first events, in the order that the specification gives.
//!
//! Specification: client-server API, "POST /createRoom".

use std::collections::BTreeMap;

use exeunt_core::{CheckedPdu, Draft, Object, Reference, RoomVersion, StateKey, StateMap};
use exeunt_state_res::{auth_types, check_auth, check_create};
use exeunt_store::{
    records::{RoomRecord, Root},
    tables::Rooms as Rows,
};
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId};
use serde_json::{Value, json};

use crate::{
    RoomError, Rooms,
    append::check_acl,
    counted::Counted,
    graph::Graph,
    locks::RoomGuard,
    place::{Source, decide},
    signing::Signature,
};

/// Most like rooms that one user can make in one instant.
const MAX_SAME_INSTANT: u64 = 100;

/// Join rule, history visibility and guest access of a new room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    Private,
    TrustedPrivate,
    Public,
}

/// What a new room shall be.
#[derive(Debug, Clone)]
pub struct NewRoom {
    pub creator: OwnedUserId,
    pub version: RoomVersion,
    pub preset: Preset,
    /// Profile for the creator's member event.
    pub profile: Object,
    pub name: Option<String>,
    pub topic: Option<String>,
    pub alias: Option<OwnedRoomAliasId>,
    /// Users to invite, each with the profile that their member event carries.
    pub invite: BTreeMap<OwnedUserId, Object>,
    pub is_direct: bool,
    /// Type, state key, content.
    pub initial_state: Vec<(String, String, Object)>,
    pub creation_content: Object,
    pub power_level_override: Object,
    /// Whether the room is in the published directory.
    pub published: bool,
}

impl NewRoom {
    /// A room with nothing but what its preset gives it.
    pub fn new(creator: OwnedUserId, version: RoomVersion, preset: Preset) -> Self {
        Self {
            creator,
            version,
            preset,
            profile: Object::new(),
            name: None,
            topic: None,
            alias: None,
            invite: BTreeMap::new(),
            is_direct: false,
            initial_state: Vec::new(),
            creation_content: Object::new(),
            power_level_override: Object::new(),
            published: false,
        }
    }
}

impl Rooms {
    /// Creates a room. An alias that is taken fails it before anything is made; an invite that
    /// another server refuses does not.
    pub async fn create_room(&self, room: NewRoom) -> Result<OwnedRoomId, RoomError> {
        let state = state_of(&room);
        self.create_with(room, state).await
    }

    /// Creates a room whose state, after create and the creator's join, is given. What the rules
    /// refuse of it fails it before anything is made.
    pub(crate) async fn create_with(
        &self,
        room: NewRoom,
        state: Vec<(String, String, Object)>,
    ) -> Result<OwnedRoomId, RoomError> {
        if let Some(alias) = &room.alias {
            self.check_alias_free(alias).await?;
        }
        for (kind, state_key, content) in &state {
            check_acl(kind, Some(state_key), content, self.server_name())?;
        }
        let creator = &room.creator;
        let mut join = room.profile.clone();
        join.insert("membership".into(), "join".into());
        let mut first = vec![("m.room.member".into(), creator.to_string(), join)];
        first.extend(state);

        let (guard, create, signature) = self.found(&room).await?;
        let room_id = create.room_id().to_owned();
        let events = self.first_events(&create, first)?;
        self.put_head(&guard, create, signature).await?;
        for (event, signature) in events {
            let source = Source::Local { transaction: None, signature: Some(signature) };
            self.place(&guard, event, source, None).await?;
        }
        drop(guard);
        if let Some(alias) = &room.alias {
            self.put_alias(alias, &room_id, creator).await?;
        }
        if room.published {
            self.put_published(&room_id, true).await?;
        }
        for (user, profile) in &room.invite {
            let mut content = profile.clone();
            if room.is_direct {
                content.insert("is_direct".into(), true.into());
            }
            if let Err(error) = self.invite(creator, user, &room_id, content).await {
                tracing::info!(%room_id, %user, %error, "an invite of a new room failed");
            }
        }
        Ok(room_id)
    }

    /// Makes the create event of a room that is not there yet, and takes its lock. Where a room id
    /// is the hash of the create event, two like rooms of one instant would be the same: the later
    /// one gets a later time.
    async fn found(&self, room: &NewRoom) -> Result<(RoomGuard, CheckedPdu, Signature), RoomError> {
        let now = self.now();
        for made_at in now..now + MAX_SAME_INSTANT {
            let (create, signature) = self.create_event(room, made_at)?;
            let guard = self.inner.locks.lock(create.room_id()).await;
            if !self.is_known(create.room_id()).await? {
                return Ok((guard, create, signature));
            }
        }
        Err(RoomError::Forbidden("You are creating too many rooms at once".into()))
    }

    /// The creator's state events that follow the create event, each judged by those before it. One
    /// that says what is in force already is left out.
    fn first_events(
        &self,
        create: &CheckedPdu,
        state: Vec<(String, String, Object)>,
    ) -> Result<Vec<(CheckedPdu, Signature)>, RoomError> {
        check_create(create)?;
        let (version, sender) = (create.version(), create.sender());
        let mut before =
            StateMap::from([(StateKey::single("m.room.create"), create.pdu().clone())]);
        let mut events: Vec<(CheckedPdu, Signature)> = Vec::new();
        for (kind, key, content) in state {
            let state_key = StateKey::new(&kind, &key);
            if before.get(&state_key).is_some_and(|event| *event.content() == content) {
                continue;
            }
            let auth = auth_types(version, &kind, sender, Some(&key), &content);
            let auth = auth.iter().filter_map(|key| before.get(key)).map(Reference::from);
            let prev = events.last().map_or(create, |(event, _)| event);
            let (event, signature) = self.sign_event(Draft {
                version,
                room_id: Some(create.room_id().to_owned()),
                sender: sender.to_owned(),
                kind,
                state_key: Some(key),
                content,
                redacts: None,
                prev_events: vec![Reference::from(prev.pdu())],
                auth_events: auth.collect(),
                depth: prev.depth() + 1,
                origin_server_ts: self.now(),
            })?;
            check_auth(&event, create, &before)?;
            before.insert(state_key, event.pdu().clone());
            events.push((event, signature));
        }
        Ok(events)
    }

    async fn is_known(&self, room_id: &RoomId) -> Result<bool, RoomError> {
        let room_id = room_id.to_owned();
        let known = self.inner.store.read(move |reader| reader.get::<Rows>(&room_id)).await?;
        Ok(known.is_some())
    }

    fn create_event(
        &self,
        room: &NewRoom,
        made_at: u64,
    ) -> Result<(CheckedPdu, Signature), RoomError> {
        let version = room.version;
        let new_id = &self.inner.options.room_ids.0;
        let room_id = (!version.room_id_is_create_hash()).then(|| new_id(self.server_name()));
        let draft = Draft {
            version,
            room_id,
            sender: room.creator.clone(),
            kind: "m.room.create".into(),
            state_key: Some(String::new()),
            content: creation_content(room),
            redacts: None,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: made_at,
        };
        Ok(self.sign_event(draft)?)
    }

    async fn put_head(
        &self,
        guard: &RoomGuard,
        create: CheckedPdu,
        signature: Signature,
    ) -> Result<(), RoomError> {
        let room_id = create.room_id().to_owned();
        let head = RoomRecord {
            version: create.version().as_str().into(),
            create_event: create.event_id().to_owned(),
            extremities: Vec::new(),
            has_older_heads: false,
            state: Root::EMPTY,
            state_since: 0,
            has_relations: false,
            depth: 0,
            first_order: 0,
            position: 0,
            untold: Vec::new(),
            since: 0,
        };
        let (ours, now) = (self.server_name().to_owned(), self.now());
        let placement = self
            .inner
            .store
            .read(move |reader| {
                let source = Source::Local { transaction: None, signature: Some(signature) };
                let graph = Graph::with_head(reader, room_id, head)?;
                decide(graph, &ours, &create, &source, None, &Counted::default(), now)
            })
            .await?;
        self.commit(guard, placement).await?;
        Ok(())
    }
}

fn creation_content(room: &NewRoom) -> Object {
    let rules = &room.version.rules().authorization;
    let mut content = room.creation_content.clone();
    content.insert("room_version".into(), room.version.as_str().into());
    if rules.use_room_create_sender {
        content.remove("creator");
    } else {
        content.insert("creator".into(), room.creator.as_str().into());
    }
    if rules.additional_room_creators && room.preset == Preset::TrustedPrivate {
        let named = content.get("additional_creators").and_then(Value::as_array);
        let mut creators: Vec<Value> = named.cloned().unwrap_or_default();
        for user in room.invite.keys() {
            let user = Value::from(user.as_str());
            if !creators.contains(&user) {
                creators.push(user);
            }
        }
        content.insert("additional_creators".into(), creators.into());
    }
    content
}

/// State after create and the creator's join: power levels, alias, preset, initial state, name
/// and topic. What `initial_state` gives replaces the preset's.
fn state_of(room: &NewRoom) -> Vec<(String, String, Object)> {
    let object = |value: Value| value.as_object().cloned().unwrap_or_default();
    let public = room.preset == Preset::Public;
    let join_rule = if public { "public" } else { "invite" };
    let mut state = vec![("m.room.power_levels", object(power_levels(room)))];
    if let Some(alias) = &room.alias {
        state.push(("m.room.canonical_alias", object(json!({ "alias": alias }))));
    }
    let mut preset = vec![
        ("m.room.join_rules", json!({ "join_rule": join_rule })),
        ("m.room.history_visibility", json!({ "history_visibility": "shared" })),
    ];
    if !public {
        // Without this event guests are forbidden, as a public room has it.
        preset.push(("m.room.guest_access", json!({ "guest_access": "can_join" })));
    }
    for (kind, content) in preset {
        let given = room.initial_state.iter().any(|(k, key, _)| k == kind && key.is_empty());
        // Guests may not join where nothing says that they may.
        let is_default = content == json!({ "guest_access": "forbidden" });
        if !given && !is_default {
            state.push((kind, object(content)));
        }
    }
    let mut state: Vec<_> =
        state.into_iter().map(|(kind, content)| (kind.into(), String::new(), content)).collect();
    state.extend(room.initial_state.iter().cloned());
    if let Some(name) = &room.name {
        state.push(("m.room.name".into(), String::new(), object(json!({ "name": name }))));
    }
    if let Some(topic) = &room.topic {
        state.push(("m.room.topic".into(), String::new(), object(topic_content(topic))));
    }
    state
}

/// A topic as plain text and in the extensible form (client-server API, "m.room.topic").
fn topic_content(topic: &str) -> Value {
    json!({ "topic": topic, "m.topic": { "m.text": [{ "body": topic }] } })
}

/// The levels of a new room. Where creators have infinite power (room version 12) they are not
/// listed, and a tombstone needs more than a moderator can have.
fn power_levels(room: &NewRoom) -> Value {
    let privileged = room.version.rules().authorization.explicitly_privilege_room_creators;
    let mut users = Object::new();
    if !privileged {
        users.insert(room.creator.to_string(), 100.into());
        if room.preset == Preset::TrustedPrivate {
            users.extend(room.invite.keys().map(|user| (user.to_string(), 100.into())));
        }
    }
    let invite = if room.preset == Preset::Public { 50 } else { 0 };
    let mut levels = json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.encryption": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": if privileged { 150 } else { 100 },
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": invite,
    });
    for (key, value) in &room.power_level_override {
        levels[key] = value.clone();
    }
    levels
}
