//! Advisories of other servers that no other suite has a test for: docs/security.md.

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId, RoomAliasId, RoomId};
use exeunt_core::{CheckedPdu, Draft, RoomVersion};
use exeunt_room::{
    Call, NewRoom, Preset,
    views::{Direction, EventFilter, MessagesRequest},
};
use exeunt_sim::{
    Mesh, Scripted, Server,
    events::{message_draft, object, state_draft, wire},
};
use serde_json::json;

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
}

/// A public room of ann on `a`, with bob of `b`.
async fn stage() -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = a.room(&ann, Preset::Public, "12").await;
    b.join(&bob, &room, a).await.unwrap();
    mesh.settle().await;
    Stage { mesh, room, ann, bob }
}

impl Stage {
    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }
}

/// CVE-2026-45076: however many events are rejected in a row, pages go on behind them.
#[tokio::test]
async fn pages_go_on_behind_rejected_events() {
    let stage = stage().await;
    let a = stage.a();
    a.say(&stage.ann, &stage.room, "before").await;
    let (refused, _) = in_the_way(&stage).await;
    let last = a.event(&refused.last().unwrap().event_id().to_owned()).unwrap();
    assert!(last.record.verdict.is_rejected(), "{:?}", last.record.verdict);
    assert_eq!(page_back(a, &stage.ann, &stage.room, 1).await, ["after", "before"]);
}

/// The same for a server that joins later, and has history from others: none of them gives out what
/// was rejected.
#[tokio::test]
async fn history_goes_on_behind_rejected_events() {
    let stage = stage().await;
    let (a, c) = (stage.a(), stage.mesh.server("c.example"));
    for text in ["first", "before"] {
        a.say(&stage.ann, &stage.room, text).await;
    }
    in_the_way(&stage).await;
    // What is not whole is taken from all who answer, and b is one of them.
    stage.mesh.net.script(&stage.b().name, |_| Scripted::refused(404, "M_NOT_FOUND"));
    let cat = c.user("cat");
    c.join(&cat, &stage.room, a).await.unwrap();
    for limit in [1, 100] {
        let pages = page_back(c, &cat, &stage.room, limit).await;
        assert_eq!(pages, ["after", "before", "first"], "{limit}");
    }
    let create = c.timeline(&stage.room).first().and_then(|id| c.event(id)).unwrap();
    assert_eq!(create.pdu.kind(), "m.room.create");
}

