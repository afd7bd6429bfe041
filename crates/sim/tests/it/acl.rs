//! Server ACLs: spec-map 4.10, pains H1 to H5.

use std::sync::Arc;

use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use exeunt_core::{CheckedPdu, Draft, Object, Reference};
use exeunt_room::{Intent, NewRoom, Preset, RoomError};
use exeunt_sim::{
    Mesh, Server,
    events::{member_draft, message_draft, state_draft},
};
use exeunt_store::records::Verdict;
use serde_json::{Value, json};

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    cat: OwnedUserId,
}

/// A public room of ann on `a`, with bob of `b` and cat of `c`.
async fn stage_in(version: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let [a, b, c] = ["a.example", "b.example", "c.example"].map(|name| mesh.server(name));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, version).await;
    for (server, user) in [(b, &bob), (c, &cat)] {
        server.join(user, &room, a).await.unwrap();
        mesh.settle().await;
    }
    Stage { mesh, room, ann, bob, cat }
}

async fn stage() -> Stage {
    stage_in("12").await
}

impl Stage {
    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    fn c(&self) -> &Server {
        self.mesh.server("c.example")
    }

    async fn set_acl(&self, deny: &[&str]) -> OwnedEventId {
        let acl = json!({ "allow": ["*"], "deny": deny });
        let event = self.a().set(&self.ann, &self.room, "m.room.server_acl", acl).await;
        self.mesh.settle().await;
        event
    }

    async fn says(&self, server: &Server, user: &OwnedUserId, text: &str) {
        server.say(user, &self.room, text).await;
        self.mesh.settle().await;
    }

    /// A message that nobody has yet.
    fn message(&self, server: &Server, user: &OwnedUserId, text: &str) -> CheckedPdu {
        server.sign(message_draft(self.a(), &self.room, user, text))
    }

    fn verdict(&self, event: &CheckedPdu) -> Verdict {
        self.a().event(&event.event_id().to_owned()).unwrap().record.verdict.clone()
    }

    async fn append(&self, kind: &str, content: Value) -> Result<OwnedEventId, RoomError> {
        let content = content.as_object().cloned().unwrap();
        let intent = Intent::state(self.ann.clone(), kind, "", content);
        self.a().rooms.append(&self.room, intent).await
    }
}

/// Feature 9: what others relay of a denied server is not shown, and counted to the last event.
#[tokio::test]
async fn what_others_relay_of_a_denied_server_is_soft_failed_and_counted() {
    for version in ["6", "10", "12"] {
        let stage = stage_in(version).await;
        let (a, b, c) = (stage.a(), stage.b(), stage.c());
        let before = stage.message(c, &stage.cat, "written before the denial");
        stage.set_acl(&["c.*"]).await;
        let after = stage.message(c, &stage.cat, "written after it");
        for event in [&before, &after] {
            let answer = a.receive(c, event.event_id().as_str(), &[event]).await;
            let answer = &answer[event.event_id().as_str()];
            assert_eq!(answer["error"], "Server is banned from the room");
        }
        assert!(a.rooms.acl_leaks().is_empty(), "nothing was relayed");
        for event in [&before, &after] {
            let answer = a.receive(b, event.event_id().as_str(), &[event]).await;
            assert_eq!(answer[event.event_id().as_str()], json!({}));
            assert!(matches!(stage.verdict(event), Verdict::SoftFailed(_)), "in {version}");
        }
        a.receive(b, "again", &[&after]).await;
        assert_eq!(a.rooms.acl_leaks().into_iter().collect::<Vec<_>>(), [(b.name.clone(), 2)]);
        // What b's users say upon it is theirs.
        let draft = message_draft(a, &stage.room, &stage.bob, "I quote");
        let quote = b.sign(Draft { prev_events: vec![Reference::from(&*after)], ..draft });
        a.receive(b, "quote", &[&quote]).await;
        assert_eq!(a.messages(&stage.room), ["I quote"]);
        a.graph(&stage.room, |graph| {
            assert!(!graph.room.extremities.contains(&after.event_id().to_owned()))
        });
    }
}

