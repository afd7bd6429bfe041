//! Knocks across servers: spec-map 4.8, pains D1 and D2.

use std::sync::Arc;

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId, ServerName, UserId};
use exeunt_core::{CheckedPdu, Object, PendingMembership};
use exeunt_room::inbound::Transaction;
use exeunt_room::views::SyncRequest;
use exeunt_room::{Preset, RoomError};
use exeunt_sim::{
    Fault, Mesh, Server,
    events::{member_draft, object},
    status,
};
use exeunt_store::tables;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// A room of `a` and `c` at which one may knock, and bob of `b`, who is outside.
struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    cat: OwnedUserId,
}

async fn stage_in(version: &str, join_rule: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, c) = (mesh.server("a.example"), mesh.server("c.example"));
    let (ann, cat) = (a.user("ann"), c.user("cat"));
    let bob = mesh.server("b.example").user("bob");
    let state = vec![("m.room.name", json!({ "name": "The room" }))];
    let room = a.room_with(&ann, Preset::Private, version, state).await;
    a.invite(&ann, &cat, &room).await.unwrap();
    c.join(&cat, &room, a).await.unwrap();
    a.set(&ann, &room, "m.room.join_rules", json!({ "join_rule": join_rule })).await;
    mesh.settle().await;
    mesh.net.take_requests();
    Stage { mesh, room, ann, bob, cat }
}

async fn stage() -> Stage {
    stage_in("12", "knock").await
}

fn reason(text: &str) -> Object {
    object(json!({ "reason": text }))
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

    async fn knock(&self, via: &Server) -> Result<(), RoomError> {
        let via = std::slice::from_ref(&via.name);
        self.b().rooms.knock(&self.bob, &self.room, via, reason("let me in")).await
    }

    fn bobs(&self) -> Option<String> {
        self.b().membership(&self.bob, &self.room)
    }

    fn bob_at(&self, server: &Server) -> Option<String> {
        server.in_state(&self.bob, &self.room)
    }

    fn pending(&self) -> Option<PendingMembership> {
        let key = (self.bob.clone(), self.room.clone());
        self.b().store.reader().get::<tables::Pending>(&key).unwrap()
    }

    fn departures(&self) -> usize {
        self.b().store.reader().scan::<tables::Departures>(()).keys().unwrap().len()
    }

    async fn make(&self, origin: &ServerName, versions: &[&str]) -> Result<Value, RoomError> {
        let entry = self.a().rooms.admit(origin, &self.room).await?;
        let versions: Vec<_> = versions.iter().map(ToString::to_string).collect();
        self.a().rooms.make_knock(&entry, &self.bob, &versions).await
    }

    async fn send(&self, event: &CheckedPdu) -> Result<Value, RoomError> {
        let entry = self.a().rooms.admit(&self.b().name, &self.room).await?;
        let body = event.object().clone();
        self.a().rooms.send_knock(&entry, event.event_id(), body).await
    }

    fn draft(&self, target: &UserId, membership: &str) -> exeunt_core::Draft {
        member_draft(self.a(), &self.room, &self.bob, target, membership)
    }
}

fn check<T: std::fmt::Debug>(result: Result<T, RoomError>, expected: u16, errcode: &str) {
    let (got, code) = status(result.expect_err("a refusal"));
    assert_eq!((got, code.as_str()), (expected, errcode));
}

/// D1, D2: the knock reaches every server of the room, and the user sees what it is about.
#[tokio::test]
async fn a_knock_in_every_version_that_has_it() {
    for (version, rule) in
        [("7", "knock"), ("9", "knock"), ("10", "knock_restricted"), ("12", "knock_restricted")]
    {
        let stage = stage_in(version, rule).await;
        stage.knock(stage.a()).await.unwrap();
        let asked: Vec<_> = stage.mesh.net.take_requests().into_iter().map(|r| r.2).collect();
        assert!(asked.starts_with(&["make_knock", "send_knock"]), "{asked:?}");
        stage.mesh.settle().await;
        for server in [stage.a(), stage.c()] {
            assert_eq!(stage.bob_at(server).as_deref(), Some("knock"), "in version {version}");
        }
        assert_eq!(stage.bobs().as_deref(), Some("knock"));
        let pending = stage.pending().unwrap();
        assert_eq!((&*pending.membership, &*pending.room_version), ("knock", version));
        assert_eq!(pending.delivered_by.as_ref(), Some(&stage.a().name));
        let name = pending.stripped_state.iter().find(|event| event["type"] == "m.room.name");
        assert_eq!(name.unwrap()["content"]["name"], "The room");
        let view = stage
            .b()
            .rooms
            .sync(SyncRequest {
                viewer: stage.b().rooms.viewer(&stage.bob, None),
                since: None,
                filter: Default::default(),
                full_state: false,
                use_state_after: false,
            })
            .await
            .unwrap();
        let own = view.knock[&stage.room].state.last().unwrap();
        assert_eq!(own["state_key"], stage.bob.as_str());
        assert_eq!(own["content"]["reason"], "let me in");
        let create = &view.knock[&stage.room].state[0];
        let keys: Vec<_> = create.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["content", "origin_server_ts", "sender", "state_key", "type"]);
        assert!(view.invite.is_empty() && view.leave.is_empty());
    }
}

