//! The signatures of the state that is shown with invites and knocks (MSC4311, spec-map 4.6).

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId, RoomId};
use exeunt_core::{CheckedPdu, Draft, Object, Pdu, Reference, RoomVersion, redact};
use exeunt_room::{Preset, RoomError, inbound::InboundInvite};
use exeunt_sim::{
    Fault, Mesh, Server,
    events::{member_draft, object, state_draft},
    status,
};
use exeunt_store::tables;
use serde_json::{Value, json};

/// Ann of `a` invites bob of `b` to her room; cat of `c` is in it too.
struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    cat: OwnedUserId,
    version: &'static str,
}

async fn stage(version: &'static str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let [a, b, c] = ["a.example", "b.example", "c.example"].map(|name| mesh.server(name));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, version).await;
    c.join(&cat, &room, a).await.unwrap();
    mesh.settle().await;
    Stage { mesh, room, ann, bob, cat, version }
}

impl Stage {
    fn server(&self, name: &str) -> &Server {
        self.mesh.server(name)
    }

    fn create(&self) -> Value {
        self.server("a.example")
            .graph(&self.room, |graph| Value::Object(graph.create().unwrap().object().clone()))
    }

    /// State of the room in the name of a user, signed by a server.
    fn state(&self, by: &OwnedUserId, signer: &str, kind: &str) -> Value {
        let draft = state_draft(self.server("a.example"), &self.room, by, kind, json!({}));
        Value::Object(self.signed_by(signer, draft))
    }

    /// An event that carries the signature of that server and no other, whoever sends it.
    fn signed_by(&self, signer: &str, draft: Draft) -> Object {
        let version = draft.version;
        let honest = self.server(draft.sender.server_name().as_str()).sign(draft);
        let mut object = honest.object().clone();
        object.remove("signatures");
        let mut bare = redact::redact(version, &object);
        self.server(signer).signer.sign_object(&mut bare);
        object.insert("signatures".into(), bare["signatures"].clone());
        object
    }

    async fn hand(&self, room: &RoomId, event: &CheckedPdu, state: Value) -> Result<(), RoomError> {
        let (a, b) = (self.server("a.example"), self.server("b.example"));
        let entry = b.rooms.admit(&a.name, room).await?;
        let invite = InboundInvite {
            room_version: self.version.into(),
            event: event.object().clone(),
            invite_room_state: state,
        };
        b.rooms.receive_invite(&entry, event.event_id(), invite).await.map(drop)
    }

    /// Hands bob's server ann's invite with that state.
    async fn invite(&self, state: Value) -> Result<(), RoomError> {
        let a = self.server("a.example");
        let event = a.sign(member_draft(a, &self.room, &self.ann, &self.bob, "invite"));
        self.hand(&self.room, &event, state).await
    }

    /// The types of the state that bob is shown.
    fn shown(&self) -> Vec<String> {
        let key = (self.bob.clone(), self.room.clone());
        let pending = self.server("b.example").store.reader().get::<tables::Pending>(&key);
        let state = pending.unwrap().unwrap().stripped_state.into_iter();
        state.map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }
}

/// What is a whole event is signed by its sender's server, or not shown.
#[tokio::test]
async fn whole_events_that_others_signed_are_dropped() {
    for version in ["1", "6", "11", "12"] {
        let stage = stage(version).await;
        let mut other = stage.state(&stage.ann, "a.example", "m.room.topic");
        other["signatures"]["a.example"]["ed25519:sim"] = "A".repeat(86).into();
        let mut unsigned = stage.state(&stage.ann, "a.example", "m.room.avatar");
        unsigned["signatures"] = json!({});
        let mut by_no_key = stage.state(&stage.cat, "c.example", "m.room.encryption");
        let signature = by_no_key["signatures"]["c.example"]["ed25519:sim"].take();
        by_no_key["signatures"] = json!({ "c.example": { "ed25519:none": signature } });
        let four = json!({ "type": "m.room.join_rules", "state_key": "", "sender": stage.cat,
            "content": {} });
        let state = json!([
            stage.create(),
            stage.state(&stage.cat, "c.example", "m.room.name"),
            stage.state(&stage.cat, "a.example", "m.room.canonical_alias"),
            other,
            unsigned,
            by_no_key,
            four,
        ]);
        stage.invite(state).await.unwrap();
        let mut shown = stage.shown();
        shown.sort();
        assert_eq!(shown, ["m.room.create", "m.room.join_rules", "m.room.name"], "in {version}");
    }
}

