//! Joins, messages, forks and gaps: spec-map 4.9 to 4.11.

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_core::{Draft, Object, Reference, RoomVersion};
use exeunt_room::{Preset, RoomError};
use exeunt_sim::{
    Fault, Mesh, Server,
    events::{member_draft, object},
    refusal, status,
};
use serde_json::json;

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    cat: OwnedUserId,
}

/// A public room of ann on `a`, with bob of `b` and cat of `c` joined.
async fn stage_in(version: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let [a, b, c] = ["a.example", "b.example", "c.example"].map(|name| mesh.server(name));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, version).await;
    b.join(&bob, &room, a).await.unwrap();
    mesh.settle().await;
    c.join(&cat, &room, b).await.unwrap();
    mesh.settle().await;
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

    /// All servers agree on the state, and on the messages that are shown, in any order.
    fn assert_converged(&self) {
        let of = |server: &Server| {
            let mut messages = server.messages(&self.room);
            messages.sort();
            (server.state(&self.room), messages)
        };
        let first = of(self.a());
        for server in &self.mesh.servers()[1..] {
            assert_eq!(of(server), first, "{} and a.example", server.name);
        }
    }
}

fn check<T: std::fmt::Debug>(result: Result<T, RoomError>, expected: u16, errcode: &str) {
    let (got, code) = status(result.expect_err("a refusal"));
    assert_eq!((got, code.as_str()), (expected, errcode));
}

#[tokio::test]
async fn joins_and_messages_go_all_ways_in_every_version() {
    for version in RoomVersion::all() {
        let stage = stage_in(version.as_str()).await;
        stage.a().say(&stage.ann, &stage.room, "1").await;
        stage.mesh.settle().await;
        stage.b().say(&stage.bob, &stage.room, "2").await;
        stage.mesh.settle().await;
        stage.c().say(&stage.cat, &stage.room, "3").await;
        stage.mesh.settle().await;
        for server in stage.mesh.servers() {
            assert_eq!(server.messages(&stage.room), ["1", "2", "3"], "in version {version}");
        }
        stage.assert_converged();
    }
}

