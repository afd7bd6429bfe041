//! The inbound queue: what waits, what does not, and what a room under attack costs others.
//! Decision 0009.

use exeunt_core::ruma::{OwnedRoomId, OwnedUserId};
use exeunt_core::{CheckedPdu, Draft, Object};
use exeunt_room::{
    Call, Preset, RoomError,
    inbound::{FIRST_REST, MAX_QUEUED_PER_ORIGIN, MAX_QUEUED_PER_ROOM, MAX_TRIES, Transaction},
};
use exeunt_sim::{
    Fault, Mesh, Scripted, Server,
    events::{message_draft, wire},
    status,
};
use exeunt_store::{Batch, records::InboundRecord, tables};
use serde_json::json;

/// Two rooms of ann on `a` with bob of `b`: one that is attacked, and one that is not.
struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    calm: OwnedRoomId,
    bob: OwnedUserId,
}

async fn stage() -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, "12").await;
    let calm = a.room(&ann, Preset::Public, "12").await;
    for room in [&room, &calm] {
        b.join(&bob, room, a).await.unwrap();
        c.join(&cat, room, a).await.unwrap();
    }
    mesh.settle().await;
    Stage { mesh, room, calm, bob }
}

impl Stage {
    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    fn message(&self, room: &OwnedRoomId, text: &str) -> CheckedPdu {
        self.b().sign(message_draft(self.a(), room, &self.bob, text))
    }

    /// A message that follows one which nobody has.
    fn gap(&self, room: &OwnedRoomId, text: &str) -> CheckedPdu {
        let lost = self.message(room, &format!("before {text}"));
        let draft = message_draft(self.a(), room, &self.bob, text);
        self.b().sign(Draft { prev_events: vec![lost.event_id().to_owned().into()], ..draft })
    }

    async fn send(&self, txn: &str, events: &[&CheckedPdu]) -> Result<Object, RoomError> {
        let pdus = events.iter().map(|event| wire(event)).collect();
        let transaction = Transaction { pdus, edus: Vec::new() };
        self.a().rooms.receive_transaction(&self.b().name, txn, transaction).await
    }

    /// A message of bob in the attacked room that follows one which `a` did not get.
    async fn lost_then(&self, text: &str) -> CheckedPdu {
        self.b().say(&self.bob, &self.room, "lost").await;
        self.b().say(&self.bob, &self.room, text).await;
        let last = self.b().outbox(self.a()).pop().unwrap();
        self.b().forget_outbox(self.a()).await;
        CheckedPdu::trusted(self.b().event(&last).unwrap().pdu)
    }

    /// Nobody answers requests about the attacked room any more.
    fn silence(&self) {
        for server in ["b.example", "c.example"] {
            self.mesh.net.script(&self.mesh.server(server).name, |_| Scripted::Silent);
        }
    }

    fn waiting(&self) -> usize {
        self.a().store.reader().scan::<tables::InboundQueue>(()).keys().unwrap().len()
    }

    /// Puts rows into the queue behind the server's back, as a stop of the server leaves them.
    async fn leave_behind(&self, count: u64, from: &str, event: &CheckedPdu) {
        let mut batch = Batch::default();
        for index in 0..count {
            let origin = self.mesh.server(from).name.clone();
            let record = InboundRecord { origin, event: event.object().clone(), at: 0, tries: 0 };
            batch.put::<tables::InboundQueue>(&(event.room_id().to_owned(), 1, index), &record);
        }
        self.a().store.commit(batch).await.unwrap();
    }
}

/// The answer does not wait for other servers, and what it promises is durable.
#[tokio::test(start_paused = true)]
async fn a_transaction_is_answered_when_it_is_durable() {
    let stage = stage().await;
    stage.silence();
    let gap = stage.gap(&stage.room, "gap");
    let answer = stage.send("1", &[&gap]).await.unwrap();
    assert_eq!(answer[gap.event_id().as_str()], json!({}));
    assert_eq!(stage.waiting(), 1);
    let again = stage.send("1", &[&gap]).await.unwrap();
    assert_eq!((again, stage.waiting()), (answer, 1));
    assert!(stage.a().messages(&stage.room).is_empty());
}

