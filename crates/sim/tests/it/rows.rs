//! Rows of the specification map (section 4) and of the pains that no other suite has.

use std::sync::{Arc, Mutex};

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use exeunt_core::{Object, RoomVersion};
use exeunt_room::{
    Call, Preset, RemoteError, RoomError, farewell::Farewell, graph::Graph, inbound::Transaction,
};
use exeunt_sim::{
    Fault, Mesh, Scripted, Server,
    events::{message_draft, object},
    status,
};
use exeunt_store::{Store, tables};
use serde_json::{Value, json};

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    cat: OwnedUserId,
}

/// A public room of ann on `a` with cat of `c`. Bob of `b` is outside.
async fn stage_in(version: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let [a, b, c] = ["a.example", "b.example", "c.example"].map(|name| mesh.server(name));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, version).await;
    c.join(&cat, &room, a).await.unwrap();
    mesh.settle().await;
    mesh.net.take_requests();
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

    fn bob_at(&self, server: &Server) -> Option<String> {
        server.in_state(&self.bob, &self.room)
    }

    fn bobs(&self) -> Option<String> {
        self.b().membership(&self.bob, &self.room)
    }

    async fn invite(&self) -> Result<(), RoomError> {
        self.a().invite(&self.ann, &self.bob, &self.room).await
    }

    fn departures(&self) -> usize {
        self.b().store.reader().scan::<tables::Departures>(()).keys().unwrap().len()
    }

    async fn joinable(&self, rule: &str) {
        let rule = json!({ "join_rule": rule });
        self.a().set(&self.ann, &self.room, "m.room.join_rules", rule).await;
        self.mesh.settle().await;
    }

    /// Bob's member event as the room has it.
    fn content_at_a(&self) -> Object {
        self.a().graph(&self.room, |graph| {
            graph.current("m.room.member", self.bob.as_str()).unwrap().unwrap().content().clone()
        })
    }
}

/// 4.5: the invited user's server adds its signature and nothing else; where it did not, nothing is
/// sent.
#[tokio::test]
async fn an_invited_server_adds_its_signature_and_nothing_else() {
    let forged = json!({ "ed25519:sim": "A".repeat(86) });
    let changes = [
        ("/event/signatures", json!({})),
        ("/event/signatures/b.example", forged),
        ("/event/content/membership", json!("join")),
        ("/event/state_key", json!("@eve:b.example")),
        ("/event/depth", json!(0.5)),
        ("/event", json!([])),
        ("", Value::Null),
    ];
    for (pointer, value) in changes {
        let stage = stage().await;
        let change = move |answer: &mut Value| {
            *answer.pointer_mut(pointer).unwrap() = value.clone();
        };
        stage.mesh.net.fail_next(&stage.b().name, "invite", Fault::tampered(change));
        let refused = stage.invite().await;
        let is_misbehaviour =
            matches!(&refused, Err(RoomError::Remote { error: RemoteError::Misbehaved(_), .. }));
        assert!(is_misbehaviour, "{pointer}: {refused:?}");
        assert_eq!(stage.bob_at(stage.a()), None);
        assert!(stage.a().outbox(stage.c()).is_empty(), "nobody hears of it");
    }
}

/// A8: the answer to the invite was lost, so that the room has no invite and bob sees one. He can
/// turn it down, and a second one replaces it.
#[tokio::test]
async fn an_invite_whose_answer_was_lost_is_not_stuck() {
    let stage = stage().await;
    stage.mesh.net.fail_next(&stage.b().name, "invite", Fault::AnswerLost);
    stage.invite().await.unwrap_err();
    assert_eq!((stage.bobs().as_deref(), stage.bob_at(stage.a())), (Some("invite"), None));
    stage.invite().await.unwrap();
    assert_eq!(stage.bob_at(stage.a()).as_deref(), Some("invite"));
    stage.b().leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!(stage.bob_at(stage.a()).as_deref(), Some("leave"));

    let stage = self::stage().await;
    stage.mesh.net.fail_next(&stage.b().name, "invite", Fault::AnswerLost);
    stage.invite().await.unwrap_err();
    stage.mesh.clock.advance(exeunt_room::leave::RACE_WINDOW_MS);
    stage.b().leave(&stage.bob, &stage.room).await.unwrap();
    assert_eq!((stage.bobs().as_deref(), stage.departures()), (Some("leave"), 0));
}

