//! Events that relate to others: listed, summed up, and refused where they may not be.

use exeunt_core::Object;
use exeunt_room::views::{Direction, RelationsPage, RelationsRequest, ThreadsPage, ThreadsRequest};
use exeunt_room::{Intent, RoomError, upgrade_store};
use exeunt_store::{Batch, SCHEMA, records::AccountDataRecord, tables};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};

use crate::bench::{Bench, bench, ids, object, user};

struct Stage {
    bench: Bench,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
}

async fn stage() -> Stage {
    let (bench, ann, bob) = (bench(), user("ann"), user("bob"));
    let room = bench.room(&ann, "shared").await;
    bench.join(&bob, &room).await;
    Stage { bench, room, ann, bob }
}

impl Stage {
    async fn try_send(
        &self,
        sender: &UserId,
        kind: &str,
        parent: &OwnedEventId,
        rel_type: &str,
        more: Value,
    ) -> Result<OwnedEventId, RoomError> {
        let mut content: Object = object(more);
        let mut told = json!({ "event_id": parent, "rel_type": rel_type });
        if let Some(key) = content.remove("key") {
            told["key"] = key;
        }
        content.insert("m.relates_to".into(), told);
        let intent = Intent::message(sender.to_owned(), kind, content);
        self.bench.rooms.append(&self.room, intent).await
    }

    async fn send(
        &self,
        sender: &UserId,
        kind: &str,
        parent: &OwnedEventId,
        rel_type: &str,
        more: Value,
    ) -> OwnedEventId {
        self.try_send(sender, kind, parent, rel_type, more).await.unwrap()
    }

    async fn edit(&self, sender: &UserId, original: &OwnedEventId, text: &str) -> OwnedEventId {
        let more = json!({ "body": format!("* {text}"), "m.new_content": { "body": text } });
        self.send(sender, "m.room.message", original, "m.replace", more).await
    }

    async fn reply(&self, sender: &UserId, root: &OwnedEventId, text: &str) -> OwnedEventId {
        self.send(sender, "m.room.message", root, "m.thread", json!({ "body": text })).await
    }

    async fn redact(&self, sender: &UserId, event: &OwnedEventId) {
        let redacts = Some(event.clone());
        let intent = Intent::message(sender.to_owned(), "m.room.redaction", Object::new());
        let intent = Intent { redacts, ..intent };
        self.bench.rooms.append(&self.room, intent).await.unwrap();
    }

    async fn ignore(&self, whom: &UserId) {
        let mut batch = Batch::default();
        let content = object(json!({ "ignored_users": { whom: {} } }));
        let key = (self.ann.clone(), String::new(), "m.ignored_user_list".to_owned());
        batch.put::<tables::AccountData>(&key, &AccountDataRecord { content, position: 0 });
        self.bench.store.commit(batch).await.unwrap();
    }

    fn request(&self, parent: &OwnedEventId) -> RelationsRequest {
        RelationsRequest {
            viewer: self.bench.viewer(&self.ann),
            room_id: self.room.clone(),
            parent: parent.clone(),
            rel_type: None,
            kind: None,
            from: None,
            to: None,
            direction: Direction::Backward,
            limit: None,
            recurse: None,
        }
    }

    async fn relations(&self, request: RelationsRequest) -> RelationsPage {
        self.bench.rooms.relations(request).await.unwrap()
    }

    async fn children(&self, parent: &OwnedEventId) -> Vec<String> {
        ids(&self.relations(self.request(parent)).await.chunk)
    }

    /// `m.relations` of an event as a user sees it.
    async fn summed_up(&self, viewer: &UserId, event: &OwnedEventId) -> Value {
        let viewer = self.bench.viewer(viewer);
        let event = self.bench.rooms.event(viewer, &self.room, event).await.unwrap();
        event.unwrap()["unsigned"]["m.relations"].clone()
    }

    fn threads_request(&self, viewer: &UserId) -> ThreadsRequest {
        ThreadsRequest {
            viewer: self.bench.viewer(viewer),
            room_id: self.room.clone(),
            participated_only: false,
            limit: None,
            from: None,
        }
    }

    async fn threads(&self, request: ThreadsRequest) -> ThreadsPage {
        self.bench.rooms.threads(request).await.unwrap()
    }
}

fn texts(events: &[&OwnedEventId]) -> Vec<String> {
    events.iter().map(|id| id.to_string()).collect()
}

