//! What another server hands us when we join: events that cannot be verified, keys that cannot be
//! had, members that are left out, and what arrives meanwhile. Spec-map 4.9.

use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use exeunt_core::{CheckedPdu, Draft, Object};
use exeunt_room::{Preset, RemoteError, RoomError};
use exeunt_sim::{
    Fault, Mesh, Server,
    events::{member_draft, object},
};
use exeunt_store::tables;
use serde_json::{Value, json};

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    cat: OwnedUserId,
}

/// A public room of ann on `a`, with cat of `c` joined. Bob of `b` is about to.
async fn stage() -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let [a, b, c] = ["a.example", "b.example", "c.example"].map(|name| mesh.server(name));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, "12").await;
    c.join(&cat, &room, a).await.unwrap();
    mesh.settle().await;
    mesh.net.take_requests();
    Stage { mesh, room, ann, bob, cat }
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

    async fn bob_joins(&self) -> Result<(), RoomError> {
        self.b().join(&self.bob, &self.room, self.a()).await
    }

    /// The next answer to send_join is changed.
    fn tamper(&self, change: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.mesh.net.fail_next(&self.a().name, "send_join", Fault::tampered(change));
    }

    fn assert_no_trace_at_b(&self) {
        assert_eq!(self.b().membership(&self.bob, &self.room), None);
        let rooms = self.b().store.reader().get::<tables::Rooms>(&self.room).unwrap();
        assert!(rooms.is_none());
        self.assert_cleared();
    }

    /// Nothing is left of what was laid aside.
    fn assert_cleared(&self) {
        assert!(self.b().store.reader().scan::<tables::Arrivals>(()).keys().unwrap().is_empty());
    }
}

/// The events of an answer, in both lists.
fn each(answer: &mut Value, change: impl Fn(&mut Value)) {
    for list in ["state", "auth_chain"] {
        answer[list].as_array_mut().unwrap().iter_mut().for_each(&change);
    }
}

fn wire(event: &CheckedPdu) -> Value {
    Value::Object(event.object().clone())
}

/// A state event of ann on the head of the room, that nobody has.
fn name_event(stage: &Stage) -> CheckedPdu {
    let draft = member_draft(stage.a(), &stage.room, &stage.ann, &stage.ann, "leave");
    let content = object(json!({ "name": "odd" }));
    let (kind, state_key) = ("org.example.odd".into(), Some(String::new()));
    stage.a().sign(Draft { kind, state_key, content, ..draft })
}

/// Complement's TestJoinFederatedRoomWithUnverifiableEvents: missing, wrong and unknown signatures,
/// and what else an event can have wrong.
/// CVE-2022-39200.
#[tokio::test]
async fn an_event_that_cannot_be_verified_is_dropped_alone() {
    let bogus =
        "/3z+pJjiJXWhwfqIEzmNksvBHCoXTktK/y0rRuWJXw6i1+ygRG/suDCKhFuuz6gPapRmEMPVILi2mJqHHXPKAg";
    let changes: [(&str, Value); 6] = [
        ("signatures", json!({})),
        ("signatures", json!({ "a.example": { "ed25519:sim": bogus } })),
        ("signatures", json!({ "a.example": { "ed25519:simbogus": bogus } })),
        ("depth", json!(-1)),
        ("room_id", json!("!other:a.example")),
        ("content", json!("none")),
    ];
    for (field, value) in changes {
        let stage = stage().await;
        let mut event = wire(&name_event(&stage));
        event[field] = value.clone();
        stage
            .tamper(move |answer| answer["state"].as_array_mut().unwrap().insert(0, event.clone()));
        stage.bob_joins().await.unwrap_or_else(|error| panic!("{field}: {value}: {error}"));
        assert!(stage.b().state(&stage.room).iter().all(|(kind, ..)| kind != "org.example.odd"));
        stage.mesh.settle().await;
        assert_eq!(stage.b().state(&stage.room), stage.a().state(&stage.room));
        stage.assert_cleared();
    }
    // The same event, as it was signed, is taken.
    let stage = stage().await;
    let event = wire(&name_event(&stage));
    stage.tamper(move |answer| {
        answer["state"].as_array_mut().unwrap().insert(0, event.clone());
        answer["state"].as_array_mut().unwrap().push(json!("no event at all"));
    });
    stage.bob_joins().await.unwrap();
    assert!(stage.b().state(&stage.room).iter().any(|(kind, ..)| kind == "org.example.odd"));
}