/// 4.6, MSC4311: what goes with an invite are whole events of the room, the create event first.
#[tokio::test]
async fn invites_carry_whole_events() {
    for version in RoomVersion::all() {
        let stage = stage_in(version.as_str()).await;
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = seen.clone();
        stage.mesh.net.script(&stage.b().name, move |call| {
            if let Call::Invite { room_state, .. } = call {
                kept.lock().unwrap().extend_from_slice(room_state);
            }
            Scripted::Honest
        });
        stage.invite().await.unwrap();
        let state = seen.lock().unwrap();
        let kinds: Vec<_> = state.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["m.room.create", "m.room.join_rules", "m.room.member"]);
        for event in state.iter() {
            for field in ["signatures", "hashes", "auth_events", "origin_server_ts"] {
                assert!(event.get(field).is_some(), "{field} in version {version}");
            }
            assert!(event.get("unsigned").is_none_or(|unsigned| *unsigned == json!({})));
        }
    }
}

/// B2: a rejection, a leave and a retraction hold the membership and the reason: no name, no
/// picture, nothing of what came with the template.
#[tokio::test]
async fn a_departure_says_no_more_than_its_reason() {
    for (reason, expected) in [
        (None, json!({ "membership": "leave" })),
        (Some("no"), json!({ "membership": "leave", "reason": "no" })),
    ] {
        let stage = stage().await;
        let reason = || reason.map(str::to_owned);
        let (bob, room) = (&stage.bob, &stage.room);
        let rooms = &stage.b().rooms;
        stage.invite().await.unwrap();
        let more = Fault::tampered(|answer| answer["event"]["content"]["displayname"] = "B".into());
        stage.mesh.net.fail_next(&stage.a().name, "make_leave", more);
        rooms.leave(bob, room, reason()).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(Value::Object(stage.content_at_a()), expected);

        let named = object(json!({ "displayname": "Bob", "avatar_url": "mxc://b.example/b" }));
        rooms.join(bob, room, std::slice::from_ref(&stage.a().name), named).await.unwrap();
        stage.mesh.settle().await;
        rooms.leave(bob, room, reason()).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(Value::Object(stage.content_at_a()), expected);

        stage.joinable("knock").await;
        let via = [stage.a().name.clone()];
        rooms.knock(bob, room, &via, Object::new()).await.unwrap();
        rooms.leave(bob, room, reason()).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(Value::Object(stage.content_at_a()), expected);
    }
}

/// A6: a room of users of ours alone concerns nobody else.
#[tokio::test]
async fn a_room_of_our_own_makes_no_request() {
    let stage = stage().await;
    let (a, ann) = (stage.a(), &stage.ann);
    let [amy, abe, ada] = ["amy", "abe", "ada"].map(|name| a.user(name));
    for version in RoomVersion::all() {
        let room = a.room(ann, Preset::Private, version.as_str()).await;
        for user in [&amy, &abe] {
            a.invite(ann, user, &room).await.unwrap();
        }
        a.leave(&amy, &room).await.unwrap();
        a.rooms.join(&abe, &room, &[], Object::new()).await.unwrap();
        a.leave(&abe, &room).await.unwrap();
        a.invite(ann, &ada, &room).await.unwrap();
        a.rooms.delete_room(&room, Farewell::default()).await.unwrap();
        assert_eq!(a.membership(&ada, &room).as_deref(), Some("leave"));
        stage.mesh.settle().await;
    }
    assert_eq!(stage.mesh.net.take_requests(), []);
}

/// C11: when the last of us has left, nothing goes to us or from us any more.
#[tokio::test]
async fn a_room_that_was_left_costs_no_request() {
    let stage = stage().await;
    let b = stage.b();
    b.join(&stage.bob, &stage.room, stage.a()).await.unwrap();
    stage.mesh.settle().await;
    b.leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    stage.mesh.net.take_requests();
    for (server, user) in [(stage.a(), &stage.ann), (stage.c(), &stage.cat)] {
        server.say(user, &stage.room, "without you").await;
        stage.mesh.settle().await;
    }
    let requests = stage.mesh.net.take_requests();
    assert!(requests.iter().any(|(_, _, endpoint)| *endpoint == "send"));
    assert!(requests.iter().all(|(from, to, _)| ![from, to].contains(&&b.name)), "{requests:?}");
}

/// 4.10: a server that the ACL denies is still told what happens in the room it is in, its users
/// can be removed, and what is not protected is answered.
#[tokio::test]
async fn a_denied_server_is_still_told() {
    let stage = stage().await;
    let (a, c) = (stage.a(), stage.c());
    let acl = json!({ "allow": ["*"], "deny": ["c.example"] });
    a.set(&stage.ann, &stage.room, "m.room.server_acl", acl).await;
    let said = a.say(&stage.ann, &stage.room, "you hear this").await;
    stage.mesh.settle().await;
    assert_eq!(c.messages(&stage.room), ["you hear this"]);
    assert!(a.rooms.admit(&c.name, &stage.room).await.is_err());
    let event = a.rooms.event_for_server(&c.name, &said).await.unwrap();
    assert_eq!(event["pdus"][0]["content"]["body"], "you hear this");
    a.rooms.kick(&stage.ann, &stage.cat, &stage.room, None).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!(c.membership(&stage.cat, &stage.room).as_deref(), Some("leave"));
}

