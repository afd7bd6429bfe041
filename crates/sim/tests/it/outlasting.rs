//! Invites and departures that outlast what happens around them. The simulation found these
//! (docs/simulation.md); here they are without its seeds.

use std::{sync::Arc, time::Duration};

use exeunt_core::{Draft, Object};
use exeunt_room::{
    inbound::InboundInvite,
    leave::{DepartureOutcome, LEAVE_TAKEN_WITHIN, REJOIN_WITHIN_MS},
};
use exeunt_sim::{Fault, Server, events::member_draft};
use exeunt_store::tables;
use serde_json::json;
use tokio::sync::Notify;

use super::found::{Stage, stage};

impl Stage {
    /// Bob turns down ann's invite, of which her server does not hear yet.
    async fn bob_says_no_in_vain(&self) {
        self.a().invite(&self.ann, &self.bob, &self.room).await.unwrap();
        self.mesh.net.cut(&self.b().name, &self.a().name);
        self.b().leave(&self.bob, &self.room).await.unwrap();
        self.mesh.net.restore(&self.b().name, &self.a().name);
    }
}

/// Seed 867: an invite that another user of the server saw as the room's was nobody's any more once
/// that user had left, and its withdrawal was dropped.
#[tokio::test(start_paused = true)]
async fn an_invite_outlasts_the_others_of_its_server_and_can_be_withdrawn() {
    for by_inviter in [true, false] {
        let stage = stage("11").await;
        let (a, b, c) = (stage.a(), stage.b(), stage.c());
        let (bea, cat) = (b.user("bea"), c.user("cat"));
        c.join(&cat, &stage.room, a).await.unwrap();
        let levels = json!({ "users": { stage.ann.as_str(): 100, cat.as_str(): 50 } });
        a.set(&stage.ann, &stage.room, "m.room.power_levels", levels).await;
        a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
        b.join(&bea, &stage.room, a).await.unwrap();
        stage.mesh.settle().await;
        assert!(!b.is_pending(&stage.bob, &stage.room));
        b.leave(&bea, &stage.room).await.unwrap();
        stage.mesh.settle().await;
        assert!(b.is_pending(&stage.bob, &stage.room));
        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("invite"));

        let (server, who) = if by_inviter { (a, &stage.ann) } else { (c, &cat) };
        server.rooms.kick(who, &stage.bob, &stage.room, None).await.unwrap();
        stage.mesh.settle().await;
        b.rooms.probes_idle().await;

        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
        assert!(!b.is_pending(&stage.bob, &stage.room));
    }
}

/// The same invite, seen as the room's again by one who joins: it is kept in one place.
#[tokio::test]
async fn an_invite_is_the_rooms_again_once_its_server_is_back() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    let bea = b.user("bea");
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    for _ in 0..2 {
        b.join(&bea, &stage.room, a).await.unwrap();
        stage.mesh.settle().await;
        assert!(!b.is_pending(&stage.bob, &stage.room));
        b.leave(&bea, &stage.room).await.unwrap();
        stage.mesh.settle().await;
        assert!(b.is_pending(&stage.bob, &stage.room));
    }
    b.join(&bea, &stage.room, a).await.unwrap();

    b.leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;

    assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
}

/// Seed 939: a kick had a gap and waited; when its turn came, the last other user of its server had
/// left, and it was dropped as an event of a room that is not ours.
#[tokio::test(start_paused = true)]
async fn a_withdrawal_that_waited_counts_when_its_server_has_left() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    let bea = b.user("bea");
    b.join(&bea, &stage.room, a).await.unwrap();
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    a.say(&stage.ann, &stage.room, "lost").await;
    a.forget_outbox(b).await;
    let kick = a.rooms.kick(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    a.forget_outbox(b).await;
    stage.mesh.net.cut(&b.name, &a.name);
    let kick = a.event(&kick).unwrap().pdu;
    b.receive(a, "kick", &[&kick]).await;
    b.rooms.inbound_idle().await;
    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("invite"));

    b.leave(&bea, &stage.room).await.unwrap();
    stage.mesh.net.restore(&b.name, &a.name);
    tokio::time::sleep(Duration::from_secs(600)).await;
    stage.mesh.settle().await;

    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
}

