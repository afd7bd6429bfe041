//! Typing, receipts and presence between servers: who may speak of whom, and in which room.

use exeunt_core::ruma::{DeviceId, OwnedEventId, OwnedRoomId, OwnedUserId, UserId, device_id};
use exeunt_room::{
    EphemeralView, Presence, Preset, Receipt, ReceiptKind,
    inbound::Transaction,
    views::{Filter, SyncRequest},
};
use exeunt_sim::{Fault, Mesh, Server};
use exeunt_store::{records::OutboxItem, tables};
use serde_json::{Value, json};
use std::time::Duration;

const TYPING: Option<Duration> = Some(Duration::from_secs(10));

/// Two public rooms of ann on `a`, with bob of `b` and cat of `c`.
struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    other: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    cat: OwnedUserId,
}

impl Stage {
    async fn new() -> Self {
        let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
        let [a, b, c] = ["a.example", "b.example", "c.example"].map(|name| mesh.server(name));
        let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
        let room = a.room(&ann, Preset::Public, "12").await;
        let other = a.room(&ann, Preset::Public, "12").await;
        for (server, user) in [(b, &bob), (c, &cat)] {
            for room in [&room, &other] {
                server.join(user, room, a).await.unwrap();
                mesh.settle().await;
            }
        }
        Self { mesh, room, other, ann, bob, cat }
    }

    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    fn b(&self) -> &Server {
        self.mesh.server("b.example")
    }

    fn c(&self) -> &Server {
        self.mesh.server("c.example")
    }

    async fn says(&self, text: &str) -> OwnedEventId {
        let event = self.a().say(&self.ann, &self.room, text).await;
        self.mesh.settle().await;
        event
    }

    /// What a server sends to `a`.
    async fn sends(&self, from: &Server, edus: &[Value]) {
        let transaction = Transaction { pdus: Vec::new(), edus: edus.to_vec() };
        let txn_id = format!("t{}", self.mesh.clock.now());
        self.a().rooms.receive_transaction(&from.name, &txn_id, transaction).await.unwrap();
    }

    fn typing(&self, user: &UserId, room: &OwnedRoomId) -> Value {
        let content = json!({ "room_id": room, "user_id": user, "typing": true });
        json!({ "edu_type": "m.typing", "content": content })
    }
}

fn device() -> &'static DeviceId {
    device_id!("PHONE")
}

/// What is told of the moment to a user since a position, and the next one.
async fn news(server: &Server, user: &UserId, since: Option<u64>) -> (EphemeralView, u64) {
    let request = SyncRequest {
        viewer: server.rooms.viewer(user, None),
        since,
        filter: Filter::default(),
        full_state: false,
        use_state_after: false,
    };
    let mut view = server.rooms.sync(request).await.unwrap();
    let news = server.rooms.ephemeral(user, since, &mut view, &Filter::default()).await.unwrap();
    (news, view.next_batch)
}

/// Content of the room's event of a type.
fn content(news: &EphemeralView, room: &OwnedRoomId, kind: &str) -> Option<Value> {
    let events = news.rooms.get(room).into_iter().flatten();
    let mut found = events.filter(|event| event["type"] == kind);
    let content = found.next().map(|event| event["content"].clone());
    assert!(found.next().is_none(), "one event of a type");
    content
}

async fn typists(server: &Server, user: &UserId, room: &OwnedRoomId) -> Option<Value> {
    let (news, _) = news(server, user, None).await;
    content(&news, room, "m.typing").map(|content| content["user_ids"].clone())
}

fn read(user: &UserId, event_id: &OwnedEventId, thread: Option<&str>) -> Receipt {
    let (user, event_id) = (user.to_owned(), event_id.clone());
    Receipt { user, kind: ReceiptKind::Read, event_id, thread: thread.map(str::to_owned) }
}

