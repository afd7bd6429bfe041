//! What others give of denied servers as history: decision 0014.

use exeunt_core::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use exeunt_core::{CheckedPdu, Draft};
use exeunt_room::{
    Call, Preset,
    views::{Direction, EventFilter, MessagesRequest},
};
use exeunt_sim::{
    Mesh, Scripted, Server,
    events::{message_draft, wire},
};
use serde_json::json;

/// A room of ann on `a`, with bob of `b`, who quotes what cat of `c` says, and cat, who was denied
/// after "old". Dan of `d` joins last.
struct Stage {
    mesh: Mesh,
    room: OwnedRoomId,
    ann: OwnedUserId,
    bob: OwnedUserId,
    cat: OwnedUserId,
    dan: OwnedUserId,
}

const NAMES: [&str; 4] = ["a.example", "b.example", "c.example", "d.example"];

async fn stage() -> Stage {
    let mesh = Mesh::new(&NAMES);
    let [a, b, c, d] = NAMES.map(|name| mesh.server(name));
    let (ann, bob, cat, dan) = (a.user("ann"), b.user("bob"), c.user("cat"), d.user("dan"));
    let room = a.room(&ann, Preset::Public, "12").await;
    for (server, user) in [(b, &bob), (c, &cat)] {
        server.join(user, &room, a).await.unwrap();
        mesh.settle().await;
    }
    c.say(&cat, &room, "old").await;
    mesh.settle().await;
    let stage = Stage { mesh, room, ann, bob, cat, dan };
    stage.set_acl(&["c.example"]).await;
    stage
}

impl Stage {
    fn server(&self, name: &str) -> &Server {
        self.mesh.server(name)
    }

    async fn set_acl(&self, deny: &[&str]) -> OwnedEventId {
        let acl = json!({ "allow": ["*"], "deny": deny });
        let id = self.server("a.example").set(&self.ann, &self.room, "m.room.server_acl", acl);
        let id = id.await;
        self.mesh.settle().await;
        id
    }

    /// Messages of cat from after the denial, each upon the one before.
    fn said(&self, count: usize) -> Vec<CheckedPdu> {
        let (a, c) = (self.server("a.example"), self.server("c.example"));
        let mut said: Vec<CheckedPdu> = Vec::new();
        for _ in 0..count {
            let mut draft = message_draft(a, &self.room, &self.cat, "new");
            if let Some(last) = said.last() {
                draft.prev_events = vec![last.event_id().to_owned().into()];
                draft.depth = last.depth() + 1;
            }
            said.push(c.sign(draft));
        }
        said
    }

    async fn dan_joins(&self) {
        let (a, d) = (self.server("a.example"), self.server("d.example"));
        d.join(&self.dan, &self.room, a).await.unwrap();
        self.mesh.settle().await;
    }

    /// Only `b` helps, in that way.
    fn only_b(&self, answer: impl Fn(&Call<'_>) -> Scripted + Send + Sync + 'static) {
        for name in ["a.example", "c.example"] {
            let refuse = |_: &Call<'_>| Scripted::refused(404, "M_NOT_FOUND");
            self.mesh.net.script(&self.server(name).name, refuse);
        }
        self.mesh.net.script(&self.server("b.example").name, answer);
    }

    /// What dan reads, newest first.
    async fn pages(&self) -> Vec<String> {
        let d = self.server("d.example");
        let (mut from, mut texts) = (None, Vec::new());
        for _ in 0..20 {
            let request = MessagesRequest {
                viewer: d.rooms.viewer(&self.dan, None),
                room_id: self.room.clone(),
                from,
                to: None,
                direction: Direction::Backward,
                limit: Some(50),
                filter: EventFilter::default(),
            };
            let page = d.rooms.messages(request).await.unwrap();
            let bodies = page.chunk.iter().filter_map(|event| event["content"]["body"].as_str());
            texts.extend(bodies.map(str::to_owned));
            from = page.end;
            if from.is_none() {
                return texts;
            }
        }
        panic!("the pages do not end");
    }

    fn leaks(&self) -> Vec<(String, u64)> {
        let leaks = self.server("d.example").rooms.acl_leaks().into_iter();
        leaks.map(|(server, count)| (server.to_string(), count)).collect()
    }
}

/// What hangs on nothing that was asked for.
#[tokio::test]
async fn new_events_of_a_denied_server_are_no_history() {
    for denied in [true, false] {
        let stage = stage().await;
        let new = stage.said(1);
        if !denied {
            stage.set_acl(&[]).await;
        }
        stage.dan_joins().await;
        let (b, d) = (stage.server("b.example"), stage.server("d.example"));
        let entry = b.rooms.admit(&d.name, &stage.room).await.unwrap();
        let from = b.graph(&stage.room, |graph| graph.room.extremities.clone());
        let mut answer = b.rooms.backfill_for_server(&entry, &from, 100).await.unwrap();
        answer["pdus"].as_array_mut().unwrap().push(wire(&new[0]));
        stage.only_b(move |call| match call {
            Call::Backfill { .. } => Scripted::Answer(Ok(answer.clone())),
            _ => Scripted::Honest,
        });
        let mut pages = stage.pages().await;
        pages.sort();
        match denied {
            true => assert_eq!((pages, stage.leaks()), (vec!["old".into()], relayed(1))),
            false => assert_eq!((pages, stage.leaks()), (vec!["new".into(), "old".into()], vec![])),
        }
        stage.pages().await;
        assert_eq!(stage.leaks().len(), usize::from(denied), "counted once");
    }
}

/// What accepted events follow: it is passed over, however much there is of it.
#[tokio::test]
async fn history_goes_on_behind_what_a_denied_server_said() {
    let stage = stage().await;
    let [a, b, ..] = NAMES.map(|name| stage.server(name));
    let said = stage.said(120);
    let draft = message_draft(a, &stage.room, &stage.bob, "I quote");
    let last = said.last().unwrap();
    let (prev_events, depth) = (vec![last.event_id().to_owned().into()], last.depth() + 1);
    let quote = b.sign(Draft { prev_events, depth, ..draft });
    for (txn, events) in said.chunks(40).enumerate() {
        let events: Vec<_> = events.iter().map(|event| event.pdu()).collect();
        a.receive(b, &txn.to_string(), &events).await;
    }
    a.receive(b, "quote", &[&quote]).await;
    let chain: Vec<_> = said.into_iter().chain([quote]).collect();
    stage.dan_joins().await;
    // What was asked for, and as many before it as are wanted.
    stage.only_b(move |call| {
        let Call::Backfill { from, limit, .. } = call else { return Scripted::Honest };
        let is_end = |event: &CheckedPdu| from.contains(&event.event_id().to_owned());
        let Some(end) = chain.iter().position(is_end) else { return Scripted::Honest };
        let pdus = chain[..=end].iter().rev().take(*limit).map(|event| wire(event));
        Scripted::Answer(Ok(json!({ "pdus": pdus.collect::<Vec<_>>() })))
    });
    assert_eq!(stage.pages().await, ["I quote", "old"]);
    assert_eq!(stage.leaks(), relayed(120));
}

fn relayed(count: u64) -> Vec<(String, u64)> {
    vec![("b.example".to_owned(), count)]
}
