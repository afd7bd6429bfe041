//! What servers owe each other when the last user of one is in a room no longer (decision 0017).
//! The simulation found these (docs/simulation.md); here they are without its seeds.

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_room::{Preset, inbound::MissingEvents};
use exeunt_sim::{Mesh, Server, events::member_draft, status};
use serde_json::json;

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    cat: OwnedUserId,
}

/// Ann (a) and cat (c) are in a public room.
async fn stage(version: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, version).await;
    c.join(&cat, &room, a).await.unwrap();
    mesh.settle().await;
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

    async fn bob_joins(&self) {
        self.b().join(&self.bob, &self.room, self.a()).await.unwrap();
        self.mesh.settle().await;
    }

    fn part_a_and_c(&self) {
        self.mesh.net.cut(&self.a().name, &self.c().name);
        self.mesh.net.cut(&self.c().name, &self.a().name);
    }

    async fn bring_a_and_c_together(&self) {
        self.mesh.net.restore(&self.a().name, &self.c().name);
        self.mesh.net.restore(&self.c().name, &self.a().name);
        self.mesh.settle().await;
    }
}

/// Seeds 661 and 1826: what lies before the kick of a server's last user was refused to that server,
/// and with it the kick was dropped.
#[tokio::test]
async fn a_kick_is_placed_though_only_who_kicks_has_what_is_before_it() {
    for version in ["1", "11", "12"] {
        let stage = stage(version).await;
        let (a, b) = (stage.a(), stage.b());
        stage.bob_joins().await;
        // More than one answer holds.
        for n in 0..60 {
            a.say(&stage.ann, &stage.room, &n.to_string()).await;
        }
        a.forget_outbox(b).await;
        a.rooms.kick(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();

        stage.mesh.settle().await;

        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
        assert_eq!(b.messages(&stage.room).len(), 60, "version {version}");
    }
}

/// A server that is out gets what was before its going and nothing of what came later.
#[tokio::test]
async fn who_is_out_learns_nothing_of_what_comes_later() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    stage.bob_joins().await;
    let kick = a.rooms.kick(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    let later = a.say(&stage.ann, &stage.room, "later").await;
    let latest = a.say(&stage.ann, &stage.room, "latest").await;
    let ask = async |latest| {
        let entry = a.rooms.admit(&b.name, &stage.room).await.unwrap();
        let wanted = MissingEvents { latest, limit: Some(50), ..MissingEvents::default() };
        a.rooms.missing_events_for_server(&entry, wanted).await
    };

    assert!(ask(vec![kick.clone()]).await.is_ok());
    for refused in [vec![latest.clone()], vec![later.clone()], vec![]] {
        let refused = ask(refused).await.unwrap_err();
        assert_eq!(status(refused), (403, "M_FORBIDDEN".into()));
    }
    let answer = ask(vec![latest, kick]).await.unwrap();
    let bodies = answer["events"].as_array().unwrap().iter().map(|e| &e["content"]["body"]);
    assert!(bodies.into_iter().all(|body| *body != "later"));
}

/// Seeds 785 and 1459: what was said just before the last user of its server left could be had from
/// that server only, which as one outside told nothing.
#[tokio::test]
async fn last_words_are_had_from_a_server_that_has_left() {
    for version in ["1", "11", "12"] {
        let stage = stage(version).await;
        let (a, b) = (stage.a(), stage.b());
        stage.bob_joins().await;
        b.say(&stage.bob, &stage.room, "last words").await;
        b.forget_outbox(a).await;
        b.leave(&stage.bob, &stage.room).await.unwrap();

        stage.mesh.settle().await;

        assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
        assert_eq!(a.messages(&stage.room), ["last words"], "version {version}");
    }
}

/// Seed 949: the inviter's server did not know that the invited user's was in the room, which signed
/// the invite, waited for the room to tell of it, and left.
#[tokio::test]
async fn an_invite_that_the_room_never_told_of_is_shown_when_its_server_leaves() {
    for version in ["1", "11", "12"] {
        let stage = stage(version).await;
        let (a, b, c) = (stage.a(), stage.b(), stage.c());
        let bea = b.user("bea");
        stage.part_a_and_c();
        b.join(&bea, &stage.room, c).await.unwrap();
        a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
        assert_eq!(b.membership(&stage.bob, &stage.room), None);

        b.leave(&bea, &stage.room).await.unwrap();

        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("invite"));
        stage.bring_a_and_c_together().await;
        assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("invite"));
        b.leave(&stage.bob, &stage.room).await.unwrap();
        stage.mesh.settle().await;
        for server in [a, c] {
            assert_eq!(server.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
        }
    }
}

/// The same where the room has told of the invite in time, and the user has turned it down.
#[tokio::test]
async fn an_invite_that_was_rejected_does_not_come_back_when_its_server_leaves() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    let bea = b.user("bea");
    b.join(&bea, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    b.leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;

    b.leave(&bea, &stage.room).await.unwrap();
    stage.mesh.settle().await;

    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
    assert!(!b.is_pending(&stage.bob, &stage.room));
}