/// What nobody answers about is tried again, and given up in the end.
#[tokio::test(start_paused = true)]
async fn an_event_is_tried_again_until_somebody_answers() {
    let stage = stage().await;
    let last = stage.lost_then("last").await;
    stage.mesh.isolate("a.example");
    let gap = stage.gap(&stage.calm, "gap");
    stage.send("1", &[&last, &gap]).await.unwrap();
    stage.a().rooms.inbound_idle().await;
    assert_eq!(stage.waiting(), 2);
    tokio::time::sleep(FIRST_REST).await;
    stage.a().rooms.inbound_idle().await;
    assert_eq!(stage.waiting(), 2);
    // Nobody sends anything, and yet what was lost is found once servers can be reached.
    stage.mesh.heal("a.example");
    stage.mesh.net.script(&stage.mesh.server("c.example").name, |_| Scripted::Silent);
    let calm = stage.calm.clone();
    stage.mesh.net.script(&stage.b().name, move |call| match call {
        Call::MissingEvents { room, .. } if **room == calm => Scripted::Silent,
        _ => Scripted::Honest,
    });
    tokio::time::sleep(FIRST_REST * 2).await;
    stage.a().rooms.inbound_idle().await;
    assert_eq!(stage.a().messages(&stage.room), ["lost", "last"]);
    assert_eq!(stage.waiting(), 1);
    tokio::time::sleep(FIRST_REST * 2u32.pow(MAX_TRIES)).await;
    assert_eq!(stage.waiting(), 0);
    assert!(stage.a().messages(&stage.calm).is_empty());
}

/// A purge takes the rows of its room, those of events that rest too: nobody looks for them for ever.
#[tokio::test(start_paused = true)]
async fn an_event_that_is_gone_rests_no_more() {
    let stage = stage().await;
    stage.silence();
    stage.mesh.isolate("a.example");
    stage.send("1", &[&stage.gap(&stage.room, "gap")]).await.unwrap();
    stage.a().rooms.inbound_idle().await;
    let rows = stage.a().store.reader().scan::<tables::InboundQueue>(()).keys().unwrap();
    let mut batch = Batch::default();
    for key in &rows {
        batch.delete::<tables::InboundQueue>(key);
    }
    stage.a().store.commit(batch).await.unwrap();
    assert_eq!(rows.len(), 1);
    tokio::time::sleep(FIRST_REST * 2).await;
    stage.a().rooms.inbound_idle().await;
    stage.mesh.heal("a.example");
    stage.b().say(&stage.bob, &stage.calm, "hello").await;
    stage.mesh.settle().await;
    assert_eq!(stage.a().messages(&stage.calm), ["hello"]);
}

/// A server that comes back need not wait for the next try.
#[tokio::test(start_paused = true)]
async fn an_event_is_tried_again_when_its_server_shows_life() {
    let stage = stage().await;
    let last = stage.lost_then("last").await;
    // The others are up, and know nothing of what is missing.
    stage.mesh.net.cut(&stage.a().name, &stage.b().name);
    stage
        .mesh
        .net
        .script(&stage.mesh.server("c.example").name, |_| Scripted::refused(404, "M_NOT_FOUND"));
    stage.send("1", &[&last]).await.unwrap();
    stage.a().rooms.inbound_idle().await;
    stage.mesh.heal("a.example");
    let before = tokio::time::Instant::now();
    stage.send("2", &[]).await.unwrap();
    while stage.waiting() > 0 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(stage.a().messages(&stage.room), ["lost", "last"]);
    assert!(before.elapsed() < FIRST_REST);
}

/// What rests holds up nothing else in its room.
#[tokio::test(start_paused = true)]
async fn events_that_rest_hold_no_others_up() {
    let stage = stage().await;
    stage.mesh.isolate("a.example");
    stage.send("1", &[&stage.gap(&stage.room, "gap")]).await.unwrap();
    stage.a().rooms.inbound_idle().await;
    stage.mesh.heal("a.example");
    let before = tokio::time::Instant::now();
    let last = stage.lost_then("last").await;
    stage.mesh.net.script(&stage.mesh.server("c.example").name, |_| Scripted::Silent);
    stage.send("2", &[&last]).await.unwrap();
    stage.a().rooms.inbound_idle().await;
    assert_eq!(stage.a().messages(&stage.room), ["lost", "last"]);
    assert_eq!(before, tokio::time::Instant::now());
    assert_eq!(stage.waiting(), 1);
}

