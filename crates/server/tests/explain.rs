//! `exeunt room explain`, of an event that two sides of a fork meet in.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use async_trait::async_trait;
use exeunt_core::{
    CheckedPdu, Draft, Object, Reference, RoomVersion, Signer,
    key::{KnownKey, VerifyKey},
};
use exeunt_room::{
    Call, Intent, NewRoom, NoWake, Options, Preset, Remote, RemoteError, Rooms, ServerKeys,
    graph::Graph, inbound::Transaction,
};
use exeunt_store::Store;
use ruma::{EventId, OwnedEventId, OwnedRoomId, ServerName, UserId, server_name, user_id};
use serde_json::{Value, json};

const KEY_ID: &str = "ed25519:1";

fn signer(server: &ServerName, seed: u8) -> Signer {
    Signer::new(server.to_owned(), KEY_ID, &[seed; 32]).unwrap()
}

/// Other servers, of whom nothing but their key can be had.
struct Keys(Signer);

#[async_trait]
impl Remote for Keys {
    async fn call(&self, _: &ServerName, _: Call<'_>) -> Result<Value, RemoteError> {
        Err(RemoteError::Unreachable("nobody is there".into()))
    }

    async fn server_keys(&self, _: &ServerName) -> Result<ServerKeys, RemoteError> {
        let key = VerifyKey::from_base64(&self.0.public()).unwrap();
        let current = [(KEY_ID.to_owned(), KnownKey { key, valid_until: u64::MAX })].into();
        Ok(ServerKeys { current, ..ServerKeys::default() })
    }
}

/// The events that a test asks about.
struct Story {
    room: OwnedRoomId,
    theirs: OwnedEventId,
    merge: OwnedEventId,
    refused: OwnedEventId,
}

/// A room of ann and of bob, who is elsewhere. Both set a topic on the same head; bob does what he
/// may not; and ann's message follows it all.
async fn tell(store: &Store) -> Story {
    let (a, b) = (server_name!("a.example"), server_name!("b.example"));
    let (ann, bob) = (user_id!("@ann:a.example"), user_id!("@bob:b.example"));
    let (remote, wake) = (Arc::new(Keys(signer(b, 2))), Arc::new(NoWake));
    let clock = Arc::new(|| 1_700_000_000_000);
    let ours = Arc::new(signer(a, 1));
    let rooms = Rooms::new(store.clone(), ours, remote, wake, clock, Options::default());
    let new = NewRoom {
        power_level_override: object(json!({ "events": { "m.room.topic": 0 } })),
        ..NewRoom::new(ann.to_owned(), RoomVersion::parse("11").unwrap(), Preset::Public)
    };
    let room = rooms.create_room(new).await.unwrap();
    let entry = rooms.admit(b, &room).await.unwrap();
    let bobs = |kind: &str, key: &str, content: Value| {
        let reader = store.reader();
        let graph = Graph::of(&reader, &room).unwrap();
        sign(&graph, bob, kind, key, object(content))
    };
    let join = bobs("m.room.member", bob.as_str(), json!({ "membership": "join" }));
    rooms.send_join(&entry, join.event_id(), join.object().clone(), false).await.unwrap();
    let theirs = bobs("m.room.topic", "", json!({ "topic": "theirs" }));
    let refused = bobs("m.room.name", "", json!({ "name": "theirs" }));
    let topic = Intent::state(ann.to_owned(), "m.room.topic", "", object(json!({ "topic": "x" })));
    rooms.append(&room, topic).await.unwrap();
    let pdus = [&theirs, &refused].map(|event| Value::Object(event.object().clone()));
    let transaction = Transaction { pdus: pdus.into(), edus: Vec::new() };
    rooms.receive_transaction(b, "1", transaction).await.unwrap();
    let message = Intent::message(ann.to_owned(), "m.room.message", object(json!({ "body": "x" })));
    let merge = rooms.append(&room, message).await.unwrap();
    let id = |event: &CheckedPdu| event.event_id().to_owned();
    Story { room, theirs: id(&theirs), merge, refused: id(&refused) }
}

/// An event on the head of the room, as the sender's server signs it.
fn sign(graph: &Graph<'_>, by: &UserId, kind: &str, key: &str, content: Object) -> CheckedPdu {
    let reference = |id: &EventId| Reference::from(&graph.event_here(id).unwrap().pdu);
    let mut keys =
        vec![("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", by.as_str())];
    if kind == "m.room.member" {
        keys.push(("m.room.join_rules", ""));
    }
    let auth = keys.into_iter().filter_map(|(kind, key)| graph.current(kind, key).unwrap());
    let draft = Draft {
        version: graph.version,
        room_id: Some(graph.room_id.clone()),
        sender: by.to_owned(),
        kind: kind.to_owned(),
        state_key: Some(key.to_owned()),
        content,
        redacts: None,
        prev_events: graph.room.extremities.iter().map(|id| reference(id)).collect(),
        auth_events: auth.map(|event| Reference::from(&event)).collect(),
        depth: graph.room.depth + 1,
        origin_server_ts: 1_700_000_000_000,
    };
    draft.sign(&signer(by.server_name(), 2)).unwrap()
}

fn object(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

fn explain(folder: &Path, room: &str, event: &str, more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exeunt"));
    command.args(["room", "explain", room, event]).args(more).current_dir(folder);
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[tokio::test]
async fn an_event_is_explained_by_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let text = format!("[server]\nname = \"a.example\"\n[store]\npath = {data:?}\n");
    fs::write(folder.path().join("exeunt.toml"), text).unwrap();
    let database = exeunt_server::app::database(&data);
    fs::create_dir_all(&database).unwrap();
    let store = Store::open(&database).unwrap();
    let Story { room, theirs, merge, refused } = tell(&store).await;
    store.close();
    drop(store);
    let explain = |event: &EventId, more: &[&str]| {
        explain(folder.path(), room.as_str(), event.as_str(), more)
    };

    let (code, said) = explain(&merge, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with(&format!("{merge} m.room.message by @ann:a.example\n")), "{said}");
    for part in [
        "\nroom version 11, depth ",
        "\nsent from here\naccepted\n  by its auth events: allowed\n",
        "\nthe state before it was resolved from 2 states\n",
        "\nin conflict:\n  m.room.topic \"\"\n",
        "\nfull conflicted set:\n",
        "\nmainline, from the newest power levels:\n",
        &format!("\n  {theirs} m.room.topic by @bob:b.example: applied\n"),
        "\nresolved:\n",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }

    let (code, said) = explain(&refused, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\nreceived from b.example\nrejected: "), "{said}");
    assert!(said.ends_with("\nthe state before it was not in conflict\n"), "{said}");

    let (code, said) = explain(&merge, &["--json"]);
    assert_eq!(code, Some(0), "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["event_id"], &said["states"]), (&json!(merge), &json!(2)));
    assert_eq!(said["resolution"]["conflict"][0]["kind"], "m.room.topic");

    let (code, said) = explain(ruma::event_id!("$nothing"), &[]);
    let expected = format!("$nothing is not known here as an event of {room}\n");
    assert_eq!((code, said), (Some(1), expected));
}
