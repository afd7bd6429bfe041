//! Invites from other servers that the user does not want: rows IN5 and IN12, pain B3.

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_room::{Preset, RoomError, views::SyncRequest};
use exeunt_sim::{Mesh, Server, events::object, refusal};
use exeunt_store::tables;
use serde_json::{Value, json};

const FILTER: &str = "org.matrix.msc4155.invite_permission_config";

struct Stage {
    mesh: Mesh,
    ann: OwnedUserId,
    bob: OwnedUserId,
}

fn stage() -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (ann, bob) = (mesh.server("a.example").user("ann"), mesh.server("b.example").user("bob"));
    Stage { mesh, ann, bob }
}

impl Stage {
    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    async fn room(&self) -> OwnedRoomId {
        self.a().room(&self.ann, Preset::Private, "12").await
    }

    /// Bob says something about invites.
    async fn say(&self, kind: &str, content: Value) {
        let content = object(content);
        self.b().users.put_account_data(&self.bob, None, kind, content).await.unwrap();
    }

    async fn shown(&self) -> Vec<OwnedRoomId> {
        let request = SyncRequest {
            viewer: self.b().rooms.viewer(&self.bob, None),
            since: None,
            filter: Default::default(),
            full_state: false,
            use_state_after: false,
        };
        self.b().rooms.sync(request).await.unwrap().invite.into_keys().collect()
    }
}

fn is_blocked(result: Result<(), RoomError>) -> bool {
    match result {
        Err(RoomError::Remote { error, .. }) => refusal(&error) == Some((403, "M_INVITE_BLOCKED")),
        other => panic!("{other:?}"),
    }
}

/// A blocked invite is not signed, not kept and not in the room.
#[tokio::test]
async fn in5_blocked_invites_come_to_nothing() {
    for (kind, content) in [
        ("m.invite_permission_config", json!({ "default_action": "block" })),
        (FILTER, json!({ "blocked_users": ["@ann:a.example"] })),
        (FILTER, json!({ "blocked_servers": ["?.example"], "allowed_users": null })),
    ] {
        let stage = stage();
        stage.say(kind, content).await;
        let room = stage.room().await;
        assert!(is_blocked(stage.a().invite(&stage.ann, &stage.bob, &room).await));
        assert_eq!(stage.a().in_state(&stage.bob, &room), None);
        assert_eq!(stage.b().membership(&stage.bob, &room), None);
        let signed = stage.b().store.reader().scan::<tables::SigningJournal>(()).keys().unwrap();
        assert!(signed.is_empty());
        // Never for what bob sends.
        let bobs = stage.b().room(&stage.bob, Preset::Private, "12").await;
        stage.b().invite(&stage.bob, &stage.ann, &bobs).await.unwrap();
        assert_eq!(stage.a().membership(&stage.ann, &bobs).as_deref(), Some("invite"));
    }
}

/// Stored invites are hidden when their inviter is blocked or ignored, stay rejectable, and show
/// again.
#[tokio::test]
async fn in12_stored_invites_are_hidden_and_can_be_rejected() {
    for (kind, content, off) in [
        (FILTER, json!({ "ignored_servers": ["a.example"] }), json!({ "enabled": false })),
        (FILTER, json!({ "blocked_servers": ["a.example"] }), json!({})),
        ("m.ignored_user_list", json!({ "ignored_users": { "@ann:a.example": {} } }), json!({})),
        ("m.invite_permission_config", json!({ "default_action": "block" }), json!({})),
    ] {
        let stage = stage();
        let room = stage.room().await;
        stage.a().invite(&stage.ann, &stage.bob, &room).await.unwrap();
        assert!(stage.shown().await.iter().eq([&room]));
        stage.say(kind, content.clone()).await;
        assert!(stage.shown().await.is_empty(), "{content}");
        stage.say(kind, off).await;
        assert!(stage.shown().await.iter().eq([&room]));
        stage.say(kind, content).await;
        stage.b().leave(&stage.bob, &room).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(stage.a().in_state(&stage.bob, &room).as_deref(), Some("leave"));
    }
}

/// An ignored invite goes through, for all that its sender can see.
#[tokio::test]
async fn in12_an_ignored_invite_is_taken() {
    let stage = stage();
    stage.say(FILTER, json!({ "ignored_users": ["@ann:a.example"] })).await;
    let room = stage.room().await;
    stage.a().invite(&stage.ann, &stage.bob, &room).await.unwrap();
    assert_eq!(stage.a().in_state(&stage.bob, &room).as_deref(), Some("invite"));
    assert!(stage.b().is_pending(&stage.bob, &room));
    assert!(stage.shown().await.is_empty());
    stage.b().join(&stage.bob, &room, stage.a()).await.unwrap();
}