/// The same where the only server that helps gives out its rejected events, page after page.
#[tokio::test]
async fn history_goes_on_behind_rejected_events_that_are_given_out() {
    let stage = stage().await;
    let (a, b, c) = (stage.a(), stage.b(), stage.mesh.server("c.example"));
    for text in ["first", "before"] {
        a.say(&stage.ann, &stage.room, text).await;
    }
    stage.mesh.settle().await;
    let (mut chain, after) = in_the_way(&stage).await;
    chain.push(after);
    let cat = c.user("cat");
    c.join(&cat, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    stage.mesh.net.script(&a.name, |_| Scripted::refused(404, "M_NOT_FOUND"));
    stage.mesh.net.script(&b.name, move |call| {
        let Call::Backfill { from, limit, .. } = call else { return Scripted::Honest };
        let Some(end) = chain.iter().position(|event| from.contains(&event.event_id().to_owned()))
        else {
            return Scripted::Honest;
        };
        let pdus = chain[..=end].iter().rev().take(*limit).map(|event| wire(event));
        Scripted::Answer(Ok(json!({ "pdus": pdus.collect::<Vec<_>>() })))
    });
    let pages = page_back(c, &cat, &stage.room, 100).await;
    assert_eq!(pages, ["after", "before", "first"]);
}

/// What does not lead back from what was asked for is not taken where a server gives all that does.
#[tokio::test]
async fn history_that_leads_nowhere_is_not_taken() {
    let stage = stage().await;
    let (a, b, c) = (stage.a(), stage.b(), stage.mesh.server("c.example"));
    let room = b.room(&stage.bob, Preset::Public, "12").await;
    a.join(&stage.ann, &room, b).await.unwrap();
    b.say(&stage.bob, &room, "before").await;
    stage.mesh.settle().await;
    let cat = c.user("cat");
    c.join(&cat, &room, b).await.unwrap();
    stage.mesh.settle().await;
    let stray = json!({ "pdus": [wire(&a.sign(message_draft(b, &room, &stage.ann, "stray")))] });
    // It is asked first.
    stage.mesh.net.script(&a.name, move |call| match call {
        Call::Backfill { .. } => Scripted::Answer(Ok(stray.clone())),
        _ => Scripted::Honest,
    });
    assert_eq!(page_back(c, &cat, &room, 100).await, ["before"]);
}

/// 200 events of bob that the rules refuse, one after the other, and a message that follows them.
async fn in_the_way(stage: &Stage) -> (Vec<CheckedPdu>, CheckedPdu) {
    let (a, b) = (stage.a(), stage.b());
    let follow = |last: Option<&CheckedPdu>, draft: Draft| match last {
        Some(last) => {
            let prev_events = vec![last.event_id().to_owned().into()];
            b.sign(Draft { prev_events, depth: last.depth() + 1, ..draft })
        }
        None => b.sign(draft),
    };
    let mut chain: Vec<CheckedPdu> = Vec::new();
    for index in 0..200 {
        let levels = json!({ "users": {}, "x": index });
        let draft = state_draft(a, &stage.room, &stage.bob, "m.room.power_levels", levels);
        chain.push(follow(chain.last(), draft));
    }
    let after = message_draft(a, &stage.room, &stage.bob, "after");
    let after = follow(chain.last(), after);
    let all: Vec<_> = chain.iter().chain([&after]).map(|event| event.pdu()).collect();
    for (round, events) in all.chunks(50).enumerate() {
        a.receive(b, &round.to_string(), events).await;
        a.rooms.inbound_idle().await;
    }
    (chain, after)
}

/// The messages that a user finds paging back, by pages of that size.
async fn page_back(server: &Server, user: &OwnedUserId, room: &RoomId, limit: u64) -> Vec<String> {
    let (mut from, mut bodies) = (None, Vec::new());
    for _ in 0..40 {
        let request = MessagesRequest {
            viewer: server.rooms.viewer(user, None),
            room_id: room.to_owned(),
            from,
            to: None,
            direction: Direction::Backward,
            limit: Some(limit),
            filter: EventFilter::default(),
        };
        let page = server.rooms.messages(request).await.unwrap();
        let texts = page.chunk.iter().filter_map(|event| event["content"]["body"].as_str());
        bodies.extend(texts.map(str::to_owned));
        from = page.end;
        if from.is_none() {
            return bodies;
        }
    }
    panic!("the pages do not end");
}

/// continuwuity 0.5.4: what is held only because other events rest on it is shown to no client.
#[tokio::test]
async fn what_others_only_rest_on_is_not_shown() {
    let stage = stage().await;
    let (a, c) = (stage.a(), stage.mesh.server("c.example"));
    let mut levels = Vec::new();
    for x in 0..3 {
        let content = json!({ "users": {}, "x": x });
        levels.push(a.set(&stage.ann, &stage.room, "m.room.power_levels", content).await);
    }
    stage.mesh.settle().await;
    let cat = c.user("cat");
    c.join(&cat, &stage.room, a).await.unwrap();
    let read = async |user: &OwnedUserId, index: usize| {
        let viewer = c.rooms.viewer(user, None);
        c.rooms.event(viewer, &stage.room, &levels[index]).await.unwrap()
    };
    assert!(c.event(&levels[0]).is_some(), "it came with the auth chain");
    assert_eq!(read(&cat, 0).await, None);
    assert_eq!(read(&cat, 2).await.unwrap()["content"]["x"], 2, "state is no secret to a member");
    assert_eq!(read(&c.user("stranger"), 2).await, None);
    assert!(c.timeline(&stage.room).iter().all(|id| !levels.contains(id)));
}

/// GHSA-cjh7-rcpx-xpf8: a room that says it follows ours gets neither its alias nor anything else.
#[tokio::test]
async fn a_room_that_claims_to_follow_ours_takes_nothing() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    let alias = RoomAliasId::parse("#tea:a.example").unwrap();
    a.rooms.create_alias(&alias, &stage.room, &stage.ann).await.unwrap();
    let canonical = json!({ "alias": alias });
    a.set(&stage.ann, &stage.room, "m.room.canonical_alias", canonical).await;
    let before = a.state(&stage.room);
    let claim = json!({ "predecessor": { "room_id": stage.room } });
    let hostile = NewRoom {
        published: true,
        creation_content: object(claim),
        ..NewRoom::new(stage.bob.clone(), RoomVersion::latest(), Preset::Public)
    };
    let hostile = b.rooms.create_room(hostile).await.unwrap();
    a.join(&stage.ann, &hostile, b).await.unwrap();
    stage.mesh.settle().await;
    let create = a.graph(&hostile, |graph| graph.create().unwrap());
    assert_eq!(create.content()["predecessor"]["room_id"], stage.room.as_str());
    assert_eq!(a.rooms.resolve_alias(&alias).await.unwrap().0, stage.room);
    assert_eq!(a.state(&stage.room), before);
    assert_eq!(a.membership(&stage.ann, &stage.room).as_deref(), Some("join"));
}