/// Seed 267: bob said no while his join waited for a template, and the join was signed after that.
/// Who leaves last has left, at home and in the room.
#[tokio::test]
async fn who_leaves_while_their_join_waits_is_out() {
    for invited in [true, false] {
        let stage = stage("11").await;
        let (a, b) = (stage.a(), stage.b());
        if invited {
            a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
        } else {
            b.join(&stage.bob, &stage.room, a).await.unwrap();
            stage.mesh.settle().await;
            a.rooms.kick(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
            stage.mesh.settle().await;
            a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
            stage.mesh.settle().await;
        }
        let (rooms, clock) = (b.rooms.clone(), stage.mesh.clock.clone());
        let (bob, room) = (stage.bob.clone(), stage.room.clone());
        let meanwhile = Fault::meanwhile(move || {
            let (rooms, clock) = (rooms.clone(), clock.clone());
            let (bob, room) = (bob.clone(), room.clone());
            Box::pin(async move {
                rooms.leave(&bob, &room, None).await.unwrap();
                clock.advance(10);
            })
        });
        stage.mesh.net.fail_next(&a.name, "make_join", meanwhile);

        b.join(&stage.bob, &stage.room, a).await.unwrap();
        stage.mesh.settle().await;

        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
        assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
    }
}

/// Who is kicked and invited at once is invited: their server signs the invite before it hears of
/// the kick, by which the last of its users is out.
#[tokio::test]
async fn an_invite_outlasts_the_kick_before_it() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    b.join(&stage.bob, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    a.rooms.kick(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();

    stage.mesh.settle().await;

    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("invite"));
    b.leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
}

/// Seeds 1342 and 1459: a rejection was delivered while its user joined after all. The room had the
/// leave and the join side by side, and their own server the join only.
#[tokio::test]
async fn a_departure_waits_for_a_join_under_way() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    stage.bob_says_no_in_vain().await;
    let (rooms, bob, room) = (b.rooms.clone(), stage.bob.clone(), stage.room.clone());
    let meanwhile = Fault::meanwhile(move || {
        let (rooms, bob, room) = (rooms.clone(), bob.clone(), room.clone());
        Box::pin(async move {
            let outcome = rooms.attempt_departure(&bob, &room).await.unwrap();
            assert_eq!(outcome, DepartureOutcome::Retry);
        })
    });
    stage.mesh.net.fail_next(&a.name, "make_join", meanwhile);

    b.join(&stage.bob, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;

    for server in [a, b] {
        assert_eq!(server.in_state(&stage.bob, &stage.room).as_deref(), Some("join"));
    }
    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("join"));
}

/// Holds up the answer to the next request of that kind. Gives word that it was worked off, and
/// waits for a word.
fn held_up(stage: &Stage, server: &Server, endpoint: &'static str) -> (Arc<Notify>, Arc<Notify>) {
    let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (arrived.clone(), go_on.clone());
    let meanwhile = Fault::meanwhile(move || {
        let (tell, wait) = (tell.clone(), wait.clone());
        Box::pin(async move {
            tell.notify_one();
            wait.notified().await;
        })
    });
    stage.mesh.net.fail_next(&server.name, endpoint, meanwhile);
    (arrived, go_on)
}

/// The same the other way round: the leave is on its way.
#[tokio::test(start_paused = true)]
async fn a_join_waits_for_a_departure_on_its_way() {
    for knock in [false, true] {
        let stage = stage("11").await;
        let (a, b) = (stage.a(), stage.b());
        if knock {
            let rule = json!({ "join_rule": "knock" });
            a.set(&stage.ann, &stage.room, "m.room.join_rules", rule).await;
        }
        stage.bob_says_no_in_vain().await;
        let (arrived, go_on) = held_up(&stage, a, "send_leave");
        let again = async {
            arrived.notified().await;
            let via = [a.name.clone()];
            let again = async {
                match knock {
                    true => b.rooms.knock(&stage.bob, &stage.room, &via, Object::new()).await,
                    false => b.rooms.join(&stage.bob, &stage.room, &via, Object::new()).await,
                }
            };
            let mut again = std::pin::pin!(again);
            let early = tokio::time::timeout(Duration::from_secs(1), &mut again).await;
            assert!(early.is_err());
            go_on.notify_one();
            again.await.unwrap();
        };
        let departure = b.rooms.attempt_departure(&stage.bob, &stage.room);

        let (outcome, ()) = tokio::join!(departure, again);
        stage.mesh.settle().await;

        assert_eq!(outcome.unwrap(), DepartureOutcome::Delivered);
        let membership = if knock { "knock" } else { "join" };
        assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some(membership));
        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some(membership));
    }
}