fn receipts(server: &Server, room: &OwnedRoomId) -> Vec<OwnedUserId> {
    let rows = server.store.reader().scan::<tables::Receipts>(room.clone()).keys().unwrap();
    rows.into_iter().map(|(_, user, _)| user).collect()
}

fn waiting(from: &Server, to: &Server) -> Vec<Value> {
    let rows = from.store.reader().scan::<tables::Outbox>(to.name.clone()).collect().unwrap();
    let edus = rows.into_iter().filter_map(|(_, item)| match item {
        OutboxItem::Edu(edu) => Some(Value::Object(edu)),
        OutboxItem::Pdu(_) => None,
    });
    edus.collect()
}

#[tokio::test]
async fn typing_is_told_to_every_server_and_ends() {
    let stage = Stage::new().await;
    let (a, b) = (stage.a(), stage.b());
    let (_, since) = news(b, &stage.bob, None).await;
    a.rooms.set_typing(&stage.ann, &stage.room, TYPING).await.unwrap();
    stage.mesh.settle().await;
    for (server, user) in [(a, &stage.ann), (b, &stage.bob), (stage.c(), &stage.cat)] {
        assert_eq!(typists(server, user, &stage.room).await, Some(json!([stage.ann])));
        assert_eq!(typists(server, user, &stage.other).await, None);
    }
    let (told, next) = news(b, &stage.bob, Some(since)).await;
    assert!(content(&told, &stage.room, "m.typing").is_some());
    assert!(news(b, &stage.bob, Some(next)).await.0.is_empty(), "it is told once");
    // The time is up, here, and by word of a, there.
    stage.mesh.clock.advance(11_000);
    a.rooms.sweep_ephemeral().await.unwrap();
    stage.mesh.settle().await;
    let (told, _) = news(b, &stage.bob, Some(next)).await;
    assert_eq!(content(&told, &stage.room, "m.typing").unwrap()["user_ids"], json!([]));
    assert_eq!(typists(a, &stage.ann, &stage.room).await, None);
    // Without its word too.
    b.rooms.set_typing(&stage.bob, &stage.room, TYPING).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!(typists(a, &stage.ann, &stage.room).await, Some(json!([stage.bob])));
    stage.mesh.clock.advance(61_000);
    a.rooms.sweep_ephemeral().await.unwrap();
    assert_eq!(typists(a, &stage.ann, &stage.room).await, None);
}

