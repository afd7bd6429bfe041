//! Search: what it finds, in which order, and what it must not find.

use std::collections::BTreeSet;

use exeunt_core::Object;
use exeunt_room::Intent;
use exeunt_room::views::{
    EventFilter, SearchContext, SearchOrder, SearchPage, SearchRequest, SearchToken,
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};

use crate::bench::{Bench, bench, gist, user};

struct Stage {
    bench: Bench,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
}

async fn stage(visibility: &str) -> Stage {
    let (bench, ann, bob) = (bench(), user("ann"), user("bob"));
    let room = bench.room(&ann, visibility).await;
    Stage { bench, room, ann, bob }
}

impl Stage {
    fn request(&self, viewer: &UserId, term: &str) -> SearchRequest {
        SearchRequest {
            viewer: self.bench.viewer(viewer),
            term: term.to_owned(),
            kinds: ["m.room.message", "m.room.name", "m.room.topic"].into(),
            filter: EventFilter::default(),
            order: SearchOrder::Recent,
            context: None,
            include_state: false,
            next_batch: None,
        }
    }

    async fn search(&self, request: SearchRequest) -> SearchPage {
        self.bench.rooms.search(request).await.unwrap()
    }

    /// What a user finds, newest first.
    async fn found(&self, viewer: &UserId, term: &str) -> Vec<String> {
        let page = self.search(self.request(viewer, term)).await;
        assert_eq!(page.count, page.results.len());
        texts(&page)
    }

    async fn say(&self, text: &str) -> OwnedEventId {
        self.bench.say(&self.ann, &self.room, text).await
    }

    async fn redact(&self, event: &OwnedEventId) {
        let intent = Intent::message(self.ann.clone(), "m.room.redaction", Object::new());
        let intent = Intent { redacts: Some(event.clone()), ..intent };
        self.bench.rooms.append(&self.room, intent).await.unwrap();
    }
}

fn texts(page: &SearchPage) -> Vec<String> {
    let text = |event: &Value| {
        let content = &event["content"];
        let found = ["body", "name", "topic"].into_iter().find_map(|key| content[key].as_str());
        found.unwrap().to_owned()
    };
    page.results.iter().map(|result| text(&result.event)).collect()
}

#[tokio::test]
async fn events_with_all_words_are_found() {
    let stage = stage("shared").await;
    let ann = &stage.ann;
    for text in ["Hello, world", "hello there", "Grüße an die WELT", "nothing"] {
        stage.say(text).await;
    }
    let name = json!({ "name": "World of names" });
    stage.bench.set(ann, &stage.room, "m.room.name", name).await;
    let plain = json!({ "m.text": [
        { "body": "<b>hidden</b>", "mimetype": "text/html" },
        { "body": "plain world" },
    ] });
    let topic = json!({ "topic": "weather", "m.topic": plain });
    stage.bench.set(ann, &stage.room, "m.room.topic", topic).await;
    for (term, expected) in [
        ("hello", vec!["hello there", "Hello, world"]),
        ("WORLD hello hello", vec!["Hello, world"]),
        ("world", vec!["weather", "World of names", "Hello, world"]),
        ("grüße welt", vec!["Grüße an die WELT"]),
        ("hidden", vec![]),
        ("wor", vec![]),
        ("!?", vec![]),
        ("", vec![]),
    ] {
        assert_eq!(stage.found(ann, term).await, expected, "{term}");
    }
    let page = stage.search(stage.request(ann, "World, HELLO world")).await;
    assert_eq!(page.highlights, ["world", "hello"]);
    assert_eq!(page.results[0].event["room_id"], stage.room.as_str());
    let request = stage.request(ann, "world");
    let kinds = BTreeSet::from(["m.room.name"]);
    let page = stage.search(SearchRequest { kinds, ..request.clone() }).await;
    assert_eq!(texts(&page), ["World of names"]);
    let filter: EventFilter =
        serde_json::from_value(json!({ "not_types": ["m.room.n*"] })).unwrap();
    let page = stage.search(SearchRequest { filter, ..request.clone() }).await;
    assert_eq!(texts(&page), ["weather", "Hello, world"]);
    let filter = serde_json::from_value(json!({ "rooms": ["!other:here.example"] })).unwrap();
    assert_eq!(stage.search(SearchRequest { filter, ..request }).await.count, 0);
}