/// A store that cannot be read for a while holds up the queue for as long, not for ever.
#[tokio::test(start_paused = true)]
async fn the_work_goes_on_after_a_failure_of_the_store() {
    let mut stage = stage().await;
    let last = stage.lost_then("last").await;
    stage.mesh.restart("a.example");
    stage.leave_behind(1, "b.example", &last).await;
    let b = stage.b().name.clone();
    let disk = stage.a().disk.clone();
    stage.mesh.net.fail_next(
        &b,
        "get_missing_events",
        Fault::meanwhile(move || {
            disk.fail_reads(true);
            Box::pin(std::future::ready(()))
        }),
    );
    stage.a().rooms.start_inbound();
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    stage.a().disk.fail_reads(false);
    assert_eq!(stage.waiting(), 1);
    tokio::time::sleep(std::time::Duration::from_secs(70)).await;
    assert_eq!(stage.waiting(), 0);
    assert_eq!(stage.a().messages(&stage.room), ["lost", "last"]);
}

/// pains.md, feature 14: a room under attack costs other rooms nothing.
#[tokio::test(start_paused = true)]
async fn a_room_under_attack_holds_no_other_room_up() {
    let stage = stage().await;
    stage.silence();
    let attack: Vec<_> = (0..30).map(|index| stage.gap(&stage.room, &index.to_string())).collect();
    let (first, second) = (stage.message(&stage.calm, "1"), stage.message(&stage.calm, "2"));
    let cheap = stage.message(&stage.room, "cheap");
    let mut events: Vec<_> = attack.iter().collect();
    events.extend([&first, &cheap]);
    stage.send("1", &events).await.unwrap();
    assert_eq!(stage.a().messages(&stage.calm), ["1"]);
    // Not even in the attacked room do events wait that lack nothing.
    assert_eq!(stage.a().messages(&stage.room), ["cheap"]);
    assert_eq!(stage.waiting(), 30);
    stage.send("2", &[&second]).await.unwrap();
    assert_eq!(stage.a().messages(&stage.calm), ["1", "2"]);
    assert_eq!(stage.waiting(), 30);
}

/// A gap in the calm room is filled while the other room's worker waits.
#[tokio::test(start_paused = true)]
async fn rooms_are_worked_on_side_by_side() {
    let stage = stage().await;
    let attacked = stage.room.clone();
    stage.mesh.net.script(&stage.b().name, move |call| match call {
        exeunt_room::Call::MissingEvents { room, .. } if **room == attacked => Scripted::Silent,
        _ => Scripted::Honest,
    });
    stage.b().say(&stage.bob, &stage.calm, "lost").await;
    stage.b().forget_outbox(stage.a()).await;
    stage.b().say(&stage.bob, &stage.calm, "last").await;
    let last = stage.b().outbox(stage.a()).pop().unwrap();
    let last = CheckedPdu::trusted(stage.b().event(&last).unwrap().pdu);
    stage.send("1", &[&stage.gap(&stage.room, "gap"), &last]).await.unwrap();
    let before = tokio::time::Instant::now();
    while stage.waiting() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.a().messages(&stage.calm), ["lost", "last"]);
    // The clock stands still as long as anything can go on: nobody has waited for the silent one.
    assert_eq!(before, tokio::time::Instant::now());
}

/// Keys that do not come hold the answer up for a moment only.
#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_checked_at_once_waits() {
    let stage = stage().await;
    let d = Mesh::new(&["d.example"]);
    let stranger = d.server("d.example").user("dora");
    let draft = message_draft(stage.a(), &stage.room, &stranger, "who");
    let who = d.server("d.example").sign(draft);
    let known = stage.message(&stage.calm, "known");
    stage.mesh.net.hide_keys(&d.server("d.example").name);
    stage.mesh.net.attach(d.server("d.example"));
    let answer = stage.send("1", &[&who, &known]).await.unwrap();
    assert_eq!(answer[who.event_id().as_str()], json!({}));
    assert_eq!(stage.waiting(), 1);
    assert_eq!(stage.a().messages(&stage.calm), ["known"]);
}

/// What waited when the server stopped is worked on after the start.
#[tokio::test]
async fn a_restart_goes_on_where_it_was() {
    let mut stage = stage().await;
    stage.b().say(&stage.bob, &stage.room, "lost").await;
    stage.b().forget_outbox(stage.a()).await;
    stage.b().say(&stage.bob, &stage.room, "last").await;
    let last = stage.b().outbox(stage.a()).pop().unwrap();
    stage.b().forget_outbox(stage.a()).await;
    let last = CheckedPdu::trusted(stage.b().event(&last).unwrap().pdu);
    stage.mesh.restart("a.example");
    stage.leave_behind(1, "b.example", &last).await;
    stage.a().rooms.start_inbound();
    while stage.waiting() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.a().messages(&stage.room), ["lost", "last"]);
}

