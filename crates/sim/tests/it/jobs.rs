//! Departures on a large scale: closed accounts, deleted rooms, invites in bulk. Pains A11, A13,
//! B1, B2, C6, C8.

use std::{collections::BTreeMap, time::Duration};

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId, UserId};
use exeunt_room::{
    Preset, RoomError,
    farewell::Farewell,
    triage::{TriageFilter, TriageMode},
    views::{Filter, SyncRequest},
};
use exeunt_sim::{Mesh, Server, status};
use exeunt_store::{
    Batch, Reader, StoreError, Table, TableVisitor,
    records::{DepartureEnd, DepartureJobRecord},
    tables,
};
use serde_json::json;

fn mesh() -> Mesh {
    Mesh::new(&["a.example", "b.example", "c.example"])
}

async fn job(server: &Server, user: &UserId) -> DepartureJobRecord {
    server.rooms.departure_job(user).await.unwrap().expect("a job")
}

/// C8: an account in 60 rooms is closed: joined to some, invited to others, with a server that is
/// away among the inviters. The server dies halfway and goes on; in the end everybody knows.
#[tokio::test]
async fn a_closed_account_departs_from_everywhere_in_spite_of_a_restart() {
    let mut mesh = mesh();
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    let (ann, cat) = (a.user("ann"), c.user("cat"));
    let (bob, bea) = (b.register("bob").await, b.register("bea").await);
    let mut rooms: Vec<OwnedRoomId> = Vec::new();
    for index in 0..60 {
        let (host, creator) = if index % 10 == 9 { (c, &cat) } else { (a, &ann) };
        let room = host.room(creator, Preset::Public, "12").await;
        if index % 3 == 0 {
            b.join(&bob, &room, host).await.unwrap();
            b.join(&bea, &room, host).await.unwrap();
        } else {
            host.invite(creator, &bob, &room).await.unwrap();
            host.invite(creator, &bea, &room).await.unwrap();
        }
        rooms.push(room);
    }
    mesh.settle().await;
    let before: Vec<_> = rooms.iter().map(|room| b.membership(&bea, room)).collect();
    mesh.isolate("c.example");

    b.users.deactivate(&bob, false).await.unwrap();
    let (running, user) = (b.rooms.clone(), bob.clone());
    let run = tokio::spawn(async move { running.run_departure_job(&user).await });
    while job(b, &bob).await.done < 30 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    let half = job(b, &bob).await;
    assert_eq!((half.total, half.finished_at), (60, None));
    assert!((30..60).contains(&half.done), "{}", half.done);

    mesh.restart("b.example");
    let b = mesh.server("b.example");
    assert_eq!(b.rooms.resume_jobs().await.unwrap(), 1);
    let done = b.rooms.run_departure_job(&bob).await.unwrap();
    assert_eq!((done.total, done.done, done.results.len()), (60, 60, 60));
    assert!(done.finished_at.is_some());
    for result in &done.results {
        let room = rooms.iter().position(|room| *room == result.room_id).unwrap();
        assert_eq!(result.membership, if room % 3 == 0 { "join" } else { "invite" });
        // What was on its way when the server died may have been counted before it arrived.
        let waits = room % 10 == 9 && room % 3 != 0;
        let ended = &result.ended;
        assert!(
            *ended == DepartureEnd::Queued || !waits && *ended == DepartureEnd::Left,
            "{ended:?}"
        );
        assert_eq!(b.membership(&bob, &result.room_id).as_deref(), Some("leave"));
    }
    assert_eq!(b.rooms.resume_jobs().await.unwrap(), 0, "it is over");

    mesh.heal("c.example");
    mesh.settle().await;
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    assert!(b.rooms.departures().await.unwrap().is_empty());
    for (index, room) in rooms.iter().enumerate() {
        let host = if index % 10 == 9 { c } else { a };
        assert_eq!(host.in_state(&bob, room).as_deref(), Some("leave"), "room {index}");
    }
    let after: Vec<_> = rooms.iter().map(|room| b.membership(&bea, room)).collect();
    assert_eq!(after, before, "nobody else is touched");
}

/// The job without a closed account, and what has come while it ran.
#[tokio::test]
async fn a_departure_from_everywhere_can_be_asked_for_again() {
    let mesh = mesh();
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let missing = b.rooms.run_departure_job(&bob).await.unwrap_err();
    assert_eq!(status(missing).0, 404);
    for round in 1..=2 {
        let room = a.room(&ann, Preset::Private, "11").await;
        a.invite(&ann, &bob, &room).await.unwrap();
        b.rooms.depart_all(&bob).await.unwrap();
        let done = b.rooms.run_departure_job(&bob).await.unwrap();
        assert_eq!((done.done, done.results.len()), (1, 1), "round {round}");
        assert_eq!(done.results[0].room_id, room);
        assert_eq!(a.in_state(&bob, &room).as_deref(), Some("leave"));
    }
}