/// The last of the subtests: a good event upon a bad one.
#[tokio::test]
async fn what_rests_on_a_dropped_event_is_dropped_too() {
    let stage = stage().await;
    let bad = stage.c().sign(member_draft(stage.a(), &stage.room, &stage.cat, &stage.cat, "join"));
    let mut draft = member_draft(stage.a(), &stage.room, &stage.cat, &stage.cat, "leave");
    draft.auth_events.push(bad.event_id().to_owned().into());
    let cats = stage.a().graph(&stage.room, |graph| {
        graph.current("m.room.member", stage.cat.as_str()).unwrap().unwrap().event_id().to_owned()
    });
    draft.auth_events.retain(|auth| auth.id() != cats);
    let good = stage.c().sign(draft);
    let (mut bad, good, cat) = (wire(&bad), wire(&good), stage.cat.to_string());
    bad["signatures"] = json!({});
    stage.tamper(move |answer| {
        let state = answer["state"].as_array_mut().unwrap();
        state.retain(|event| event["state_key"] != json!(cat));
        state.insert(0, good.clone());
        answer["auth_chain"].as_array_mut().unwrap().push(bad.clone());
    });
    stage.bob_joins().await.unwrap();
    assert_eq!(stage.b().in_state(&stage.cat, &stage.room), None);
    assert_eq!(stage.b().in_state(&stage.ann, &stage.room).as_deref(), Some("join"));
}

/// What the join rests on is not negotiable: the error names it, and the next server is asked.
#[tokio::test]
async fn without_what_our_join_rests_on_there_is_no_join() {
    for kind in ["m.room.create", "m.room.power_levels", "m.room.join_rules"] {
        let stage = stage().await;
        stage.tamper(move |answer| {
            each(answer, |event| {
                if event["type"] == kind {
                    event["signatures"] = json!({});
                }
            });
        });
        let id = stage.a().graph(&stage.room, |graph| {
            graph.current(kind, "").unwrap().unwrap().event_id().to_owned()
        });
        let error = stage.bob_joins().await.unwrap_err().to_string();
        assert!(
            error.contains(id.as_str()) && error.contains("no valid signature by a.example"),
            "{error}"
        );
        stage.assert_no_trace_at_b();
        // The same again, with another server to turn to.
        stage.tamper(move |answer| {
            each(answer, |event| {
                if event["type"] == kind {
                    event["content"] = json!({ "forged": 1 });
                    event["signatures"]["a.example"]["ed25519:sim"] = json!("AAAA");
                }
            });
        });
        let via = [stage.a().name.clone(), stage.c().name.clone()];
        stage.b().rooms.join(&stage.bob, &stage.room, &via, Object::new()).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(stage.b().state(&stage.room), stage.c().state(&stage.room));
        stage.assert_cleared();
    }
}

#[tokio::test]
async fn answers_of_the_wrong_shape_are_the_servers_fault() {
    let stage = stage().await;
    let changes: [fn(&mut Value); 5] = [
        |answer| answer["members_omitted"] = json!(true),
        |answer| answer["state"] = json!([]),
        |answer| answer["state"] = json!({}),
        |answer| *answer = json!({ "state": [] }),
        |answer| *answer = json!("no"),
    ];
    for change in changes {
        stage.tamper(change);
        assert!(stage.bob_joins().await.is_err());
        stage.assert_no_trace_at_b();
    }
    stage.bob_joins().await.unwrap();
}

