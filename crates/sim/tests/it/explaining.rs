//! Why an event is in a room: the explanation of an event that two sides of a fork meet in.

use exeunt_room::Preset;
use exeunt_room::explain::explain;
use exeunt_sim::Mesh;
use serde_json::json;

#[tokio::test]
async fn a_merge_is_explained_by_its_resolution() {
    let mesh = Mesh::new(&["a.example", "b.example"]);
    let (a, b) = (mesh.server("a.example"), mesh.server("b.example"));
    let (ann, bob) = (a.user("ann"), b.user("bob"));
    let levels = json!({ "users_default": 50 });
    let initial = vec![("m.room.power_levels", levels)];
    let room = a.room_with(&ann, Preset::Public, "12", initial).await;
    b.join(&bob, &room, a).await.unwrap();
    mesh.settle().await;
    mesh.isolate("a.example");
    a.set(&ann, &room, "m.room.topic", json!({ "topic": "ours" })).await;
    a.set(&ann, &room, "m.room.name", json!({ "name": "ours" })).await;
    b.set(&bob, &room, "m.room.topic", json!({ "topic": "theirs" })).await;
    mesh.heal("a.example");
    b.say(&bob, &room, "hello").await;
    mesh.settle().await;
    let merge = a.say(&ann, &room, "both sides").await;

    let (id, room_id) = (merge.clone(), room.clone());
    let explained = a.rooms.store().read(move |reader| explain(reader, &room_id, &id)).await;
    let explained = explained.unwrap().expect("the event is known");
    assert!(explained.verdict.is_accepted() && explained.is_placed);
    assert_eq!((explained.states, &explained.by_state_before), (2, &None));
    let resolution = explained.resolution.expect("there were two states");
    let keys: Vec<_> = resolution.conflict.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(keys, ["m.room.name", "m.room.topic"]);
    let topic = resolution.resolved.iter().find(|row| row.kind == "m.room.topic").unwrap();
    let now = a.graph(&room, |graph| graph.current("m.room.topic", "").unwrap().unwrap());
    assert_eq!(topic.event_id, now.event_id());
    assert!(explained.events.contains_key(&topic.event_id));
    assert!(resolution.checks.iter().any(|check| check.event_id == topic.event_id));

    let (id, room_id) = (merge, room.clone());
    let elsewhere = b.rooms.store().read(move |reader| explain(reader, &room_id, &id)).await;
    assert!(elsewhere.unwrap().is_none(), "b has not heard of it");
}
