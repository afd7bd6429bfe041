//! History from before a server's time in a room: fetched when a client pages back to it.

use exeunt_core::Draft;
use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use exeunt_room::{
    Call, Intent, Preset,
    views::{
        ContextRequest, Direction, EventFilter, Filter, MessagesRequest, SyncRequest,
        TimestampRequest, Token,
    },
};
use exeunt_sim::{Mesh, Scripted, Server, events::message_draft};
use exeunt_store::tables;
use serde_json::{Value, json};

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    cat: OwnedUserId,
}

/// A room of ann on `a` and bob of `b` with many messages, which cat of `c` joins then.
async fn stage(count: usize, visibility: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
    let visibility = json!({ "history_visibility": visibility });
    let state = vec![("m.room.history_visibility", visibility)];
    let room = a.room_with(&ann, Preset::Public, "12", state).await;
    b.join(&bob, &room, a).await.unwrap();
    for index in 0..count {
        match index % 2 {
            0 => a.say(&ann, &room, &index.to_string()).await,
            _ => b.say(&bob, &room, &index.to_string()).await,
        };
        mesh.settle().await;
    }
    c.join(&cat, &room, a).await.unwrap();
    mesh.settle().await;
    mesh.net.take_requests();
    Stage { mesh, room, ann, cat }
}

impl Stage {
    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn c(&self) -> &Server {
        self.mesh.server("c.example")
    }

    /// All events that cat sees, newest first, by pages of that size.
    async fn page_back(&self, limit: u64) -> Vec<Value> {
        let (mut from, mut events) = (None, Vec::new());
        for _ in 0..100 {
            let request = MessagesRequest {
                viewer: self.c().rooms.viewer(&self.cat, None),
                room_id: self.room.clone(),
                from,
                to: None,
                direction: Direction::Backward,
                limit: Some(limit),
                filter: EventFilter::default(),
            };
            let page = self.c().rooms.messages(request).await.unwrap();
            assert!(page.chunk.len() <= limit as usize);
            events.extend(page.chunk);
            from = page.end;
            if from.is_none() {
                return events;
            }
        }
        panic!("the pages do not end");
    }

    fn backfills(&self) -> usize {
        let requests = self.mesh.net.take_requests();
        requests.iter().filter(|(_, _, endpoint)| *endpoint == "backfill").count()
    }
}

fn bodies(events: &[Value]) -> Vec<String> {
    let bodies = events.iter().filter_map(|event| event["content"]["body"].as_str());
    bodies.map(str::to_owned).collect()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).rev().map(|index| index.to_string()).collect()
}

