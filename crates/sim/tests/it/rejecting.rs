//! Rejected invites: rows RJ3 and RJ10 to RJ14, and departures that end.

use std::{collections::BTreeSet, time::Duration};

use exeunt_core::RoomVersion;
use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_room::{
    Call, Preset, RemoteError,
    leave::RACE_WINDOW_MS,
    views::{Filter, SyncRequest},
};
use exeunt_sim::{Fault, Mesh, Scripted, Server, events::object, status};
use exeunt_store::{Batch, tables};
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
    stage_in("11").await
}

async fn stage_in(version: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, c) = (mesh.server("a.example"), mesh.server("c.example"));
    let (ann, bob, cat) = (a.user("ann"), mesh.server("b.example").user("bob"), c.user("cat"));
    let levels = json!({ "users_default": 50, "users": { c.user("cat"): 100 } });
    let open = vec![("m.room.power_levels", levels)];
    let room = a.room_with(&ann, Preset::Public, version, open).await;
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
/// the departure, and of a fresh invite only that the room is.
/// GHSA-95fh-hv8c-chvq.
#[tokio::test]
async fn rj3_any_answer_to_make_leave_and_the_user_is_out() {
    let unreachable = Fault::Answer(RemoteError::Unreachable("connection refused".into()));
    let html = Fault::Answer(RemoteError::Misbehaved("not JSON".into()));
    let cases = [
        (Fault::refused(403, "M_FORBIDDEN"), 1, 0),
        (Fault::refused(404, "M_NOT_FOUND"), 0, 0),
        (Fault::refused(404, ""), 1, 1),
        (Fault::refused(401, "M_UNKNOWN_TOKEN"), 1, 1),
        (Fault::refused(500, "M_UNKNOWN"), 1, 1),
        (unreachable, 1, 1),
        (html, 1, 1),
    ];
    for (fault, fresh, old) in cases {
        for (age, waiting) in [(0, fresh), (RACE_WINDOW_MS, old)] {
            let stage = stage().await;
            stage.invite().await;
            stage.mesh.clock.advance(age);
            stage.mesh.net.fail_next(&stage.a().name, "make_leave", fault.clone());
            stage.reject().await;
            assert_eq!(stage.departures(), waiting);
            stage.mesh.settle().await;
            assert_eq!(stage.departures(), 0);
            let delivered = waiting == 1;
            let seen = stage.a().in_state(&stage.bob, &stage.room);
            assert_eq!(seen.as_deref(), Some(if delivered { "leave" } else { "invite" }));
        }
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
    let since = stage.b().store.reader().position().unwrap();

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
    let shown = serde_json::to_value(&left.timeline.events).unwrap();
    assert_eq!(shown.as_array().unwrap().len(), 1);
    assert_eq!(shown[0]["content"]["membership"], "leave");
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

/// A9: the inviter's own server does not have the invite in state yet. The word that there is
/// nothing to leave does not end the departure, and the next attempt is taken.
#[tokio::test]
async fn a_rejection_that_races_the_room_is_tried_again() {
    let stage = stage().await;
    stage.invite().await;
    let refused = Fault::refused(403, "M_FORBIDDEN");
    stage.mesh.net.fail_next(&stage.a().name, "make_leave", refused.clone());
    stage.mesh.net.fail_next(&stage.a().name, "send_leave", refused);
    stage.reject().await;
    assert_eq!(stage.departures(), 1);
    // Refused by send_leave: no word on the invite at all.
    let outcome = stage.b().rooms.attempt_departure(&stage.bob, &stage.room).await.unwrap();
    assert_eq!(outcome, exeunt_room::leave::DepartureOutcome::Retry);
    stage.mesh.settle().await;
    assert_eq!(stage.departures(), 0);
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
}

/// The inviter's server has our answer a minute after it asked, and the invite in state then: until
/// then its word that there is none counts for nothing, however often it is said. Seed 244.
#[tokio::test]
async fn a_rejection_outlasts_an_invite_that_is_under_way_for_long() {
    let stage = stage().await;
    let (rooms, clock) = (stage.b().rooms.clone(), stage.mesh.clock.clone());
    let (bob, room) = (stage.bob.clone(), stage.room.clone());
    let meanwhile = Fault::meanwhile(move || {
        let (rooms, clock) = (rooms.clone(), clock.clone());
        let (bob, room) = (bob.clone(), room.clone());
        Box::pin(async move {
            rooms.leave(&bob, &room, None).await.unwrap();
            for _ in 0..4 {
                clock.advance(15_000);
                let outcome = rooms.attempt_departure(&bob, &room).await.unwrap();
                assert_eq!(outcome, exeunt_room::leave::DepartureOutcome::Retry);
            }
        })
    });
    stage.mesh.net.fail_next(&stage.b().name, "invite", meanwhile);

    stage.invite().await;

    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("invite"));
    stage.mesh.settle().await;
    assert_eq!(stage.departures(), 0);
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
}

/// A10: what make_leave promised and send_leave does not keep, the next candidate does.
#[tokio::test]
async fn send_leave_falls_over_to_the_next_candidate() {
    for fault in [Fault::refused(500, "M_UNKNOWN"), Fault::refused(403, "M_FORBIDDEN")] {
        let stage = stage().await;
        stage.c().set(&stage.cat, &stage.room, "m.room.name", json!({ "name": "cat's" })).await;
        stage.mesh.settle().await;
        stage.invite().await;
        stage.mesh.settle().await;
        stage.mesh.net.take_requests();
        stage.mesh.net.fail_next(&stage.a().name, "send_leave", fault);
        stage.reject().await;
        let asked = stage.asked();
        let asked: Vec<_> = asked.iter().map(|(to, what)| (to.as_str(), *what)).collect();
        let (a, c) = ("a.example", "c.example");
        let (make, send) = ("make_leave", "send_leave");
        assert_eq!(asked, [(a, make), (a, send), (c, make), (c, send)]);
        assert_eq!(stage.departures(), 0);
        stage.mesh.settle().await;
        assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
        let signed = stage.b().store.reader().scan::<tables::SigningJournal>(()).collect().unwrap();
        assert_eq!(signed.iter().filter(|(_, use_)| use_.purpose == "departure").count(), 2);
    }
}

/// A candidate that hangs does not hold the others up; the client has its answer in time even when
/// all of them do, and what each said is kept for the admin.
#[tokio::test(start_paused = true)]
async fn a_slow_candidate_is_hedged() {
    for (silent, waits) in [("a.example", 1), ("c.example", 0)] {
        let stage = stage().await;
        stage.c().set(&stage.cat, &stage.room, "m.room.name", json!({ "name": "cat's" })).await;
        stage.mesh.settle().await;
        stage.invite().await;
        stage.mesh.settle().await;
        stage.mesh.net.take_requests();
        stage.mesh.net.script(&stage.mesh.server(silent).name, |call| match call {
            Call::Make(_) => Scripted::Silent,
            _ => Scripted::Honest,
        });
        let start = tokio::time::Instant::now();
        stage.reject().await;
        assert_eq!((start.elapsed().as_secs(), stage.departures()), (waits, 0), "{silent}");
    }
    let stage = stage().await;
    stage.invite().await;
    stage.mesh.net.script(&stage.a().name, |_| Scripted::Silent);
    let start = tokio::time::Instant::now();
    stage.reject().await;
    assert_eq!((start.elapsed(), stage.departures()), (Duration::from_secs(2), 1));
}

/// What an admin sees: each server with what it said last. And the admin may end it.
#[tokio::test]
async fn an_admin_sees_who_said_what_and_may_give_it_up() {
    let stage = stage().await;
    stage.c().set(&stage.cat, &stage.room, "m.room.name", json!({ "name": "cat's" })).await;
    stage.mesh.settle().await;
    stage.invite().await;
    stage.mesh.isolate("b.example");
    stage.mesh.net.fail_next(&stage.c().name, "make_leave", Fault::refused(500, "M_UNKNOWN"));
    stage.reject().await;
    stage.b().rooms.attempt_departure(&stage.bob, &stage.room).await.unwrap();

    let (_, departure) = stage.b().rooms.departures().await.unwrap().pop().unwrap();
    assert_eq!(departure.attempts, 2);
    assert_eq!(departure.candidates, [stage.a().name.clone(), stage.c().name.clone()]);
    let said: Vec<_> = departure.last.iter().map(|a| (a.server.as_str(), &*a.outcome)).collect();
    let no_link = |to: &str| format!("make_leave: unreachable: no link to {to}");
    let (a, c) = (no_link("a.example"), no_link("c.example"));
    assert_eq!(said, [("a.example", &*a), ("c.example", &*c)]);

    let given_up = stage.b().rooms.abandon_departure(&stage.bob, &stage.room).await.unwrap();
    assert_eq!(given_up, departure);
    let by = "an admin, who gave the departure up";
    assert_eq!(stage.b().last_decision(&stage.bob, &stage.room), ("abandoned".into(), by));
    assert_eq!(stage.departures(), 0);
    let again = stage.b().rooms.abandon_departure(&stage.bob, &stage.room).await.unwrap_err();
    assert_eq!(status(again).0, 404);
    stage.mesh.heal("b.example");
    stage.mesh.settle().await;
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("invite"));
}