#[tokio::test]
async fn knocks_of_local_users_are_events_of_the_room() {
    let stage = stage().await;
    let (a, amy) = (stage.a(), stage.a().user("amy"));
    for text in ["one", "two"] {
        a.rooms.knock(&amy, &stage.room, &[], reason(text)).await.unwrap();
        assert_eq!(a.membership(&amy, &stage.room).as_deref(), Some("knock"));
    }
    stage.mesh.settle().await;
    assert_eq!(stage.c().in_state(&amy, &stage.room).as_deref(), Some("knock"));
    a.leave(&amy, &stage.room).await.unwrap();
    assert_eq!(a.membership(&amy, &stage.room).as_deref(), Some("leave"));
    a.rooms.knock(&amy, &stage.room, &[], reason("again")).await.unwrap();
    a.invite(&stage.ann, &amy, &stage.room).await.unwrap();
    check(a.rooms.knock(&amy, &stage.room, &[], Object::new()).await, 403, "M_FORBIDDEN");
    a.rooms.join(&amy, &stage.room, &[], Object::new()).await.unwrap();
    check(a.rooms.knock(&amy, &stage.room, &[], Object::new()).await, 403, "M_FORBIDDEN");
    a.rooms.ban(&stage.ann, &amy, &stage.room, None).await.unwrap();
    check(a.rooms.knock(&amy, &stage.room, &[], Object::new()).await, 403, "M_FORBIDDEN");
}

#[tokio::test]
async fn rooms_that_take_no_knock_refuse() {
    for (version, rule) in [("12", "invite"), ("12", "public"), ("9", "knock_restricted")] {
        let stage = stage_in(version, rule).await;
        let refused = stage.knock(stage.a()).await.expect_err("a refusal");
        assert!(refused.to_string().contains("M_FORBIDDEN"), "{refused}");
        check(stage.make(&stage.b().name, &[version]).await, 403, "M_FORBIDDEN");
        let amy = stage.a().user("amy");
        let local = stage.a().rooms.knock(&amy, &stage.room, &[], Object::new()).await;
        check(local, 403, "M_FORBIDDEN");
        assert_eq!((stage.bobs(), stage.departures()), (None, 0));
    }
    let old = stage_in("6", "knock").await;
    check(old.make(&old.b().name, &["6"]).await, 403, "M_FORBIDDEN");
    let amy = old.a().user("amy");
    let local = old.a().rooms.knock(&amy, &old.room, &[], Object::new()).await;
    check(local, 403, "M_FORBIDDEN");
}

#[tokio::test]
async fn make_knock_and_its_refusals() {
    let stage = stage().await;
    let before = stage.a().timeline(&stage.room);
    let answer = stage.make(&stage.b().name, &["7", "12"]).await.unwrap();
    assert_eq!(answer["room_version"], "12");
    assert_eq!(answer["event"]["content"], json!({ "membership": "knock" }));
    assert_eq!(answer["event"]["state_key"], stage.bob.as_str());
    assert_eq!(stage.a().timeline(&stage.room), before);
    check(stage.make(&stage.b().name, &["7", "11"]).await, 400, "M_INCOMPATIBLE_ROOM_VERSION");
    check(stage.make(&stage.c().name, &["12"]).await, 403, "M_FORBIDDEN");
    let b = stage.b();
    let entry = b.rooms.admit(&stage.a().name, &stage.room).await.unwrap();
    let unknown = b.rooms.make_knock(&entry, &stage.ann, &["12".into()]).await;
    check(unknown, 404, "M_NOT_FOUND");
    stage.a().rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    check(stage.make(&stage.b().name, &["12"]).await, 403, "M_FORBIDDEN");
}