/// The keys of a server that is gone come from the one that we join by way of, and are not kept.
#[tokio::test]
async fn keys_of_a_server_that_is_gone_come_from_a_notary() {
    let stage = stage().await;
    stage.a().rooms.notarized_keys([(stage.c().name.clone(), 0)].into()).await;
    stage.mesh.isolate("c.example");
    stage.bob_joins().await.unwrap();
    assert_eq!(stage.b().in_state(&stage.cat, &stage.room).as_deref(), Some("join"));
    let kept = stage.b().store.reader().scan::<tables::ServerKeys>(stage.c().name.clone()).keys();
    assert!(kept.unwrap().is_empty(), "the word of a server that nobody trusts is not kept");
    let asked: Vec<_> = stage.mesh.net.take_requests().into_iter().map(|r| r.2).collect();
    assert!(asked.contains(&"notary"));
}

#[tokio::test]
async fn where_keys_cannot_be_had_at_all_the_join_goes_on_without_the_event() {
    let stage = stage().await;
    stage.mesh.isolate("c.example");
    stage.bob_joins().await.unwrap();
    assert_eq!(stage.b().in_state(&stage.cat, &stage.room), None);
    assert_eq!(stage.b().in_state(&stage.ann, &stage.room).as_deref(), Some("join"));
}

/// Events that reach us before the room does are taken when it is there.
#[tokio::test]
async fn what_arrives_during_the_join_is_kept() {
    let stage = stage().await;
    let (b, room) = (stage.b().rooms.clone(), stage.room.clone());
    let said: Vec<OwnedEventId> = vec![
        stage.a().say(&stage.ann, &stage.room, "before").await,
        stage.c().say(&stage.cat, &stage.room, "elsewhere").await,
    ];
    let pdus: Vec<_> = said
        .iter()
        .zip([stage.a(), stage.c()])
        .map(|(id, server)| Value::Object(server.event(id).unwrap().pdu.object().clone()))
        .collect();
    let (from_a, from_c) = (stage.a().name.clone(), stage.c().name.clone());
    let meanwhile = Fault::meanwhile(move || {
        let (b, pdus) = (b.clone(), pdus.clone());
        let (from_a, from_c) = (from_a.clone(), from_c.clone());
        Box::pin(async move {
            for (txn, (origin, pdu)) in [from_a, from_c].iter().zip(pdus).enumerate() {
                let transaction =
                    exeunt_room::inbound::Transaction { pdus: vec![pdu], edus: Vec::new() };
                let txn = format!("meanwhile{txn}");
                b.receive_transaction(origin, &txn, transaction).await.unwrap();
            }
        })
    });
    stage.mesh.net.fail_next(&stage.a().name, "send_join", meanwhile);
    stage.bob_joins().await.unwrap();
    stage.a().forget_outbox(stage.b()).await;
    stage.c().forget_outbox(stage.b()).await;
    until(|| stage.b().messages(&room).len() == 2).await;
    let mut messages = stage.b().messages(&room);
    messages.sort();
    assert_eq!(messages, ["before", "elsewhere"]);
}

/// Lets the tasks of other servers run until something is so.
async fn until(so: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never comes true");
}

/// Two of our users join at once: one handshake, and both are in.
#[tokio::test]
async fn two_users_join_at_once() {
    let stage = stage().await;
    let bea = stage.b().user("bea");
    let via = std::slice::from_ref(&stage.a().name);
    let (rooms, room) = (&stage.b().rooms, &stage.room);
    let (first, second) = tokio::join!(
        rooms.join(&stage.bob, room, via, Object::new()),
        rooms.join(&bea, room, via, Object::new()),
    );
    first.unwrap();
    second.unwrap();
    stage.mesh.settle().await;
    let asked = stage.mesh.net.take_requests();
    assert_eq!(asked.iter().filter(|r| r.2 == "send_join").count(), 1);
    for user in [&stage.bob, &bea] {
        assert_eq!(stage.a().in_state(user, room).as_deref(), Some("join"));
        assert_eq!(stage.b().membership(user, room).as_deref(), Some("join"));
    }
}