/// Seeds 33, 827 and others: a resolution took the last user of a server out. Nothing was sent there
/// any more, and it went on by itself.
#[tokio::test]
async fn a_server_is_told_that_a_resolution_took_it_out() {
    for version in ["6", "11", "12"] {
        let stage = stage(version).await;
        let (a, b, c) = (stage.a(), stage.b(), stage.c());
        stage.part_a_and_c();
        let closed = json!({ "join_rule": "invite" });
        a.set(&stage.ann, &stage.room, "m.room.join_rules", closed).await;
        b.join(&stage.bob, &stage.room, c).await.unwrap();
        b.forget_outbox(a).await;
        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("join"));

        stage.bring_a_and_c_together().await;

        assert_eq!(c.in_state(&stage.bob, &stage.room), None);
        assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
        assert_eq!(b.in_state(&stage.bob, &stage.room), None, "version {version}");
        // Once, and no more of what is said there.
        c.say(&stage.cat, &stage.room, "among us").await;
        assert!(c.outbox(b).is_empty());
    }
}

/// Seed 323: the kick was refused, for the room's ACL denied the server of who kicks; the kicked went
/// on talking to those who had let the kick pass later.
#[tokio::test]
async fn who_talks_on_after_a_kick_is_sent_the_kick() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    stage.bob_joins().await;
    a.rooms.kick(&stage.ann, &stage.bob, &stage.room, None).await.unwrap();
    a.forget_outbox(b).await;
    b.say(&stage.bob, &stage.room, "still here").await;

    stage.mesh.settle().await;

    assert_eq!(b.membership(&stage.bob, &stage.room).as_deref(), Some("leave"));
    assert!(a.messages(&stage.room).is_empty());
}

/// Nothing is sent to a server that was never in the room, though its join is signed and would have
/// been allowed once: or whoever is banned could have the room's heads by a join of yesterday.
#[tokio::test]
async fn who_was_never_in_is_told_nothing() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    let early = b.sign(member_draft(a, &stage.room, &stage.bob, &stage.bob, "join"));
    a.set(&stage.ann, &stage.room, "m.room.join_rules", json!({ "join_rule": "invite" })).await;

    a.receive(b, "early", &[&early]).await;
    a.rooms.inbound_idle().await;

    assert!(a.event(&early.event_id().to_owned()).is_some());
    assert!(a.outbox(b).is_empty());
    let entry = a.rooms.admit(&b.name, &stage.room).await.unwrap();
    let wanted = MissingEvents { latest: vec![early.event_id().to_owned()], ..Default::default() };
    let refused = a.rooms.missing_events_for_server(&entry, wanted).await.unwrap_err();
    assert_eq!(status(refused), (403, "M_FORBIDDEN".into()));
}

/// Seeds 207 and 314: the room's ACL denied the server of one who rejected an invite, and that was
/// taken for a word about the invite.
#[tokio::test]
async fn a_rejection_outlasts_an_acl() {
    let stage = stage("11").await;
    let (a, b) = (stage.a(), stage.b());
    a.invite(&stage.ann, &stage.bob, &stage.room).await.unwrap();
    let acl = |deny: &[&str]| json!({ "allow": ["*"], "deny": deny });
    a.set(&stage.ann, &stage.room, "m.room.server_acl", acl(&["b.example"])).await;
    stage.mesh.settle().await;
    b.leave(&stage.bob, &stage.room).await.unwrap();
    for _ in 0..3 {
        stage.mesh.clock.advance(60_000);
        stage.mesh.settle().await;
    }
    assert_eq!(a.in_state(&stage.bob, &stage.room).as_deref(), Some("invite"));

    a.set(&stage.ann, &stage.room, "m.room.server_acl", acl(&[])).await;
    stage.mesh.settle().await;

    for server in [a, stage.c()] {
        assert_eq!(server.in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
    }
}

/// Seed 1778: the last user of a server left by their own event, where a resolution had taken another
/// one out, by way of a join that the server holds against its own state: it went on alone.
#[tokio::test]
async fn a_server_that_takes_another_user_for_joined_is_told_otherwise() {
    for version in ["6", "11"] {
        let stage = stage(version).await;
        let (a, c) = (stage.a(), stage.c());
        let (amy, cid) = (a.user("amy"), c.user("cid"));
        stage.part_a_and_c();
        a.join(&amy, &stage.room, a).await.unwrap();
        c.join(&cid, &stage.room, c).await.unwrap();
        let rules = json!({ "join_rule": "invite" });
        a.set(&stage.ann, &stage.room, "m.room.join_rules", rules).await;
        a.leave(&stage.ann, &stage.room).await.unwrap();
        stage.bring_a_and_c_together().await;

        for server in [a, c] {
            assert_ne!(server.in_state(&amy, &stage.room).as_deref(), Some("join"), "{version}");
        }
        assert_ne!(a.membership(&amy, &stage.room).as_deref(), Some("join"));
    }
}
