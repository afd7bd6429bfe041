//! What is beside a join: older than our stay, or sent while the join was under way.

use exeunt_core::Object;
use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_room::{
    Intent, Preset,
    views::{Direction, EventFilter, MessagesRequest},
};
use exeunt_sim::{Fault, Mesh, Server};

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    cat: OwnedUserId,
}

impl Stage {
    /// A room of ann on `a` and cat on `c`, that bob of `b` joins while `c` is cut off.
    async fn new() -> Self {
        let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
        let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
        let c = mesh.server("c.example");
        let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
        let room = a.room(&ann, Preset::Public, "12").await;
        c.join(&cat, &room, a).await.unwrap();
        mesh.settle().await;
        for text in ["1", "2", "3"] {
            a.say(&ann, &room, text).await;
        }
        mesh.settle().await;
        mesh.isolate("c.example");
        a.say(&ann, &room, "4").await;
        b.join(&bob, &room, a).await.unwrap();
        mesh.settle().await;
        Self { mesh, room, ann, bob, cat }
    }

    fn server(&self, name: &str) -> &Server {
        self.mesh.server(name)
    }
}

/// A branch from before our join counts, and what is below it comes with it: that is history, and
/// shown as such.
#[tokio::test]
async fn a_branch_from_before_our_join_brings_no_history() {
    let stage = Stage::new().await;
    let (a, b, c) =
        (stage.server("a.example"), stage.server("b.example"), stage.server("c.example"));
    c.say(&stage.cat, &stage.room, "late").await;
    stage.mesh.heal("c.example");
    // `b` could not have the keys of `c`.
    stage.mesh.clock.advance(24 * 3600 * 1000);
    stage.mesh.settle().await;
    a.say(&stage.ann, &stage.room, "5").await;
    stage.mesh.settle().await;
    c.say(&stage.cat, &stage.room, "6").await;
    stage.mesh.settle().await;
    assert_eq!(b.messages(&stage.room), ["5", "6"]);
    // The history is there for who goes back.
    let request = MessagesRequest {
        viewer: b.rooms.viewer(&stage.bob, None),
        room_id: stage.room.clone(),
        from: None,
        to: None,
        direction: Direction::Backward,
        limit: Some(100),
        filter: EventFilter::default(),
    };
    b.rooms.messages(request).await.unwrap();
    assert_eq!(b.messages(&stage.room), ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(b.state(&stage.room), a.state(&stage.room));
    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("join"));
}

/// An event that is sent between the two steps of a join goes to those who are in the room, and the
/// join does not follow it.
#[tokio::test]
async fn what_was_sent_during_a_join_comes_to_the_newcomer() {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = a.room(&ann, Preset::Public, "12").await;
    a.say(&ann, &room, "before").await;
    let (rooms, to) = (a.rooms.clone(), room.clone());
    let says = Fault::meanwhile(move || {
        let (rooms, to, ann) = (rooms.clone(), to.clone(), ann.clone());
        Box::pin(async move {
            let mut content = Object::new();
            content.insert("body".into(), "during".into());
            let intent = Intent::message(ann, "m.room.message", content);
            rooms.append(&to, intent).await.unwrap();
        })
    });
    mesh.net.fail_next(&a.name, "make_join", says);
    b.join(&bob, &room, a).await.unwrap();
    mesh.settle().await;
    assert_eq!(b.messages(&room), ["during"]);
    assert_eq!(b.state(&room), a.state(&room));
}