/// A rejoin replaces what the last stay left, extremities included, also where the state that we
/// left behind was a fork that nobody else has.
#[tokio::test]
async fn a_rejoin_starts_from_what_it_is_handed() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    stage.bob_joins().await.unwrap();
    stage.mesh.settle().await;
    stage.mesh.isolate("b.example");
    b.say(&stage.bob, &stage.room, "unheard").await;
    a.set(&stage.ann, &stage.room, "m.room.topic", json!({ "topic": "heard" })).await;
    b.leave(&stage.bob, &stage.room).await.unwrap();
    a.forget_outbox(b).await;
    b.forget_outbox(a).await;
    b.forget_outbox(stage.c()).await;
    let left = b.graph(&stage.room, |graph| graph.room.extremities.clone());
    stage.mesh.heal("b.example");
    stage.mesh.settle().await;
    // The room never heard of the leave: bob is joined there, and joins again.
    stage.bob_joins().await.unwrap();
    let now = b.graph(&stage.room, |graph| graph.room.extremities.clone());
    assert!(now.iter().all(|id| !left.contains(id)), "{now:?}");
    stage.mesh.settle().await;
    assert_eq!(b.state(&stage.room), a.state(&stage.room));
    b.say(&stage.bob, &stage.room, "back").await;
    stage.mesh.settle().await;
    a.say(&stage.ann, &stage.room, "welcome").await;
    stage.mesh.settle().await;
    assert_eq!(b.state(&stage.room), a.state(&stage.room));
    assert_eq!(b.messages(&stage.room), ["unheard", "back", "welcome"]);
    let servers = |server: &Server| server.graph(&stage.room, |g| g.joined_servers().unwrap());
    assert_eq!(servers(b), servers(a));
    assert_eq!(a.graph(&stage.room, |graph| graph.room.extremities.len()), 1);
}

/// Complement's TestSendJoinPartialStateResponse.
#[tokio::test]
async fn members_are_left_out_for_those_who_can_do_without() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.b());
    let keys = |list: &Value| -> Vec<String> {
        let mut keys: Vec<_> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|e| {
                format!("{}|{}", e["type"].as_str().unwrap(), e["state_key"].as_str().unwrap())
            })
            .collect();
        keys.sort();
        keys
    };
    let send = |localpart: &str, room: &RoomId| {
        let user = b.user(localpart);
        let join = b.sign(member_draft(a, room, &user, &user, "join"));
        let room = room.to_owned();
        async move {
            let entry = a.rooms.admit(&b.name, &room).await.unwrap();
            let body = join.object().clone();
            let answer = a.rooms.send_join(&entry, join.event_id(), body, true).await;
            answer.unwrap().whole().await.unwrap()
        }
    };
    let answer = send("dan", &stage.room).await;
    assert_eq!(answer["members_omitted"], true);
    assert_eq!(answer["servers_in_room"], json!(["a.example", "c.example"]));
    assert_eq!(answer["auth_chain"], json!([]), "all of it is in the state");
    assert_eq!(
        keys(&answer["state"]),
        [
            "m.room.create|".into(),
            "m.room.history_visibility|".into(),
            "m.room.join_rules|".into(),
            format!("m.room.member|{}", stage.ann),
            format!("m.room.member|{}", stage.cat),
            "m.room.power_levels|".to_owned(),
        ]
    );
    // A room with a name is named after nobody; the auth chain is that of what is sent.
    a.set(&stage.ann, &stage.room, "m.room.name", json!({ "name": "Named" })).await;
    let answer = send("eve", &stage.room).await;
    assert!(keys(&answer["state"]).iter().all(|key| !key.starts_with("m.room.member|")));
    let chain = keys(&answer["auth_chain"]);
    assert_eq!(chain, [format!("m.room.member|{}", stage.ann)]);
}

/// An unreachable server among the candidates costs nothing but its time.
#[tokio::test]
async fn every_failure_is_told() {
    let stage = stage().await;
    let gone = Fault::Answer(RemoteError::Unreachable("gone".into()));
    stage.mesh.net.fail_next(&stage.a().name, "send_join", gone);
    stage.mesh.net.fail_next(&stage.c().name, "send_join", Fault::AnswerLost);
    let via = [stage.a().name.clone(), stage.c().name.clone()];
    let error =
        stage.b().rooms.join(&stage.bob, &stage.room, &via, Object::new()).await.unwrap_err();
    let RoomError::NoServer(attempts) = &error else { panic!("{error}") };
    assert_eq!(attempts.len(), 2, "{error}");
    stage.assert_no_trace_at_b();
}