#[tokio::test]
async fn kicks_bans_and_leaves_reach_everyone() {
    let stage = stage().await;
    stage.a().rooms.kick(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!(stage.b().membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
    stage.b().join(&stage.bob, &stage.room, stage.c()).await.unwrap();
    stage.mesh.settle().await;
    stage.assert_converged();
    stage.a().rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    stage.mesh.settle().await;
    let again = stage.b().join(&stage.bob, &stage.room, stage.c()).await.unwrap_err();
    let RoomError::EntryRefused { error, .. } = &again else { panic!("{again}") };
    assert_eq!(refusal(error), Some((403, "M_FORBIDDEN")));
    stage.c().leave(&stage.cat, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!(stage.a().in_state(&stage.cat, &stage.room).as_deref(), Some("leave"));
    let servers = stage.a().graph(&stage.room, |graph| graph.joined_servers().unwrap());
    assert_eq!(servers, [stage.a().name.clone()]);
}

/// LV8: after the last of us has left, a rejoin goes by handshake again and fills the gap.
#[tokio::test]
async fn a_rejoin_after_everyone_left() {
    let stage = stage().await;
    stage.c().leave(&stage.cat, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    stage.a().set(&stage.ann, &stage.room, "m.room.topic", json!({ "topic": "meanwhile" })).await;
    stage.a().say(&stage.ann, &stage.room, "meanwhile").await;
    stage.mesh.settle().await;
    stage.c().join(&stage.cat, &stage.room, stage.a()).await.unwrap();
    stage.mesh.settle().await;
    stage.b().say(&stage.bob, &stage.room, "welcome back").await;
    stage.mesh.settle().await;
    assert_eq!(stage.c().state(&stage.room), stage.a().state(&stage.room));
    assert_eq!(stage.c().messages(&stage.room), ["welcome back"]);
}

/// What a client adds to a join is in the event of a handshake too; who authorises it is not.
#[tokio::test]
async fn a_join_with_custom_content() {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = a.room(&ann, Preset::Public, "12").await;
    let content = json!({ "foo": "bar", "join_authorised_via_users_server": ann });
    b.rooms.join(&bob, &room, std::slice::from_ref(&a.name), object(content)).await.unwrap();
    let join = a.graph(&room, |graph| graph.current("m.room.member", bob.as_str()).unwrap());
    assert_eq!(*join.unwrap().content(), object(json!({ "membership": "join", "foo": "bar" })));
    // Floats are in no event: the client's mistake, and no server's.
    let cat = b.user("cat");
    let content = object(json!({ "foo": 1.5 }));
    let error =
        b.rooms.join(&cat, &room, std::slice::from_ref(&a.name), content).await.unwrap_err();
    assert!(matches!(error, RoomError::Format(_)), "{error}");
}

#[tokio::test]
async fn make_join_refusals() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    let entry = a.rooms.admit(&b.name, &stage.room).await.unwrap();
    let dan = b.user("dan");
    let versions = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let result = a.rooms.make_join(&entry, &dan, &versions(&["1", "11"])).await;
    let error = exeunt_fed_api::matrix_error(result.unwrap_err());
    assert_eq!((error.status, error.errcode.as_str()), (400, "M_INCOMPATIBLE_ROOM_VERSION"));
    assert_eq!(error.extra["room_version"], "12");
    check(a.rooms.make_join(&entry, &stage.cat, &versions(&["12"])).await, 403, "M_FORBIDDEN");
    let made = a.rooms.make_join(&entry, &dan, &versions(&["11", "12"])).await.unwrap();
    assert_eq!(made["event"]["content"], json!({ "membership": "join" }));
    a.rooms.ban(&stage.ann, &dan, &stage.room, None).await.unwrap();
    check(a.rooms.make_join(&entry, &dan, &versions(&["12"])).await, 403, "M_FORBIDDEN");
    let private = a.room(&stage.ann, Preset::Private, "12").await;
    let entry = a.rooms.admit(&b.name, &private).await.unwrap();
    check(a.rooms.make_join(&entry, &stage.bob, &versions(&["12"])).await, 403, "M_FORBIDDEN");
}

/// CVE-2019-18835, CVE-2020-26257, Dendrite's PR 2604.
#[tokio::test]
async fn send_join_takes_joins_of_the_senders_own_users_only() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    let entry = a.rooms.admit(&b.name, &stage.room).await.unwrap();
    let dan = b.user("dan");
    let draft = |membership| member_draft(a, &stage.room, &dan, &dan, membership);
    let send = |event: exeunt_core::CheckedPdu| {
        let entry = &entry;
        async move { a.rooms.send_join(entry, event.event_id(), event.object().clone(), false).await }
    };
    for membership in ["leave", "invite", "knock", "ban"] {
        check(send(b.sign(draft(membership))).await, 400, "M_INVALID_PARAM");
    }
    let third = stage.c().user("dora");
    let theirs = stage.c().sign(member_draft(a, &stage.room, &third, &third, "join"));
    check(send(theirs).await, 403, "M_FORBIDDEN");
    let other_key = Draft { state_key: Some(third.to_string()), ..draft("join") };
    check(send(b.sign(other_key)).await, 400, "M_INVALID_PARAM");
    let join = b.sign(draft("join"));
    let mut unsigned = join.object().clone();
    unsigned["signatures"] = json!({});
    check(a.rooms.send_join(&entry, join.event_id(), unsigned, false).await, 403, "M_FORBIDDEN");
    assert_eq!(a.in_state(&dan, &stage.room), None);

    let first = send(join.clone()).await.unwrap().whole().await.unwrap();
    let again = send(join.clone()).await.unwrap().whole().await.unwrap();
    assert_eq!(first["state"], again["state"]);
    assert_eq!(a.outbox(stage.c()).len(), 1, "relayed once");
    for (key, value) in [("members_omitted", json!(false)), ("event", json!(join.object()))] {
        assert_eq!(first[key], value);
    }
    // The state before the join: without it.
    let state = first["state"].as_array().unwrap();
    assert!(state.iter().all(|event| event["state_key"] != dan.as_str()));
    assert!(state.iter().any(|event| event["type"] == "m.room.create"));
    let chain = first["auth_chain"].as_array().unwrap();
    assert!(chain.iter().any(|event| event["type"] == "m.room.power_levels"));
}

/// CVE-2022-39200: what is tampered with on the way is dropped by itself; without the events that
/// all rests on there is no join.
#[tokio::test]
async fn a_tampered_answer_to_send_join() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    let room = a.room(&stage.ann, Preset::Public, "12").await;
    a.set(&stage.ann, &room, "m.room.topic", json!({ "topic": "true" })).await;
    let tampered = |kind: &'static str| {
        Fault::tampered(move |answer| {
            for list in ["state", "auth_chain"] {
                for event in answer[list].as_array_mut().unwrap() {
                    if event["type"] == kind {
                        event["signatures"] = json!({});
                    }
                }
            }
        })
    };
    stage.mesh.net.fail_next(&a.name, "send_join", tampered("m.room.create"));
    assert!(b.join(&stage.bob, &room, a).await.is_err());
    assert_eq!(b.membership(&stage.bob, &room), None);
    stage.mesh.net.fail_next(&a.name, "send_join", tampered("m.room.topic"));
    b.join(&stage.bob, &room, a).await.unwrap();
    assert!(b.state(&room).iter().all(|(kind, ..)| kind != "m.room.topic"));
    assert_eq!(b.membership(&stage.bob, &room).as_deref(), Some("join"));
}

