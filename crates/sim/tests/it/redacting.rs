//! Redactions that come before their targets, and those of history.

use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use exeunt_core::{CheckedPdu, Draft, Object, Reference};
use exeunt_room::{
    Intent, Preset,
    views::{Direction, EventFilter, MessagesRequest},
};
use exeunt_sim::{
    Fault, Mesh, Server,
    events::{member_draft, message_draft, object, wire},
};
use exeunt_store::verify;
use serde_json::{Value, json};

/// A room of ann on `a`, with bob of `b` and cat of `c`.
struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    cat: OwnedUserId,
}

async fn stage(version: &str) -> Stage {
    let mesh = Mesh::new(&["a.example", "b.example", "c.example"]);
    let (a, b, c) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("c.example"));
    let (ann, bob, cat) = (a.user("ann"), b.user("bob"), c.user("cat"));
    let room = a.room(&ann, Preset::Public, version).await;
    b.join(&bob, &room, a).await.unwrap();
    c.join(&cat, &room, a).await.unwrap();
    mesh.settle().await;
    Stage { mesh, room, ann, bob, cat }
}

impl Stage {
    fn server(&self, name: &str) -> &Server {
        self.mesh.server(&format!("{name}.example"))
    }

    /// A message of bob that nobody has yet.
    fn message(&self, text: &str) -> CheckedPdu {
        let b = self.server("b");
        b.sign(message_draft(b, &self.room, &self.bob, text))
    }

    /// A redaction by a user of `server`, beside the target rather than after it.
    fn redaction(&self, server: &str, by: &UserId, target: &CheckedPdu) -> CheckedPdu {
        let server = self.server(server);
        let draft = message_draft(server, &self.room, by, "");
        let redacts = Some(target.event_id().to_owned());
        let kind = "m.room.redaction".to_owned();
        server.sign(Draft { kind, redacts, content: object(json!({})), ..draft })
    }

    /// What a server has of an event: the body, and the redaction that took it.
    fn shown(&self, on: &str, event: &CheckedPdu) -> (Option<String>, Option<OwnedEventId>) {
        let known = self.server(on).event(&event.event_id().to_owned()).expect("it is there");
        assert!(known.record.verdict.is_accepted());
        let body = known.pdu.content_str("body").map(str::to_owned);
        (body, known.record.redacted_because.clone())
    }
}

#[tokio::test]
async fn a_redaction_waits_for_its_target() {
    for version in ["2", "10", "12"] {
        let stage = stage(version).await;
        let (c, b) = (stage.server("c"), stage.server("b"));
        // By bob of his own, by ann who may redact all, by cat who may not.
        for (index, (server, by, is_taken)) in
            [("b", &stage.bob, true), ("a", &stage.ann, true), ("c", &stage.cat, false)]
                .into_iter()
                .enumerate()
        {
            if version == "2" && !is_taken {
                continue;
            }
            let target = stage.message(by.as_str());
            let redaction = stage.redaction(server, by, &target);
            let from = stage.server(if server == "c" { "b" } else { server });
            c.receive(from, &format!("{index} redaction"), &[&redaction]).await;
            assert!(c.event(&redaction.event_id().to_owned()).is_some(), "{version} {by}");
            let is_shown =
                |event: &CheckedPdu| c.timeline(&stage.room).contains(&event.event_id().to_owned());
            assert_eq!(is_shown(&redaction), version == "2", "{version} {by}");
            assert!(verify(&c.store).unwrap().is_clean());
            c.receive(b, &format!("{index} target"), &[&target]).await;
            let expected = match is_taken {
                true => (None, Some(redaction.event_id().to_owned())),
                false => (Some(by.to_string()), None),
            };
            assert_eq!(stage.shown("c", &target), expected, "{version} {by}");
            assert_eq!((is_shown(&redaction), is_shown(&target)), (is_taken, true));
            // Once both are here, one that does not count is no news either.
            let another = stage.redaction(server, by, &target);
            c.receive(from, &format!("{index} again"), &[&another]).await;
            assert_eq!(is_shown(&another), is_taken, "{version} {by}");
        }
        assert!(verify(&c.store).unwrap().is_clean());
    }
}

/// What counts is what the sender was entitled to when the redaction came.
#[tokio::test]
async fn power_that_comes_later_redacts_nothing() {
    let stage = stage("10").await;
    let (b, c) = (stage.server("b"), stage.server("c"));
    let (early, late) = (stage.message("early"), stage.message("late"));
    let levels = |cat: i64| {
        let users = json!({ "@ann:a.example": 100, "@cat:c.example": cat });
        json!({ "users": users, "redact": 50, "users_default": 0 })
    };
    c.receive(b, "1", &[&stage.redaction("c", &stage.cat, &early)]).await;
    let a = stage.server("a");
    a.set(&stage.ann, &stage.room, "m.room.power_levels", levels(50)).await;
    stage.mesh.settle().await;
    let redaction = stage.redaction("c", &stage.cat, &late);
    c.receive(b, "2", &[&redaction]).await;
    a.set(&stage.ann, &stage.room, "m.room.power_levels", levels(0)).await;
    stage.mesh.settle().await;
    c.receive(b, "3", &[&early, &late]).await;
    assert_eq!(stage.shown("c", &early), (Some("early".to_owned()), None));
    assert_eq!(stage.shown("c", &late), (None, Some(redaction.event_id().to_owned())));
}

