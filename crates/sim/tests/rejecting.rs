//! Rejected invites: rows RJ3 and RJ10 to RJ14, and departures that end.

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_room::{
    Preset, RemoteError,
    views::{Filter, SyncRequest},
};
use exeunt_sim::{Fault, Mesh, Server, status};
use exeunt_store::tables;
use serde_json::json;

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    cat: OwnedUserId,
}

/// Ann (a) has a public room that cat (c) is in too; bob (b) is not.
async fn stage() -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, c) = (mesh.server("a.example"), mesh.server("c.example"));
    let (ann, bob, cat) = (a.user("ann"), mesh.server("b.example").user("bob"), c.user("cat"));
    let levels = json!({ "users_default": 50, "users": { c.user("cat"): 100 } });
    let open = vec![("m.room.power_levels", levels)];
    let room = a.room_with(&ann, Preset::Public, "11", open).await;
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

    fn departures(&self) -> usize {
        self.b().store.reader().scan::<tables::Departures>(()).keys().unwrap().len()
    }

    /// Requests of bob's server since the last look: to whom and which.
    fn asked(&self) -> Vec<(String, &'static str)> {
        let requests = self.mesh.net.take_requests().into_iter();
        let ours = requests.filter(|(from, ..)| *from == self.b().name);
        ours.map(|(_, to, endpoint)| (to.to_string(), endpoint)).collect()
    }

    async fn invite(&self) {
        self.a().invite(&self.ann, &self.bob, &self.room).await.unwrap();
        self.mesh.net.take_requests();
    }

    /// Bob says no, and is out here whatever happened.
    async fn reject(&self) {
        self.b().leave(&self.bob, &self.room).await.unwrap();
        assert_eq!(self.b().membership(&self.bob, &self.room).as_deref(), Some("leave"));
        assert!(!self.b().is_pending(&self.bob, &self.room));
    }
}

/// RJ3: whatever make_leave answers, the user is out; only a word that the invite is gone ends
/// the departure.
#[tokio::test]
async fn rj3_any_answer_to_make_leave_and_the_user_is_out() {
    let unreachable = Fault::Answer(RemoteError::Unreachable("connection refused".into()));
    let html = Fault::Answer(RemoteError::Misbehaved("not JSON".into()));
    let cases = [
        (Fault::refused(403, "M_FORBIDDEN"), 0),
        (Fault::refused(404, "M_NOT_FOUND"), 0),
        (Fault::refused(404, ""), 1),
        (Fault::refused(401, "M_UNKNOWN_TOKEN"), 1),
        (Fault::refused(500, "M_UNKNOWN"), 1),
        (unreachable, 1),
        (html, 1),
    ];
    for (fault, waiting) in cases {
        let stage = stage().await;
        stage.invite().await;
        stage.mesh.net.fail_next(&stage.a().name, "make_leave", fault);
        stage.reject().await;
        assert_eq!(stage.departures(), waiting);
        stage.mesh.settle().await;
        assert_eq!(stage.departures(), 0);
    }
}

/// RJ10: the inviter has left; a server that the stripped state names is still there.
#[tokio::test]
async fn rj10_another_resident_takes_the_rejection() {
    let stage = stage().await;
    stage.c().set(&stage.cat, &stage.room, "m.room.name", json!({ "name": "cat's" })).await;
    stage.mesh.settle().await;
    stage.invite().await;
    stage.a().leave(&stage.ann, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    stage.mesh.net.take_requests();

    stage.reject().await;

    let asked = stage.asked();
    let asked: Vec<_> = asked.iter().map(|(to, what)| (to.as_str(), *what)).collect();
    let (a, c) = ("a.example", "c.example");
    assert_eq!(asked, [(a, "make_leave"), (c, "make_leave"), (c, "send_leave")]);
    assert_eq!(stage.c().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
    assert_eq!(stage.departures(), 0);
}

/// RJ11: the room is empty; its last server says so, and nothing is left to deliver.
#[tokio::test]
async fn rj11_an_empty_room_is_rejected_too() {
    let stage = stage().await;
    stage.c().leave(&stage.cat, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    stage.invite().await;
    stage.a().leave(&stage.ann, &stage.room).await.unwrap();
    stage.mesh.settle().await;

    stage.reject().await;

    assert_eq!(stage.departures(), 0);
}

/// RJ12: two users of one server are invited; one rejection is one rejection.
#[tokio::test]
async fn rj12_the_other_invite_stays() {
    let stage = stage().await;
    let bea = stage.b().user("bea");
    stage.invite().await;
    stage.a().invite(&stage.ann, &bea, &stage.room).await.unwrap();

    stage.reject().await;

    assert!(stage.b().is_pending(&bea, &stage.room));
    assert_eq!(stage.b().membership(&bea, &stage.room).as_deref(), Some("invite"));
    assert_eq!(stage.a().in_state(&bea, &stage.room).as_deref(), Some("invite"));
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
}

/// RJ13: where another user of ours is in the room, a rejection is an event of ours: no handshake.
#[tokio::test]
async fn rj13_residents_reject_in_the_graph() {
    let stage = stage().await;
    let bea = stage.b().user("bea");
    stage.b().join(&bea, &stage.room, stage.a()).await.unwrap();
    stage.invite().await;
    stage.mesh.settle().await;
    stage.mesh.net.take_requests();

    stage.b().leave(&stage.bob, &stage.room).await.unwrap();

    assert!(stage.asked().is_empty(), "nobody has to be asked");
    stage.mesh.settle().await;
    for server in stage.mesh.servers() {
        assert_eq!(server.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
    }
}

/// RJ14: also where history is for joined users only, one sees one's own rejection.
#[tokio::test]
async fn rj14_the_rejection_shows_where_history_is_closed() {
    let stage = stage().await;
    let closed = json!({ "history_visibility": "joined" });
    stage.a().set(&stage.ann, &stage.room, "m.room.history_visibility", closed).await;
    stage.invite().await;
    let since = stage.b().store.reader().position();

    stage.reject().await;

    let request = SyncRequest {
        viewer: stage.b().rooms.viewer(&stage.bob, None),
        since: Some(since),
        filter: Filter::default(),
        full_state: false,
        use_state_after: false,
    };
    let view = stage.b().rooms.sync(request).await.unwrap();
    let left = &view.leave[&stage.room];
    let shown: Vec<_> = left.timeline.events.iter().map(|e| &e["content"]["membership"]).collect();
    assert_eq!(shown, ["leave"]);
    assert!(!view.invite.contains_key(&stage.room));
}

/// Spec-map 4.4: a second leave is fine, a room never seen is 404, a ban is 403.
#[tokio::test]
async fn leaving_what_one_is_not_in() {
    let stage = stage().await;
    let unknown = stage.b().leave(&stage.bob, &stage.room).await.unwrap_err();
    assert_eq!(status(unknown).0, 404);
    stage.invite().await;
    stage.reject().await;
    stage.reject().await;
    stage.c().rooms.ban(&stage.cat, &stage.ann, &stage.room, None).await.unwrap();
    stage.mesh.settle().await;
    let banned = stage.a().leave(&stage.ann, &stage.room).await.unwrap_err();
    assert_eq!(status(banned).0, 403);
}