/// A room that is damaged beyond leaving keeps its reason, and holds up no other.
#[tokio::test]
async fn a_room_that_cannot_be_left_is_told_of() {
    let mesh = mesh();
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let mut rooms = Vec::new();
    for _ in 0..3 {
        let room = a.room(&ann, Preset::Public, "11").await;
        b.join(&bob, &room, a).await.unwrap();
        rooms.push(room);
    }
    mesh.settle().await;
    let broken = rooms[1].clone();
    let lost = b.graph(&broken, |graph| {
        let wanted = [("m.room.member", bob.as_str()), ("m.room.power_levels", "")];
        wanted.map(|(kind, key)| graph.current(kind, key).unwrap().unwrap().event_id().to_owned())
    });
    let mut batch = Batch::default();
    lost.iter().for_each(|event| batch.delete::<tables::Events>(event));
    b.store.commit(batch).await.unwrap();

    b.rooms.depart_all(&bob).await.unwrap();
    let done = b.rooms.run_departure_job(&bob).await.unwrap();

    for result in done.results {
        let failed = matches!(result.ended, DepartureEnd::Failed(_));
        assert_eq!(failed, result.room_id == broken, "{:?}", result.ended);
    }
}

/// A11, C6: remote invites are withdrawn, members see everybody leave, and a device that was
/// offline learns of the end.
#[tokio::test]
async fn a_deleted_room_leaves_no_ghosts() {
    let mesh = mesh();
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    let (ann, abe, ada) = (a.user("ann"), a.user("abe"), a.user("ada"));
    let (bob, cat) = (b.user("bob"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, "12").await;
    a.join(&abe, &room, a).await.unwrap();
    c.join(&cat, &room, a).await.unwrap();
    a.invite(&ann, &ada, &room).await.unwrap();
    a.invite(&ann, &bob, &room).await.unwrap();
    a.say(&ann, &room, "one more thing").await;
    mesh.settle().await;
    mesh.isolate("a.example");
    a.say(&ann, &room, "nobody hears this").await;
    let since = a.store.reader().position().unwrap();

    let reason = Some("spring cleaning".to_owned());
    let report = a.rooms.delete_room(&room, Farewell { reason, deadline: Duration::ZERO }).await;
    let report = report.unwrap();

    assert_eq!(report.ended, std::slice::from_ref(&bob));
    assert_eq!(report.left.last(), Some(&ann), "who has the power goes last");
    assert_eq!((report.left.len(), report.failed.len(), report.departing.len()), (3, 0, 0));
    let to =
        |server: &Server| report.undelivered.iter().filter(|u| u.server == server.name).count();
    assert_eq!((to(b), to(c)), (1, 5));
    assert!(report.events > 5);
    let unknown = a.rooms.delete_room(&unknown_room(), Farewell::default()).await.unwrap_err();
    assert_eq!(status(unknown).0, 404);

    // Everyone who was offline, here and elsewhere.
    for user in [&ann, &abe, &ada] {
        let request = SyncRequest {
            viewer: a.rooms.viewer(user, None),
            since: Some(since),
            filter: Filter::default(),
            full_state: false,
            use_state_after: false,
        };
        let view = a.rooms.sync(request).await.unwrap();
        assert!(view.leave.contains_key(&room), "{user}");
        assert!(!view.join.contains_key(&room) && !view.invite.contains_key(&room));
    }
    mesh.heal("a.example");
    mesh.settle().await;
    assert!(!b.is_pending(&bob, &room));
    assert_eq!(b.membership(&bob, &room).as_deref(), Some("leave"));
    for user in [&ann, &abe, &ada] {
        assert_eq!(c.in_state(user, &room).as_deref(), Some("leave"));
    }
    assert_eq!(c.in_state(&bob, &room).as_deref(), Some("leave"));
    assert!(a.outbox(b).is_empty() && a.outbox(c).is_empty());

    // What remains is an ordinary room of elsewhere.
    a.join(&ann, &room, c).await.unwrap();
    assert_eq!(a.in_state(&ann, &room).as_deref(), Some("join"));
}

/// Where the other servers can be reached, a deletion waits until they have taken what they are
/// told, and no longer. Knocks are declined as invites are withdrawn.
#[tokio::test(start_paused = true)]
async fn a_deletion_waits_for_those_who_listen() {
    let mesh = mesh();
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
    let room = a.room(&ann, Preset::Private, "12").await;
    a.set(&ann, &room, "m.room.join_rules", json!({ "join_rule": "knock" })).await;
    a.invite(&ann, &cat, &room).await.unwrap();
    c.join(&cat, &room, a).await.unwrap();
    b.rooms.knock(&bob, &room, std::slice::from_ref(&a.name), Default::default()).await.unwrap();
    mesh.settle().await;
    assert_eq!(a.in_state(&bob, &room).as_deref(), Some("knock"));

    let farewell = Farewell { reason: None, deadline: Duration::from_secs(30) };
    let begun = tokio::time::Instant::now();
    let deletion = a.rooms.delete_room(&room, farewell);
    let delivery = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            mesh.settle().await;
        }
    };
    let report = tokio::select! {
        report = deletion => report.unwrap(),
        () = delivery => unreachable!("it goes on for ever"),
    };

    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((report.ended, report.left), (vec![bob.clone()], vec![ann.clone()]));
    assert_eq!((report.undelivered, report.failed), (Vec::new(), Vec::new()));
    assert_eq!(b.membership(&bob, &room).as_deref(), Some("leave"));
    assert_eq!(c.in_state(&ann, &room).as_deref(), Some("leave"));
    assert_eq!(c.in_state(&bob, &room).as_deref(), Some("leave"));
    let events = a.store.reader().scan::<tables::Events>(()).keys().unwrap();
    assert!(events.is_empty(), "nothing of the room is left here");
}

