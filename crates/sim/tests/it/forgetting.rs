//! Forgotten rooms go from the disk: spec-map rows FG1 to FG5.

use std::time::Duration;

use exeunt_core::RoomVersion;
use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_room::{KEEP_DEPARTURES_MS, NewRoom, Options, Preset, RoomError};
use exeunt_sim::{Mesh, Server};
use exeunt_store::{Fault, tables};
use serde_json::json;

struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
}

/// A public room of ann on `a`, that bob of `b` has not joined yet.
async fn stage() -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = a.room(&ann, Preset::Public, "12").await;
    Stage { mesh, room, ann, bob }
}

impl Stage {
    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    async fn bob_joins(&self) {
        self.b().join(&self.bob, &self.room, self.a()).await.unwrap();
        self.mesh.settle().await;
    }

    async fn bob_leaves_and_forgets(&self) {
        self.b().leave(&self.bob, &self.room).await.unwrap();
        self.mesh.settle().await;
        self.b().rooms.forget(&self.bob, &self.room).await.unwrap();
        self.b().rooms.purge_forgotten(&self.room).await.unwrap();
    }
}

fn is_known(server: &Server, room: &OwnedRoomId) -> bool {
    server.store.reader().contains::<tables::Rooms>(room).unwrap()
}

/// Rows of every table that has any of a room, but for the logs of what users did.
fn rows(server: &Server) -> Vec<(&'static str, usize)> {
    let reader = server.store.reader();
    macro_rules! count {
        ($($table:ident)*) => {
            vec![$((stringify!($table), reader.scan::<tables::$table>(()).keys().unwrap().len())),*]
        };
    }
    count!(
        Events Children Timeline Rooms RoomStates StateNodes JoinedServers AuthChildren Purges
        Arrivals Memberships LocalMembers Pending Departures Outbox InboundQueue Aliases RoomAliases
        ClientTransactions EventTransactions PublicRooms
    )
}

#[tokio::test]
async fn fg5_a_forgotten_room_leaves_no_row() {
    let stage = stage().await;
    let before = rows(stage.b());
    stage.bob_joins().await;
    for n in 0..20 {
        stage.a().say(&stage.ann, &stage.room, &format!("a{n}")).await;
        stage.b().say(&stage.bob, &stage.room, &format!("b{n}")).await;
        stage.mesh.settle().await;
    }
    stage.a().set(&stage.ann, &stage.room, "m.room.topic", json!({ "topic": "t" })).await;
    stage.mesh.settle().await;
    stage.bob_leaves_and_forgets().await;
    assert!(!is_known(stage.b(), &stage.room));
    assert_eq!(stage.b().membership(&stage.bob, &stage.room).as_deref(), Some("leave"));

    stage.mesh.clock.advance(KEEP_DEPARTURES_MS);
    stage.b().rooms.sweep_forgotten().await.unwrap();
    assert_eq!(rows(stage.b()), before);
    stage.b().rooms.forget(&stage.bob, &stage.room).await.unwrap();
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
}

/// A13: of invites to rooms that nobody of ours was ever in nothing stays but the journal of what
/// was signed; not so while somebody may have yet to hear of it, in the room or here.
#[tokio::test]
async fn a_rejected_invite_leaves_no_row() {
    let stage = stage().await;
    let (a, b, bob) = (stage.a(), stage.b(), &stage.bob);
    let log = || b.store.reader().scan::<tables::MembershipLog>(()).keys().unwrap().len();
    let (before, logged) = (rows(b), log());
    for _ in 0..2 {
        a.invite(&stage.ann, bob, &stage.room).await.unwrap();
        b.leave(bob, &stage.room).await.unwrap();
    }
    let of_ben = b.user("ben");
    a.invite(&stage.ann, &of_ben, &stage.room).await.unwrap();
    stage.mesh.isolate("a.example");
    b.leave(&of_ben, &stage.room).await.unwrap();
    let days = |days: u64| days * 24 * 3600 * 1000;
    stage.mesh.clock.advance(KEEP_DEPARTURES_MS - days(1));
    b.rooms.sweep_forgotten().await.unwrap();
    assert_eq!(b.membership(bob, &stage.room).as_deref(), Some("leave"), "a device may be away");
    stage.mesh.clock.advance(days(2));
    b.rooms.sweep_forgotten().await.unwrap();
    assert_eq!(b.membership(bob, &stage.room), None);
    assert_eq!(b.membership(&of_ben, &stage.room).as_deref(), Some("leave"), "ann has yet to hear");
    stage.mesh.heal("a.example");
    stage.mesh.settle().await;
    stage.mesh.clock.advance(KEEP_DEPARTURES_MS);
    b.rooms.sweep_forgotten().await.unwrap();
    assert_eq!((rows(b), log()), (before, logged));
    assert_eq!(a.in_state(&of_ben, &stage.room).as_deref(), Some("leave"));
    // Bob is invited like anybody else.
    a.invite(&stage.ann, bob, &stage.room).await.unwrap();
    assert_eq!(b.membership(bob, &stage.room).as_deref(), Some("invite"));
}

