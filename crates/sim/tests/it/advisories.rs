//! Advisories of other servers that no other suite has a test for: docs/security.md.

use std::collections::BTreeMap;

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId, RoomAliasId};
use exeunt_core::{CheckedPdu, Draft, Object, RoomVersion};
use exeunt_room::{
    NewRoom, Preset,
    views::{Direction, EventFilter, MessagesRequest},
};
use exeunt_sim::{
    Mesh, Server,
    events::{message_draft, object, state_draft},
};
use exeunt_store::records::Verdict;
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
    let (a, b) = (stage.a(), stage.b());
    a.say(&stage.ann, &stage.room, "before").await;
    let mut last: Option<CheckedPdu> = None;
    for round in 0..5 {
        let mut events = Vec::new();
        for index in 0..40 {
            let levels = json!({ "users": {}, "x": round * 100 + index });
            let kind = "m.room.power_levels";
            let mut draft = state_draft(a, &stage.room, &stage.bob, kind, levels);
            if let Some(last) = &last {
                draft.prev_events = vec![last.event_id().to_owned().into()];
                draft.depth = last.depth() + 1;
            }
            let event = b.sign(draft);
            events.push(event.clone());
            last = Some(event);
        }
        let events: Vec<_> = events.iter().map(|event| event.pdu()).collect();
        a.receive(b, &round.to_string(), &events).await;
        a.rooms.inbound_idle().await;
    }
    let last = last.unwrap();
    let verdict = a.event(&last.event_id().to_owned()).unwrap().record.verdict.clone();
    assert!(matches!(verdict, Verdict::Rejected(_)), "{verdict:?}");
    let draft = message_draft(a, &stage.room, &stage.bob, "after");
    let prev_events = vec![last.event_id().to_owned().into()];
    let after = b.sign(Draft { prev_events, depth: last.depth() + 1, ..draft });
    a.receive(b, "after", &[&after]).await;

    let (mut from, mut bodies) = (None, Vec::new());
    for _ in 0..20 {
        let request = MessagesRequest {
            viewer: a.rooms.viewer(&stage.ann, None),
            room_id: stage.room.clone(),
            from,
            to: None,
            direction: Direction::Backward,
            limit: Some(1),
            filter: EventFilter::default(),
        };
        let page = a.rooms.messages(request).await.unwrap();
        bodies.extend(
            page.chunk.iter().filter_map(|e| e["content"]["body"].as_str().map(str::to_owned)),
        );
        from = page.end;
        if from.is_none() {
            break;
        }
    }
    assert_eq!((bodies, from), (vec!["after".to_owned(), "before".to_owned()], None));
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
        creator: stage.bob.clone(),
        version: RoomVersion::latest(),
        preset: Preset::Public,
        profile: Object::new(),
        name: None,
        topic: None,
        alias: None,
        invite: BTreeMap::new(),
        is_direct: false,
        initial_state: Vec::new(),
        creation_content: object(claim),
        power_level_override: Object::new(),
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