/// A newer invite that comes while the older one is being turned down is not turned down with it.
#[tokio::test]
async fn a_newer_invite_ends_an_attempt_under_way() {
    for endpoint in ["make_leave", "send_leave"] {
        let stage = stage().await;
        stage.invite().await;
        let ann = stage.a().rooms.clone();
        let (sender, bob, room) = (stage.ann.clone(), stage.bob.clone(), stage.room.clone());
        let again = Fault::meanwhile(move || {
            let (ann, sender, bob, room) = (ann.clone(), sender.clone(), bob.clone(), room.clone());
            Box::pin(async move {
                let content = object(json!({ "reason": "do come" }));
                ann.invite(&sender, &bob, &room, content).await.unwrap();
            })
        });
        stage.mesh.net.fail_next(&stage.a().name, endpoint, again);

        stage.b().leave(&stage.bob, &stage.room).await.unwrap();

        stage.mesh.settle().await;
        assert_eq!(stage.departures(), 0);
        assert!(stage.b().is_pending(&stage.bob, &stage.room));
        for server in [stage.a(), stage.c()] {
            assert_eq!(server.in_state(&stage.bob, &stage.room).as_deref(), Some("invite"));
        }
    }
}

/// A5: rejections any number of times, with a join between. Every event that any of us built has
/// one auth event for each type and state key.
#[tokio::test]
async fn rejected_again_and_again() {
    for version in RoomVersion::all() {
        let stage = stage_in(version.as_str()).await;
        for _ in 0..5 {
            stage.invite().await;
            stage.reject().await;
            stage.mesh.settle().await;
            assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
        }
        stage.invite().await;
        stage.b().join(&stage.bob, &stage.room, stage.a()).await.unwrap();
        stage.mesh.settle().await;
        stage.b().leave(&stage.bob, &stage.room).await.unwrap();
        stage.mesh.settle().await;
        stage.invite().await;
        stage.reject().await;
        stage.mesh.settle().await;
        assert_eq!(stage.departures(), 0);
        for server in [stage.a(), stage.c()] {
            assert_eq!(server.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
        }
        one_auth_event_per_key(stage.a());
    }
}

/// Among the auth events of every stored event, no two are of one type and state key.
fn one_auth_event_per_key(server: &Server) {
    let ids = server.store.reader().scan::<tables::Events>(()).keys().unwrap();
    assert!(ids.len() > 20);
    for id in ids {
        let event = server.event(&id).unwrap().pdu;
        let mut keys = BTreeSet::new();
        for auth in event.auth_events() {
            let auth = server.event(&auth.to_owned()).expect("an auth event is there").pdu;
            let key = (auth.kind().to_owned(), auth.state_key().map(str::to_owned));
            assert!(keys.insert(key), "{id} names two of {}", auth.kind());
        }
    }
}

/// C2: a room whose graph is damaged here is left all the same, and its other servers hear of it.
#[tokio::test]
async fn a_damaged_room_is_left() {
    let stage = stage().await;
    stage.b().join(&stage.bob, &stage.room, stage.a()).await.unwrap();
    stage.mesh.settle().await;
    let power = stage.b().graph(&stage.room, |graph| {
        graph.current("m.room.power_levels", "").unwrap().unwrap().event_id().to_owned()
    });
    let mut batch = Batch::default();
    batch.delete::<tables::Events>(&power);
    stage.b().store.commit(batch).await.unwrap();

    stage.b().leave(&stage.bob, &stage.room).await.unwrap();

    assert_eq!(stage.b().membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
    assert_eq!(stage.departures(), 0);
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
}