/// It is no authorisation rule: a denied server's users can be seen to leave.
#[tokio::test]
async fn a_denied_servers_leave_counts_once_others_build_upon_it() {
    let stage = stage().await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    stage.set_acl(&["c.example"]).await;
    let leave = c.sign(member_draft(a, &stage.room, &stage.cat, &stage.cat, "leave"));
    a.receive(b, "leave", &[&leave]).await;
    assert_eq!(a.in_state(&stage.cat, &stage.room).as_deref(), Some("join"));
    let draft = message_draft(a, &stage.room, &stage.bob, "cat has gone");
    let next = b.sign(Draft { prev_events: vec![Reference::from(&*leave)], ..draft });
    a.receive(b, "next", &[&next]).await;
    assert_eq!(a.messages(&stage.room), ["cat has gone"]);
    assert_eq!(a.in_state(&stage.cat, &stage.room).as_deref(), Some("leave"));
    // A denied server's user can still be removed.
    let dan = c.user("dan");
    a.rooms.ban(&stage.ann, &dan, &stage.room, None).await.unwrap();
}

/// H5: a server that is let in again is whole again, with its next event at the latest.
#[tokio::test]
async fn a_room_heals_when_a_server_is_let_in_again() {
    let stage = stage().await;
    stage.says(stage.c(), &stage.cat, "1").await;
    stage.set_acl(&["c.example"]).await;
    for text in ["2", "3", "4"] {
        stage.says(stage.c(), &stage.cat, text).await;
        stage.says(stage.a(), &stage.ann, &format!("not {text}")).await;
    }
    for server in [stage.a(), stage.b()] {
        assert_eq!(server.messages(&stage.room), ["1", "not 2", "not 3", "not 4"]);
    }
    stage.set_acl(&["other.example"]).await;
    stage.says(stage.c(), &stage.cat, "5").await;
    for server in [stage.a(), stage.b()] {
        let mut messages = server.messages(&stage.room);
        messages.sort();
        assert_eq!(messages, ["1", "2", "3", "4", "5", "not 2", "not 3", "not 4"]);
        assert_eq!(server.state(&stage.room), stage.c().state(&stage.room));
        server.graph(&stage.room, |graph| assert_eq!(graph.room.extremities.len(), 1));
        assert!(server.rooms.acl_leaks().is_empty());
    }
}

/// H5: the servers that are let in are asked for what they said, and need not say anything first.
#[tokio::test]
async fn who_is_let_in_again_is_asked_for_what_was_said() {
    for version in ["1", "6", "12"] {
        let stage = stage_in(version).await;
        stage.set_acl(&["c.example"]).await;
        for text in ["1", "2"] {
            stage.says(stage.c(), &stage.cat, text).await;
        }
        stage.mesh.net.take_requests();
        stage.set_acl(&["c.example", "d.example"]).await;
        let requests = stage.mesh.net.take_requests();
        assert!(requests.iter().all(|(.., endpoint)| *endpoint == "send"), "nobody was let in");
        stage.set_acl(&["d.example"]).await;
        for server in [stage.a(), stage.b()] {
            assert_eq!(server.messages(&stage.room), ["1", "2"], "in {version}");
        }
    }
}

/// H5: what others relayed of a server is judged again when it is let in.
#[tokio::test]
async fn what_was_soft_failed_is_judged_again() {
    let stage = stage().await;
    let powers = json!({ "users": { stage.cat.as_str(): 50, stage.bob.as_str(): 50 } });
    stage.a().set(&stage.ann, &stage.room, "m.room.power_levels", powers).await;
    stage.mesh.settle().await;
    let dan = stage.c().user("dan");
    stage.set_acl(&["c.example", "d.example"]).await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    let topic = state_draft(a, &stage.room, &stage.cat, "m.room.topic", json!({ "topic": "t" }));
    let topic = c.sign(topic);
    // A user who came meanwhile, and who is no one in current state.
    let join = c.sign(member_draft(a, &stage.room, &dan, &dan, "join"));
    let draft = message_draft(a, &stage.room, &dan, "hello");
    let auth_events = [draft.auth_events.clone(), vec![Reference::from(&*join)]].concat();
    let prev_events = vec![Reference::from(&*join)];
    let hello = c.sign(Draft { prev_events, auth_events, ..draft });
    // Nobody is to be asked: what follows is about what was relayed.
    stage.mesh.net.script(&c.name, |_| exeunt_sim::Scripted::refused(404, "M_NOT_FOUND"));
    a.receive(b, "relayed", &[&topic, &join, &hello]).await;
    let relayed = [&topic, &join, &hello];
    for event in relayed {
        assert!(matches!(stage.verdict(event), Verdict::SoftFailed(_)));
    }
    // Somebody may not say any more what they could say then.
    let lost = stage.message(c, &stage.cat, "said before cat was banned");
    a.receive(b, "lost", &[&lost]).await;
    a.rooms.ban(&stage.ann, &stage.cat, &stage.room, None).await.unwrap();
    // Another denied server's ACL changes nothing.
    stage.set_acl(&["c.example"]).await;
    assert!(stage.a().messages(&stage.room).is_empty());
    stage.set_acl(&[]).await;
    assert_eq!(stage.a().messages(&stage.room), ["hello"]);
    assert_eq!(stage.a().in_state(&dan, &stage.room).as_deref(), Some("join"));
    for event in [&topic, &lost] {
        let why = stage.verdict(event);
        assert!(matches!(why, Verdict::SoftFailed(_)), "of a user who is banned now: {why:?}");
    }
    let rows = stage.a().store.reader().scan::<exeunt_store::tables::Denied>(()).keys().unwrap();
    assert!(rows.is_empty(), "each is judged once: {rows:?}");
    assert!(exeunt_store::verify(&stage.a().store).unwrap().is_clean());
}