/// A room that one is only invited to is deleted by turning the invite down.
#[tokio::test]
async fn a_room_of_elsewhere_is_deleted_too() {
    let mesh = mesh();
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let room = a.room(&ann, Preset::Private, "11").await;
    a.invite(&ann, &bob, &room).await.unwrap();
    mesh.isolate("b.example");
    let report = b.rooms.delete_room(&room, Farewell::default()).await.unwrap();
    assert_eq!((report.left, report.departing), (vec![bob.clone()], vec![bob.clone()]));
    mesh.heal("b.example");
    mesh.settle().await;
    assert_eq!(a.in_state(&bob, &room).as_deref(), Some("leave"));
}

fn unknown_room() -> OwnedRoomId {
    OwnedRoomId::try_from("!unknown:a.example").unwrap()
}

/// Rows by table.
struct Counts<'r>(&'r Reader<'r>, BTreeMap<&'static str, usize>);

impl TableVisitor for Counts<'_> {
    type Error = StoreError;

    fn visit<T: Table>(&mut self) -> Result<(), StoreError> {
        self.1.insert(T::NAME, self.0.scan::<T>(()).keys()?.len());
        Ok(())
    }
}

/// Rows by table, but for what an ended invite is known by and the logs.
fn counts(server: &Server) -> BTreeMap<&'static str, usize> {
    let reader = server.store.reader();
    let mut counts = Counts(&reader, BTreeMap::new());
    tables::visit_all(&mut counts).unwrap();
    for kept in ["Memberships", "LocalMembers", "MembershipLog", "Invites", "SigningJournal"] {
        counts.1.remove(kept);
    }
    for of_any_contact in ["Meta", "ServerKeys"] {
        counts.1.remove(of_any_contact);
    }
    counts.1
}

/// B1, B2, A13: ten thousand invites go without a single request, and leave a small row each.
#[tokio::test]
async fn a_flood_of_invites_is_dismissed_in_silence() {
    let mesh = mesh();
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (spammer, bob) = (a.user("spammer"), b.user("bob"));
    let before = counts(b);
    let room = a.room(&spammer, Preset::Private, "11").await;
    a.invite(&spammer, &bob, &room).await.unwrap();
    let row = b.row(&bob, &room).unwrap();
    let key = (bob.clone(), room.clone());
    let pending = b.store.reader().get::<tables::Pending>(&key).unwrap().unwrap();
    let mut batch = Batch::default();
    for index in 0..9_999 {
        let user = b.user(&format!("user{index}"));
        let key = (user.clone(), room.clone());
        let copy = exeunt_core::PendingMembership { user_id: user.clone(), ..pending.clone() };
        batch.put::<tables::Pending>(&key, &copy);
        batch.put::<tables::Memberships>(&key, &row);
        batch.put::<tables::LocalMembers>(&(room.clone(), user), &"invite".to_owned());
    }
    b.store.commit(batch).await.unwrap();
    mesh.net.take_requests();

    let filter = TriageFilter { inviter: Some(spammer), ..TriageFilter::default() };
    let report = b.rooms.triage(filter.clone(), TriageMode::Silent).await.unwrap();
    assert_eq!((report.matched, report.rejected, report.failed.len()), (10_000, 10_000, 0));
    assert_eq!(report.invites.len(), exeunt_room::triage::MAX_LISTED);
    mesh.settle().await;
    assert!(mesh.net.take_requests().iter().all(|(from, ..)| *from != b.name));
    assert_eq!(b.membership(&bob, &room).as_deref(), Some("leave"));
    assert_eq!(counts(b), before);
    let again = b.rooms.triage(filter, TriageMode::DryRun).await.unwrap();
    assert_eq!(again.matched, 0);
}