#[tokio::test]
async fn results_come_by_rank_or_time_and_in_pages() {
    let stage = stage("shared").await;
    stage.say("cake").await;
    stage.say("a long text in which the word cake occurs among a great many others").await;
    stage.say("cake cake cake").await;
    let by = async |order| {
        let request = SearchRequest { order, ..stage.request(&stage.ann, "cake") };
        let page = stage.search(request).await;
        let ranks: Vec<_> = page.results.iter().map(|result| result.rank).collect();
        (texts(&page), ranks)
    };
    let (found, _) = by(SearchOrder::Recent).await;
    assert!(found[0] == "cake cake cake" && found[2] == "cake");
    let (found, ranks) = by(SearchOrder::Rank).await;
    assert!(found[0] == "cake cake cake" && found[1] == "cake");
    assert!(ranks[0] > ranks[1] && ranks[1] > ranks[2]);

    let other = stage.bench.room(&stage.ann, "shared").await;
    for number in 0..20 {
        let room = if number % 2 == 0 { &stage.room } else { &other };
        stage.bench.say(&stage.ann, room, &format!("number {number}")).await;
    }
    let (mut next_batch, mut found) = (None::<SearchToken>, Vec::new());
    for page_number in 0..4 {
        let mut request = stage.request(&stage.ann, "number");
        request.filter.limit = Some(7);
        request.next_batch = next_batch;
        let page = stage.search(request).await;
        assert_eq!(page.count, 20);
        found.extend(texts(&page));
        // What comes meanwhile does not shift the pages.
        stage.say(&format!("number late {page_number}")).await;
        next_batch = page.next_batch;
        if next_batch.is_none() {
            break;
        }
    }
    let expected: Vec<_> = (0..20).rev().map(|number| format!("number {number}")).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn context_profiles_and_state() {
    let stage = stage("shared").await;
    for number in 1..=7 {
        stage.say(&format!("Message number {number}")).await;
    }
    let context = Some(SearchContext { before: 2, after: 2, profiles: true });
    let request = stage.request(&stage.ann, "message 4");
    let page = stage.search(SearchRequest { context, include_state: true, ..request }).await;
    assert_eq!(page.count, 1);
    let context = page.results[0].context.as_ref().unwrap();
    assert_eq!(gist(&context.before), ["Message number 3", "Message number 2"]);
    assert_eq!(gist(&context.after), ["Message number 5", "Message number 6"]);
    assert!(context.profiles.as_ref().unwrap().contains_key(&stage.ann));
    let state = &page.state[&stage.room];
    assert!(state.iter().any(|event| event["type"] == "m.room.create"));
}

#[tokio::test]
async fn redacted_events_are_not_found() {
    let stage = stage("shared").await;
    let gone = stage.say("This is going to be redacted").await;
    stage.say("This is not going to be redacted").await;
    stage.redact(&gone).await;
    for order in [SearchOrder::Rank, SearchOrder::Recent] {
        let request = SearchRequest { order, ..stage.request(&stage.ann, "redacted") };
        let page = stage.search(request).await;
        assert_eq!(
            (page.count, texts(&page)),
            (1, vec!["This is not going to be redacted".into()])
        );
    }
}

/// What a user may not see is neither given nor counted.
#[tokio::test]
async fn what_is_hidden_is_not_found() {
    let stage = stage("joined").await;
    let (ann, bob, room) = (&stage.ann, &stage.bob, &stage.room);
    stage.say("secret before").await;
    assert!(stage.found(bob, "secret").await.is_empty());
    stage.bench.invite(ann, bob, room).await;
    assert!(stage.found(bob, "secret").await.is_empty());
    stage.bench.join(bob, room).await;
    stage.say("secret within").await;
    stage.bench.leave(bob, room).await;
    stage.say("secret after").await;
    assert_eq!(stage.found(bob, "secret").await, ["secret within"]);
    assert_eq!(stage.found(ann, "secret").await.len(), 3);
    let request = SearchRequest { include_state: true, ..stage.request(bob, "secret") };
    let page = stage.search(request).await;
    let member = |user: &UserId| {
        let mut state = page.state[room].iter();
        let found = state.find(|event| event["state_key"] == user.as_str());
        found.unwrap()["content"]["membership"].clone()
    };
    assert_eq!(member(bob), "leave");
    stage.bench.forget(bob, room).await;
    assert!(stage.found(bob, "secret").await.is_empty());
}

#[tokio::test]
async fn encrypted_rooms_and_rooms_of_others_are_not_searched() {
    let stage = stage("world_readable").await;
    stage.say("public word").await;
    assert!(stage.found(&stage.bob, "word").await.is_empty());
    assert_eq!(stage.found(&stage.ann, "word").await.len(), 1);
    let algorithm = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    encrypt(&stage.bench, &stage.ann, &stage.room, algorithm).await;
    assert!(stage.found(&stage.ann, "word").await.is_empty());
}

async fn encrypt(bench: &Bench, sender: &UserId, room: &RoomId, content: Value) {
    bench.set(sender, room, "m.room.encryption", content).await;
}