/// Beyond its bound a room's events are dropped, one by one; other rooms' are not.
#[tokio::test(start_paused = true)]
async fn what_waits_for_one_room_is_bounded() {
    let mut stage = stage().await;
    stage.silence();
    stage.mesh.restart("a.example");
    let gap = stage.gap(&stage.room, "gap");
    stage.leave_behind(MAX_QUEUED_PER_ROOM as u64, "c.example", &gap).await;
    let other = stage.gap(&stage.calm, "other");
    let answer = stage.send("1", &[&gap, &other]).await.unwrap();
    assert!(answer[gap.event_id().as_str()]["error"].is_string());
    assert_eq!(answer[other.event_id().as_str()], json!({}));
    assert_eq!(stage.waiting(), MAX_QUEUED_PER_ROOM + 1);
}

/// Beyond its bound a server is told to come again; what lacks nothing is placed all the same.
#[tokio::test(start_paused = true)]
async fn what_waits_for_one_server_is_bounded() {
    let mut stage = stage().await;
    stage.silence();
    stage.mesh.restart("a.example");
    let gap = stage.gap(&stage.room, "gap");
    stage.leave_behind(MAX_QUEUED_PER_ORIGIN as u64, "b.example", &gap).await;
    let (other, known) = (stage.gap(&stage.calm, "other"), stage.message(&stage.calm, "known"));
    let refused = stage.send("1", &[&other, &known]).await.unwrap_err();
    assert_eq!(status(refused), (429, "M_LIMIT_EXCEEDED".to_owned()));
    assert_eq!(stage.a().messages(&stage.calm), ["known"]);
    assert_eq!(stage.waiting(), MAX_QUEUED_PER_ORIGIN);
    let again = stage.send("1", &[&known]).await.unwrap();
    assert_eq!(again[known.event_id().as_str()], json!({}));
}

/// A transaction that comes twice at the same time is taken once.
#[tokio::test(start_paused = true)]
async fn a_server_sends_one_transaction_at_a_time() {
    let stage = stage().await;
    stage.silence();
    let (gap, other) = (stage.gap(&stage.room, "gap"), stage.gap(&stage.calm, "other"));
    let (gaps, others) = ([&gap], [&other]);
    let (one, two) = tokio::join!(stage.send("1", &gaps), stage.send("1", &others));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(stage.waiting(), 1);
}

/// A room whose rows cannot be read holds up neither other rooms nor its own queue.
#[tokio::test]
async fn a_damaged_room_is_alone_in_its_trouble() {
    let mut stage = stage().await;
    let (bad, good) = (stage.message(&stage.room, "bad"), stage.message(&stage.calm, "good"));
    let create = stage.a().graph(&stage.room, |graph| graph.room.create_event.clone());
    let mut batch = Batch::default();
    batch.delete::<tables::Events>(&create);
    stage.a().store.commit(batch).await.unwrap();
    let answer = stage.send("1", &[&bad, &good]).await.unwrap();
    assert_eq!(answer[good.event_id().as_str()], json!({}));
    assert_eq!(stage.a().messages(&stage.calm), ["good"]);
    stage.mesh.restart("a.example");
    stage.leave_behind(2, "b.example", &bad).await;
    stage.a().rooms.start_inbound();
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.waiting(), 0);
}

/// In the same room: a server that never answers does not hold up what others send.
#[tokio::test(start_paused = true)]
async fn servers_take_turns_in_a_room() {
    let stage = stage().await;
    let (a, c) = (stage.a(), stage.mesh.server("c.example"));
    stage.mesh.net.script(&stage.b().name, |_| Scripted::Silent);
    let gaps: Vec<_> = (0..5).map(|index| stage.gap(&stage.room, &index.to_string())).collect();
    stage.send("1", &gaps.iter().collect::<Vec<_>>()).await.unwrap();
    let cat = c.user("cat");
    c.say(&cat, &stage.room, "lost").await;
    c.say(&cat, &stage.room, "last").await;
    let last = c.outbox(a).pop().unwrap();
    let last = c.event(&last).unwrap().pdu;
    a.receive(c, "1", &[&last]).await;
    assert_eq!(stage.waiting(), 6);
    // The time for two events.
    tokio::time::sleep(std::time::Duration::from_secs(240)).await;
    assert_eq!(a.messages(&stage.room), ["lost", "last"]);
    assert!(stage.waiting() >= 3);
}
