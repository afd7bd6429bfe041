//! make_leave and send_leave: spec-map rows ML and SL, leaving-rooms rows 1 to 17.

use exeunt_core::ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId,
};
use exeunt_core::{CheckedPdu, Object, RoomVersion};
use exeunt_room::{Preset, RoomError};
use exeunt_sim::{
    Mesh, Server,
    events::{member_draft, object},
    status,
};
use serde_json::{Value, json};

/// Room `a` with ann, bob of `b` invited; in it are also users of `c`.
struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    cat: OwnedUserId,
}

async fn stage_in(version: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, c) = (mesh.server("a.example"), mesh.server("c.example"));
    let (ann, cat) = (a.user("ann"), c.user("cat"));
    let bob = mesh.server("b.example").user("bob");
    let room = a.room(&ann, Preset::Private, version).await;
    a.invite(&ann, &cat, &room).await.unwrap();
    c.join(&cat, &room, a).await.unwrap();
    a.invite(&ann, &bob, &room).await.unwrap();
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

    async fn make(
        &self,
        origin: &ServerName,
        room: &RoomId,
        user: &UserId,
    ) -> Result<Value, RoomError> {
        let entry = self.a().rooms.admit(origin, room).await?;
        self.a().rooms.make_leave(&entry, user).await
    }

    async fn send(&self, id: &EventId, body: Object) -> Result<(), RoomError> {
        let entry = self.a().rooms.admit(&self.b().name, &self.room).await?;
        self.a().rooms.send_leave(&entry, id, body).await
    }

    /// Bob's leave, signed by his server, that nobody has yet.
    fn leave(&self) -> CheckedPdu {
        let draft = member_draft(self.a(), &self.room, &self.bob, &self.bob, "leave");
        self.b().sign(draft)
    }

    async fn send_pdu(&self, event: &CheckedPdu) -> Result<(), RoomError> {
        self.send(event.event_id(), event.object().clone()).await
    }
}

fn check<T: std::fmt::Debug>(result: Result<T, RoomError>, expected: u16, errcode: &str) {
    let (got, code) = status(result.expect_err("a refusal"));
    assert_eq!((got, code.as_str()), (expected, errcode));
}

#[tokio::test]
async fn ml1_the_template_is_for_the_user_and_changes_nothing() {
    for version in RoomVersion::all() {
        let stage = stage_in(version.as_str()).await;
        let before = stage.a().timeline(&stage.room);
        let position = *stage.a().store.position().borrow();
        let answer = stage.make(&stage.b().name, &stage.room, &stage.bob).await.unwrap();
        assert_eq!(answer["room_version"], version.as_str());
        let event = &answer["event"];
        for (field, value) in [
            ("room_id", json!(stage.room)),
            ("type", json!("m.room.member")),
            ("sender", json!(stage.bob)),
            ("state_key", json!(stage.bob)),
            ("content", json!({ "membership": "leave" })),
        ] {
            assert_eq!(event[field], value, "{field} in version {version}");
        }
        assert!(event["depth"].is_u64() && event["origin_server_ts"].is_u64());
        assert_eq!(event["prev_events"].as_array().unwrap().len(), 1);
        assert!(event.get("signatures").is_none() && event.get("hashes").is_none());
        assert_eq!(stage.a().timeline(&stage.room), before);
        assert_eq!(*stage.a().store.position().borrow(), position, "nothing is written");
    }
}

#[tokio::test]
async fn ml2_to_ml4_refusals() {
    let stage = stage().await;
    let (b, c) = (stage.b(), stage.c());
    let make = |origin: &ServerName, user: &UserId| {
        let (origin, user) = (origin.to_owned(), user.to_owned());
        let stage = &stage;
        async move { stage.make(&origin, &stage.room, &user).await }
    };
    check(make(&c.name, &stage.bob).await, 403, "M_FORBIDDEN");
    check(make(&b.name, &b.user("nobody")).await, 403, "M_FORBIDDEN");
    let unknown = RoomId::parse("!unknown:a.example").unwrap();
    check(stage.make(&b.name, &unknown, &stage.bob).await, 404, "M_NOT_FOUND");
    b.leave(&stage.bob, &stage.room).await.unwrap();
    check(make(&b.name, &stage.bob).await, 403, "M_FORBIDDEN");
    stage.a().rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    check(make(&b.name, &stage.bob).await, 403, "M_FORBIDDEN");
}