/// 4.11, step 3: what was changed after it was signed is what a redaction would leave of it.
#[tokio::test]
async fn an_event_whose_hash_is_wrong_is_redacted() {
    for version in RoomVersion::all() {
        let stage = stage_in(version.as_str()).await;
        let draft = message_draft(stage.a(), &stage.room, &stage.cat, "as it was said");
        let event = stage.c().sign(draft);
        let mut changed = event.object().clone();
        changed["content"]["body"] = "as it was not".into();
        let changed = exeunt_core::Pdu::from_object(version, changed).unwrap();
        let answer = stage.a().receive(stage.c(), "1", &[&changed]).await;
        assert_eq!(answer[event.event_id().as_str()], json!({}), "in version {version}");
        let kept = stage.a().event(&event.event_id().to_owned()).unwrap().pdu;
        assert!(kept.content().is_empty());
        assert!(stage.a().messages(&stage.room).is_empty());
    }
}

/// LV11: one device joins, and then another leaves. The leave wins, at every server.
#[tokio::test]
async fn a_join_and_a_leave_at_once_have_one_winner() {
    for endpoint in ["make_join", "send_join"] {
        for invited in [false, true] {
            let stage = stage().await;
            if invited {
                stage.invite().await.unwrap();
            }
            let (rooms, bob, room) =
                (stage.b().rooms.clone(), stage.bob.clone(), stage.room.clone());
            let leaves = Fault::meanwhile(move || {
                let (rooms, bob, room) = (rooms.clone(), bob.clone(), room.clone());
                Box::pin(async move {
                    // Who is not invited is not in the room yet, and hears so.
                    drop(rooms.leave(&bob, &room, None).await);
                })
            });
            stage.mesh.net.fail_next(&stage.a().name, endpoint, leaves);
            let joined = stage.b().join(&stage.bob, &stage.room, stage.a()).await;
            stage.mesh.settle().await;
            let ours = stage.bobs();
            for server in [stage.a(), stage.c()] {
                assert_eq!(stage.bob_at(server), ours, "{endpoint}, invited: {invited}");
            }
            assert_eq!(stage.bob_at(stage.b()), ours, "{endpoint}, invited: {invited}");
            let wins = if invited { "leave" } else { "join" };
            assert_eq!((joined.is_ok(), ours.as_deref()), (true, Some(wins)), "{endpoint}");
            assert!(!stage.b().is_pending(&stage.bob, &stage.room));
            assert_eq!(stage.departures(), 0);
            // Nor is anything stuck.
            stage.b().join(&stage.bob, &stage.room, stage.a()).await.unwrap();
            stage.b().leave(&stage.bob, &stage.room).await.unwrap();
            stage.mesh.settle().await;
            assert_eq!(stage.bob_at(stage.a()).as_deref(), Some("leave"));
        }
    }
}

/// The join is taken and its user removed before the answer is here: removed it is.
#[tokio::test]
async fn a_removal_that_overtakes_the_answer_to_a_join_holds() {
    for (invited, ban) in [(false, false), (true, false), (false, true), (true, true)] {
        let stage = stage().await;
        if invited {
            stage.invite().await.unwrap();
        }
        let (a, b) = (stage.a().rooms.clone(), stage.b().rooms.clone());
        let (ann, bob, room) = (stage.ann.clone(), stage.bob.clone(), stage.room.clone());
        let store = stage.a().store.clone();
        let removes = Fault::meanwhile(move || {
            let (a, b, store) = (a.clone(), b.clone(), store.clone());
            let (ann, bob, room) = (ann.clone(), bob.clone(), room.clone());
            Box::pin(async move {
                match ban {
                    true => a.ban(&ann, &bob, &room, None).await.unwrap(),
                    false => a.kick(&ann, &bob, &room, None).await.unwrap(),
                };
                let pdus = vec![Value::Object(member_event(&store, &room, &bob))];
                let transaction = Transaction { pdus, edus: Vec::new() };
                let from = ann.server_name();
                b.receive_transaction(from, "early", transaction).await.unwrap();
            })
        });
        stage.mesh.net.fail_next(&stage.a().name, "send_join", removes);
        stage.b().join(&stage.bob, &stage.room, stage.a()).await.unwrap();
        stage.mesh.settle().await;
        let is = Some(if ban { "ban" } else { "leave" });
        for server in stage.mesh.servers() {
            assert_eq!(stage.bob_at(server).as_deref(), is, "invited: {invited}");
        }
        assert_eq!(stage.bobs().as_deref(), is, "invited: {invited}");
        assert!(!stage.b().is_pending(&stage.bob, &stage.room));
    }
}