#[tokio::test]
async fn signatures_are_known_for_a_time() {
    let stage = stage().await;
    let b = stage.b();
    let journal = || {
        let rows = b.store.reader().scan::<tables::SigningJournal>(()).collect().unwrap();
        Vec::from_iter(rows.into_iter().map(|(_, row)| row.purpose))
    };
    stage.bob_joins().await;
    let day = Duration::from_secs(24 * 3600);
    let later = |time: Duration| stage.mesh.clock.advance(time.as_millis().try_into().unwrap());
    later(Options::default().keep_signatures - day);
    b.rooms.sweep_journal().await.unwrap();
    assert_eq!(journal(), ["join"]);
    later(2 * day);
    b.say(&stage.bob, &stage.room, "hello").await;
    b.rooms.sweep_journal().await.unwrap();
    assert_eq!(journal(), ["event"]);
}

#[tokio::test]
async fn a_room_that_somebody_still_knows_stays() {
    let stage = stage().await;
    let (b, ben, bea) = (stage.b(), stage.b().user("ben"), stage.b().user("bea"));
    stage.bob_joins().await;
    b.join(&ben, &stage.room, stage.a()).await.unwrap();
    stage.a().invite(&stage.ann, &bea, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    let refused = b.rooms.forget(&ben, &stage.room).await;
    assert!(matches!(&refused, Err(RoomError::NotLeft(is)) if is == "join"));
    stage.bob_leaves_and_forgets().await;
    assert!(is_known(b, &stage.room), "ben is in it");
    b.leave(&ben, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    b.rooms.sweep_forgotten().await.unwrap();
    assert!(is_known(b, &stage.room), "ben may still read it");
    b.rooms.forget(&ben, &stage.room).await.unwrap();
    assert!(!b.rooms.purge_forgotten(&stage.room).await.unwrap(), "bea is invited");
    b.leave(&bea, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    b.rooms.forget(&bea, &stage.room).await.unwrap();
    b.rooms.purge_forgotten(&stage.room).await.unwrap();
    assert!(!is_known(b, &stage.room));
}

/// The leave has yet to reach the others: it is part of the room.
#[tokio::test]
async fn a_room_waits_for_what_others_have_yet_to_get() {
    let stage = stage().await;
    stage.bob_joins().await;
    stage.mesh.isolate("a.example");
    stage.bob_leaves_and_forgets().await;
    assert!(is_known(stage.b(), &stage.room));
    stage.mesh.heal("a.example");
    stage.mesh.settle().await;
    stage.b().rooms.sweep_forgotten().await.unwrap();
    assert!(!is_known(stage.b(), &stage.room));
    assert_eq!(stage.a().in_state(&stage.bob, &stage.room).as_deref(), Some("leave"));
}

/// A creation that was cut off after its first write leaves a room that nobody can forget.
#[tokio::test]
async fn a_room_that_nobody_came_to_be_in_goes() {
    let mut stage = stage().await;
    let before = rows(stage.b());
    stage.b().disk.fail_next_write(Fault::Keep);
    let new = NewRoom::new(stage.bob.clone(), RoomVersion::parse("12").unwrap(), Preset::Private);
    stage.b().rooms.create_room(new).await.unwrap_err();
    stage.mesh.crash("b.example");
    let b = stage.b();
    let left = b.store.reader().scan::<tables::Rooms>(()).keys().unwrap();
    assert_eq!(left.len(), 1);
    b.rooms.sweep_forgotten().await.unwrap();
    assert_eq!(rows(b), before);
}

/// FG4: the room comes back whole, by handshake.
#[tokio::test]
async fn a_forgotten_room_can_be_joined_again() {
    let stage = stage().await;
    stage.bob_joins().await;
    stage.bob_leaves_and_forgets().await;
    stage.a().say(&stage.ann, &stage.room, "meanwhile").await;
    stage.bob_joins().await;
    assert_eq!(stage.b().state(&stage.room), stage.a().state(&stage.room));
    stage.a().say(&stage.ann, &stage.room, "again").await;
    stage.mesh.settle().await;
    assert_eq!(stage.b().messages(&stage.room), ["again"]);
}
