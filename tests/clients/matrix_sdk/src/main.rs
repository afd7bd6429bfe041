//! Two people on two servers, by matrix-sdk, the engine of Element X, without encryption: invited,
//! rejected, invited again, and a conversation with all that goes with it; a space, search, and a
//! third who looks into a room without joining it.
//!
//!     SSL_CERT_FILE=CA.pem exeunt-client-matrix-sdk URL_OF_ONE URL_OF_ANOTHER
//!
//! Ends with status 0 when every step was seen by who should see it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use matrix_sdk::config::SyncSettings;
use matrix_sdk::room::MessagesOptions;
use matrix_sdk::ruma::api::client::{
    account::register, message::get_message_events::v3 as messages,
    receipt::create_receipt::v3::ReceiptType, room::create_room,
    search::search_events::v3 as search, space::get_hierarchy::v1 as hierarchy, uiaa,
};
use matrix_sdk::ruma::events::room::member::MembershipState;
use matrix_sdk::ruma::events::{
    AnyInitialStateEvent, AnySyncTimelineEvent, receipt::ReceiptThread, receipt::SyncReceiptEvent,
    typing::SyncTypingEvent,
};
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::ruma::{EventId, OwnedEventId, OwnedUserId, RoomId, UserId};
use matrix_sdk::{Client, Room, RoomState};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery staple";
const DEADLINE: Duration = Duration::from_secs(30);
const PAGE: u32 = 5;

/// What `/sync` has told a client.
#[derive(Default)]
struct Seen {
    events: Vec<Value>,
    typing: Vec<OwnedUserId>,
    /// Whose receipt stands at which event.
    receipts: Vec<(OwnedEventId, OwnedUserId)>,
}

/// Somebody with one device that syncs.
struct Person {
    client: Client,
    seen: Arc<Mutex<Seen>>,
}

impl Person {
    async fn new(url: &str) -> Result<Self> {
        let client = Client::builder().homeserver_url(url).build().await?;
        Ok(Self { client, seen: Arc::default() })
    }

    async fn sign_up(url: &str, name: &str) -> Result<Self> {
        let person = Self::new(url).await?;
        let mut request = register::v3::Request::new();
        request.username = Some(name.to_owned());
        request.password = Some(PASSWORD.to_owned());
        request.auth = Some(uiaa::AuthData::Dummy(uiaa::Dummy::new()));
        person.client.matrix_auth().register(request).await?;
        person.run().await
    }

    async fn log_in(url: &str, name: &str) -> Result<Self> {
        let person = Self::new(url).await?;
        person.client.matrix_auth().login_username(name, PASSWORD).send().await?;
        person.run().await
    }

    async fn run(self) -> Result<Self> {
        let seen = Arc::clone(&self.seen);
        self.client.add_event_handler(move |event: Raw<AnySyncTimelineEvent>| {
            lock(&seen).events.push(event.deserialize_as_unchecked().expect("events are JSON"));
            std::future::ready(())
        });
        let seen = Arc::clone(&self.seen);
        self.client.add_event_handler(move |event: SyncTypingEvent| {
            lock(&seen).typing = event.content.user_ids;
            std::future::ready(())
        });
        let seen = Arc::clone(&self.seen);
        self.client.add_event_handler(move |event: SyncReceiptEvent| {
            let places = event.content.0.into_iter().flat_map(|(event_id, kinds)| {
                let readers = kinds.into_values().flat_map(|users| users.into_keys());
                readers.map(move |user| (event_id.clone(), user))
            });
            lock(&seen).receipts.extend(places);
            std::future::ready(())
        });
        self.client.sync_once(SyncSettings::default()).await?;
        let client = self.client.clone();
        tokio::spawn(async move { client.sync(SyncSettings::default()).await });
        Ok(self)
    }

    fn id(&self) -> &UserId {
        self.client.user_id().expect("is logged in")
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    fn room(&self, room: &RoomId) -> Result<Room> {
        self.client.get_room(room).with_context(|| format!("{} knows no {room}", self.id()))
    }

    /// Waits until the room is in a state. A room whose invite is rejected is forgotten, too.
    async fn is(&self, room: &RoomId, state: RoomState) -> Result<()> {
        let what = format!("{room} to be {state:?} for {}", self.id());
        let now = || self.client.get_room(room).map_or(RoomState::Left, |room| room.state());
        until(&what, || now() == state).await
    }

    async fn sees(&self, event: &EventId) -> Result<()> {
        let there =
            |seen: &Seen| seen.events.iter().any(|known| known["event_id"] == event.as_str());
        until(&format!("{event} at {}", self.id()), || there(&self.seen())).await
    }

    /// Waits until this person sees the other under a membership.
    async fn sees_member(&self, room: &RoomId, other: &UserId, as_: MembershipState) -> Result<()> {
        let end = Instant::now() + DEADLINE;
        loop {
            let member = self.room(room)?.get_member_no_sync(other).await?;
            if member.is_some_and(|member| *member.membership() == as_) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "waited in vain for {other} to be under {as_}");
            pause().await;
        }
    }