#[tokio::test]
async fn send_knock_takes_knocks_and_nothing_else() {
    let stage = stage().await;
    let b = stage.b();
    for membership in ["join", "leave", "invite", "ban"] {
        let event = b.sign(stage.draft(&stage.bob, membership));
        check(stage.send(&event).await, 400, "M_INVALID_PARAM");
    }
    let other = b.sign(stage.draft(&stage.ann, "knock"));
    check(stage.send(&other).await, 400, "M_INVALID_PARAM");
    let message =
        exeunt_core::Draft { kind: "m.room.message".into(), ..stage.draft(&stage.bob, "knock") };
    check(stage.send(&b.sign(message)).await, 400, "M_INVALID_PARAM");
    let cats = member_draft(stage.a(), &stage.room, &stage.cat, &stage.cat, "knock");
    check(stage.send(&stage.c().sign(cats)).await, 403, "M_FORBIDDEN");
    assert_eq!(stage.bob_at(stage.a()), None);

    // MSC4311: the answer holds whole events, the create event among them; twice is once.
    let knock = b.sign(stage.draft(&stage.bob, "knock"));
    for _ in 0..2 {
        let answer = stage.send(&knock).await.unwrap();
        let state = answer["knock_room_state"].as_array().unwrap();
        for event in state {
            assert!(event["signatures"].is_object() && event["auth_events"].is_array());
        }
        let kinds: Vec<_> = state.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["m.room.create", "m.room.join_rules", "m.room.name"]);
    }
    assert_eq!(stage.a().outbox(stage.c()).len(), 1, "relayed once");
    assert!(stage.a().outbox(b).is_empty());
}

/// The next server is asked where one fails; all refusing is a refusal.
#[tokio::test]
async fn a_knock_goes_through_whichever_server_takes_it() {
    let stage = stage().await;
    stage.mesh.net.cut(&stage.b().name, &stage.a().name);
    let via = [stage.a().name.clone(), stage.c().name.clone()];
    let knocked = stage.b().rooms.knock(&stage.bob, &stage.room, &via, Object::new()).await;
    knocked.unwrap();
    assert_eq!(stage.pending().unwrap().delivered_by.as_ref(), Some(&stage.c().name));
    // Again, this time knowing where to.
    stage.mesh.net.take_requests();
    stage.b().rooms.knock(&stage.bob, &stage.room, &[], reason("again")).await.unwrap();
    assert_eq!(stage.mesh.net.take_requests()[0].1, stage.c().name);
    let nobody = stage.b().user("nobody");
    let none = stage.b().rooms.knock(&nobody, &stage.room, &[], Object::new()).await;
    assert!(matches!(none, Err(RoomError::NoServer(attempts)) if attempts.is_empty()));
}

/// D1: a retraction goes through the server that was knocked at, and all of the room sees it.
#[tokio::test]
async fn a_retraction_reaches_the_room() {
    for version in ["7", "10", "12"] {
        let stage = stage_in(version, "knock").await;
        stage.knock(stage.c()).await.unwrap();
        stage.mesh.settle().await;
        stage.mesh.net.take_requests();
        stage.b().leave(&stage.bob, &stage.room).await.unwrap();
        let asked = stage.mesh.net.take_requests();
        let to_c = |endpoint| (stage.b().name.clone(), stage.c().name.clone(), endpoint);
        assert_eq!(asked[..2], [to_c("make_leave"), to_c("send_leave")]);
        assert_eq!(stage.bobs().as_deref(), Some("leave"));
        stage.mesh.settle().await;
        for server in [stage.a(), stage.c()] {
            assert_eq!(stage.bob_at(server).as_deref(), Some("leave"), "in version {version}");
        }
        assert_eq!((stage.departures(), stage.pending()), (0, None));
        stage.knock(stage.a()).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(stage.bob_at(stage.c()).as_deref(), Some("knock"));
    }
}

/// The same with the server away, and ours restarted in between.
#[tokio::test]
async fn a_retraction_waits_for_the_server_that_was_knocked_at() {
    let mut stage = stage().await;
    stage.knock(stage.a()).await.unwrap();
    stage.mesh.settle().await;
    stage.mesh.isolate("a.example");
    stage.b().leave(&stage.bob, &stage.room).await.unwrap();
    assert_eq!(stage.bobs().as_deref(), Some("leave"));
    assert_eq!(stage.departures(), 1);
    stage.mesh.settle().await;
    assert_eq!(stage.bob_at(stage.a()).as_deref(), Some("knock"));
    stage.mesh.restart("b.example");
    stage.mesh.heal("a.example");
    stage.mesh.settle().await;
    for server in [stage.a(), stage.c()] {
        assert_eq!(stage.bob_at(server).as_deref(), Some("leave"));
    }
    assert_eq!(stage.departures(), 0);
}