/// Seed 7394: the server of one who joins or knocks is killed when the room has taken it, and the
/// answer is not there yet. Nobody but the room knows of it.
#[tokio::test(start_paused = true)]
async fn a_kill_leaves_no_ghost_in_the_room() {
    for (knock, taken) in [(false, true), (true, true), (true, false)] {
        let mut stage = stage("11").await;
        let rule = json!({ "join_rule": if knock { "knock" } else { "public" } });
        stage.a().set(&stage.ann, &stage.room, "m.room.join_rules", rule).await;
        let endpoint = if knock { "send_knock" } else { "send_join" };
        if taken {
            let (arrived, _) = held_up(&stage, stage.a(), endpoint);
            let (b, via) = (stage.b(), [stage.a().name.clone()]);
            let enters = async {
                match knock {
                    true => b.rooms.knock(&stage.bob, &stage.room, &via, Object::new()).await,
                    false => b.rooms.join(&stage.bob, &stage.room, &via, Object::new()).await,
                }
            };
            tokio::select! {
                _ = enters => panic!("it has no answer"),
                () = arrived.notified() => {}
            }
            let there = stage.a().in_state(&stage.bob, &stage.room);
            assert_eq!(there.as_deref(), Some(if knock { "knock" } else { "join" }));
        } else {
            stage.mesh.net.fail_next(&stage.a().name, endpoint, Fault::refused(403, "M_FORBIDDEN"));
            let via = [stage.a().name.clone()];
            let knocks = stage.b().rooms.knock(&stage.bob, &stage.room, &via, Object::new());
            assert!(knocks.await.is_err());
        }
        let departures = stage.b().store.reader().scan::<tables::Departures>(()).keys().unwrap();
        assert_eq!(departures.len(), usize::from(taken));

        stage.mesh.restart("b.example");
        stage.mesh.clock.advance(REJOIN_WITHIN_MS);
        stage.mesh.settle().await;

        let there = stage.a().in_state(&stage.bob, &stage.room);
        assert_eq!(there.as_deref(), taken.then_some("leave"));
        let departures = stage.b().store.reader().scan::<tables::Departures>(()).keys().unwrap();
        assert!(departures.is_empty());
    }
}

/// Seed 394: of two knocks at once, one is noted as something to take back when the other stands.
#[tokio::test]
async fn two_knocks_at_once_stand() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    let rule = json!({ "join_rule": "knock" });
    a.set(&stage.ann, &stage.room, "m.room.join_rules", rule).await;
    let via = [a.name.clone()];
    let knock = || b.rooms.knock(&stage.bob, &stage.room, &via, Object::new());

    let (one, other) = tokio::join!(knock(), knock());
    one.unwrap();
    other.unwrap();
    stage.mesh.clock.advance(REJOIN_WITHIN_MS);
    stage.mesh.settle().await;

    assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("knock"));
    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("knock"));
    assert!(b.store.reader().scan::<tables::Departures>(()).keys().unwrap().is_empty());
}

/// Seeds 95 and 559: bob left and came in again by a server that had yet to take his leave. His join
/// was taken for the leave sent once more, or lost against it, and he was in at home only.
#[tokio::test(start_paused = true)]
async fn a_join_waits_for_the_leave_before_it() {
    for (rule, taken) in [("public", true), ("invite", true), ("invite", false)] {
        let stage = stage("11").await;
        let (a, b) = (stage.a(), stage.b());
        b.join(&stage.bob, &stage.room, a).await.unwrap();
        stage.mesh.settle().await;
        let join_rules = json!({ "join_rule": rule });
        a.set(&stage.ann, &stage.room, "m.room.join_rules", join_rules).await;
        stage.mesh.settle().await;
        b.leave(&stage.bob, &stage.room).await.unwrap();

        let takes = async {
            tokio::time::sleep(LEAVE_TAKEN_WITHIN / 2).await;
            if taken {
                stage.mesh.settle().await;
            }
        };
        let (joined, ()) = tokio::join!(b.join(&stage.bob, &stage.room, a), takes);
        stage.mesh.settle().await;

        let why = joined.map_err(|error| error.to_string());
        match (rule, taken) {
            ("public", _) => assert_eq!(why, Ok(())),
            (_, true) => assert!(why.unwrap_err().contains("the join rule does not allow it")),
            (_, false) => assert!(why.unwrap_err().contains("yet to take the user's leave")),
        }
        let membership = Some(if rule == "public" { "join" } else { "leave" });
        assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), membership);
        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), membership);
    }
}