#[tokio::test]
async fn ml5_a_denied_server_learns_nothing() {
    let stage = stage().await;
    let acl = json!({ "allow": ["*"], "deny": ["b.example"] });
    stage.a().set(&stage.ann, &stage.room, "m.room.server_acl", acl).await;
    let b = stage.b();
    check(stage.make(&b.name, &stage.room, &stage.bob).await, 403, "M_FORBIDDEN");
    let absent = stage.make(&b.name, &stage.room, &b.user("nobody")).await.unwrap_err();
    let invited = stage.make(&b.name, &stage.room, &stage.bob).await.unwrap_err();
    assert_eq!(absent.to_string(), invited.to_string());
    // SL8
    check(stage.send_pdu(&stage.leave()).await, 403, "M_FORBIDDEN");
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("invite"));
}

#[tokio::test]
async fn ml6_a_room_that_we_have_left_is_unknown() {
    let stage = stage().await;
    stage.c().leave(&stage.cat, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    let entry = stage.c().rooms.admit(&stage.b().name, &stage.room).await.unwrap();
    check(stage.c().rooms.make_leave(&entry, &stage.bob).await, 404, "M_NOT_FOUND");
    let join = stage.c().rooms.make_join(&entry, &stage.bob, &["12".into()]).await;
    check(join, 404, "M_NOT_FOUND");
    let leave = stage.leave();
    let sent = stage.c().rooms.send_leave(&entry, leave.event_id(), leave.object().clone()).await;
    check(sent, 404, "M_NOT_FOUND");
}

/// SL1: in the graph, in state, and with every other server of the room but not back at its own.
#[tokio::test]
async fn sl1_a_leave_is_placed_and_relayed() {
    for version in RoomVersion::all() {
        let stage = stage_in(version.as_str()).await;
        let leave = stage.leave();
        stage.send_pdu(&leave).await.unwrap();
        let (a, id) = (stage.a(), leave.event_id().to_owned());
        assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
        a.graph(&stage.room, |graph| assert!(graph.room.extremities.iter().eq([&id])));
        assert!(a.outbox(stage.c()).iter().eq([&id]));
        assert_eq!(a.outbox(stage.b()), Vec::<OwnedEventId>::new());
        stage.mesh.settle().await;
        assert_eq!(stage.c().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
        assert_eq!(stage.c().timeline(&stage.room).last(), Some(&id));
    }
}

/// Depth is for the sender to say and for nobody to believe (row 5, CVE-2025-30355).
#[tokio::test]
async fn a_leave_of_any_depth_is_taken_and_its_depth_goes_no_further() {
    let stage = stage().await;
    let mut draft = member_draft(stage.a(), &stage.room, &stage.bob, &stage.bob, "leave");
    draft.depth = 0;
    stage.send_pdu(&stage.b().sign(draft)).await.unwrap();

    let stage = self::stage().await;
    let mut draft = member_draft(stage.a(), &stage.room, &stage.bob, &stage.bob, "leave");
    draft.depth = (1 << 53) - 1;
    stage.send_pdu(&stage.b().sign(draft)).await.unwrap();
    let next = stage.a().say(&stage.ann, &stage.room, "still here").await;
    assert!(stage.a().event(&next).unwrap().pdu.depth() < 1 << 53);
    stage.mesh.settle().await;
    assert_eq!(stage.c().messages(&stage.room), ["still here"]);
}

#[tokio::test]
async fn sl2_sl3_sl5_events_that_do_not_belong_here() {
    let stage = stage().await;
    let draft =
        |membership| member_draft(stage.a(), &stage.room, &stage.bob, &stage.bob, membership);
    for membership in ["join", "invite", "knock", "ban", "nonsense"] {
        check(stage.send_pdu(&stage.b().sign(draft(membership))).await, 400, "M_INVALID_PARAM");
    }
    let message = exeunt_core::Draft { kind: "m.room.message".into(), ..draft("leave") };
    check(stage.send_pdu(&stage.b().sign(message)).await, 400, "M_INVALID_PARAM");
    let no_key = exeunt_core::Draft { state_key: None, ..draft("leave") };
    check(stage.send_pdu(&stage.b().sign(no_key)).await, 400, "M_INVALID_PARAM");
    let other = member_draft(stage.a(), &stage.room, &stage.bob, &stage.ann, "leave");
    check(stage.send_pdu(&stage.b().sign(other)).await, 400, "M_INVALID_PARAM");
    // CVE-2020-26257: ids of the path.
    let room = RoomId::parse("!other:a.example").unwrap();
    let elsewhere = exeunt_core::Draft { room_id: Some(room), ..draft("leave") };
    check(stage.send_pdu(&stage.b().sign(elsewhere)).await, 400, "M_INVALID_PARAM");
    let wrong = EventId::parse("$wrong").unwrap();
    check(stage.send(&wrong, stage.leave().object().clone()).await, 400, "M_INVALID_PARAM");
    // SL3: the leave of another server's user, replayed.
    let cats = member_draft(stage.a(), &stage.room, &stage.cat, &stage.cat, "leave");
    check(stage.send_pdu(&stage.c().sign(cats)).await, 403, "M_FORBIDDEN");
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("invite"));
    assert_eq!(stage.a().in_state(&stage.cat, &stage.room).as_deref(), Some("join"));
}

/// SL4, CVE-2019-18835: no signature, somebody else's, one over something else.
#[tokio::test]
async fn sl4_signatures() {
    let stage = stage().await;
    let leave = stage.leave();
    let mut unsigned = leave.object().clone();
    unsigned["signatures"] = json!({});
    check(stage.send(leave.event_id(), unsigned).await, 403, "M_FORBIDDEN");
    let mut foreign = leave.object().clone();
    let signature = foreign["signatures"]["b.example"].clone();
    foreign["signatures"] = json!({ "c.example": signature });
    check(stage.send(leave.event_id(), foreign).await, 403, "M_FORBIDDEN");
    let mut broken = leave.object().clone();
    broken["signatures"] = json!({ "b.example": { "ed25519:sim": "A".repeat(86) } });
    check(stage.send(leave.event_id(), broken).await, 403, "M_FORBIDDEN");
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("invite"));
}