/// Kicked or banned at the door: the knocker's server is told, and believes the server that it
/// knocked at.
#[tokio::test]
async fn a_declined_knock_ends_at_the_knockers_server() {
    for ban in [false, true] {
        let stage = stage().await;
        let a = stage.a();
        stage.knock(a).await.unwrap();
        stage.mesh.settle().await;
        let mut woken = stage.b().rooms.subscribe(&stage.bob);
        woken.mark_unchanged();
        match ban {
            true => a.rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap(),
            false => a.rooms.kick(&stage.ann, &stage.bob, &stage.room, None).await.unwrap(),
        };
        assert_eq!(a.outbox(stage.b()).len(), 1);
        stage.mesh.settle().await;
        let row = stage.b().row(&stage.bob, &stage.room).unwrap();
        assert_eq!(
            (&*row.membership, row.sender),
            (if ban { "ban" } else { "leave" }, stage.ann.clone())
        );
        let proof = "the proof that the sender could take it back";
        let decision = stage.b().last_decision(&stage.bob, &stage.room);
        assert_eq!(decision, ("withdrawal".into(), proof));
        assert!(woken.has_changed().unwrap());
        assert_eq!(stage.pending(), None);
        match ban {
            true => assert!(stage.knock(a).await.is_err()),
            false => stage.knock(a).await.unwrap(),
        }
    }
}

/// IN10: an invite is how a knock is accepted.
#[tokio::test]
async fn in10_an_invite_accepts_the_knock() {
    let stage = stage().await;
    stage.knock(stage.a()).await.unwrap();
    stage.mesh.settle().await;
    stage.a().invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    assert_eq!(stage.bobs().as_deref(), Some("invite"));
    let pending = stage.pending().unwrap();
    assert_eq!((&*pending.membership, &pending.sender), ("invite", &stage.ann));
    check(stage.knock(stage.a()).await, 403, "M_FORBIDDEN");
    stage.b().join(&stage.bob, &stage.room, stage.a()).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!(stage.bob_at(stage.c()).as_deref(), Some("join"));
    check(stage.knock(stage.a()).await, 403, "M_FORBIDDEN");
}

/// The client heard that it failed, so the room must not go on showing the knock.
#[tokio::test]
async fn a_knock_whose_answer_is_lost_is_retracted() {
    let stage = stage().await;
    stage.mesh.net.fail_next(&stage.a().name, "send_knock", Fault::AnswerLost);
    assert!(stage.knock(stage.a()).await.is_err());
    assert_eq!((stage.bobs(), stage.departures()), (None, 1));
    assert_eq!(stage.bob_at(stage.a()).as_deref(), Some("knock"));
    stage.mesh.settle().await;
    assert_eq!(stage.bob_at(stage.a()).as_deref(), Some("leave"));
    assert_eq!(stage.departures(), 0);
}

/// CVE-2026-24471: a hostile server gets nothing signed, and what it says of the room is cleaned
/// (CVE-2024-52815).
#[tokio::test]
async fn a_hostile_server_gets_nothing_out_of_a_knock() {
    let stage = stage().await;
    for (field, value) in [
        ("type", json!("m.room.server_acl")),
        ("state_key", json!("@admin:b.example")),
        ("content", json!({ "membership": "join" })),
        ("room_id", json!("!other:a.example")),
    ] {
        let change = move |answer: &mut Value| answer["event"][field] = value.clone();
        stage.mesh.net.fail_next(&stage.a().name, "make_knock", Fault::tampered(change));
        assert!(stage.knock(stage.a()).await.is_err());
    }
    assert!(stage.mesh.net.take_requests().iter().all(|request| request.2 != "send_knock"));
    for state in [json!(5), json!({ "a": 1 }), json!([1, null, [], { "type": 3 }])] {
        let change = move |answer: &mut Value| answer["knock_room_state"] = state.clone();
        stage.mesh.net.fail_next(&stage.a().name, "send_knock", Fault::tampered(change));
        let text = stage.mesh.clock.now().to_string();
        let via = [stage.a().name.clone()];
        stage.b().rooms.knock(&stage.bob, &stage.room, &via, reason(&text)).await.unwrap();
        assert!(stage.pending().unwrap().stripped_state.is_empty());
    }
    stage.b().leave(&stage.bob, &stage.room).await.unwrap();
    assert_eq!(stage.bobs().as_deref(), Some("leave"));
}