fn member_event(store: &Store, room: &RoomId, user: &UserId) -> Object {
    let reader = store.reader();
    let graph = Graph::of(&reader, room).unwrap();
    let event = graph.current("m.room.member", user.as_str()).unwrap().unwrap();
    event.object().clone()
}

/// C3: from whatever a room is to a user they can leave it and forget it, whether anyone can be
/// reached or not. Who is banned has left already.
#[tokio::test]
async fn from_anywhere_one_can_leave_and_forget() {
    let reached = ["invite", "knock", "join", "leave", "ban"];
    for reachable in [true, false] {
        for resident in [true, false] {
            for membership in reached {
                let stage = stage().await;
                let (b, room) = (stage.b(), &stage.room);
                if resident {
                    b.join(&b.user("bea"), room, stage.a()).await.unwrap();
                    stage.mesh.settle().await;
                }
                to(&stage, membership).await;
                stage.mesh.settle().await;
                assert_eq!(stage.bobs().as_deref(), Some(membership), "resident: {resident}");
                if !reachable {
                    stage.mesh.isolate("b.example");
                }
                match membership {
                    "ban" => assert_eq!(status(leave(&stage, room).await.unwrap_err()).0, 403),
                    _ => leave(&stage, room).await.unwrap(),
                }
                b.rooms.forget(&stage.bob, room).await.unwrap();
                assert!(!b.is_pending(&stage.bob, room));
                stage.mesh.heal("b.example");
                stage.mesh.settle().await;
                let left = if membership == "ban" { "ban" } else { "leave" };
                assert_eq!(stage.bob_at(stage.a()).as_deref(), Some(left), "from {membership}");
            }
        }
    }
}

async fn leave(stage: &Stage, room: &RoomId) -> Result<(), RoomError> {
    stage.b().leave(&stage.bob, room).await
}

/// Brings bob to a membership.
async fn to(stage: &Stage, membership: &str) {
    let (a, b) = (stage.a(), stage.b());
    match membership {
        "invite" => stage.invite().await.unwrap(),
        "knock" => {
            stage.joinable("knock").await;
            let via = std::slice::from_ref(&a.name);
            b.rooms.knock(&stage.bob, &stage.room, via, Object::new()).await.unwrap();
        }
        "join" => b.join(&stage.bob, &stage.room, a).await.unwrap(),
        "leave" => {
            b.join(&stage.bob, &stage.room, a).await.unwrap();
            stage.mesh.settle().await;
            leave(stage, &stage.room).await.unwrap();
        }
        _ => {
            b.join(&stage.bob, &stage.room, a).await.unwrap();
            stage.mesh.settle().await;
            a.rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
        }
    }
}

/// E4: whatever servers are named to join by, and whatever the room is called, the answer is a
/// join or a plain no.
#[tokio::test]
async fn odd_servers_to_join_by() {
    for version in RoomVersion::all() {
        let stage = stage_in(version.as_str()).await;
        let (a, b) = (stage.a(), stage.b());
        let unknown = exeunt_core::ruma::OwnedServerName::try_from("unknown.example").unwrap();
        let own = b.name.clone();
        let lists =
            [vec![], vec![own.clone()], vec![unknown.clone()], vec![unknown, own, a.name.clone()]];
        let names_its_server = stage.room.server_name().is_some();
        for via in lists {
            let joined = b.rooms.join(&stage.bob, &stage.room, &via, Object::new()).await;
            let asks_a = via.contains(&a.name);
            let without_others = via.iter().all(|server| *server == b.name);
            match joined {
                Ok(()) => assert!(asks_a || names_its_server, "{via:?} in version {version}"),
                Err(error) => {
                    let helped = asks_a || names_its_server && without_others;
                    assert!(!helped, "{error} {version}");
                    let is_no =
                        matches!(error, RoomError::NoServer(_) | RoomError::EntryRefused { .. });
                    assert!(is_no, "{error}");
                }
            }
            if stage.bobs().as_deref() == Some("join") {
                stage.mesh.settle().await;
                b.leave(&stage.bob, &stage.room).await.unwrap();
                stage.mesh.settle().await;
                b.rooms.forget(&stage.bob, &stage.room).await.unwrap();
                b.rooms.purge_forgotten(&stage.room).await.unwrap();
            }
        }
    }
}