#[tokio::test]
async fn children_by_type_and_page() {
    let stage = stage().await;
    let root = stage.bench.say(&stage.ann, &stage.room, "root").await;
    let one = stage.reply(&stage.bob, &root, "one").await;
    let dummy = stage.send(&stage.ann, "m.dummy", &root, "m.thread", json!({})).await;
    let edit = stage.edit(&stage.ann, &root, "edited").await;
    assert_eq!(stage.children(&root).await, texts(&[&edit, &dummy, &one]));
    let by_type = RelationsRequest { rel_type: Some("m.thread".into()), ..stage.request(&root) };
    assert_eq!(ids(&stage.relations(by_type.clone()).await.chunk), texts(&[&dummy, &one]));
    let by_kind = RelationsRequest { kind: Some("m.dummy".into()), ..by_type };
    let page = stage.relations(by_kind).await;
    assert_eq!(ids(&page.chunk), texts(&[&dummy]));
    assert_eq!((page.next_batch, page.prev_batch, page.recursion_depth), (None, None, None));

    for direction in [Direction::Backward, Direction::Forward] {
        let (mut from, mut found) = (None, Vec::new());
        for number in 0..3 {
            let limit = Some(1);
            let request = RelationsRequest { direction, limit, from, ..stage.request(&root) };
            let page = stage.relations(request).await;
            assert_eq!(page.prev_batch, from);
            assert_eq!(page.next_batch.is_some(), number < 2);
            found.extend(ids(&page.chunk));
            from = page.next_batch;
        }
        let mut expected = texts(&[&edit, &dummy, &one]);
        if direction == Direction::Forward {
            expected.reverse();
        }
        assert_eq!(found, expected);
    }
    let unknown = OwnedEventId::try_from("$unknown").unwrap();
    let page = stage.bench.rooms.relations(stage.request(&unknown)).await;
    assert!(matches!(page, Err(RoomError::NotFound(_))));
}

#[tokio::test]
async fn relations_are_followed_to_a_depth() {
    let stage = stage().await;
    let root = stage.bench.say(&stage.ann, &stage.room, "root").await;
    let mut chain = vec![root.clone()];
    for number in 0..5 {
        let more = json!({ "body": number.to_string() });
        let parent = chain.last().unwrap();
        chain.push(stage.send(&stage.ann, "m.room.message", parent, "m.reference", more).await);
    }
    let request = RelationsRequest { recurse: Some(true), ..stage.request(&root) };
    let page = stage.relations(request.clone()).await;
    assert_eq!(ids(&page.chunk), texts(&[&chain[3], &chain[2], &chain[1]]));
    assert_eq!(page.recursion_depth, Some(3));
    let paged = RelationsRequest { direction: Direction::Forward, limit: Some(2), ..request };
    let page = stage.relations(paged.clone()).await;
    assert_eq!(ids(&page.chunk), texts(&[&chain[1], &chain[2]]));
    let page = stage.relations(RelationsRequest { from: page.next_batch, ..paged }).await;
    assert_eq!(ids(&page.chunk), texts(&[&chain[3]]));
    let flat = RelationsRequest { recurse: Some(false), ..stage.request(&root) };
    assert_eq!(stage.relations(flat).await.chunk.len(), 1);
    // What the filter does not take leads nowhere.
    stage.reply(&stage.bob, &root, "thread").await;
    let filtered = RelationsRequest {
        recurse: Some(true),
        rel_type: Some("m.thread".into()),
        ..stage.request(&root)
    };
    assert_eq!(stage.relations(filtered).await.chunk.len(), 1);
}

#[tokio::test]
async fn the_newest_valid_edit_goes_with_the_original() {
    let stage = stage().await;
    let (ann, bob) = (&stage.ann, &stage.bob);
    let original = stage.bench.say(ann, &stage.room, "first").await;
    assert_eq!(stage.summed_up(bob, &original).await, Value::Null);
    let second = stage.edit(ann, &original, "second").await;
    let third = stage.edit(ann, &original, "third").await;
    // Another user's, one of another type, one without content, an edit of an edit.
    stage.edit(bob, &original, "bob's").await;
    let content = json!({ "m.new_content": { "body": "no" } });
    stage.send(ann, "m.dummy", &original, "m.replace", content).await;
    stage.send(ann, "m.room.message", &original, "m.replace", json!({ "body": "no" })).await;
    stage.edit(ann, &third, "no").await;
    let edit = &stage.summed_up(bob, &original).await["m.replace"];
    assert_eq!(edit["event_id"], third.as_str());
    assert_eq!(edit["content"]["m.new_content"]["body"], "third");
    assert_eq!((&edit["sender"], &edit["room_id"]), (&json!(ann), &json!(stage.room)));
    assert!(edit["unsigned"].get("m.relations").is_none());
    assert_eq!(stage.summed_up(bob, &third).await, Value::Null);
    // The original keeps its content.
    let event = stage.bench.rooms.event(stage.bench.viewer(bob), &stage.room, &original).await;
    assert_eq!(event.unwrap().unwrap()["content"]["body"], "first");

    stage.redact(ann, &third).await;
    let edit = &stage.summed_up(bob, &original).await["m.replace"];
    assert_eq!(edit["event_id"], second.as_str());
    stage.redact(ann, &original).await;
    assert_eq!(stage.summed_up(bob, &original).await, Value::Null);
    assert!(stage.children(&original).await.contains(&second.to_string()), "it stays a child");
}

