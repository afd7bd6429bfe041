//! Events of one room under the path of another: a test for each route that takes an event id
//! (GHSA-27p5-4f45-gx76, CVE-2018-12291, GHSA-qcjr-46gf-7f4r).

use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use exeunt_core::{Draft, Object};
use exeunt_room::{
    Intent, Preset, RoomError,
    inbound::{Admitted, MissingEvents},
    views::{ContextRequest, EventFilter, Viewer},
};
use exeunt_sim::{
    Mesh, Server,
    events::{message_draft, object},
    status,
};
use serde_json::{Value, json};

/// Two rooms of ann on `a`: bob of `b` is in the open one, and not in the closed one.
struct Stage {
    mesh: Mesh,
    open: OwnedRoomId,
    closed: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    /// A message of the open room, and one of the closed one.
    here: OwnedEventId,
    secret: OwnedEventId,
    /// An event of the open room, handed to `a`, that names the secret in its prev events.
    bridge: OwnedEventId,
}

async fn stage() -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let open = a.room(&ann, Preset::Public, "12").await;
    let closed = a.room(&ann, Preset::Private, "12").await;
    b.join(&bob, &open, a).await.unwrap();
    mesh.settle().await;
    let here = a.say(&ann, &open, "here").await;
    let secret = a.say(&ann, &closed, "secret").await;
    mesh.settle().await;
    let draft = message_draft(a, &open, &bob, "bridge");
    let bridge =
        b.sign(Draft { prev_events: vec![here.clone().into(), secret.clone().into()], ..draft });
    a.receive(b, "bridge", &[&bridge]).await;
    let bridge = bridge.event_id().to_owned();
    Stage { mesh, open, closed, ann, bob, here, secret, bridge }
}

impl Stage {
    fn a(&self) -> &Server {
        self.mesh.server("a.example")
    }

    async fn entry(&self) -> Admitted {
        let b = &self.mesh.server("b.example").name;
        self.a().rooms.admit(b, &self.open).await.unwrap()
    }

    /// An event as ann's client reads it.
    async fn read(&self, room: &OwnedRoomId, id: &OwnedEventId) -> Option<Value> {
        let viewer = Viewer { user: self.ann.clone(), device: None, now: 0 };
        self.a().rooms.event(viewer, room, id).await.unwrap()
    }
}

/// Unknown, as an event that was never there.
fn unknown<T: std::fmt::Debug>(result: Result<T, RoomError>) {
    assert_eq!(status(result.unwrap_err()), (404, "M_NOT_FOUND".to_owned()));
}

fn silent(answer: &Value) {
    assert!(!answer.to_string().contains("secret"), "{answer}");
}

#[tokio::test]
async fn get_missing_events_stays_in_its_room() {
    let stage = stage().await;
    for latest in [&stage.secret, &stage.bridge, &stage.here] {
        let latest = vec![latest.clone(), stage.secret.clone()];
        let wanted = MissingEvents { latest, ..MissingEvents::default() };
        let rooms = &stage.a().rooms;
        let answer = rooms.missing_events_for_server(&stage.entry().await, wanted).await;
        silent(&answer.unwrap());
    }
    let wanted = MissingEvents { latest: vec![stage.secret.clone()], ..MissingEvents::default() };
    let answer = stage.a().rooms.missing_events_for_server(&stage.entry().await, wanted).await;
    assert_eq!(answer.unwrap(), json!({ "events": [] }));
}

#[tokio::test]
async fn backfill_stays_in_its_room() {
    let stage = stage().await;
    let (rooms, entry) = (&stage.a().rooms, stage.entry().await);
    unknown(rooms.backfill_for_server(&entry, std::slice::from_ref(&stage.secret), 10).await);
    let from = [stage.here.clone(), stage.secret.clone(), stage.bridge.clone()];
    let answer = rooms.backfill_for_server(&entry, &from, 50).await.unwrap();
    assert!(answer["pdus"].as_array().unwrap().len() > 1);
    silent(&answer);
}

#[tokio::test]
async fn event_asks_who_is_in_its_room() {
    let stage = stage().await;
    let b = &stage.mesh.server("b.example").name;
    unknown(stage.a().rooms.event_for_server(b, &stage.secret).await);
    stage.a().rooms.event_for_server(b, &stage.here).await.unwrap();
}