/// A room of version 12 is its create event: one in somebody else's name founds none.
#[tokio::test]
async fn a_create_event_that_is_not_its_senders_is_refused() {
    let stage = stage("12").await;
    let (a, version) = (stage.server("a.example"), RoomVersion::parse("12").unwrap());
    let draft = |room_id, sender: &OwnedUserId, kind: &str, state_key: &str, content| Draft {
        version,
        room_id,
        sender: sender.clone(),
        kind: kind.into(),
        state_key: Some(state_key.into()),
        content: object(content),
        redacts: None,
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 1,
        origin_server_ts: 5,
    };
    for (founder, signer, is_taken) in
        [(&stage.ann, "a.example", true), (&stage.cat, "a.example", false)]
    {
        let content = json!({ "room_version": "12" });
        let create = stage.signed_by(signer, draft(None, founder, "m.room.create", "", content));
        let founding = Pdu::from_object(version, create.clone()).unwrap();
        let room = founding.room_id().to_owned();
        let content = json!({ "membership": "invite" });
        let kind = "m.room.member";
        let mut invite = draft(Some(room.clone()), &stage.ann, kind, stage.bob.as_str(), content);
        invite.prev_events = vec![Reference::from(&founding)];
        let invite = a.sign(invite);
        let handed = stage.hand(&room, &invite, json!([create])).await;
        match is_taken {
            true => handed.unwrap(),
            false => {
                let (code, errcode) = status(handed.unwrap_err());
                assert_eq!((code, &*errcode), (400, "M_INVALID_PARAM"));
                assert!(stage.server("b.example").signed_as(&invite).is_empty());
                assert!(!stage.server("b.example").is_pending(&stage.bob, &room));
            }
        }
    }
}

/// Pain A8: the answer to an invite waits for nobody's keys. Who invites cannot have us ask the
/// whole world for them either.
#[tokio::test(start_paused = true)]
async fn keys_that_do_not_come_hold_up_no_invite() {
    let stage = stage("11").await;
    let strangers = (0..40).map(|n| format!("s{n:02}.example")).collect::<Vec<_>>();
    let names = strangers.iter().map(String::as_str).collect::<Vec<_>>();
    let others = Mesh::new(&names);
    let mut state = vec![stage.create()];
    for (n, server) in others.servers().iter().enumerate() {
        stage.mesh.net.attach(server);
        stage.mesh.net.hide_keys(&server.name);
        let (a, user) = (stage.server("a.example"), server.user("x"));
        let mut draft = state_draft(a, &stage.room, &user, "m.room.name", json!({}));
        draft.state_key = Some(n.to_string());
        state.push(Value::Object(server.sign(draft).object().clone()));
    }
    stage.mesh.net.take_requests();
    let before = tokio::time::Instant::now();
    stage.invite(Value::Array(state)).await.unwrap();
    assert!(before.elapsed().as_millis() <= 1_000, "{:?}", before.elapsed());
    assert_eq!(stage.shown().len(), 41, "they may be authentic");
    let asked = stage.mesh.net.take_requests();
    let asked = asked.iter().filter(|(_, to, _)| to.as_str().starts_with('s')).count();
    assert_eq!(asked, 5);
}

#[tokio::test]
async fn what_is_shown_with_a_knock_is_checked_too() {
    let stage = stage("12").await;
    let (a, b) = (stage.server("a.example"), stage.server("b.example"));
    a.set(&stage.ann, &stage.room, "m.room.join_rules", json!({ "join_rule": "knock" })).await;
    stage.mesh.settle().await;
    let forged = stage.state(&stage.cat, "a.example", "m.room.name");
    let change = move |answer: &mut Value| {
        answer["knock_room_state"].as_array_mut().unwrap().push(forged.clone());
    };
    stage.mesh.net.fail_next(&a.name, "send_knock", Fault::tampered(change));
    let via = [a.name.clone()];
    b.rooms.knock(&stage.bob, &stage.room, &via, Object::new()).await.unwrap();
    let shown = stage.shown();
    assert!(shown.contains(&"m.room.create".into()), "{shown:?}");
    assert!(!shown.contains(&"m.room.name".into()), "{shown:?}");
}