/// H5: a process that ends as soon as the ACL is written.
#[test]
fn a_start_judges_what_the_last_run_did_not() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let mut stage = first.block_on(async {
        let stage = stage().await;
        stage.set_acl(&["c.example"]).await;
        let message = stage.message(stage.c(), &stage.cat, "hello");
        stage.a().receive(stage.b(), "relayed", &[&message]).await;
        let acl = json!({ "allow": ["*"] });
        stage.a().set(&stage.ann, &stage.room, "m.room.server_acl", acl).await;
        stage
    });
    drop(first);
    assert!(stage.a().messages(&stage.room).is_empty(), "it had no time");
    stage.mesh.restart("a.example");
    runtime().block_on(stage.a().rooms.sweep_denied()).unwrap();
    assert_eq!(stage.a().messages(&stage.room), ["hello"]);
}

/// H1: an ACL from before our time, and after a restart.
#[tokio::test]
async fn an_acl_that_was_there_before_us_holds() {
    let mut stage = stage().await;
    stage.b().leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    stage.set_acl(&["C.EXAMPLE"]).await;
    stage.b().join(&stage.bob, &stage.room, stage.a()).await.unwrap();
    stage.mesh.settle().await;
    for _ in 0..2 {
        let denied = stage.b().rooms.admit(&stage.c().name, &stage.room).await;
        assert!(matches!(denied, Err(RoomError::Forbidden(_))));
        stage.b().rooms.admit(&stage.a().name, &stage.room).await.unwrap();
        let message = stage.message(stage.c(), &stage.cat, "hello");
        let answer = stage.b().receive(stage.c(), "t", &[&message]).await;
        assert!(answer[message.event_id().as_str()]["error"].is_string());
        stage.mesh.restart("b.example");
    }
    assert!(stage.b().messages(&stage.room).is_empty());
}

/// H4: a local user cannot lock this server out, by whatever way.
#[tokio::test]
async fn nobody_of_ours_locks_us_out() {
    let stage = stage().await;
    let acl = stage.set_acl(&["evil.example"]).await;
    for content in [
        json!({}),
        json!({ "allow": [] }),
        json!({ "allow": ["b.example"] }),
        json!({ "allow": ["*"], "deny": ["A.EXAMPLE"] }),
        json!({ "allow": ["*"], "deny": "*.com" , "allow_ip_literals": false, "x": 1 }),
        json!({ "allow": "*" }),
        json!({ "allow": ["*"], "deny": ["?.exam*"] }),
    ] {
        let denies = content["deny"] != json!("*.com");
        let sent = stage.append("m.room.server_acl", content.clone()).await;
        assert_eq!(matches!(sent, Err(RoomError::SelfLockout)), denies, "{content}");
        if !denies {
            stage.append("m.room.server_acl", json!({ "allow": ["*"] })).await.unwrap();
        }
    }
    // Of the one in force no content may be lost; one of the past is nobody's business.
    let current = stage.a().graph(&stage.room, |graph| {
        graph.current("m.room.server_acl", "").unwrap().unwrap().event_id().to_owned()
    });
    let redact = async |target: &OwnedEventId, by_content: bool| {
        let mut content = Object::new();
        content.insert("redacts".into(), target.as_str().into());
        let mut intent = Intent::message(stage.ann.clone(), "m.room.redaction", content);
        intent.redacts = (!by_content).then(|| target.clone());
        stage.a().rooms.append(&stage.room, intent).await
    };
    for by_content in [false, true] {
        let refused = redact(&current, by_content).await;
        assert!(matches!(refused, Err(RoomError::Forbidden(_))));
    }
    redact(&acl, false).await.unwrap();
    // A room that is made with such an ACL is not made.
    let denying = json!({ "deny": ["*"] }).as_object().cloned().unwrap();
    let room = NewRoom {
        initial_state: vec![("m.room.server_acl".into(), String::new(), denying)],
        ..NewRoom::new(stage.ann.clone(), exeunt_core::RoomVersion::latest(), Preset::Public)
    };
    let made = stage.a().rooms.create_room(room).await;
    assert!(matches!(made, Err(RoomError::SelfLockout)));
}