#[tokio::test]
async fn threads_references_and_reactions() {
    let stage = stage().await;
    let (ann, bob) = (&stage.ann, &stage.bob);
    let carol = user("carol");
    stage.bench.join(&carol, &stage.room).await;
    let root = stage.bench.say(ann, &stage.room, "root").await;
    let one = stage.reply(bob, &root, "one").await;
    let reaction = json!({ "key": "+" });
    let reacted = stage.send(bob, "m.reaction", &root, "m.annotation", reaction.clone()).await;
    assert!(stage.summed_up(ann, &root).await.get("m.annotation").is_none());
    let reference = stage.send(ann, "m.dummy", &root, "m.reference", json!({})).await;
    let edit = stage.edit(bob, &one, "1").await;
    let found = stage.summed_up(ann, &root).await;
    assert_eq!(found["m.reference"], json!({ "chunk": [{ "event_id": reference }] }));
    let thread = &found["m.thread"];
    assert_eq!((&thread["count"], &thread["latest_event"]["event_id"]), (&json!(1), &json!(one)));
    let latest = &thread["latest_event"]["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(latest["event_id"], edit.as_str());
    for (viewer, participated) in [(ann, true), (bob, true), (&carol, false)] {
        let found = stage.summed_up(viewer, &root).await;
        assert_eq!(found["m.thread"]["current_user_participated"], participated, "{viewer}");
    }
    // What is redacted, or of an ignored user, does not count.
    let two = stage.reply(ann, &root, "two").await;
    assert_eq!(stage.summed_up(ann, &root).await["m.thread"]["count"], 2);
    stage.redact(ann, &two).await;
    assert_eq!(
        stage.summed_up(ann, &root).await["m.thread"]["latest_event"]["event_id"],
        one.as_str()
    );
    stage.ignore(bob).await;
    assert!(stage.summed_up(ann, &root).await.get("m.thread").is_none());
    assert_eq!(stage.children(&root).await, texts(&[&reference]));
    // The same reaction again, and a thread in a thread.
    let again = stage.try_send(bob, "m.reaction", &root, "m.annotation", reaction.clone()).await;
    assert!(matches!(again, Err(RoomError::DuplicateAnnotation)));
    let other = json!({ "key": "-" });
    stage.send(bob, "m.reaction", &root, "m.annotation", other).await;
    stage.send(ann, "m.reaction", &root, "m.annotation", reaction.clone()).await;
    stage.redact(bob, &reacted).await;
    stage.send(bob, "m.reaction", &root, "m.annotation", reaction).await;
    let nested = stage.try_send(bob, "m.room.message", &one, "m.thread", json!({})).await;
    assert!(matches!(nested, Err(RoomError::InvalidRelation(_))));
}

/// Children that a user may not see are neither listed nor counted.
#[tokio::test]
async fn hidden_children_stay_hidden() {
    let stage = stage().await;
    let (ann, bob) = (&stage.ann, &stage.bob);
    let carol = user("carol");
    let root = stage.bench.say(ann, &stage.room, "root").await;
    let shown = stage.reply(bob, &root, "shown").await;
    let closed = json!({ "history_visibility": "joined" });
    stage.bench.set(ann, &stage.room, "m.room.history_visibility", closed).await;
    stage.reply(bob, &root, "hidden").await;
    stage.edit(ann, &root, "hidden").await;
    stage.send(ann, "m.dummy", &root, "m.reference", json!({})).await;
    stage.bench.join(&carol, &stage.room).await;
    let found = stage.summed_up(&carol, &root).await;
    assert_eq!(found["m.thread"]["count"], 1);
    assert_eq!(found["m.thread"]["latest_event"]["event_id"], shown.as_str());
    assert_eq!(found.as_object().unwrap().len(), 1);
    let viewer = stage.bench.viewer(&carol);
    let request = RelationsRequest { viewer, ..stage.request(&root) };
    assert_eq!(ids(&stage.relations(request.clone()).await.chunk), texts(&[&shown]));
    // Who has left sees no more of it, and who was never there nothing.
    stage.bench.leave(&carol, &stage.room).await;
    stage.reply(bob, &root, "later").await;
    assert_eq!(ids(&stage.relations(request.clone()).await.chunk), texts(&[&shown]));
    let stranger = stage.bench.viewer(&user("dave"));
    let found = stage.bench.rooms.relations(RelationsRequest { viewer: stranger, ..request }).await;
    assert!(matches!(found, Err(RoomError::NotFound(_))));
    let found = stage.bench.rooms.threads(stage.threads_request(&user("dave"))).await;
    assert!(matches!(found, Err(RoomError::Forbidden(_))));
}

/// An event of one room is no child of another room's (as GHSA-27p5-4f45-gx76).
#[tokio::test]
async fn relations_stay_in_their_room() {
    let stage = stage().await;
    let secret = stage.bench.room(&stage.bob, "shared").await;
    let root = stage.bench.say(&stage.bob, &secret, "root").await;
    let foreign = stage.reply(&stage.ann, &root, "from outside").await;
    let unknown = stage.bench.rooms.relations(stage.request(&root)).await;
    assert!(matches!(unknown, Err(RoomError::NotFound(_))));
    let viewer = stage.bench.viewer(&stage.bob);
    let request = RelationsRequest { viewer, room_id: secret.clone(), ..stage.request(&root) };
    assert!(stage.relations(request).await.chunk.is_empty());
    let event = stage.bench.rooms.event(stage.bench.viewer(&stage.bob), &secret, &root).await;
    assert!(event.unwrap().unwrap()["unsigned"].get("m.relations").is_none());
    let page = stage.threads(stage.threads_request(&stage.ann)).await;
    assert!(page.chunk.is_empty(), "{foreign} is in no thread of this room");
}

#[tokio::test]
async fn threads_come_by_their_newest_event() {
    let stage = stage().await;
    let (ann, bob) = (&stage.ann, &stage.bob);
    let mut roots = Vec::new();
    for number in 0..3 {
        roots.push(stage.bench.say(ann, &stage.room, &number.to_string()).await);
    }
    for root in &roots {
        stage.reply(ann, root, "reply").await;
    }
    let newest = stage.reply(bob, &roots[0], "newest").await;
    let all = async |viewer: &UserId, participated_only: bool| {
        let (mut from, mut found) = (None, Vec::new());
        for _ in 0..5 {
            let request = ThreadsRequest {
                limit: Some(1),
                from,
                participated_only,
                ..stage.threads_request(viewer)
            };
            let page = stage.threads(request).await;
            found.extend(ids(&page.chunk));
            from = page.next_batch;
            if from.is_none() {
                return found;
            }
        }
        panic!("the pages do not end");
    };
    let expected = texts(&[&roots[0], &roots[2], &roots[1]]);
    assert_eq!(all(ann, false).await, expected);
    assert_eq!(ids(&stage.threads(stage.threads_request(ann)).await.chunk), expected);
    assert_eq!(all(bob, true).await, texts(&[&roots[0]]));
    assert_eq!(all(ann, true).await, expected);
    let page = stage.threads(stage.threads_request(ann)).await;
    let summary = &page.chunk[0]["unsigned"]["m.relations"]["m.thread"];
    assert_eq!(summary["latest_event"]["event_id"], newest.as_str());
    // What is newest and hidden does not count.
    stage.redact(bob, &newest).await;
    assert_eq!(all(ann, false).await, texts(&[&roots[2], &roots[1], &roots[0]]));
    stage.reply(bob, &roots[1], "ignored").await;
    stage.ignore(bob).await;
    assert_eq!(all(ann, false).await, texts(&[&roots[2], &roots[1], &roots[0]]));
    // An ignored user's root is shown without its content.
    let root = stage.bench.say(bob, &stage.room, "bob's").await;
    stage.reply(ann, &root, "answer").await;
    let page = stage.threads(stage.threads_request(ann)).await;
    assert_eq!((&page.chunk[0]["event_id"], &page.chunk[0]["content"]), (&json!(root), &json!({})));
}

/// A client that has seen all children needs no sum of them.
#[tokio::test]
async fn sync_sums_up_behind_a_gap() {
    let stage = stage().await;
    let root = stage.bench.say(&stage.ann, &stage.room, "root").await;
    stage.edit(&stage.ann, &root, "edited").await;
    for limit in [2, 50] {
        let mut request = stage.bench.request(&stage.ann, None);
        request.filter.room.timeline.limit = Some(limit);
        let view = stage.bench.answer(request).await;
        let timeline = &view.join[&stage.room].timeline;
        let event = timeline.events.iter().find(|event| event["event_id"] == root.as_str());
        let has = event.unwrap()["unsigned"].get("m.relations").is_some();
        assert_eq!((timeline.limited, has), (limit == 2, limit == 2));
    }
}

#[tokio::test]
async fn filters_by_relation() {
    let stage = stage().await;
    let root = stage.bench.say(&stage.ann, &stage.room, "root").await;
    let reply = stage.reply(&stage.bob, &root, "reply").await;
    let reference = stage.send(&stage.ann, "m.dummy", &root, "m.reference", json!({})).await;
    let page = async |filter: Value| {
        let request = exeunt_room::views::MessagesRequest {
            viewer: stage.bench.viewer(&stage.ann),
            room_id: stage.room.clone(),
            from: None,
            to: None,
            direction: Direction::Backward,
            limit: Some(3),
            filter: serde_json::from_value(filter).unwrap(),
        };
        ids(&stage.bench.rooms.messages(request).await.unwrap().chunk)
    };
    let (thread, both) = (json!(["m.thread"]), json!(["m.thread", "m.reference"]));
    assert_eq!(page(json!({ "org.matrix.msc3874.rel_types": thread })).await, texts(&[&reply]));
    assert_eq!(page(json!({ "rel_types": both })).await, texts(&[&reference, &reply]));
    let found =
        page(json!({ "org.matrix.msc3874.not_rel_types": both, "types": ["m.room.message"] }));
    assert_eq!(found.await, texts(&[&root]));
    assert_eq!(page(json!({ "related_by_rel_types": thread })).await, texts(&[&root]));
    let by = |sender: &UserId| {
        let senders = json!([sender]);
        page(json!({ "related_by_rel_types": thread, "related_by_senders": senders }))
    };
    assert_eq!(by(&stage.bob).await, texts(&[&root]));
    assert!(by(&stage.ann).await.is_empty());
}

fn index(bench: &Bench, room: &RoomId) -> Vec<String> {
    let reader = bench.store.reader();
    let room = room.to_owned();
    let mut rows = Vec::new();
    for row in reader.scan::<tables::Relations>(room.clone()).collect().unwrap() {
        rows.push(format!("{row:?}"));
    }
    for row in reader.scan::<tables::ThreadEvents>(room.clone()).collect().unwrap() {
        rows.push(format!("{row:?}"));
    }
    for row in reader.scan::<tables::EventTimes>(room.clone()).collect().unwrap() {
        rows.push(format!("{row:?}"));
    }
    for row in reader.scan::<tables::Words>(room.clone()).collect().unwrap() {
        rows.push(format!("{row:?}"));
    }
    rows
}

#[tokio::test]
async fn a_store_from_before_the_indices_gets_them() {
    let stage = stage().await;
    let root = stage.bench.say(&stage.ann, &stage.room, "hello world").await;
    stage.reply(&stage.bob, &root, "reply").await;
    let gone = stage.reply(&stage.bob, &root, "gone").await;
    stage.redact(&stage.bob, &gone).await;
    let expected = index(&stage.bench, &stage.room);
    assert!(expected.iter().any(|row| row.contains("hello")));
    assert!(!expected.iter().any(|row| row.contains("gone")));
    assert_eq!(stage.bench.store.schema().unwrap(), SCHEMA);
    let mut batch = Batch::default();
    {
        let reader = stage.bench.store.reader();
        for key in reader.scan::<tables::Relations>(()).keys().unwrap() {
            batch.delete::<tables::Relations>(&key);
        }
        for key in reader.scan::<tables::ThreadEvents>(()).keys().unwrap() {
            batch.delete::<tables::ThreadEvents>(&key);
        }
        for key in reader.scan::<tables::EventTimes>(()).keys().unwrap() {
            batch.delete::<tables::EventTimes>(&key);
        }
        for key in reader.scan::<tables::Words>(()).keys().unwrap() {
            batch.delete::<tables::Words>(&key);
        }
    }
    batch.put::<tables::Meta>(&"schema".to_owned(), &1);
    stage.bench.store.commit(batch).await.unwrap();
    assert!(index(&stage.bench, &stage.room).is_empty());
    upgrade_store(&stage.bench.store).await.unwrap();
    assert_eq!(index(&stage.bench, &stage.room), expected);
    assert_eq!(stage.bench.store.schema().unwrap(), SCHEMA);
    assert!(exeunt_store::verify(&stage.bench.store).unwrap().is_clean());
}