#[tokio::test]
async fn event_auth_stays_in_its_room() {
    let stage = stage().await;
    let (rooms, entry) = (&stage.a().rooms, stage.entry().await);
    unknown(rooms.event_auth_for_server(&entry, &stage.secret).await);
    unknown(rooms.event_auth_for_server(&entry, &stage.bridge).await);
    rooms.event_auth_for_server(&entry, &stage.here).await.unwrap();
}

#[tokio::test]
async fn state_stays_in_its_room() {
    let stage = stage().await;
    let (rooms, entry) = (&stage.a().rooms, stage.entry().await);
    unknown(rooms.state_for_server(&entry, &stage.secret).await);
    unknown(rooms.state_for_server(&entry, &stage.bridge).await);
    rooms.state_for_server(&entry, &stage.here).await.unwrap();
}

#[tokio::test]
async fn state_ids_stay_in_their_room() {
    let stage = stage().await;
    let (rooms, entry) = (&stage.a().rooms, stage.entry().await);
    unknown(rooms.state_ids_for_server(&entry, &stage.secret).await);
    unknown(rooms.state_ids_for_server(&entry, &stage.bridge).await);
    rooms.state_ids_for_server(&entry, &stage.here).await.unwrap();
}

#[tokio::test]
async fn a_clients_event_stays_in_its_room() {
    let stage = stage().await;
    assert!(stage.read(&stage.closed, &stage.secret).await.is_some());
    // Ann is in both rooms: the path must be right all the same.
    assert!(stage.read(&stage.open, &stage.secret).await.is_none());
    assert!(stage.read(&stage.open, &stage.bridge).await.is_none());
}

#[tokio::test]
async fn a_clients_context_stays_in_its_room() {
    let stage = stage().await;
    let rooms = &stage.a().rooms;
    let read = |room_id: &OwnedRoomId, event_id: &OwnedEventId| {
        let viewer = Viewer { user: stage.ann.clone(), device: None, now: 0 };
        let (room_id, event_id) = (room_id.clone(), event_id.clone());
        let filter = EventFilter::default();
        rooms.context(ContextRequest { viewer, room_id, event_id, limit: Some(50), filter })
    };
    assert!(read(&stage.closed, &stage.secret).await.unwrap().is_some());
    assert!(read(&stage.open, &stage.secret).await.unwrap().is_none());
    let context = read(&stage.open, &stage.here).await.unwrap().expect("it is there");
    assert!(!format!("{context:?}").contains("secret"));
}

#[tokio::test]
async fn a_redaction_stays_in_its_room() {
    let stage = stage().await;
    let redact = |room: &OwnedRoomId, by: &OwnedUserId| {
        let content = object(json!({ "redacts": stage.secret }));
        let intent = Intent::message(by.clone(), "m.room.redaction", content);
        (room.clone(), Intent { redacts: Some(stage.secret.clone()), ..intent })
    };
    let (room, intent) = redact(&stage.open, &stage.ann);
    stage.a().rooms.append(&room, intent).await.unwrap();
    // Bob's server takes his word for it.
    let b = stage.mesh.server("b.example");
    let draft = message_draft(stage.a(), &stage.open, &stage.bob, "");
    let content = object(json!({ "redacts": stage.secret }));
    let kind = "m.room.redaction".into();
    let redaction = Draft { kind, content, redacts: Some(stage.secret.clone()), ..draft };
    stage.a().receive(b, "1", &[&b.sign(redaction)]).await;
    stage.mesh.settle().await;
    assert_eq!(stage.a().messages(&stage.closed), ["secret"]);
    let content: Object = stage.a().event(&stage.secret).unwrap().pdu.content().clone();
    assert_eq!(content["body"], "secret");
}

/// Auth events of another room are never found, and never asked for.
#[tokio::test]
async fn auth_events_stay_in_their_room() {
    let stage = stage().await;
    let (a, b) = (stage.a(), stage.mesh.server("b.example"));
    let levels = a.graph(&stage.closed, |graph| {
        graph.current("m.room.power_levels", "").unwrap().unwrap().event_id().to_owned()
    });
    let mut draft = message_draft(a, &stage.open, &stage.bob, "foreign");
    draft.auth_events[0] = levels.into();
    let foreign = b.sign(draft);
    stage.mesh.net.take_requests();
    a.receive(b, "1", &[&foreign]).await;
    stage.mesh.settle().await;
    assert!(stage.mesh.net.take_requests().is_empty());
    assert!(!a.messages(&stage.open).contains(&"foreign".to_owned()));
}
