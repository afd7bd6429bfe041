//! Rejected, soft-failed, not yet judged: what becomes of such events and of those after them.
//! Spec-map 4.11.

use std::collections::BTreeSet;

use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use exeunt_core::{CheckedPdu, Draft, Pdu, wire::ClientEvent};
use exeunt_room::{
    Call, Preset, RemoteError,
    views::{Filter, SyncRequest, Viewer},
};
use exeunt_sim::{
    Mesh, Scripted, Server,
    events::{member_draft, message_draft, object, state_draft, wire},
};
use exeunt_store::records::Verdict;
use serde_json::{Value, json};

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
}

/// A room of ann on `a`, with bob of `b`. Everyone may set state.
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

    /// A message of bob on the head of `a`.
    fn message(&self, text: &str) -> Draft {
        message_draft(self.a(), &self.room, &self.bob, text)
    }

    /// An event that the rules refuse: bob has no power.
    fn refused(&self) -> CheckedPdu {
        let content = json!({ "users": {} });
        let draft = state_draft(self.a(), &self.room, &self.bob, "m.room.power_levels", content);
        self.b().sign(draft)
    }

    fn verdict(&self, event: &CheckedPdu) -> Option<Verdict> {
        self.a().event(&event.event_id().to_owned()).map(|known| known.record.verdict.clone())
    }

    fn heads(&self) -> Vec<OwnedEventId> {
        self.a().graph(&self.room, |graph| graph.room.extremities.clone())
    }

    /// The state and the timeline that ann is told of the room, and the next token.
    async fn sync(&self, since: Option<u64>) -> (BTreeSet<OwnedEventId>, u64) {
        let rooms = &self.a().rooms;
        let viewer = rooms.viewer(&self.ann, None);
        let (filter, full_state, use_state_after) = (Filter::default(), false, false);
        let request = SyncRequest { viewer, since, filter, full_state, use_state_after };
        let view = rooms.sync(request).await.unwrap();
        let room = view.join.get(&self.room);
        let events =
            room.into_iter().flat_map(|room| room.state.iter().chain(&room.timeline.events));
        let id = |event: &ClientEvent| event.event().unwrap().event_id().to_owned();
        (events.map(id).collect(), view.next_batch)
    }

    async fn send(&self, txn: &str, events: &[&Pdu]) -> Vec<Value> {
        let answer = self.a().receive(self.b(), txn, events).await;
        events.iter().map(|event| answer[event.event_id().as_str()].clone()).collect()
    }
}

fn after(event: &CheckedPdu, draft: Draft) -> Draft {
    Draft {
        prev_events: vec![event.event_id().to_owned().into()],
        depth: event.depth() + 1,
        ..draft
    }
}

/// GHSA-p9qp-c452-f9r7: a rejected event is no state and no head; what follows it is judged for
/// itself, and stands for all that is behind it.
/// CVE-2022-39374.
#[tokio::test]
async fn a_child_of_a_rejected_event_is_judged_for_itself() {
    let stage = stage().await;
    let before = (stage.heads(), stage.a().state(&stage.room));
    let refused = stage.refused();
    stage.send("1", &[&refused]).await;
    assert!(matches!(stage.verdict(&refused), Some(Verdict::Rejected(_))));
    assert_eq!((stage.heads(), stage.a().state(&stage.room)), before);
    let child = stage.b().sign(after(&refused, stage.message("child")));
    assert_eq!(stage.send("2", &[&child]).await, [json!({})]);
    assert_eq!(stage.a().messages(&stage.room), ["child"]);
    assert_eq!(stage.heads(), [child.event_id()]);
    assert_eq!(stage.a().state(&stage.room), before.1);
}

/// TestInboundFederationRejectsEventsWithRejectedAuthEvents: rejection is inherited.
/// CVE-2022-39374.
#[tokio::test]
async fn an_event_with_a_rejected_auth_event_is_rejected() {
    let stage = stage().await;
    let refused = stage.refused();
    stage.send("1", &[&refused]).await;
    let mut heir = stage.message("heir");
    let levels = stage.a().graph(&stage.room, |graph| {
        graph.current("m.room.power_levels", "").unwrap().unwrap().event_id().to_owned()
    });
    for id in &mut heir.auth_events {
        if *id.id() == *levels {
            *id = refused.event_id().to_owned().into();
        }
    }
    let heir = stage.b().sign(heir);
    let sentinel = stage.b().sign(after(&heir, stage.message("sentinel")));
    stage.send("2", &[&heir, &sentinel]).await;
    let why = stage.verdict(&heir);
    assert!(matches!(&why, Some(Verdict::Rejected(why)) if why.contains("reject")), "{why:?}");
    assert_eq!(stage.a().messages(&stage.room), ["sentinel"]);
    assert_eq!(stage.heads(), [sentinel.event_id()]);
}

