//! Invites to an email address or phone number, redeemed over federation.

use exeunt_core::ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, UserId};
use exeunt_core::{Object, Signer};
use exeunt_room::{Intent, Preset, RoomError};
use exeunt_sim::{Mesh, Server, events::object, status};
use exeunt_store::tables;
use serde_json::{Value, json};

/// Ann of `a` has invited somebody by email; it turns out to be bob of `b`.
struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    id: Signer,
}

async fn stage() -> Stage {
    stage_in("12").await
}

async fn stage_in(version: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let a = mesh.server("a.example");
    let (ann, bob) = (a.user("ann"), mesh.server("b.example").user("bob"));
    let room = a.room(&ann, Preset::Private, version).await;
    let name = OwnedServerName::try_from("id.example").unwrap();
    let id = Signer::new(name, "ed25519:0", &[9; 32]).unwrap();
    let content = json!({
        "display_name": "b...@mail.example",
        "key_validity_url": "https://id.example/valid",
        "public_key": id.public(),
    });
    let kind = "m.room.third_party_invite";
    let intent = Intent::state(ann.clone(), kind, "token", object(content));
    a.rooms.append(&room, intent).await.unwrap();
    Stage { mesh, room, ann, bob, id }
}

impl Stage {
    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    /// The request as bob's server makes it.
    fn body(&self, invited: &UserId, token: &str) -> Value {
        let mut signed = object(json!({ "mxid": invited, "token": token }));
        self.id.sign_object(&mut signed);
        json!({
            "type": "m.room.member",
            "room_id": self.room,
            "sender": self.ann,
            "state_key": invited,
            "content": {
                "membership": "invite",
                "third_party_invite": { "display_name": "somebody", "signed": signed },
            },
        })
    }

    async fn exchange(&self, from: &Server, body: Value) -> Result<(), RoomError> {
        let entry = self.a().rooms.admit(&from.name, &self.room).await?;
        self.a().rooms.exchange_third_party_invite(&entry, &object(body)).await
    }
}

#[tokio::test]
async fn a_third_party_invite_becomes_an_invite() {
    let stage = stage().await;
    let mut body = stage.body(&stage.bob, "token");
    body["content"]["custom"] = "of theirs".into();
    stage.exchange(stage.b(), body).await.unwrap();
    assert_eq!(stage.b().membership(&stage.bob, &stage.room).as_deref(), Some("invite"));
    let invite = stage.a().graph(&stage.room, |graph| {
        graph.current("m.room.member", stage.bob.as_str()).unwrap().unwrap()
    });
    assert_eq!(invite.sender(), stage.ann);
    let third = &invite.content()["third_party_invite"];
    assert_eq!(third["display_name"], "b...@mail.example");
    assert!(invite.content().get("custom").is_none());
    assert_eq!(stage.a().signed_as(&invite), ["third-party invite"]);
    stage.b().join(&stage.bob, &stage.room, stage.a()).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("join"));
}

/// Nothing is sent in ann's name but what she sent the third-party invite for.
#[tokio::test]
async fn exchanges_that_are_refused() {
    let stage = stage().await;
    let good = || stage.body(&stage.bob, "token");
    let with = |pointer: &str, value: Value| {
        let mut body = good();
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let signed = "/content/third_party_invite/signed";
    let amy = stage.a().user("amy");
    for (body, expected) in [
        (with("/type", json!("m.room.name")), (400, "M_INVALID_PARAM")),
        (with("/room_id", json!("!other:a.example")), (400, "M_INVALID_PARAM")),
        (with("/content/membership", json!("join")), (400, "M_INVALID_PARAM")),
        (with("/sender", json!("@cat:c.example")), (400, "M_INVALID_PARAM")),
        (with("/content/third_party_invite", json!({})), (400, "M_INVALID_PARAM")),
        (with(&format!("{signed}/token"), json!(1)), (400, "M_INVALID_PARAM")),
        (
            with(signed, json!({ "mxid": stage.bob, "token": "t", "x": "y".repeat(5000) })),
            (400, "M_INVALID_PARAM"),
        ),
        (with("/sender", json!(amy)), (403, "M_FORBIDDEN")),
        (with("/state_key", json!("@eve:b.example")), (403, "M_FORBIDDEN")),
        (with(&format!("{signed}/signatures"), json!({})), (403, "M_FORBIDDEN")),
        (stage.body(&stage.bob, "another"), (403, "M_FORBIDDEN")),
        (stage.body(&stage.a().user("amy"), "token"), (403, "M_FORBIDDEN")),
        (json!({}), (400, "M_INVALID_PARAM")),
    ] {
        let (code, errcode) = status(stage.exchange(stage.b(), body.clone()).await.unwrap_err());
        assert_eq!((code, &*errcode), expected, "{body}");
    }
    let c = stage.mesh.server("c.example");
    let replayed = stage.exchange(c, good()).await.unwrap_err();
    assert_eq!(status(replayed).0, 403);
    stage.a().rooms.ban(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    assert_eq!(status(stage.exchange(stage.b(), good()).await.unwrap_err()).0, 403);
    assert_eq!(stage.b().membership(&stage.bob, &stage.room), None);
    let signed = |purpose: &str| {
        let rows = stage.a().store.reader().scan::<tables::SigningJournal>(()).collect().unwrap();
        rows.into_iter().filter(|(_, row)| row.purpose == purpose).count()
    };
    assert_eq!(signed("third-party invite"), 0);
    let entry = stage.b().rooms.admit(&c.name, &stage.room).await.unwrap();
    let unknown = stage.b().rooms.exchange_third_party_invite(&entry, &Object::new()).await;
    assert_eq!(status(unknown.unwrap_err()).0, 400);
}

/// Who joins later gets redacted events, and could check neither the invite nor what rests on it.
#[tokio::test]
async fn what_an_invite_rests_on_cannot_be_redacted() {
    for (version, keeps_what_was_signed) in
        [("1", false), ("6", false), ("10", false), ("11", true), ("12", true)]
    {
        let stage = stage_in(version).await;
        let (a, c) = (stage.a(), stage.mesh.server("c.example"));
        let cat = c.user("cat");
        stage.exchange(stage.b(), stage.body(&stage.bob, "token")).await.unwrap();
        for (kind, key, may_be) in [
            ("m.room.third_party_invite", "token", false),
            ("m.room.member", stage.bob.as_str(), keeps_what_was_signed),
        ] {
            let target = a.graph(&stage.room, |graph| graph.current(kind, key)).unwrap().unwrap();
            let target = target.event_id().to_owned();
            let content = object(json!({ "redacts": target }));
            let intent = Intent::message(stage.ann.clone(), "m.room.redaction", content);
            let intent = Intent { redacts: Some(target), ..intent };
            let redacted = a.rooms.append(&stage.room, intent).await;
            assert_eq!(redacted.is_ok(), may_be, "{kind}, version {version}");
        }
        a.invite(&stage.ann, &cat, &stage.room).await.unwrap();
        c.join(&cat, &stage.room, a).await.unwrap();
        assert_eq!(c.state(&stage.room), a.state(&stage.room), "version {version}");
        assert_eq!(c.in_state(&stage.bob, &stage.room).as_deref(), Some("invite"));
    }
}
