//! Sticky leaves: a user of ours who has left is not put back by a resolution of states (pains C5,
//! feature 3).

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_core::{Draft, Object, Reference};
use exeunt_room::{
    Preset,
    inbound::{ASKED_AGAIN_AFTER_MS, LEAVE_ARRIVES_WITHIN_MS},
    views::{Filter, SyncRequest, SyncView},
};
use exeunt_sim::{
    Mesh, Server,
    events::{member_draft, message_draft},
};
use exeunt_store::{Batch, records::MembershipRecord, tables};

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    ben: OwnedUserId,
    cat: OwnedUserId,
}

/// A public room of ann on `a`, with bob and ben of `b` and cat of `c`.
async fn stage_in(version: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let [a, b, c] = ["a.example", "b.example", "c.example"].map(|name| mesh.server(name));
    let (ann, bob, ben, cat) = (a.user("ann"), b.user("bob"), b.user("ben"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, version).await;
    for (server, user) in [(b, &bob), (b, &ben), (c, &cat)] {
        server.join(user, &room, a).await.unwrap();
        mesh.settle().await;
    }
    Stage { mesh, room, ann, bob, ben, cat }
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

    async fn sync(&self, user: &OwnedUserId, since: Option<u64>) -> SyncView {
        let request = SyncRequest {
            viewer: self.b().rooms.viewer(user, None),
            since,
            filter: Filter::default(),
            full_state: false,
            use_state_after: false,
        };
        self.b().rooms.sync(request).await.unwrap()
    }

    /// How the memberships of bob came to `b`, and what they were, oldest first.
    fn log(&self) -> Vec<(String, String)> {
        let prefix = (self.room.clone(), self.bob.clone());
        let rows = self.b().store.reader().scan::<tables::MembershipLog>(prefix).collect();
        rows.unwrap().into_iter().map(|(_, line)| (line.via, line.membership)).collect()
    }

    fn assert_left_everywhere(&self) {
        for server in self.mesh.servers() {
            let is = server.in_state(&self.bob, &self.room);
            assert_eq!(is.as_deref(), Some("leave"), "at {}", server.name);
        }
        assert_eq!(self.b().membership(&self.bob, &self.room).as_deref(), Some("leave"));
    }
}

/// A third server goes on from where bob was still joined, and a join that our clock dated into the
/// future wins over the leave, which is what the rules of room version 10 say.
#[tokio::test]
async fn a_fork_does_not_undo_a_leave() {
    let stage = stage_in("10").await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    let join = b.sign(Draft {
        origin_server_ts: 1_900_000_000_000,
        ..member_draft(b, &stage.room, &stage.bob, &stage.bob, "join")
    });
    for server in [a, b, c] {
        let from = if server.name == a.name { b } else { a };
        server.receive(from, "join", &[&join]).await;
    }
    let fork = message_draft(c, &stage.room, &stage.cat, "as if nothing had happened");
    let fork = c.sign(Draft { prev_events: vec![Reference::from(&*join)], ..fork });
    b.leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    stage.assert_left_everywhere();
    let since = stage.sync(&stage.bob, None).await.next_batch;
    let sinks = stage.sync(&stage.ben, None).await.next_batch;

    a.receive(c, "fork", &[&fork]).await;
    assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("join"), "the fork works");
    b.receive(c, "fork", &[&fork]).await;
    assert_eq!(b.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"), "left again");
    let view = stage.sync(&stage.bob, Some(since)).await;
    assert!(view.is_empty(), "bob has nothing to hear: {view:?}");
    assert!(stage.sync(&stage.bob, None).await.join.is_empty());
    assert!(b.rooms.joined_rooms(&stage.bob).await.unwrap().is_empty());
    let log = stage.log();
    assert!(log.iter().all(|(via, _)| via != "resolution"), "{log:?}");
    assert_eq!(log.iter().filter(|line| line.1 == "leave").count(), 2, "{log:?}");
    // Those who are in the room see the leave.
    assert!(stage.sync(&stage.ben, Some(sinks)).await.join.contains_key(&stage.room));

    stage.mesh.settle().await;
    stage.assert_left_everywhere();
    // Nothing that comes later changes that, and bob may change his mind.
    a.say(&stage.ann, &stage.room, "so it is").await;
    c.say(&stage.cat, &stage.room, "it is").await;
    stage.mesh.settle().await;
    stage.assert_left_everywhere();
    let left = b.graph(&stage.room, |graph| graph.joined_servers().unwrap().contains(&b.name));
    assert!(left, "ben is in the room");
    b.join(&stage.bob, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    for server in [a, b, c] {
        assert_eq!(server.in_state(&stage.bob, &stage.room).as_deref(), Some("join"));
    }
    assert!(stage.sync(&stage.bob, Some(since)).await.join.contains_key(&stage.room));
}

/// Pains C1: the room has never heard of the leave, and somebody else of ours joins it.
#[tokio::test]
async fn a_leave_that_got_lost_is_sent_again() {
    for version in ["1", "10", "12"] {
        let stage = stage_in(version).await;
        let (a, b) = (stage.a(), stage.b());
        stage.mesh.isolate("b.example");
        for user in [&stage.bob, &stage.ben] {
            b.leave(user, &stage.room).await.unwrap();
        }
        for other in [a, stage.c()] {
            b.forget_outbox(other).await;
        }
        stage.mesh.heal("b.example");
        let since = stage.sync(&stage.bob, None).await.next_batch;
        b.rooms.join(&stage.ben, &stage.room, &[], Object::new()).await.unwrap();
        stage.mesh.settle().await;
        stage.assert_left_everywhere();
        assert!(stage.sync(&stage.bob, Some(since)).await.is_empty(), "in {version}");
        for server in [a, b, stage.c()] {
            assert_eq!(server.in_state(&stage.ben, &stage.room).as_deref(), Some("join"));
        }
        assert_eq!(b.state(&stage.room), a.state(&stage.room));
        // Bob, too, can come back.
        b.join(&stage.bob, &stage.room, a).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("join"));
        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("join"));
    }
}