#[tokio::test]
async fn an_event_with_duplicate_auth_events_is_rejected() {
    let stage = stage().await;
    let mut draft = stage.message("twice");
    draft.auth_events.push(draft.auth_events[0].clone());
    let twice = stage.b().sign(draft);
    stage.send("1", &[&twice]).await;
    assert!(matches!(stage.verdict(&twice), Some(Verdict::Rejected(_))));
}

/// An accepted event that follows a soft-failed one replaces what is behind that.
#[tokio::test]
async fn a_child_of_a_soft_failed_event_may_be_accepted() {
    let stage = stage().await;
    let old = stage.heads();
    let late = stage.b().sign(stage.message("late"));
    let child = message_draft(stage.a(), &stage.room, &stage.ann, "child");
    let banned = stage.a().rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await;
    banned.unwrap();
    let ban = stage.heads();
    assert_ne!(ban, old);
    stage.send("1", &[&late]).await;
    assert!(matches!(stage.verdict(&late), Some(Verdict::SoftFailed(_))));
    assert_eq!(stage.heads(), ban);
    let child = stage.a().sign(after(&late, child));
    assert_eq!(stage.send("2", &[&child]).await, [json!({})]);
    let mut heads = vec![ban[0].clone(), child.event_id().to_owned()];
    heads.sort();
    let mut got = stage.heads();
    got.sort();
    assert_eq!(got, heads);
    assert_eq!(stage.a().messages(&stage.room), ["child"]);
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("ban"));
}

/// A soft-failed event that resolution brings into the current state is told to clients.
#[tokio::test]
async fn a_soft_failed_event_shows_when_it_becomes_state() {
    let stage = stage().await;
    let (a, c) = (stage.a(), stage.mesh.server("c.example"));
    let dan = c.user("dan");
    c.join(&dan, &stage.room, a).await.unwrap();
    let levels = json!({
        "users": { dan.as_str(): 50 }, "state_default": 0, "kick": 50,
        "events": { "m.room.power_levels": 100 },
    });
    a.set(&stage.ann, &stage.room, "m.room.power_levels", levels.clone()).await;
    stage.mesh.settle().await;
    // All three on the same head: dan kicks bob, bob sets a topic, ann takes dan's power.
    let topic = json!({ "topic": "bob's" });
    let topic = stage.b().sign(state_draft(a, &stage.room, &stage.bob, "m.room.topic", topic));
    let mut demoted = levels;
    demoted["users"] = json!({});
    let demotion = state_draft(a, &stage.room, &stage.ann, "m.room.power_levels", demoted);
    let demotion = a.sign(demotion);
    let kick = c.sign(member_draft(a, &stage.room, &dan, &stage.bob, "leave"));
    stage.send("1", &[&kick, &topic]).await;
    assert!(matches!(stage.verdict(&topic), Some(Verdict::SoftFailed(_))));
    let viewer = || Viewer { user: stage.ann.clone(), device: None, now: 0 };
    let id = topic.event_id();
    assert_eq!(a.rooms.event(viewer(), &stage.room, id).await.unwrap(), None);
    let (_, since) = stage.sync(None).await;
    stage.send("2", &[&demotion]).await;
    let (told, since) = stage.sync(Some(since)).await;
    assert!(!told.is_empty() && !told.contains(id), "{told:?}");
    assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("join"));
    let next = stage.b().sign(after(&topic, stage.message("next")));
    assert_eq!(stage.send("3", &[&next]).await, [json!({})]);
    assert_eq!(a.messages(&stage.room), ["next"]);
    let shown = a.rooms.event(viewer(), &stage.room, id).await.unwrap();
    assert_eq!(shown.expect("it is state")["content"]["topic"], "bob's");
    let (told, _) = stage.sync(Some(since)).await;
    assert!(told.contains(id) && told.contains(next.event_id()), "{told:?}");
    let (told, _) = stage.sync(None).await;
    assert!(told.contains(id), "{told:?}");
}

/// TestUnrejectRejectedEvents: what could not be judged leaves nothing behind.
#[tokio::test]
async fn an_event_that_could_not_be_judged_is_judged_when_it_comes_again() {
    let stage = stage().await;
    let first = stage.b().sign(stage.message("first"));
    let second = stage.b().sign(after(&first, stage.message("second")));
    assert_eq!(stage.send("1", &[&second]).await, [json!({})]);
    stage.mesh.settle().await;
    assert_eq!(stage.verdict(&second), None);
    assert_eq!(stage.send("2", &[&first]).await, [json!({})]);
    assert_eq!(stage.a().messages(&stage.room), ["first"]);
    stage.send("3", &[&second]).await;
    assert_eq!(stage.a().messages(&stage.room), ["first", "second"]);
}