/// Seed 3285: the inviter's clock was ahead. Beside an event of elsewhere, a rejection that is older
/// than its invite is taken first, and comes to nothing.
#[tokio::test]
async fn a_rejection_is_dated_after_its_invite() {
    for resident in [false, true] {
        let stage = stage("11").await;
        let (a, b, c) = (stage.a(), stage.b(), stage.c());
        c.join(&c.user("cat"), &stage.room, a).await.unwrap();
        if resident {
            b.join(&b.user("bea"), &stage.room, a).await.unwrap();
        }
        stage.mesh.settle().await;
        let ahead = stage.mesh.clock.now() + 30_000;
        let draft = member_draft(a, &stage.room, &stage.ann, &stage.bob, "invite");
        let invite = a.sign(Draft { origin_server_ts: ahead, ..draft });
        a.receive(c, "ahead", &[&invite]).await;
        if resident {
            b.receive(a, "ahead", &[&invite]).await;
        } else {
            let entry = b.rooms.admit(&a.name, &stage.room).await.unwrap();
            let create = a.graph(&stage.room, |graph| graph.create().unwrap());
            let invited = InboundInvite {
                room_version: "11".into(),
                event: invite.object().clone(),
                invite_room_state: json!([create.object()]),
            };
            b.rooms.receive_invite(&entry, invite.event_id(), invited).await.unwrap();
        }
        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("invite"));

        b.leave(&stage.bob, &stage.room).await.unwrap();
        stage.mesh.settle().await;

        let leave = a.graph(&stage.room, |graph| {
            graph.current("m.room.member", stage.bob.as_str()).unwrap().unwrap()
        });
        assert_eq!(leave.membership(), Some("leave"));
        assert!(leave.origin_server_ts() > ahead, "resident: {resident}");
    }
}

/// Seed 6552: bob's rejection was taken, and the answer lost; another of his server came in by way
/// of one that had not heard of it. The invite is not news to him, and the room hears of the leave.
#[tokio::test]
async fn a_rejection_outlasts_a_state_that_does_not_know_of_it() {
    for lost in [true, false] {
        let stage = stage("11").await;
        let (a, b, c) = (stage.a(), stage.b(), stage.c());
        let bea = b.user("bea");
        c.join(&c.user("cat"), &stage.room, a).await.unwrap();
        a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
        stage.mesh.settle().await;
        stage.mesh.net.cut(&a.name, &c.name);
        if lost {
            stage.mesh.net.fail_next(&a.name, "send_leave", Fault::AnswerLost);
        }
        b.leave(&stage.bob, &stage.room).await.unwrap();

        b.join(&bea, &stage.room, c).await.unwrap();

        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
        stage.mesh.net.restore(&a.name, &c.name);
        stage.mesh.settle().await;
        for server in [a, b, c] {
            assert_eq!(server.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
        }
        // A new invite is one.
        a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
        stage.mesh.settle().await;
        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("invite"));
    }
}

/// Another user of the server joins by way of one that has not heard of the leave: the server that
/// took it does not send it back.
#[tokio::test]
async fn a_leave_that_was_taken_is_placed_where_others_have_come_in() {
    let stage = stage("11").await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    let bea = b.user("bea");
    c.join(&c.user("cat"), &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    stage.mesh.net.cut(&a.name, &c.name);
    let (arrived, go_on) = held_up(&stage, a, "send_leave");
    let others = async {
        arrived.notified().await;
        b.join(&bea, &stage.room, c).await.unwrap();
        go_on.notify_one();
    };

    let (left, ()) = tokio::join!(b.leave(&stage.bob, &stage.room), others);

    left.unwrap();
    b.rooms.inbound_idle().await;
    assert_eq!(b.in_state(&bea, &stage.room).as_deref(), Some("join"));
    assert_eq!(b.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
}