/// Somebody of ours joins while the knock is under way: the knock is found in the room's graph.
#[tokio::test]
async fn a_knock_meets_a_join_of_the_same_server() {
    let stage = stage().await;
    let bea = stage.b().user("bea");
    stage.a().invite(&stage.ann, &bea, &stage.room).await.unwrap();
    let (asked, joined) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (ask, go_on) = (asked.clone(), joined.clone());
    let joins = Fault::meanwhile(move || {
        let (ask, go_on) = (ask.clone(), go_on.clone());
        Box::pin(async move {
            ask.notify_one();
            go_on.notified().await;
        })
    });
    stage.mesh.net.fail_next(&stage.a().name, "make_knock", joins);
    let join = async {
        asked.notified().await;
        stage.b().join(&bea, &stage.room, stage.a()).await.unwrap();
        joined.notify_one();
    };
    let (knocked, ()) = tokio::join!(stage.knock(stage.a()), join);
    knocked.unwrap();
    stage.mesh.settle().await;
    assert_eq!(stage.bob_at(stage.b()).as_deref(), Some("knock"));
    assert_eq!(stage.bobs().as_deref(), Some("knock"));
    assert_eq!(stage.pending(), None);
    stage.b().leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!(stage.bob_at(stage.c()).as_deref(), Some("leave"));
}

/// Who is invited the moment they knock: the invite is there before the knock's answer, and stays.
#[tokio::test]
async fn an_invite_that_overtakes_the_answer_stays() {
    let stage = stage().await;
    let (rooms, ann) = (stage.a().rooms.clone(), stage.ann.clone());
    let (bob, room) = (stage.bob.clone(), stage.room.clone());
    let invites = Fault::meanwhile(move || {
        let (rooms, ann, bob, room) = (rooms.clone(), ann.clone(), bob.clone(), room.clone());
        Box::pin(async move { rooms.invite(&ann, &bob, &room, Object::new()).await.unwrap() })
    });
    stage.mesh.net.fail_next(&stage.a().name, "send_knock", invites);
    stage.knock(stage.a()).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!(stage.bobs().as_deref(), Some("invite"));
    assert_eq!(stage.pending().unwrap().membership, "invite");
    assert_eq!((stage.bob_at(stage.c()).as_deref(), stage.departures()), (Some("invite"), 0));
    stage.b().join(&stage.bob, &stage.room, stage.a()).await.unwrap();
}

/// One device knocks again while another takes the knock back: it is taken back.
#[tokio::test]
async fn a_retraction_during_a_second_knock_holds() {
    for endpoint in ["make_knock", "send_knock"] {
        let stage = stage().await;
        stage.knock(stage.a()).await.unwrap();
        let (rooms, bob, room) = (stage.b().rooms.clone(), stage.bob.clone(), stage.room.clone());
        let leaves = Fault::meanwhile(move || {
            let (rooms, bob, room) = (rooms.clone(), bob.clone(), room.clone());
            Box::pin(async move { rooms.leave(&bob, &room, None).await.unwrap() })
        });
        stage.mesh.net.fail_next(&stage.a().name, endpoint, leaves);
        stage.knock(stage.a()).await.unwrap();
        stage.mesh.settle().await;
        stage.mesh.clock.advance(exeunt_room::leave::RACE_WINDOW_MS);
        stage.mesh.settle().await;
        assert_eq!((stage.bobs().as_deref(), stage.pending()), (Some("leave"), None), "{endpoint}");
        assert_eq!(stage.bob_at(stage.a()).as_deref(), Some("leave"), "{endpoint}");
        assert_eq!(stage.departures(), 0, "{endpoint}");
    }
}

/// Who is turned down and knocks again at once: the refusal of the first knock comes before the
/// answer to the second, which stands.
#[tokio::test]
async fn a_second_knock_outlives_the_refusal_of_the_first() {
    let stage = stage().await;
    stage.knock(stage.a()).await.unwrap();
    stage.mesh.settle().await;
    let kick = stage.a().rooms.kick(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    let kick = stage.a().event(&kick).unwrap().pdu.object().clone();
    let (rooms, from) = (stage.b().rooms.clone(), stage.a().name.clone());
    let refusal = Fault::meanwhile(move || {
        let (rooms, from, pdus) = (rooms.clone(), from.clone(), vec![kick.clone().into()]);
        Box::pin(async move {
            let transaction = Transaction { pdus, edus: Vec::new() };
            rooms.receive_transaction(&from, "refusal", transaction).await.unwrap();
        })
    });
    stage.mesh.net.fail_next(&stage.a().name, "send_knock", refusal);
    stage.knock(stage.a()).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!((stage.bobs().as_deref(), stage.departures()), (Some("knock"), 0));
    assert_eq!(stage.bob_at(stage.a()).as_deref(), Some("knock"));
    assert_eq!(stage.bob_at(stage.c()).as_deref(), Some("knock"));
}