/// Who is out of the room types there no longer, whoever took them out; elsewhere they go on.
#[tokio::test]
async fn typing_ends_with_a_departure() {
    let stage = Stage::new().await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    let dan = a.user("dan");
    a.join(&dan, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    for (server, user) in [(a, &dan), (b, &stage.bob), (c, &stage.cat)] {
        server.rooms.set_typing(user, &stage.room, TYPING).await.unwrap();
    }
    c.rooms.set_typing(&stage.cat, &stage.other, TYPING).await.unwrap();
    stage.mesh.settle().await;
    let all = json!([stage.bob, stage.cat, dan]);
    assert_eq!(typists(a, &stage.ann, &stage.room).await, Some(all));
    let (_, since) = news(a, &stage.ann, None).await;
    b.leave(&stage.bob, &stage.room).await.unwrap();
    a.rooms.kick(&stage.ann, &stage.cat, &stage.room, None).await.unwrap();
    a.rooms.ban(&stage.ann, &dan, &stage.room, None).await.unwrap();
    stage.mesh.settle().await;
    let (told, _) = news(a, &stage.ann, Some(since)).await;
    assert_eq!(content(&told, &stage.room, "m.typing").unwrap()["user_ids"], json!([]));
    assert_eq!(typists(a, &stage.ann, &stage.other).await, Some(json!([stage.cat])));
    // On their way in again they do not type.
    a.rooms.unban(&stage.ann, &dan, &stage.room, None).await.unwrap();
    b.join(&stage.bob, &stage.room, a).await.unwrap();
    stage.mesh.settle().await;
    assert_eq!(typists(b, &stage.bob, &stage.room).await, None);
    assert_eq!(typists(a, &stage.ann, &stage.room).await, None);
}

/// Of a user and a room one waits, the last; and none for a server that fails.
#[tokio::test]
async fn typing_does_not_pile_up() {
    let stage = Stage::new().await;
    let (a, b) = (stage.a(), stage.b());
    for n in 0..5 {
        let typing = if n % 2 == 0 { TYPING } else { None };
        a.rooms.set_typing(&stage.ann, &stage.room, typing).await.unwrap();
    }
    a.rooms.set_typing(&stage.ann, &stage.other, TYPING).await.unwrap();
    let edus = waiting(a, b);
    assert_eq!(edus.len(), 2, "{edus:?}");
    assert_eq!(edus[0]["content"]["typing"], true);
    // Receipts neither, for one user, room and thread.
    for text in ["one", "two", "three"] {
        let event = a.say(&stage.ann, &stage.room, text).await;
        a.rooms.receipt(&stage.room, read(&stage.ann, &event, None)).await.unwrap();
    }
    assert_eq!(waiting(a, b).len(), 3);
    a.forget_outbox(b).await;
    let mut batch = exeunt_store::Batch::default();
    let failing = exeunt_store::records::DestinationRecord { failures: 1, ..Default::default() };
    batch.put::<tables::Destinations>(&b.name, &failing);
    a.store.commit(batch).await.unwrap();
    a.rooms.set_typing(&stage.ann, &stage.room, None).await.unwrap();
    a.rooms.set_presence(&stage.ann, device(), Presence::Online, None).await.unwrap();
    assert!(waiting(a, b).is_empty(), "that would be stale when it gets there");
    let event = a.say(&stage.ann, &stage.room, "four").await;
    a.rooms.receipt(&stage.room, read(&stage.ann, &event, None)).await.unwrap();
    assert_eq!(waiting(a, b).len(), 1);
}

/// GHSA-rgv2-84w7-5j9p: a server speaks for its own users only, whatever it relays or makes up.
#[tokio::test]
async fn ghsa_rgv2_84w7_5j9p_a_server_speaks_for_its_own_users_only() {
    let stage = Stage::new().await;
    let (a, b) = (stage.a(), stage.b());
    let event = stage.says("hello").await;
    let eve = a.user("eve");
    let forged = [&stage.cat, &stage.ann, &eve].map(|user| {
        let said = json!({ "data": { "ts": 1 }, "event_ids": [event] });
        [
            stage.typing(user, &stage.room),
            json!({
                "edu_type": "m.receipt",
                "content": { stage.room.as_str(): { "m.read": { user.as_str(): said } } },
            }),
            json!({
                "edu_type": "m.presence",
                "content": { "push": [{ "user_id": user, "presence": "online" }] },
            }),
        ]
    });
    stage.sends(b, &forged.concat()).await;
    assert!(news(a, &stage.ann, None).await.0.is_empty());
    assert!(receipts(a, &stage.room).is_empty());
    // The same from the users' own server is taken.
    stage.sends(stage.c(), &forged[0]).await;
    let (told, _) = news(a, &stage.ann, None).await;
    assert_eq!(content(&told, &stage.room, "m.typing").unwrap()["user_ids"], json!([stage.cat]));
    assert_eq!(receipts(a, &stage.room), std::slice::from_ref(&stage.cat));
    assert_eq!(told.presence[0]["sender"], stage.cat.as_str());
    assert!(waiting(a, b).is_empty(), "nothing is relayed");
}

/// MSC4163: one EDU may speak of several rooms; each room's ACL counts for that room.
#[tokio::test]
async fn the_acl_of_each_room_decides() {
    let stage = Stage::new().await;
    let (a, b, c) = (stage.a(), stage.b(), stage.c());
    let event = stage.says("hello").await;
    let acl = json!({ "allow": ["*"], "deny": ["b.example"] });
    a.set(&stage.ann, &stage.room, "m.room.server_acl", acl).await;
    stage.mesh.settle().await;
    let said = json!({ "m.read": { stage.bob.as_str(): { "data": {}, "event_ids": [event] } } });
    let both = json!({ stage.room.as_str(): said, stage.other.as_str(): said });
    stage.sends(b, &[json!({ "edu_type": "m.receipt", "content": both })]).await;
    assert!(receipts(a, &stage.room).is_empty());
    assert_eq!(receipts(a, &stage.other), std::slice::from_ref(&stage.bob));
    // And by the ordinary way.
    for room in [&stage.room, &stage.other] {
        b.rooms.set_typing(&stage.bob, room, TYPING).await.unwrap();
    }
    b.rooms.receipt(&stage.room, read(&stage.bob, &event, None)).await.unwrap();
    stage.mesh.settle().await;
    for (server, user) in [(a, &stage.ann), (c, &stage.cat)] {
        assert_eq!(typists(server, user, &stage.room).await, None);
        assert_eq!(typists(server, user, &stage.other).await, Some(json!([stage.bob])));
        assert!(receipts(server, &stage.room).is_empty());
    }
    assert_eq!(receipts(b, &stage.room), std::slice::from_ref(&stage.bob));
}

#[tokio::test]
async fn those_who_are_not_in_the_room_say_nothing_there() {
    let stage = Stage::new().await;
    let (a, b) = (stage.a(), stage.b());
    let event = stage.says("hello").await;
    b.leave(&stage.bob, &stage.room).await.unwrap();
    stage.mesh.settle().await;
    assert!(b.rooms.set_typing(&stage.bob, &stage.room, TYPING).await.is_err());
    assert!(b.rooms.receipt(&stage.room, read(&stage.bob, &event, None)).await.is_err());
    let said = json!({ "m.read": { stage.bob.as_str(): { "event_ids": [event] } } });
    let receipt = json!({ "edu_type": "m.receipt", "content": { stage.room.as_str(): said } });
    stage.sends(b, &[stage.typing(&stage.bob, &stage.room), receipt]).await;
    // Things that make no sense are dropped alone.
    let nonsense = [
        json!("x"),
        json!({ "edu_type": "m.typing" }),
        json!({ "edu_type": "m.typing", "content": { "room_id": 3 } }),
        json!({ "edu_type": "m.receipt", "content": [] }),
        json!({ "edu_type": "m.receipt", "content": { "x": 1, stage.other.as_str(): {
            "m.read": { "x": 1, stage.bob.as_str(): { "event_ids": [7] } },
            "m.read.private": { stage.bob.as_str(): { "event_ids": [event] } },
        } } }),
        json!({ "edu_type": "m.presence", "content": { "push": [1, { "user_id": stage.bob }] } }),
    ];
    stage.sends(b, &nonsense).await;
    assert!(news(a, &stage.ann, None).await.0.is_empty());
    assert!(receipts(a, &stage.room).is_empty() && receipts(a, &stage.other).is_empty());
}

/// MSC4102: the unthreaded receipt wins where both are for one event.
#[tokio::test]
async fn receipts_cross_servers_and_do_not_go_back() {
    let stage = Stage::new().await;
    let (a, b) = (stage.a(), stage.b());
    let (first, second) = (stage.says("first").await, stage.says("second").await);
    let (_, since) = news(b, &stage.bob, None).await;
    for thread in [None, Some(first.as_str())] {
        a.rooms.receipt(&stage.room, read(&stage.ann, &second, thread)).await.unwrap();
    }
    a.rooms.receipt(&stage.room, read(&stage.ann, &first, None)).await.unwrap();
    let private = Receipt { kind: ReceiptKind::Private, ..read(&stage.ann, &second, None) };
    a.rooms.receipt(&stage.room, private).await.unwrap();
    stage.mesh.settle().await;
    for (server, user, kinds) in [(a, &stage.ann, 2), (b, &stage.bob, 1)] {
        let (told, _) = news(server, user, Some(since.min(1))).await;
        let content = content(&told, &stage.room, "m.receipt").unwrap();
        assert_eq!(content.as_object().unwrap().len(), 1, "{content}");
        assert_eq!(content[second.as_str()].as_object().unwrap().len(), kinds);
        let data = &content[second.as_str()]["m.read"][stage.ann.as_str()];
        assert!(data["ts"].is_u64() && data["thread_id"].is_null(), "{content}");
    }
    let (told, next) = news(b, &stage.bob, Some(since)).await;
    assert!(content(&told, &stage.room, "m.receipt").is_some());
    assert!(news(b, &stage.bob, Some(next)).await.0.is_empty());
}

/// Receipts are there after a restart, and nobody types.
#[tokio::test]
async fn receipts_outlast_a_restart() {
    let mut stage = Stage::new().await;
    let event = stage.says("hello").await;
    let (_, since) = news(stage.a(), &stage.ann, None).await;
    stage.a().rooms.receipt(&stage.room, read(&stage.ann, &event, None)).await.unwrap();
    stage.a().rooms.set_typing(&stage.ann, &stage.room, TYPING).await.unwrap();
    stage.mesh.restart("a.example");
    for since in [None, Some(since)] {
        let (told, next) = news(stage.a(), &stage.ann, since).await;
        let receipt = content(&told, &stage.room, "m.receipt").unwrap();
        assert!(receipt[event.as_str()]["m.read"][stage.ann.as_str()].is_object());
        assert!(content(&told, &stage.room, "m.typing").is_none());
        assert!(news(stage.a(), &stage.ann, Some(next)).await.0.is_empty());
    }
}

#[tokio::test]
async fn presence_is_for_those_who_share_a_room() {
    let stage = Stage::new().await;
    let (a, b) = (stage.a(), stage.b());
    let dan = b.user("dan");
    let dans = b.room(&dan, Preset::Private, "12").await;
    let (_, since) = news(b, &stage.bob, None).await;
    let (_, dan_since) = news(b, &dan, None).await;
    stage.mesh.net.fail_next(&b.name, "send", Fault::AnswerLost);
    let status = Some("at work".to_owned());
    a.rooms.set_presence(&stage.ann, device(), Presence::Online, status).await.unwrap();
    stage.mesh.settle().await;
    let (told, next) = news(b, &stage.bob, Some(since)).await;
    assert_eq!(told.presence.len(), 1);
    assert_eq!(told.presence[0]["sender"], stage.ann.as_str());
    assert_eq!(told.presence[0]["content"]["presence"], "online");
    assert_eq!(told.presence[0]["content"]["status_msg"], "at work");
    assert!(news(b, &stage.bob, Some(next)).await.0.is_empty());
    assert!(news(b, &dan, Some(dan_since)).await.0.is_empty());
    b.rooms.presence(&stage.bob, &stage.ann).await.unwrap();
    b.rooms.presence(&dan, &stage.ann).await.unwrap_err();
    // Who shares a room from now on sees who is there.
    b.invite(&dan, &stage.bob, &dans).await.unwrap();
    b.rooms.set_presence(&dan, device(), Presence::Unavailable, None).await.unwrap();
    let (_, next) = news(b, &stage.bob, Some(next)).await;
    b.join(&stage.bob, &dans, b).await.unwrap();
    let (told, _) = news(b, &stage.bob, Some(next)).await;
    let senders: Vec<_> = told.presence.iter().map(|event| event["sender"].clone()).collect();
    assert!(senders.contains(&json!(dan)), "{senders:?}");
    // Who does not sync any more is away, after a while.
    stage.mesh.clock.advance(400_000);
    a.rooms.sweep_ephemeral().await.unwrap();
    stage.mesh.settle().await;
    let content = b.rooms.presence(&stage.bob, &stage.ann).await.unwrap();
    assert_eq!(content["presence"], "offline");
    // So is who belongs to a server that says nothing any more.
    a.rooms.set_presence(&stage.ann, device(), Presence::Online, None).await.unwrap();
    stage.mesh.settle().await;
    stage.mesh.isolate("a.example");
    for (passes, expected) in [(3_500_000, "online"), (200_000, "offline")] {
        stage.mesh.clock.advance(passes);
        b.rooms.sweep_ephemeral().await.unwrap();
        let content = b.rooms.presence(&stage.bob, &stage.ann).await.unwrap();
        assert_eq!(content["presence"], expected);
    }
}

async fn is_there(server: &Server, viewer: &UserId, user: &UserId) -> bool {
    let content = server.rooms.presence(viewer, user).await.unwrap();
    content["presence"] == "online"
}

/// Others forget a user whose server says nothing: it says so again, as long as it is so.
#[tokio::test]
async fn who_stays_there_is_told_of_again() {
    let stage = Stage::new().await;
    let (a, b) = (stage.a(), stage.b());
    let syncs = async || {
        let timeout = Duration::from_secs(300);
        let there = a.rooms.present_by_sync(&stage.ann, device(), Presence::Online, timeout);
        there.await.unwrap();
    };
    syncs().await;
    stage.mesh.settle().await;
    let (_, since) = news(b, &stage.bob, None).await;
    let mut told = 0;
    for _ in 0..60 {
        stage.mesh.clock.advance(240_000);
        syncs().await;
        a.rooms.sweep_ephemeral().await.unwrap();
        told += waiting(a, b).len();
        stage.mesh.settle().await;
        b.rooms.sweep_ephemeral().await.unwrap();
        assert!(is_there(b, &stage.bob, &stage.ann).await);
    }
    // Four hours.
    assert!((8..=9).contains(&told), "{told}");
    assert!(news(b, &stage.bob, Some(since)).await.0.is_empty(), "it is no news");
    stage.mesh.clock.advance(600_000);
    a.rooms.sweep_ephemeral().await.unwrap();
    stage.mesh.settle().await;
    assert!(!is_there(b, &stage.bob, &stage.ann).await);
    for _ in 0..4 {
        stage.mesh.clock.advance(1_000_000);
        a.rooms.sweep_ephemeral().await.unwrap();
        assert!(waiting(a, b).is_empty(), "who is offline is told of once");
    }
}

/// A server that comes into a room is told who of it is there; and servers of a room, of whoever
/// comes in from elsewhere and is there already.
#[tokio::test]
async fn newcomers_and_those_in_the_room_are_introduced() {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), b.user("cat"));
    let dan = a.user("dan");
    for (server, user) in [(a, &ann), (a, &dan), (b, &bob)] {
        server.rooms.set_presence(user, device(), Presence::Online, None).await.unwrap();
    }
    let room = a.room(&ann, Preset::Public, "12").await;
    b.join(&bob, &room, a).await.unwrap();
    let tell = async || {
        mesh.settle().await;
        for server in [a, b] {
            server.rooms.sweep_ephemeral().await.unwrap();
        }
        mesh.settle().await;
    };
    tell().await;
    assert!(is_there(b, &bob, &ann).await && is_there(a, &ann, &bob).await);
    let (_, since) = news(b, &bob, None).await;
    // Who is not there, or new to nobody, is not told of.
    b.join(&cat, &room, a).await.unwrap();
    tell().await;
    assert!(!is_there(a, &ann, &cat).await);
    assert!(news(b, &bob, Some(since)).await.0.is_empty());
    a.join(&dan, &room, a).await.unwrap();
    tell().await;
    assert!(is_there(b, &bob, &dan).await);
}