/// Which invites a filter finds, what a dry run does, and that others hear of a normal one.
#[tokio::test]
async fn invites_are_triaged_by_inviter_server_room_and_age() {
    let mesh = mesh();
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    let (ann, cat) = (a.user("ann"), c.user("cat"));
    let bobs: Vec<OwnedUserId> = (0..20).map(|index| b.user(&format!("bob{index}"))).collect();
    let of_ann = a.room(&ann, Preset::Private, "12").await;
    for bob in &bobs {
        a.invite(&ann, bob, &of_ann).await.unwrap();
    }
    mesh.clock.advance(60_000);
    let of_cat = c.room(&cat, Preset::Private, "12").await;
    c.invite(&cat, &bobs[0], &of_cat).await.unwrap();
    // A room of our own: its invites are events.
    let bea = b.user("bea");
    let of_bea = b.room(&bea, Preset::Private, "12").await;
    b.invite(&bea, &bobs[1], &of_bea).await.unwrap();
    mesh.net.take_requests();

    let found = async |filter: TriageFilter| {
        b.rooms.triage(filter, TriageMode::DryRun).await.unwrap().matched
    };
    let all = TriageFilter::default();
    assert_eq!(found(all.clone()).await, 22);
    assert_eq!(found(TriageFilter { inviter: Some(ann.clone()), ..all.clone() }).await, 20);
    assert_eq!(found(TriageFilter { server: Some("c.*".into()), ..all.clone() }).await, 1);
    assert_eq!(found(TriageFilter { room: Some(of_cat.clone()), ..all.clone() }).await, 1);
    assert_eq!(found(TriageFilter { user: Some(bobs[0].clone()), ..all.clone() }).await, 2);
    let old = TriageFilter { min_age_ms: Some(60_000), server: Some("a.*".into()), ..all.clone() };
    assert_eq!(found(old.clone()).await, 20);
    let older = TriageFilter { min_age_ms: Some(600_000), ..old.clone() };
    assert_eq!(found(older).await, 0);
    for (max_age_ms, matched) in [(90_000, 20), (30_000, 0)] {
        let window = TriageFilter { max_age_ms: Some(max_age_ms), ..old.clone() };
        assert_eq!(found(window).await, matched);
    }
    assert_eq!(found(TriageFilter { max_age_ms: Some(30_000), ..all.clone() }).await, 2);
    assert!(mesh.net.take_requests().is_empty(), "a dry run asks nobody");
    assert!(b.is_pending(&bobs[0], &of_ann));

    let report = b.rooms.triage(old, TriageMode::Normal).await.unwrap();
    assert_eq!((report.matched, report.rejected), (20, 20));
    assert!(bobs.iter().all(|bob| !b.is_pending(bob, &of_ann)));
    mesh.settle().await;
    for bob in &bobs {
        assert_eq!(a.in_state(bob, &of_ann).as_deref(), Some("leave"));
    }
    assert!(b.rooms.departures().await.unwrap().is_empty());
    assert!(b.is_pending(&bobs[0], &of_cat));

    let silent = b.rooms.triage(all.clone(), TriageMode::Silent).await.unwrap();
    assert_eq!((silent.matched, silent.rejected, silent.kept), (2, 1, 1));
    assert_eq!(b.membership(&bobs[1], &of_bea).as_deref(), Some("invite"));
    assert_eq!(c.in_state(&bobs[0], &of_cat).as_deref(), Some("invite"));
    let rest = b.rooms.triage(all, TriageMode::Normal).await.unwrap();
    assert_eq!((rest.matched, rest.rejected), (1, 1));
    assert_eq!(b.in_state(&bobs[1], &of_bea).as_deref(), Some("leave"));
    let unknown: Result<_, RoomError> = b.rooms.abandon_departure(&bobs[0], &of_cat).await;
    assert_eq!(status(unknown.unwrap_err()).0, 404);
}