/// H4: a redacted ACL is an empty one, and denies all; the room's own users can mend that.
#[tokio::test]
async fn a_redacted_acl_denies_everyone_until_there_is_another() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    let levels = json!({ "users": { stage.bob.as_str(): 100 } });
    a.set(&stage.ann, &stage.room, "m.room.power_levels", levels).await;
    let acl = stage.set_acl(&[]).await;
    let draft = message_draft(a, &stage.room, &stage.bob, "");
    let content = json!({ "redacts": acl }).as_object().cloned().unwrap();
    let redaction = b.sign(Draft { kind: "m.room.redaction".into(), content, ..draft });
    a.receive(b, "redaction", &[&redaction]).await;
    for server in [b, stage.c()] {
        let denied = a.rooms.admit(&server.name, &stage.room).await;
        assert!(matches!(denied, Err(RoomError::Forbidden(_))), "{}", server.name);
    }
    stage.set_acl(&["c.example"]).await;
    a.rooms.admit(&b.name, &stage.room).await.unwrap();
    // ACLs with a state key are none.
    let mut other = state_draft(a, &stage.room, &stage.bob, "m.room.server_acl", json!({}));
    other.state_key = Some("key".into());
    let other = b.sign(other);
    a.receive(b, "other", &[&other]).await;
    assert_eq!(stage.verdict(&other), Verdict::Accepted);
    a.rooms.admit(&b.name, &stage.room).await.unwrap();
}

/// It is compiled once for all that ask, and anew for another event.
#[tokio::test]
async fn an_acl_is_compiled_once() {
    let stage = stage().await;
    let acl = || stage.a().graph(&stage.room, |graph| graph.acl().unwrap());
    assert!(acl().is_none());
    stage.set_acl(&["evil.example"]).await;
    let compiled = acl().unwrap();
    stage.says(stage.b(), &stage.bob, "hello").await;
    assert!(Arc::ptr_eq(&compiled, &acl().unwrap()));
    stage.set_acl(&["c.example"]).await;
    assert!(compiled.allows(&stage.c().name) && !acl().unwrap().allows(&stage.c().name));
}

/// Which ACL is in force may change by state resolution alone: it holds at once.
#[tokio::test]
async fn the_gate_follows_a_resolution() {
    for version in ["6", "10", "12"] {
        let stage = stage_in(version).await;
        let (a, b, c) = (stage.a(), stage.b(), stage.c());
        let mut users = json!({ stage.bob.as_str(): 50 });
        if version != "12" {
            users[stage.ann.as_str()] = 100.into();
        }
        let levels = json!({ "users": users, "state_default": 50 });
        a.set(&stage.ann, &stage.room, "m.room.power_levels", levels).await;
        stage.mesh.settle().await;
        // Side by side on one head; the later one counts.
        let acl = |user: &OwnedUserId, denied: &str| {
            let content = json!({ "allow": ["*"], "deny": [denied] });
            state_draft(a, &stage.room, user, "m.room.server_acl", content)
        };
        let anns = a.sign(acl(&stage.ann, "y.example"));
        let draft = acl(&stage.bob, "x.example");
        let bobs = b.sign(Draft { origin_server_ts: draft.origin_server_ts + 1, ..draft });
        // On ann's branch bob is banned, so that his ACL is none.
        let draft = member_draft(a, &stage.room, &stage.ann, &stage.bob, "ban");
        let (prev_events, depth) = (vec![Reference::from(&*anns)], anns.depth() + 1);
        let ban = a.sign(Draft { prev_events, depth, ..draft });
        let denied = async || {
            let mut denied = Vec::new();
            for name in ["x.example", "y.example"] {
                let name = OwnedServerName::try_from(name).unwrap();
                if c.rooms.admit(&name, &stage.room).await.is_err() {
                    denied.push(name.to_string());
                }
            }
            denied
        };
        c.receive(a, "anns", &[&anns]).await;
        assert_eq!(denied().await, ["y.example"], "in {version}");
        c.receive(b, "bobs", &[&bobs]).await;
        assert_eq!(denied().await, ["x.example"], "in {version}");
        c.receive(a, "ban", &[&ban]).await;
        assert_eq!(denied().await, ["y.example"], "in {version}");
    }
}