/// C1: a server that has lost the leaves goes on sending. It is offered them once more, and once in
/// an hour at most.
#[tokio::test]
async fn a_server_that_goes_on_sending_is_offered_the_leaves() {
    let stage = stage_in("11").await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    for user in [&stage.bob, &stage.ben] {
        b.leave(user, &stage.room).await.unwrap();
    }
    b.forget_outbox(a).await;
    stage.mesh.settle().await;
    let waiting = || b.store.reader().scan::<tables::Departures>(()).keys().unwrap().len();
    let say = async |text: &str| {
        a.say(&stage.ann, &stage.room, text).await;
        stage.mesh.net.take_requests();
        stage.mesh.settle().await;
        let requests = stage.mesh.net.take_requests();
        requests.iter().filter(|(from, ..)| *from == b.name).count()
    };
    // The leaves may be on their way.
    assert_eq!(say("early").await, 0);

    stage.mesh.clock.advance(LEAVE_ARRIVES_WITHIN_MS);
    stage.mesh.net.cut(&b.name, &a.name);
    assert!(say("late").await > 0);
    assert_eq!(waiting(), 2);
    stage.mesh.net.restore(&b.name, &a.name);
    stage.mesh.settle().await;

    assert_eq!(waiting(), 0);
    for server in [a, c] {
        for user in [&stage.bob, &stage.ben] {
            assert_eq!(server.in_state(user, &stage.room).as_deref(), Some("leave"));
        }
    }
    // One that sends in spite of all that is asked again when an hour is over.
    for (wait, asked) in [(0, 0), (ASKED_AGAIN_AFTER_MS, 2)] {
        stage.mesh.clock.advance(wait);
        stage.mesh.net.take_requests();
        let stray = a.sign(message_draft(a, &stage.room, &stage.ann, "stray"));
        b.receive(a, &format!("stray {wait}"), &[&stray]).await;
        stage.mesh.settle().await;
        let requests = stage.mesh.net.take_requests();
        assert_eq!(requests.iter().filter(|(.., what)| *what == "make_leave").count(), asked);
        assert_eq!(waiting(), 0);
    }
}

/// We were stopped between the state that undid the leave and the leave that follows.
#[tokio::test]
async fn a_leave_that_is_due_is_sent_after_a_restart() {
    let mut stage = stage_in("10").await;
    let key = (stage.bob.clone(), stage.room.clone());
    let joined = stage.b().row(&stage.bob, &stage.room).unwrap();
    let mut batch = Batch::default();
    let left = MembershipRecord { membership: "leave".into(), ..joined };
    batch.put::<tables::Memberships>(&key, &left);
    batch.put::<tables::LocalMembers>(&(key.1.clone(), key.0.clone()), &"leave".into());
    stage.b().store.commit(batch).await.unwrap();
    stage.mesh.restart("b.example");
    assert_eq!(stage.b().rooms.sweep_undone_leaves().await.unwrap(), 1);
    stage.mesh.settle().await;
    stage.assert_left_everywhere();
    assert_eq!(stage.b().rooms.sweep_undone_leaves().await.unwrap(), 0);
    for server in [stage.a(), stage.b()] {
        assert_eq!(server.in_state(&stage.ben, &stage.room).as_deref(), Some("join"));
    }
}