    async fn send(&self, room: &RoomId, kind: &str, content: Value) -> Result<OwnedEventId> {
        Ok(self.room(room)?.send_raw(kind, content).await?.response.event_id)
    }

    async fn say(&self, room: &RoomId, text: &str) -> Result<OwnedEventId> {
        self.send(room, "m.room.message", json!({ "msgtype": "m.text", "body": text })).await
    }

    /// The room's events from its beginning, by `/messages`.
    async fn history(&self, room: &RoomId) -> Result<Vec<OwnedEventId>> {
        let room = self.room(room)?;
        let (mut events, mut from) = (Vec::new(), None);
        loop {
            let mut options = MessagesOptions::backward().from(from.as_deref());
            options.limit = PAGE.into();
            let page = room.messages(options).await?;
            events.extend(page.chunk.iter().filter_map(|event| event.event_id()));
            from = page.end;
            if from.is_none() {
                events.reverse();
                return Ok(events);
            }
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

async fn until(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        ensure!(Instant::now() < end, "waited in vain for {what}");
        pause().await;
    }
    Ok(())
}

async fn steps(there: &str, bobs_name: &str, alice: &Person, bob: &Person) -> Result<()> {
    let mut request = create_room::v3::Request::new();
    request.name = Some("Tea".to_owned());
    request.invite = vec![bob.id().to_owned()];
    let room = alice.client.create_room(request).await?.room_id().to_owned();
    let room = &*room;

    bob.is(room, RoomState::Invited).await?;
    bob.room(room)?.leave().await?;
    bob.is(room, RoomState::Left).await?;
    alice.sees_member(room, bob.id(), MembershipState::Leave).await?;
    alice.room(room)?.invite_user_by_id(bob.id()).await?;
    bob.is(room, RoomState::Invited).await?;
    bob.room(room)?.join().await?;
    bob.is(room, RoomState::Joined).await?;
    alice.sees_member(room, bob.id(), MembershipState::Join).await?;
    until("the name", || bob.room(room).is_ok_and(|room| room.name().as_deref() == Some("Tea")))
        .await?;

    let hello = alice.say(room, "hello bob").await?;
    bob.sees(&hello).await?;
    let answer = bob.say(room, "hello alice").await?;
    alice.sees(&answer).await?;

    let edit = json!({
        "msgtype": "m.text", "body": "* hello, bob",
        "m.new_content": { "msgtype": "m.text", "body": "hello, bob" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": hello },
    });
    bob.sees(&alice.send(room, "m.room.message", edit).await?).await?;
    let edited = bob.room(room)?.event(&hello, None).await?;
    let edited: Value = edited.raw().deserialize_as_unchecked()?;
    let replacement = &edited["unsigned"]["m.relations"]["m.replace"]["content"]["m.new_content"];
    ensure!(replacement["body"] == "hello, bob", "the edit is not told with the event: {edited}");

    let annotation = json!({ "rel_type": "m.annotation", "event_id": answer, "key": "👍" });
    let reaction = json!({ "m.relates_to": annotation });
    bob.sees(&alice.send(room, "m.reaction", reaction).await?).await?;
    let thread = json!({
        "msgtype": "m.text", "body": "in a thread",
        "m.relates_to": {
            "rel_type": "m.thread", "event_id": answer,
            "is_falling_back": true, "m.in_reply_to": { "event_id": answer },
        },
    });
    bob.sees(&alice.send(room, "m.room.message", thread).await?).await?;

    let last = alice.say(room, "read this").await?;
    bob.sees(&last).await?;
    let reading = bob.room(room)?;
    reading.send_single_receipt(ReceiptType::Read, ReceiptThread::Unthreaded, last.clone()).await?;
    let receipt = (last, bob.id().to_owned());
    until("the receipt", || alice.seen().receipts.contains(&receipt)).await?;
    bob.room(room)?.typing_notice(true).await?;
    until("the typing", || alice.seen().typing == [bob.id()]).await?;
    bob.room(room)?.typing_notice(false).await?;
    until("its end", || alice.seen().typing.is_empty()).await?;

    let read = alice.history(room).await?;
    ensure!(bob.history(room).await? == read, "the servers tell different histories");
    let again = Person::log_in(there, bobs_name).await?;
    again.is(room, RoomState::Joined).await?;
    ensure!(again.history(room).await? == read, "another device is told another history");

    bob.room(room)?.leave().await?;
    bob.is(room, RoomState::Left).await?;
    again.is(room, RoomState::Left).await?;
    alice.sees_member(room, bob.id(), MembershipState::Leave).await
}

async fn community(alice: &Person, bob: &Person, carol: &Person) -> Result<()> {
    let via = vec![alice.id().server_name().to_owned()];
    let mut request = create_room::v3::Request::new();
    request.name = Some("House".to_owned());
    request.preset = Some(create_room::v3::RoomPreset::PublicChat);
    let creation = json!({ "type": "m.space" });
    request.creation_content = Some(Raw::new(&creation)?.cast_unchecked());
    let space = alice.client.create_room(request).await?.room_id().to_owned();
    let allow = json!([{ "type": "m.room_membership", "room_id": space }]);
    let mut request = create_room::v3::Request::new();
    request.name = Some("Kitchen".to_owned());
    request.initial_state = vec![
        state("m.room.join_rules", json!({ "join_rule": "restricted", "allow": allow }))?,
        state("m.room.history_visibility", json!({ "history_visibility": "world_readable" }))?,
    ];
    let kitchen = alice.client.create_room(request).await?.room_id().to_owned();
    let child = json!({ "via": via });
    alice.room(&space)?.send_state_event_raw("m.space.child", kitchen.as_str(), child).await?;

    let early = bob.client.join_room_by_id_or_alias((&*kitchen).into(), &via).await;
    ensure!(early.is_err(), "a restricted room is joined from nowhere");
    bob.client.join_room_by_id_or_alias((&*space).into(), &via).await?;
    bob.is(&space, RoomState::Joined).await?;
    alice.sees_member(&space, bob.id(), MembershipState::Join).await?;
    until("the space", || bob.room(&space).is_ok_and(|room| room.is_space())).await?;
    let rooms = bob.client.send(hierarchy::Request::new(space.clone())).await?.rooms;
    let names: Vec<_> =
        rooms.iter().map(|room| (&room.summary.room_id, room.summary.name.as_deref())).collect();
    ensure!(names == [(&space, Some("House")), (&kitchen, Some("Kitchen"))], "{names:?}");
    let preview = bob.client.get_room_preview((&*kitchen).into(), via.clone()).await?;
    ensure!(preview.name.as_deref() == Some("Kitchen"), "{preview:?}");
    ensure!(preview.is_world_readable == Some(true), "{preview:?}");
    bob.client.join_room_by_id_or_alias((&*kitchen).into(), &via).await?;
    alice.sees_member(&kitchen, bob.id(), MembershipState::Join).await?;

    let said = alice.say(&kitchen, "the kettle is on").await?;
    alice.say(&kitchen, "the oven is not").await?;
    bob.sees(&said).await?;
    for person in [alice, bob] {
        let mut categories = search::Categories::new();
        let mut criteria = search::Criteria::new("kettle".to_owned());
        criteria.filter.rooms = Some(vec![kitchen.clone()]);
        categories.room_events = Some(criteria);
        let found = person.client.send(search::Request::new(categories)).await?;
        let results = found.search_categories.room_events.results.into_iter();
        let ids: Vec<_> = results.filter_map(|found| event_id(&found.result?)).collect();
        ensure!(ids == [said.clone()], "{} found {ids:?}", person.id());
    }

    let preview = carol.client.get_room_preview((&*kitchen).into(), Vec::new()).await?;
    ensure!(preview.num_joined_members == 2, "{preview:?}");
    let page = carol.client.send(messages::Request::backward(kitchen.clone())).await?;
    ensure!(page.chunk.iter().filter_map(event_id).any(|id| id == said), "a room from outside");
    ensure!(carol.client.get_room(&kitchen).is_none(), "looking into a room is no joining");
    let closed = carol.client.send(messages::Request::backward(space)).await;
    ensure!(closed.is_err(), "a space that is for its members");
    Ok(())
}

fn state(kind: &str, content: Value) -> Result<Raw<AnyInitialStateEvent>> {
    let event = json!({ "type": kind, "state_key": "", "content": content });
    Ok(Raw::new(&event)?.cast_unchecked())
}

fn event_id<T>(event: &Raw<T>) -> Option<OwnedEventId> {
    event.get_field("event_id").ok()?
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut urls = std::env::args().skip(1);
    let here = urls.next().context("the URL of one server, please")?;
    let there = urls.next().context("the URL of another server, please")?;
    let suffix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    let bobs_name = format!("bob-{suffix}");
    let alice = Person::sign_up(&here, &format!("alice-{suffix}")).await?;
    let bob = Person::sign_up(&there, &bobs_name).await?;
    let carol = Person::sign_up(&here, &format!("carol-{suffix}")).await?;
    steps(&there, &bobs_name, &alice, &bob).await?;
    community(&alice, &bob, &carol).await?;
    println!("every step was seen");
    Ok(())
}