async fn redact(
    server: &Server,
    by: &UserId,
    room: &OwnedRoomId,
    target: &OwnedEventId,
) -> OwnedEventId {
    let redacts = Some(target.clone());
    let intent = Intent::message(by.to_owned(), "m.room.redaction", Object::new());
    server.rooms.append(room, Intent { redacts, ..intent }).await.unwrap()
}

/// All events that a new user of `d` sees, newest first.
async fn page_back(server: &Server, user: &UserId, room: &OwnedRoomId) -> Vec<Value> {
    let (mut from, mut events) = (None, Vec::new());
    for _ in 0..100 {
        let request = MessagesRequest {
            viewer: server.rooms.viewer(user, None),
            room_id: room.clone(),
            from,
            to: None,
            direction: Direction::Backward,
            limit: Some(5),
            filter: EventFilter::default(),
        };
        let page = server.rooms.messages(request).await.unwrap();
        events.extend(page.chunk);
        from = page.end;
        if from.is_none() {
            return events;
        }
    }
    panic!("the pages do not end");
}

/// A server that hands history out in full, redacted or not, does not undo redactions: neither
/// those in that history nor those that came since.
#[tokio::test]
async fn redactions_reach_history_and_come_from_it() {
    let mesh = Mesh::new(&["a.example", "b.example", "d.example"]);
    let (a, b, d) = (mesh.server("a.example"), mesh.server("b.example"), mesh.server("d.example"));
    let (ann, bob, dan) = (a.user("ann"), b.user("bob"), d.user("dan"));
    let room = a.room(&ann, Preset::Public, "10").await;
    b.join(&bob, &room, a).await.unwrap();
    let mut full = Vec::new();
    for text in ["in history", "since", "kept"] {
        let id = b.say(&bob, &room, text).await;
        full.push(wire(&b.event(&id).unwrap().pdu));
        mesh.settle().await;
    }
    let ids: Vec<_> = b.timeline(&room);
    let [old, new, kept] = ids[ids.len() - 3..].to_vec().try_into().unwrap();
    let by_ann = redact(a, &ann, &room, &old).await;
    mesh.settle().await;
    d.join(&dan, &room, a).await.unwrap();
    mesh.settle().await;
    let by_bob = redact(b, &bob, &room, &new).await;
    mesh.settle().await;
    let in_full = move |answer: &mut Value| {
        for event in answer["pdus"].as_array_mut().unwrap() {
            let whole = full.iter().find(|whole| whole["hashes"] == event["hashes"]);
            whole.into_iter().for_each(|whole| *event = whole.clone());
        }
    };
    for server in [a, b] {
        for _ in 0..20 {
            mesh.net.fail_next(&server.name, "backfill", Fault::tampered(in_full.clone()));
        }
    }
    let events = page_back(d, &dan, &room).await;
    let find = |id: &OwnedEventId| events.iter().find(|event| event["event_id"] == id.as_str());
    for (target, redaction) in [(&old, &by_ann), (&new, &by_bob)] {
        let event = find(target).unwrap();
        assert_eq!(event["content"], json!({}));
        assert_eq!(event["unsigned"]["redacted_because"]["event_id"], redaction.as_str());
    }
    assert_eq!(find(&kept).unwrap()["content"]["body"], "kept");
    assert!(verify(&d.store).unwrap().is_clean());
}

/// An event that comes because another one rests on it is redacted, too.
#[tokio::test]
async fn a_redaction_waits_for_an_auth_event() {
    let stage = stage("10").await;
    let (a, b, c) = (stage.server("a"), stage.server("b"), stage.server("c"));
    let rename = member_draft(b, &stage.room, &stage.bob, &stage.bob, "join");
    let content = object(json!({ "membership": "join", "displayname": "secret" }));
    let rename = b.sign(Draft { content, ..rename });
    let redaction = stage.redaction("a", &stage.ann, &rename);
    let message = message_draft(b, &stage.room, &stage.bob, "hello");
    c.receive(a, "1", &[&redaction]).await;
    b.receive(b, "2", &[&rename]).await;
    let mut auth_events = message.auth_events.clone();
    auth_events.retain(|id| b.event(&id.id().to_owned()).unwrap().pdu.sender() != stage.bob);
    auth_events.push(Reference::from(&*rename));
    let message = b.sign(Draft { auth_events, ..message });
    b.receive(b, "3", &[&message]).await;
    c.receive(b, "4", &[&message]).await;
    c.rooms.inbound_idle().await;
    assert_eq!(c.messages(&stage.room), ["hello"]);
    let known = c.event(&rename.event_id().to_owned()).unwrap();
    assert!(known.record.states.is_none());
    assert_eq!(known.pdu.content_str("displayname"), None);
    assert_eq!(known.record.redacted_because.as_deref(), Some(redaction.event_id()));
}
