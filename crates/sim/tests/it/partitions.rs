//! Long partitions, after which a server hears of the newest event only, as the catch-up of other
//! implementations has it: what lies further back than is fetched is bridged by state.

use exeunt_core::Draft;
use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_room::{Call, Intent, Preset};
use exeunt_sim::{
    Mesh, Scripted, Server,
    events::{message_draft, object, wire},
};
use serde_json::json;

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
}

/// A room of ann on `a`, with bob of `b` and cat of `c`, who may set the topic; `a` is cut off.
async fn partition() -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
    let levels = json!({ "users_default": 50 });
    let initial = vec![("m.room.power_levels", levels)];
    let room = a.room_with(&ann, Preset::Public, "12", initial).await;
    b.join(&bob, &room, a).await.unwrap();
    mesh.settle().await;
    c.join(&cat, &room, a).await.unwrap();
    mesh.settle().await;
    mesh.isolate("a.example");
    Stage { mesh, room, ann, bob }
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

    /// `count` messages of bob, of which `c` hears and `a` does not.
    async fn talk(&self, count: usize) {
        for index in 0..count {
            self.b().say(&self.bob, &self.room, &index.to_string()).await;
            if index % 40 == 39 {
                self.mesh.settle().await;
                self.b().forget_outbox(self.a()).await;
            }
        }
        self.mesh.settle().await;
        self.b().forget_outbox(self.a()).await;
        self.c().forget_outbox(self.a()).await;
    }

    fn assert_converged(&self) {
        for server in [self.b(), self.c()] {
            assert_eq!(server.state(&self.room), self.a().state(&self.room), "{}", server.name);
            let heads = |server: &Server| server.graph(&self.room, |g| g.room.extremities.clone());
            assert_eq!(heads(server), heads(self.a()), "{}", server.name);
        }
    }
}

/// State that changed at the far end of the gap, beyond what is fetched, is there afterwards.
#[tokio::test]
async fn a_gap_of_any_size_is_bridged() {
    for size in [700, 2_000] {
        let stage = partition().await;
        let (a, b, c) = (stage.a(), stage.b(), stage.c());
        let dan = c.user("dan");
        b.set(&stage.bob, &stage.room, "m.room.topic", json!({ "topic": "far away" })).await;
        c.join(&dan, &stage.room, b).await.unwrap();
        stage.talk(size).await;
        stage.mesh.heal("a.example");
        c.say(&dan, &stage.room, "last").await;
        stage.mesh.settle().await;
        let messages = a.messages(&stage.room);
        assert_eq!(messages.last().map(String::as_str), Some("last"), "a gap of {size}");
        assert!(messages.contains(&(size - 1).to_string()));
        assert_eq!(a.in_state(&dan, &stage.room).as_deref(), Some("join"));
        a.say(&stage.ann, &stage.room, "back").await;
        stage.mesh.settle().await;
        stage.assert_converged();
    }
}

/// Both sides went on, and each tells the other of its newest event only.
#[tokio::test]
async fn both_sides_of_a_long_partition_meet_again() {
    let stage = partition().await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    let (eve, dan) = (a.user("eve"), c.user("dan"));
    a.join(&eve, &stage.room, a).await.unwrap();
    a.set(&stage.ann, &stage.room, "m.room.topic", json!({ "topic": "ours" })).await;
    c.join(&dan, &stage.room, b).await.unwrap();
    b.set(&stage.bob, &stage.room, "m.room.name", json!({ "name": "theirs" })).await;
    for index in 0..700 {
        a.say(&stage.ann, &stage.room, &index.to_string()).await;
    }
    stage.talk(700).await;
    a.forget_outbox(b).await;
    a.forget_outbox(c).await;
    stage.mesh.heal("a.example");
    a.say(&eve, &stage.room, "ours").await;
    b.say(&stage.bob, &stage.room, "theirs").await;
    stage.mesh.settle().await;
    for server in stage.mesh.servers() {
        for user in [&eve, &dan] {
            assert_eq!(server.in_state(user, &stage.room).as_deref(), Some("join"));
        }
    }
    a.say(&stage.ann, &stage.room, "together").await;
    stage.mesh.settle().await;
    stage.assert_converged();
}

/// State that was redacted while it had no place of its own stays redacted when it gets one.
#[tokio::test]
async fn what_was_redacted_stays_so() {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = a.room(&ann, Preset::Public, "12").await;
    let topic = a.set(&ann, &room, "m.room.topic", json!({ "topic": "secret" })).await;
    let whole = wire(&a.event(&topic).unwrap().pdu);
    b.join(&bob, &room, a).await.unwrap();
    mesh.settle().await;
    assert!(b.event(&topic).unwrap().record.states.is_none());
    let content = object(json!({ "redacts": topic }));
    let redaction = Intent::message(ann.clone(), "m.room.redaction", content);
    a.rooms.append(&room, redaction).await.unwrap();
    mesh.settle().await;
    assert_eq!(b.event(&topic).unwrap().pdu.content_str("topic"), None);
    let draft = message_draft(a, &room, &ann, "upon it");
    let upon = a.sign(Draft { prev_events: vec![topic.clone().into()], ..draft });
    let answer = json!({ "events": [whole] });
    mesh.net.script(&a.name, move |call| match call {
        Call::MissingEvents { .. } => Scripted::Answer(Ok(answer.clone())),
        _ => Scripted::Honest,
    });
    b.receive(a, "upon", &[&upon]).await;
    b.rooms.inbound_idle().await;
    let known = b.event(&topic).unwrap();
    assert!(known.record.states.is_some());
    assert_eq!(known.pdu.content_str("topic"), None);
    assert!(known.record.redacted_because.is_some());
}