/// SL6
#[tokio::test]
async fn sl6_json_that_is_not_canonical() {
    let stage = stage().await;
    let leave = stage.leave();
    for bad in [json!(1.5), json!(1_u64 << 53), json!(-(1_i64 << 53))] {
        let mut body = leave.object().clone();
        body["content"]["number"] = bad;
        check(stage.send(leave.event_id(), body).await, 400, "M_BAD_JSON");
    }
    for (field, bad) in [("depth", json!(-1)), ("depth", json!("1")), ("content", json!([]))] {
        let mut body = leave.object().clone();
        body[field] = bad;
        check(stage.send(leave.event_id(), body).await, 400, "M_BAD_JSON");
    }
    check(stage.send(leave.event_id(), object(json!({}))).await, 400, "M_BAD_JSON");
}

#[tokio::test]
async fn sl7_leaves_that_the_rules_refuse() {
    let stage = stage().await;
    let stranger = stage.b().user("stranger");
    let draft = member_draft(stage.a(), &stage.room, &stranger, &stranger, "leave");
    check(stage.send_pdu(&stage.b().sign(draft)).await, 403, "M_FORBIDDEN");
    let leave = stage.leave();
    stage.a().rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    // SL10: built before the ban, so that its own past allows it; the ban stays.
    check(stage.send_pdu(&leave).await, 403, "M_FORBIDDEN");
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("ban"));
    stage.mesh.settle().await;
    assert_eq!(stage.c().in_state(&stage.bob, &stage.room).as_deref(), Some("ban"));
}

#[tokio::test]
async fn sl9_the_same_leave_again_is_fine_and_nothing_new() {
    let stage = stage().await;
    let leave = stage.leave();
    for _ in 0..3 {
        stage.send_pdu(&leave).await.unwrap();
    }
    let shown = stage.a().timeline(&stage.room);
    assert_eq!(shown.iter().filter(|id| *id == leave.event_id()).count(), 1);
    assert_eq!(stage.a().outbox(stage.c()).len(), 1, "relayed once");
}

#[tokio::test]
async fn a_leave_upon_unknown_events_is_refused() {
    let stage = stage().await;
    let mut draft = member_draft(stage.a(), &stage.room, &stage.bob, &stage.bob, "leave");
    draft.prev_events = vec![EventId::parse(format!("${}", "A".repeat(43))).unwrap().into()];
    check(stage.send_pdu(&stage.b().sign(draft)).await, 400, "M_INVALID_PARAM");
    let mut draft = member_draft(stage.a(), &stage.room, &stage.bob, &stage.bob, "leave");
    draft.prev_events.clear();
    check(stage.send_pdu(&stage.b().sign(draft)).await, 400, "M_INVALID_PARAM");
}

/// The joined user of another server leaves through a third one, though its own has lost the room.
#[tokio::test]
async fn a_joined_user_leaves_by_handshake() {
    let stage = stage().await;
    let entry = stage.a().rooms.admit(&stage.c().name, &stage.room).await.unwrap();
    stage.a().rooms.make_leave(&entry, &stage.cat).await.unwrap();
    let draft = member_draft(stage.a(), &stage.room, &stage.cat, &stage.cat, "leave");
    let leave = stage.c().sign(draft);
    let body = leave.object().clone();
    stage.a().rooms.send_leave(&entry, leave.event_id(), body).await.unwrap();
    assert_eq!(stage.a().in_state(&stage.cat, &stage.room).as_deref(), Some("leave"));
    let servers = stage.a().graph(&stage.room, |graph| graph.joined_servers().unwrap());
    assert_eq!(servers, [stage.a().name.clone()]);
}