/// A fork: both sides go on while they cannot reach each other.
#[tokio::test]
async fn forks_heal_in_every_version() {
    for version in RoomVersion::all() {
        let stage = stage_in(version.as_str()).await;
        stage.mesh.isolate("b.example");
        for text in ["a1", "a2", "a3"] {
            stage.a().say(&stage.ann, &stage.room, text).await;
        }
        stage.a().set(&stage.ann, &stage.room, "m.room.topic", json!({ "topic": "a" })).await;
        stage.mesh.settle().await;
        for text in ["b1", "b2", "b3"] {
            stage.b().say(&stage.bob, &stage.room, text).await;
        }
        stage.mesh.heal("b.example");
        stage.mesh.settle().await;
        stage.assert_converged();
        stage.c().say(&stage.cat, &stage.room, "together").await;
        stage.mesh.settle().await;
        stage.assert_converged();
        for server in stage.mesh.servers() {
            server.graph(&stage.room, |graph| assert_eq!(graph.room.extremities.len(), 1));
            assert_eq!(server.messages(&stage.room).len(), 7);
        }
    }
}

/// A ban and the banned user's own doings at the same time converge to the ban.
#[tokio::test]
async fn a_ban_wins_over_what_the_banned_did_meanwhile() {
    let stage = stage().await;
    stage.mesh.isolate("b.example");
    stage.a().rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    stage.b().say(&stage.bob, &stage.room, "still here").await;
    stage.b().leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    stage.mesh.heal("b.example");
    stage.mesh.settle().await;
    for server in [stage.a(), stage.c()] {
        assert_eq!(server.in_state(&stage.bob, &stage.room).as_deref(), Some("ban"));
        assert!(server.messages(&stage.room).is_empty(), "soft-failed at {}", server.name);
    }
}

/// Events that got lost are asked for.
#[tokio::test]
async fn a_gap_is_filled_with_missing_events() {
    let stage = stage().await;
    let (a, c) = (stage.a(), stage.c());
    for text in ["1", "2", "3"] {
        a.say(&stage.ann, &stage.room, text).await;
    }
    a.forget_outbox(c).await;
    a.say(&stage.ann, &stage.room, "4").await;
    stage.mesh.net.take_requests();
    stage.mesh.settle().await;
    assert_eq!(c.messages(&stage.room), ["1", "2", "3", "4"]);
    let asked: Vec<_> = stage.mesh.net.take_requests().into_iter().map(|r| r.2).collect();
    assert!(asked.contains(&"get_missing_events") && !asked.contains(&"state_ids"));
    stage.assert_converged();
}

/// MSC3083: we vouch for who is in the other room, and for nobody else.
#[tokio::test]
async fn restricted_joins() {
    let stage = stage().await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    let allow = json!([{ "type": "m.room_membership", "room_id": stage.room }]);
    let rules = json!({ "join_rule": "restricted", "allow": allow });
    let state = vec![("m.room.join_rules", rules)];
    let club = a.room_with(&stage.ann, Preset::Public, "12", state).await;
    b.join(&stage.bob, &club, a).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!(a.in_state(&stage.bob, &club).as_deref(), Some("join"));
    let join = a.graph(&club, |g| g.current("m.room.member", stage.bob.as_str()).unwrap().unwrap());
    assert_eq!(join.content_str("join_authorised_via_users_server"), Some(stage.ann.as_str()));
    assert!(join.object()["signatures"]["a.example"].is_object());
    assert_eq!(a.signed_as(&join), ["restricted join"]);
    let stranger = c.user("stranger");
    assert!(c.join(&stranger, &club, a).await.is_err());
    // Claiming our voucher without meeting a condition gets no signature.
    let mut draft = member_draft(a, &club, &stranger, &stranger, "join");
    draft.auth_events.extend(a.graph(&club, |g| {
        g.current("m.room.member", stage.ann.as_str()).unwrap().map(|e| Reference::from(&e))
    }));
    let field = "join_authorised_via_users_server";
    draft.content = object(json!({ "membership": "join", field: stage.ann }));
    let forged = c.sign(draft);
    let entry = a.rooms.admit(&c.name, &club).await.unwrap();
    let sent = a.rooms.send_join(&entry, forged.event_id(), forged.object().clone(), false).await;
    check(sent, 403, "M_FORBIDDEN");
    assert!(a.signed_as(&forged).is_empty());
}

#[tokio::test]
async fn what_one_says_in_an_unknown_room_is_an_error() {
    let stage = stage().await;
    let other = stage.a().room(&stage.ann, Preset::Public, "12").await;
    check(stage.b().rooms.leave(&stage.bob, &other, None).await, 404, "M_NOT_FOUND");
    let joined = stage.b().rooms.join(&stage.bob, &other, &[], Object::new()).await;
    assert!(joined.is_err());
}