/// The same where an auth event could not be had, or only without its signature (CVE-2022-39200).
#[tokio::test]
async fn an_event_without_its_auth_events_is_no_rejected_event() {
    let stage = stage().await;
    let mut rename = member_draft(stage.a(), &stage.room, &stage.bob, &stage.bob, "join");
    rename.content = object(json!({ "membership": "join", "displayname": "Bob" }));
    let rename = stage.b().sign(rename);
    let mut draft = stage.message("renamed");
    let member = draft.auth_events.last_mut().unwrap();
    *member = rename.event_id().to_owned().into();
    let heads = draft.prev_events.clone();
    let event = stage.b().sign(Draft { prev_events: heads, ..draft });
    let mut unsigned = rename.object().clone();
    unsigned["signatures"] = json!({});
    let one = json!({ "origin": stage.b().name, "pdus": [unsigned] });
    let chain = json!({ "auth_chain": [unsigned] });
    stage.mesh.net.script(&stage.b().name, move |call| match call {
        Call::Event { .. } => Scripted::Answer(Ok(one.clone())),
        Call::EventAuth { .. } => Scripted::Answer(Ok(chain.clone())),
        _ => Scripted::Honest,
    });
    stage.send("1", &[&event]).await;
    stage.mesh.settle().await;
    assert_eq!((stage.verdict(&event), stage.verdict(&rename)), (None, None));
    let asked = stage.mesh.net.take_requests();
    assert!(asked.iter().any(|r| matches!(r.2, "event" | "event_auth")), "{asked:?}");
    stage.send("2", &[&rename, &event]).await;
    assert_eq!(stage.verdict(&rename), Some(Verdict::Accepted));
    assert_eq!(stage.verdict(&event), Some(Verdict::Accepted));
    assert_eq!(stage.a().messages(&stage.room), ["renamed"]);
}

/// A no that rests on a state with holes is not a verdict.
#[tokio::test]
async fn nothing_is_rejected_upon_a_state_with_holes() {
    let stage = stage().await;
    let lost = stage.b().sign(stage.message("lost"));
    let gap = stage.b().sign(after(&lost, stage.message("gap")));
    let last = stage.b().sign(after(&gap, stage.message("last")));
    let (missing, state) = (json!({ "events": [gap.object()] }), stage.a().state(&stage.room));
    let ids: Vec<_> = state.iter().filter(|(kind, ..)| kind != "m.room.member").collect();
    let mut ids: Vec<_> = ids.into_iter().map(|(_, _, id)| id.to_string()).collect();
    ids.push("$bobs_member_event_that_nobody_has".into());
    stage.mesh.net.script(&stage.b().name, move |call| match call {
        exeunt_room::Call::MissingEvents { .. } => Scripted::Answer(Ok(missing.clone())),
        exeunt_room::Call::StateIds { .. } => {
            Scripted::Answer(Ok(json!({ "pdu_ids": ids, "auth_chain_ids": [] })))
        }
        _ => Scripted::Answer(Err(RemoteError::Unreachable("scripted".into()))),
    });
    stage.send("1", &[&last]).await;
    stage.mesh.settle().await;
    assert_eq!(stage.verdict(&gap), None);
    assert_eq!(stage.verdict(&last), None);
    stage.send("2", &[&lost, &gap, &last]).await;
    assert_eq!(stage.a().messages(&stage.room), ["lost", "gap", "last"]);
}

/// A room has one create event, whatever the server that its id names hands out later.
/// CVE-2025-54315.
#[tokio::test]
async fn another_create_event_is_rejected() {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = a.room(&ann, Preset::Public, "10").await;
    b.join(&bob, &room, a).await.unwrap();
    mesh.settle().await;
    let draft = message_draft(a, &room, &ann, "lost");
    let forged = a.sign(Draft {
        kind: "m.room.create".into(),
        state_key: Some(String::new()),
        content: object(json!({ "creator": ann, "room_version": "10", "again": true })),
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 1,
        ..draft.clone()
    });
    let lost = a.sign(draft);
    let edge = a.sign(after(&lost, message_draft(a, &room, &ann, "edge")));
    let last = a.sign(after(&edge, message_draft(a, &room, &ann, "last")));
    let before = b.state(&room);
    let told = before.iter().map(|(kind, _, id)| match kind.as_str() {
        "m.room.create" => forged.event_id().to_owned(),
        _ => id.clone(),
    });
    let told = json!({ "pdu_ids": told.collect::<Vec<_>>(), "auth_chain_ids": [] });
    let (gap, create) = (wire(&edge), wire(&forged));
    mesh.net.script(&a.name, move |call| match call {
        Call::MissingEvents { .. } => Scripted::Answer(Ok(json!({ "events": [gap] }))),
        Call::StateIds { .. } => Scripted::Answer(Ok(told.clone())),
        Call::Event { .. } => Scripted::Answer(Ok(json!({ "pdus": [create] }))),
        _ => Scripted::refused(404, "M_NOT_FOUND"),
    });
    b.receive(a, "1", &[&last]).await;
    b.rooms.inbound_idle().await;
    let known = b.event(&forged.event_id().to_owned()).unwrap();
    assert!(matches!(known.record.verdict, Verdict::Rejected(_)));
    assert_eq!(b.state(&room), before);
}