#[tokio::test]
async fn pages_go_back_to_the_creation_of_the_room() {
    for limit in [7, 50, 1000] {
        let stage = stage(130, "shared").await;
        assert!(stage.c().messages(&stage.room).is_empty());
        let events = stage.page_back(limit).await;
        assert_eq!(bodies(&events), numbers(130), "{limit}");
        assert_eq!(events.last().unwrap()["type"], "m.room.create");
        let ids: std::collections::BTreeSet<_> =
            events.iter().map(|event| event["event_id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), events.len(), "each once");
        assert_eq!(stage.backfills(), 2);
        // What is there is there.
        assert_eq!(stage.page_back(limit).await.len(), events.len());
        assert_eq!(stage.backfills(), 0);
    }
}

/// History changes neither the room's state nor what comes after.
#[tokio::test]
async fn history_is_no_news() {
    let stage = stage(5, "shared").await;
    let before = (stage.c().state(&stage.room), stage.c().timeline(&stage.room).pop());
    stage.page_back(100).await;
    assert_eq!((stage.c().state(&stage.room), stage.c().timeline(&stage.room).pop()), before);
    stage.a().say(&stage.ann, &stage.room, "next").await;
    stage.mesh.settle().await;
    assert_eq!(stage.c().messages(&stage.room).last().unwrap(), "next");
    let reader = stage.c().store.reader();
    let orders = reader.scan::<tables::Timeline>(stage.room.clone()).keys().unwrap();
    let first = stage.c().graph(&stage.room, |graph| graph.room.first_order);
    assert_eq!(orders[0].1, first);
    assert!(first < 0);
}

/// What relates to an event of the history is told of with it.
#[tokio::test]
async fn history_has_its_relations() {
    let mesh = Mesh::new(&["a.example", "c.example"]);
    let (a, c) = (mesh.server("a.example"), mesh.server("c.example"));
    let (ann, cat) = (a.user("ann"), c.user("cat"));
    let room = a.room_with(&ann, Preset::Public, "12", Vec::new()).await;
    let root = a.say(&ann, &room, "root").await;
    let reference = json!({ "m.relates_to": { "rel_type": "m.reference", "event_id": root } });
    let content = reference.as_object().unwrap().clone();
    let intent = Intent::message(ann.clone(), "org.example.note", content);
    let child = a.rooms.append(&room, intent).await.unwrap();
    c.join(&cat, &room, a).await.unwrap();
    mesh.settle().await;
    let stage = Stage { mesh, room, ann, cat };
    let events = stage.page_back(100).await;
    let event = events.iter().find(|event| event["event_id"] == root.as_str()).unwrap();
    let references = &event["unsigned"]["m.relations"]["m.reference"];
    assert_eq!(references["chunk"], json!([{ "event_id": child }]));
    assert!(exeunt_store::verify(&stage.c().store).unwrap().is_clean());
}

#[tokio::test]
async fn another_server_gives_the_history() {
    let stage = stage(10, "shared").await;
    stage.mesh.net.script(&stage.a().name, |_| Scripted::refused(403, "M_FORBIDDEN"));
    assert_eq!(bodies(&stage.page_back(100).await), numbers(10));
}

/// Nobody helps: the page is what we have, and it is not asked for all the time.
#[tokio::test]
async fn without_help_the_page_ends_where_we_came_in() {
    let stage = stage(3, "shared").await;
    for server in ["a.example", "b.example"] {
        let name = &stage.mesh.server(server).name;
        stage.mesh.net.script(name, |_| Scripted::refused(404, "M_NOT_FOUND"));
    }
    assert_eq!(stage.page_back(100).await.len(), 1);
    assert_eq!(stage.backfills(), 2);
    stage.page_back(100).await;
    assert_eq!(stage.backfills(), 0);
}

/// CVE-2022-39200: what comes back is checked; what nobody asked for is dropped.
#[tokio::test]
async fn hostile_history_is_dropped() {
    let stage = stage(4, "shared").await;
    let other = stage.a().room(&stage.ann, Preset::Public, "12").await;
    let foreign = stage.a().say(&stage.ann, &other, "foreign").await;
    let foreign = stage.a().event(&foreign).unwrap().pdu.object().clone();
    let entry = stage.a().rooms.admit(&stage.c().name, &stage.room).await.unwrap();
    let join = stage.c().timeline(&stage.room)[0].clone();
    let from = stage.c().event(&join).unwrap().pdu.prev_events().to_vec();
    let honest = stage.a().rooms.backfill_for_server(&entry, &from, 100).await.unwrap();
    let mut answer = honest.clone();
    for event in answer["pdus"].as_array_mut().unwrap() {
        if event["content"]["body"] == "3" {
            event["content"]["body"] = "forged".into();
        }
        if event["content"]["body"] == "1" {
            event["signatures"] = json!({});
        }
    }
    answer["pdus"].as_array_mut().unwrap().push(Value::Object(foreign));
    for server in ["a.example", "b.example"] {
        let answer = answer.clone();
        stage.mesh.net.script(&stage.mesh.server(server).name, move |call| match call {
            Call::Backfill { .. } => Scripted::Answer(Ok(answer.clone())),
            _ => Scripted::refused(404, "M_NOT_FOUND"),
        });
    }
    let events = stage.page_back(100).await;
    // The forged one is redacted, the unsigned one dropped alone.
    assert_eq!(bodies(&events), ["2", "0"]);
    assert!(
        events
            .iter()
            .any(|event| { event["type"] == "m.room.message" && event["content"] == json!({}) })
    );
}

/// An event of history that gets a place in the graph keeps the one it has in the timeline.
#[tokio::test]
async fn history_is_shown_once() {
    let stage = stage(4, "shared").await;
    stage.page_back(100).await;
    let (b, c) = (stage.mesh.server("b.example"), stage.c());
    let before = c.timeline(&stage.room);
    let body = |id: &OwnedEventId| {
        let event = c.event(id).unwrap().pdu;
        event.content_str("body").map(str::to_owned)
    };
    let old = before.iter().find(|id| body(id).as_deref() == Some("2")).unwrap().clone();
    let old = c.event(&old).unwrap().pdu;
    let draft = message_draft(stage.a(), &stage.room, &b.user("bob"), "fork");
    let fork = b.sign(Draft { prev_events: vec![old.event_id().to_owned().into()], ..draft });
    let answer = json!({ "events": [old.object()] });
    stage.mesh.net.script(&b.name, move |call| match call {
        Call::MissingEvents { .. } => Scripted::Answer(Ok(answer.clone())),
        _ => Scripted::Honest,
    });
    c.receive(b, "1", &[&fork]).await;
    stage.mesh.settle().await;
    assert!(c.event(&old.event_id().to_owned()).unwrap().record.states.is_some());
    let mut expected = before;
    expected.push(fork.event_id().to_owned());
    assert_eq!(c.timeline(&stage.room), expected);
}

/// Where history is for those who were there, it stays theirs.
#[tokio::test]
async fn closed_history_is_not_shown() {
    let stage = stage(4, "joined").await;
    assert!(bodies(&stage.page_back(100).await).is_empty());
}

impl Stage {
    fn request(&self, direction: Direction, from: Option<Token>) -> MessagesRequest {
        MessagesRequest {
            viewer: self.c().rooms.viewer(&self.cat, None),
            room_id: self.room.clone(),
            from,
            to: None,
            direction,
            limit: Some(20),
            filter: EventFilter::default(),
        }
    }

    /// All messages that cat gets going on from a place, in that direction.
    async fn pages(&self, direction: Direction, mut from: Option<Token>) -> Vec<String> {
        let mut found = Vec::new();
        for _ in 0..100 {
            let page = self.c().rooms.messages(self.request(direction, from)).await.unwrap();
            found.extend(bodies(&page.chunk));
            if page.end.is_none() || page.end == from && page.chunk.is_empty() {
                return found;
            }
            from = page.end;
        }
        panic!("the pages do not end");
    }

    /// Cat leaves, a lot is said, and cat comes back.
    async fn be_away(&self, count: usize) {
        self.c().leave(&self.cat, &self.room).await.unwrap();
        self.mesh.settle().await;
        for index in 0..count {
            self.a().say(&self.ann, &self.room, &format!("away {index}")).await;
        }
        self.mesh.settle().await;
        self.c().join(&self.cat, &self.room, self.a()).await.unwrap();
        self.mesh.settle().await;
    }

    async fn closest(&self, ts: u64, direction: Direction) -> Option<OwnedEventId> {
        let request = TimestampRequest {
            viewer: self.c().rooms.viewer(&self.cat, None),
            room_id: self.room.clone(),
            ts,
            direction,
        };
        let found = self.c().rooms.timestamp_to_event(request).await.unwrap();
        found.map(|found| found.event_id)
    }
}

fn away(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("away {index}")).collect()
}

/// What was said while nobody of ours was there comes between what was before and what is after
/// (pains E6, F6), from whatever end one comes.
#[tokio::test]
async fn the_gap_of_an_absence_is_filled_in_its_place() {
    for forward in [false, true] {
        let stage = stage(4, "shared").await;
        stage.a().say(&stage.ann, &stage.room, "before").await;
        stage.mesh.settle().await;
        stage.be_away(230).await;
        stage.a().say(&stage.ann, &stage.room, "after").await;
        stage.mesh.settle().await;
        let mut expected = vec!["before".to_owned()];
        expected.extend(away(230));
        expected.push("after".into());
        let found = match forward {
            true => stage.pages(Direction::Forward, None).await,
            false => {
                let mut found = stage.pages(Direction::Backward, None).await;
                found.reverse();
                // The time before the first join comes with it.
                assert_eq!(found.drain(..4).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
                found
            }
        };
        assert_eq!(found, expected, "forward: {forward}");
        assert!(exeunt_store::verify(&stage.c().store).unwrap().is_clean());
        // What is there is there, and no news to `/sync`.
        stage.backfills();
        let again = stage.pages(Direction::Forward, None).await;
        assert!(again.ends_with(&expected) && stage.backfills() == 0);
    }
}

/// Where nobody helps, a page goes on behind the gap, and does not ask for it all the time.
#[tokio::test]
async fn a_gap_that_nobody_fills_is_passed() {
    let stage = stage(0, "shared").await;
    stage.a().say(&stage.ann, &stage.room, "before").await;
    stage.mesh.settle().await;
    stage.be_away(3).await;
    for server in ["a.example", "b.example"] {
        let name = &stage.mesh.server(server).name;
        stage.mesh.net.script(name, |_| Scripted::refused(404, "M_NOT_FOUND"));
    }
    stage.backfills();
    assert_eq!(stage.pages(Direction::Backward, None).await, ["before"]);
    let asked = stage.backfills();
    assert!((1..=8).contains(&asked), "{asked}");
    assert_eq!(stage.pages(Direction::Forward, None).await, ["before"]);
    assert_eq!(stage.backfills(), 0);
}

/// A first sync of a room whose history is elsewhere, or was fetched, says that there is more, also
/// if what the first event follows has a place in the graph since.
#[tokio::test]
async fn a_first_sync_of_a_room_with_history_elsewhere_is_limited() {
    let stage = stage(4, "shared").await;
    let (b, c) = (stage.mesh.server("b.example"), stage.c());
    let is_limited = async || {
        let request = SyncRequest {
            viewer: c.rooms.viewer(&stage.cat, None),
            since: None,
            filter: Filter::default(),
            full_state: false,
            use_state_after: false,
        };
        c.rooms.sync(request).await.unwrap().join[&stage.room].timeline.limited
    };
    assert!(is_limited().await);
    stage.page_back(100).await;
    assert!(is_limited().await);
    let join = c.event(c.timeline(&stage.room).last().unwrap()).unwrap().pdu;
    let last = join.prev_events()[0].clone();
    let draft = message_draft(stage.a(), &stage.room, &b.user("bob"), "fork");
    let fork = b.sign(Draft { prev_events: vec![last.clone().into()], ..draft });
    let answer = json!({ "events": [c.event(&last).unwrap().pdu.object()] });
    stage.mesh.net.script(&b.name, move |call| match call {
        Call::MissingEvents { .. } => Scripted::Answer(Ok(answer.clone())),
        _ => Scripted::Honest,
    });
    c.receive(b, "1", &[&fork]).await;
    stage.mesh.settle().await;
    assert!(c.event(&last).unwrap().record.states.is_some());
    assert!(is_limited().await);
}

/// The events around another end at a gap, and whoever goes on from there has it filled.
#[tokio::test]
async fn what_is_around_an_event_ends_at_a_gap() {
    let stage = stage(0, "shared").await;
    let before = stage.a().say(&stage.ann, &stage.room, "before").await;
    stage.mesh.settle().await;
    stage.be_away(3).await;
    let after = stage.a().say(&stage.ann, &stage.room, "after").await;
    stage.mesh.settle().await;
    let around = async |event_id: &OwnedEventId| {
        let request = ContextRequest {
            viewer: stage.c().rooms.viewer(&stage.cat, None),
            room_id: stage.room.clone(),
            event_id: event_id.clone(),
            limit: Some(50),
            filter: EventFilter::default(),
        };
        let found = stage.c().rooms.context(request).await.unwrap().unwrap();
        let mut all = bodies(&found.before);
        all.extend(bodies(&found.after));
        (all, found)
    };
    let (all, upper) = around(&after).await;
    assert!(all.is_empty(), "{all:?}");
    let (all, lower) = around(&before).await;
    assert!(all.is_empty(), "{all:?}");
    let mut expected = away(3);
    expected.push("after".into());
    assert_eq!(stage.pages(Direction::Forward, Some(lower.end)).await, expected);
    let mut older = stage.pages(Direction::Backward, Some(upper.start)).await;
    older.reverse();
    assert_eq!(older, ["before", "away 0", "away 1", "away 2"]);
    // Now it is whole.
    assert_eq!(around(&before).await.0, expected);
}

/// Jump to date, as Complement's TestJumpToDateEndpoint has it.
#[tokio::test]
async fn a_date_from_before_our_time_is_found_elsewhere() {
    let stage = stage(0, "shared").await;
    let (a, c) = (stage.a(), stage.c());
    stage.c().leave(&stage.cat, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    let mut sent = Vec::new();
    for index in 0..300 {
        let id = a.say(&stage.ann, &stage.room, &index.to_string()).await;
        sent.push((id.clone(), a.event(&id).unwrap().pdu.origin_server_ts()));
    }
    c.join(&stage.cat, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    let (wanted, ts) = sent[100].clone();
    assert_eq!(stage.closest(ts, Direction::Forward).await, Some(wanted.clone()));
    assert_eq!(stage.closest(ts, Direction::Backward).await, Some(wanted.clone()));
    // It has its place, and history goes on from it both ways.
    let order = c.event(&wanted).unwrap().record.order.unwrap();
    let mut older = stage.pages(Direction::Backward, Some(Token::Timeline(order))).await;
    older.reverse();
    let number = |range: std::ops::Range<usize>| range.map(|i| i.to_string()).collect::<Vec<_>>();
    assert!(older.ends_with(&number(0..101)));
    let newer = stage.pages(Direction::Forward, Some(Token::Timeline(order))).await;
    assert_eq!(newer, number(101..300));
    assert!(exeunt_store::verify(&c.store).unwrap().is_clean());
    // Nothing is before everything, or after.
    assert_eq!(stage.closest(0, Direction::Backward).await, None);
    assert_eq!(stage.closest(u64::MAX / 2, Direction::Forward).await, None);
}

/// Another server's word on a date counts if the event bears it out.
#[tokio::test]
async fn a_made_up_date_leads_nowhere() {
    let stage = stage(4, "shared").await;
    let (a, c) = (stage.a(), stage.c());
    let other = a.room(&stage.ann, Preset::Public, "12").await;
    let foreign = a.say(&stage.ann, &other, "foreign").await;
    let join = c.timeline(&stage.room)[0].clone();
    let told = c.event(&join).unwrap().pdu.origin_server_ts() - 1;
    let answers = [
        json!({ "event_id": foreign, "origin_server_ts": told }),
        json!({ "event_id": "$nowhere", "origin_server_ts": told }),
        json!({ "event_id": 1, "origin_server_ts": told }),
        json!({ "event_id": join, "origin_server_ts": "soon" }),
        json!([]),
    ];
    for answer in answers {
        for server in ["a.example", "b.example"] {
            let answer = answer.clone();
            stage.mesh.net.script(&stage.mesh.server(server).name, move |call| match call {
                Call::TimestampToEvent { .. } => Scripted::Answer(Ok(answer.clone())),
                _ => Scripted::Honest,
            });
        }
        let found = stage.closest(told, Direction::Forward).await;
        assert_eq!(found.as_ref(), Some(&join), "{answer}");
        assert_eq!(c.timeline(&stage.room), std::slice::from_ref(&join));
    }
}
